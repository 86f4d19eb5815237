//! The way of a flow through the network, put together from the switches that saw it and the tables
//! that say where each of them is meant to send it.

use flowradar_core::KeyKind;

use super::NetworkModel;
use super::flows::Reports;
use super::intended::{GroupIndex, Intended};
use super::network::{HostIndex, SwitchIndex};
use super::record::{Bounds, FiveTuple};

/// Most switches of a flow's way.
pub(crate) const STOPS_MAX: usize = 64;

/// A switch on a flow's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) switch: SwitchIndex,
    /// What it counted in this epoch.
    pub(crate) packets: Bounds,
    pub(crate) intended: Intended,
    /// The stops to which packets went on from here.
    next: u64,
    /// The stops before this one.
    ancestors: u64,
    /// Packets may have gone back to a stop before.
    turns_back: bool,
    /// No intended way leads here.
    pub(crate) off_way: bool,
}

/// From one switch to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// None where packets appear that no switch before counted.
    pub(crate) from: Option<SwitchIndex>,
    /// None where the flow ends although it is meant to go on.
    pub(crate) to: Option<SwitchIndex>,
    /// The group of `from`, if it is meant to forward.
    pub(crate) group: Option<GroupIndex>,
    pub(crate) before: Bounds,
    pub(crate) after: Bounds,
    /// Packets that are missing behind the hop, at least.
    pub(crate) missing: u64,
    /// Packets more behind the hop than before it, at least.
    pub(crate) surplus: u64,
    /// Missing packets that turned out to have been on their way.
    pub(crate) returned: u64,
    /// Whether what is too much need not have gone around.
    pub(crate) doubtful: bool,
    /// Whether it may have been sent in an epoch of which nothing is known.
    pub(crate) unknown_before: bool,
    /// How often a judgement on some of the missing packets was put off.
    pub(crate) deferrals: u8,
    /// Whether a missing or incomplete report is the reason that nothing is known.
    pub(crate) unreported: bool,
    /// Whether it begins or ends at a switch that no intended way leads to.
    pub(crate) off_way: bool,
}

/// A switch that saw a flow although no intended way leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffWay {
    /// Who sent it there.
    pub(crate) at: SwitchIndex,
    pub(crate) to: SwitchIndex,
    /// Packets at `to`, at least.
    pub(crate) packets: u64,
}

/// The way of a flow in an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) stops: Vec<Stop>,
    pub(crate) hops: Vec<Hop>,
    pub(crate) off_way: Vec<OffWay>,
    /// Whether the flow was seen where its source is.
    pub(crate) entered: bool,
    /// Stops that nothing leads to, although all neighbours reported.
    pub(crate) unexplained_stops: u64,
}

/// Follows flows; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    pub(crate) way: Way,
}

impl Stop {
    /// How many switches of the way come before.
    pub(crate) fn before(&self) -> u32 {
        self.ancestors.count_ones()
    }
}

impl Hop {
    fn new(
        from: Option<SwitchIndex>,
        to: Option<SwitchIndex>,
        before: Bounds,
        after: Bounds,
    ) -> Self {
        Self {
            from,
            to,
            group: None,
            before,
            after,
            missing: before.least.saturating_sub(after.most),
            surplus: after.least.saturating_sub(before.most),
            returned: 0,
            deferrals: 0,
            doubtful: false,
            unknown_before: false,
            unreported: false,
            off_way: false,
        }
    }

    /// Packets that may be missing at most.
    pub(crate) fn missing_most(&self) -> u64 {
        self.before.most.saturating_sub(self.after.least)
    }

    /// Packets more behind it at most.
    pub(crate) fn surplus_most(&self) -> u64 {
        self.after.most.saturating_sub(self.before.least)
    }

    /// Whether it is known that as many packets arrived as were sent.
    pub(crate) fn is_balanced(&self) -> bool {
        self.missing_most() == 0 && self.surplus_most() == 0
    }

    /// Packets too many that nothing explains.
    pub(crate) fn unexplained_surplus(&self) -> u64 {
        if self.doubtful { 0 } else { self.surplus }
    }

    /// Whether packets missing at one could be those that are too many at the other.
    pub(crate) fn shares_an_end(&self, other: &Self) -> bool {
        (self.from.is_some() && self.from == other.from)
            || (self.to.is_some() && self.to == other.to)
    }
}

impl Tracer {
    /// Works out the way of a flow from what switches counted; each switch once, at most
    /// [`STOPS_MAX`]. Switches may be given that counted nothing, if they did so just before.
    pub(crate) fn trace(
        &mut self,
        model: &NetworkModel,
        flow: &FiveTuple,
        (src, dst): (Option<HostIndex>, HostIndex),
        counted: impl Iterator<Item = (SwitchIndex, Bounds)>,
        reports: &Reports,
    ) {
        let way = &mut self.way;
        way.stops.clear();
        way.hops.clear();
        way.off_way.clear();
        way.unexplained_stops = 0;
        way.stops
            .extend(counted.take(STOPS_MAX).map(|(switch, packets)| Stop {
                switch,
                packets,
                intended: model.forwarding.intended(switch, flow, Some(dst)),
                next: 0,
                ancestors: 0,
                turns_back: false,
                off_way: false,
            }));
        let entries = way.entries(model, src);
        way.entered = entries != 0;
        let intended = way.intended_next(model);
        let start = if entries != 0 {
            entries
        } else {
            // Begin where no other stop sends packets to.
            let all = mask(way.stops.len());
            all & !intended.iter().fold(0, |led_to, next| led_to | next)
        };
        let mut reached = start;
        way.follow(&intended, start, &mut reached);
        let roots =
            start | way.explain_the_rest(model, flow, dst, &intended, entries, &mut reached);
        let see = See {
            model,
            reports,
            kind: flow.kind(),
        };
        way.balance(&see, roots);
        way.end(&see);
        if way.entered {
            way.appear(&see, flow, dst, roots & !entries);
        }
    }
}

/// What is known of the network around a way.
struct See<'a> {
    model: &'a NetworkModel,
    reports: &'a Reports,
    kind: KeyKind,
}

impl Way {
    fn entries(&self, model: &NetworkModel, src: Option<HostIndex>) -> u64 {
        let Some(src) = src else {
            return 0;
        };
        let access = &model.network.host(src).switches;
        let stops = self.stops.iter().enumerate();
        stops
            .filter(|(_, stop)| access.binary_search(&stop.switch).is_ok())
            .fold(0, |entries, (place, _)| entries | 1 << place)
    }

    /// The stops that each stop is meant to send packets to.
    fn intended_next(&self, model: &NetworkModel) -> Vec<u64> {
        let next = |stop: &Stop| {
            let Intended::Forward(group) = stop.intended else {
                return 0;
            };
            let members = &model.forwarding.group(group).members;
            let stops = self.stops.iter().enumerate();
            stops
                .filter(|(_, other)| members.binary_search(&other.switch).is_ok())
                .fold(0, |next, (place, _)| next | 1 << place)
        };
        self.stops.iter().map(next).collect()
    }

    /// Goes on from some stops along intended next hops, never back.
    fn follow(&mut self, intended: &[u64], start: u64, reached: &mut u64) {
        let mut todo = start;
        *reached |= start;
        // Each round adds an ancestor to some stop.
        while todo != 0 {
            let from = todo.trailing_zeros() as usize;
            todo &= todo - 1;
            for to in bits(intended[from]) {
                self.go(from, to, &mut todo);
                *reached |= 1 << to;
            }
            for to in bits(self.stops[from].next) {
                self.go(from, to, &mut todo);
            }
        }
    }

    /// Adds a step, unless it leads back.
    fn go(&mut self, from: usize, to: usize, todo: &mut u64) {
        let before = self.stops[from].ancestors | 1 << from;
        if before >> to & 1 == 1 {
            self.stops[from].turns_back = true;
            self.stops[from].next &= !(1 << to);
            return;
        }
        let is_new = self.stops[from].next >> to & 1 == 0;
        self.stops[from].next |= 1 << to;
        if is_new || self.stops[to].ancestors | before != self.stops[to].ancestors {
            self.stops[to].ancestors |= before;
            *todo |= 1 << to;
        }
    }

    /// Finds out how packets came to stops that were not reached; returns those at which the way
    /// begins anew.
    fn explain_the_rest(
        &mut self,
        model: &NetworkModel,
        flow: &FiveTuple,
        dst: HostIndex,
        intended: &[u64],
        entries: u64,
        reached: &mut u64,
    ) -> u64 {
        let all = mask(self.stops.len());
        let mut roots = 0;
        if *reached == all {
            return roots;
        }
        // On an intended way, but the switch before it is missing. Nothing can be said of intended
        // ways without their beginning.
        let on_intended_way = if entries == 0 {
            all
        } else {
            self.on_intended_way(model, flow, dst, entries)
        };
        // First those that no other of them leads to.
        loop {
            let left = all & !*reached & on_intended_way;
            if left == 0 {
                break;
            }
            let led_to = bits(left).fold(0, |led_to, from| led_to | intended[from]);
            let first = if left & !led_to != 0 {
                left & !led_to
            } else {
                left & left.wrapping_neg()
            };
            roots |= first;
            self.follow(intended, first, reached);
        }
        // Sent where no intended way leads.
        loop {
            let left = all & !*reached;
            // A switch of which nothing is intended may send packets anywhere.
            let free = bits(left).find_map(|to| Some((self.free_sender(model, to, *reached)?, to)));
            if let Some((at, to)) = free {
                let mut todo = 0;
                self.go(at, to, &mut todo);
                self.follow(intended, 1 << to, reached);
                continue;
            }
            let step = bits(left).find_map(|to| Some((self.sender(model, to, *reached)?, to)));
            let Some((at, to)) = step else {
                self.unexplained_stops += u64::from(left.count_ones());
                return roots | left;
            };
            self.stops[to].off_way = true;
            // Who counted nothing for certain was not there.
            if self.stops[to].packets.least > 0 {
                self.off_way.push(OffWay {
                    at: self.stops[at].switch,
                    to: self.stops[to].switch,
                    packets: self.stops[to].packets.least,
                });
            }
            let mut todo = 0;
            self.go(at, to, &mut todo);
            self.follow(intended, 1 << to, reached);
        }
    }

    /// The stops that some intended way from the entries leads to.
    fn on_intended_way(
        &self,
        model: &NetworkModel,
        flow: &FiveTuple,
        dst: HostIndex,
        entries: u64,
    ) -> u64 {
        let mut ways: Vec<SwitchIndex> = bits(entries)
            .map(|place| self.stops[place].switch)
            .collect();
        let mut next = 0;
        while let Some(&at) = ways.get(next) {
            next += 1;
            if let Intended::Forward(group) = model.forwarding.intended(at, flow, Some(dst)) {
                for &member in &model.forwarding.group(group).members {
                    if !ways.contains(&member) {
                        ways.push(member);
                    }
                }
            }
        }
        let stops = self.stops.iter().enumerate();
        stops
            .filter(|(_, stop)| ways.contains(&stop.switch))
            .fold(0, |on_way, (place, _)| on_way | 1 << place)
    }

    /// A neighbour that was reached, and of which nothing is known to be intended.
    fn free_sender(&self, model: &NetworkModel, to: usize, reached: u64) -> Option<usize> {
        bits(reached).find(|&at| {
            let stop = &self.stops[at];
            stop.intended == Intended::Unknown
                && model.network.joined(stop.switch, self.stops[to].switch)
        })
    }

    /// The stop that most likely sent packets to one that it is not meant to send them to: a
    /// neighbour, of several the one that most packets are missing behind.
    fn sender(&self, model: &NetworkModel, to: usize, reached: u64) -> Option<usize> {
        let missing = |at: usize| {
            let stop = &self.stops[at];
            let sent = stop.packets.least;
            let arrived = bits(stop.next).map(|next| self.stops[next].packets.least);
            sent.saturating_sub(arrived.fold(0, u64::saturating_add))
        };
        bits(reached)
            .filter(|&at| {
                model
                    .network
                    .joined(self.stops[at].switch, self.stops[to].switch)
            })
            // The first of equals.
            .max_by_key(|&at| (missing(at), std::cmp::Reverse(at)))
    }

    /// Compares what was sent with what arrived, between stops that nothing else leads to or from.
    fn balance(&mut self, see: &See<'_>, roots: u64) {
        let mut done = 0_u64;
        for first in 0..self.stops.len() {
            if done >> first & 1 == 1 || self.stops[first].next == 0 {
                continue;
            }
            let (mut senders, mut receivers) = (1_u64 << first, self.stops[first].next);
            loop {
                let more = (0..self.stops.len())
                    .filter(|&place| self.stops[place].next & receivers != 0)
                    .fold(senders, |senders, place| senders | 1 << place);
                let all = bits(more).fold(0, |all, place| all | self.stops[place].next);
                if (more, all) == (senders, receivers) {
                    break;
                }
                (senders, receivers) = (more, all);
            }
            done |= senders;
            if receivers & roots != 0 {
                // Packets came in from outside as well.
                continue;
            }
            let before = bits(senders).fold(Bounds::ZERO, |sum, place| {
                let stop = &self.stops[place];
                // Where packets may have turned back, they need not have come here.
                let least = if stop.turns_back {
                    0
                } else {
                    stop.packets.least
                };
                sum + Bounds {
                    least,
                    ..stop.packets
                }
            });
            let after =
                bits(receivers).fold(Bounds::ZERO, |sum, place| sum + self.stops[place].packets);
            let largest = |among: u64| {
                bits(among).max_by_key(|&place| {
                    (self.stops[place].packets.least, std::cmp::Reverse(place))
                })
            };
            let (Some(from), Some(to)) = (largest(senders), largest(receivers)) else {
                continue;
            };
            let mut hop = Hop::new(
                Some(self.stops[from].switch),
                Some(self.stops[to].switch),
                before,
                after,
            );
            hop.group = group_of(&self.stops[from]);
            hop.off_way = bits(senders | receivers).any(|place| self.stops[place].off_way);
            hop.unreported = bits(senders | receivers).any(|place| {
                let stop = &self.stops[place];
                stop.packets == Bounds::UNKNOWN && !see.reports.all(stop.switch, see.kind)
            });
            self.hops.push(hop);
        }
    }

    /// Where the flow ends although it is meant to go on.
    fn end(&mut self, see: &See<'_>) {
        for stop in &self.stops {
            let Intended::Forward(group) = stop.intended else {
                continue;
            };
            if stop.next != 0 || stop.turns_back {
                continue;
            }
            let members = &see.model.forwarding.group(group).members;
            let unreported = members
                .iter()
                .any(|&member| !see.reports.all(member, see.kind));
            let after = if unreported {
                Bounds::UNKNOWN
            } else {
                Bounds::ZERO
            };
            if stop.packets.most == 0 && !unreported {
                continue;
            }
            let mut hop = Hop::new(Some(stop.switch), None, stop.packets, after);
            hop.group = Some(group);
            hop.unreported = unreported;
            hop.off_way = stop.off_way;
            self.hops.push(hop);
        }
    }

    /// Where packets appear that no switch before counted.
    fn appear(&mut self, see: &See<'_>, flow: &FiveTuple, dst: HostIndex, roots: u64) {
        for place in bits(roots) {
            let stop = self.stops[place];
            let neighbours = see.model.network.neighbours(stop.switch).iter();
            let unreported = neighbours.copied().any(|neighbour| {
                !see.reports.all(neighbour, see.kind)
                    && match see.model.forwarding.intended(neighbour, flow, Some(dst)) {
                        Intended::Forward(group) => {
                            let members = &see.model.forwarding.group(group).members;
                            members.binary_search(&stop.switch).is_ok()
                        }
                        Intended::Unknown => true,
                        Intended::Deliver | Intended::Drop => false,
                    }
            });
            let before = if unreported {
                Bounds::UNKNOWN
            } else {
                Bounds::ZERO
            };
            let mut hop = Hop::new(None, Some(stop.switch), before, stop.packets);
            hop.unreported = unreported;
            self.hops.push(hop);
        }
    }

    /// The stop at a switch.
    pub(crate) fn stop(&self, switch: SwitchIndex) -> Option<&Stop> {
        self.stops.iter().find(|stop| stop.switch == switch)
    }

    /// The switches to which packets went on from a stop.
    pub(crate) fn next_of(&self, stop: &Stop) -> impl Iterator<Item = &Stop> {
        bits(stop.next).filter_map(|place| self.stops.get(place))
    }
}

fn group_of(stop: &Stop) -> Option<GroupIndex> {
    match stop.intended {
        Intended::Forward(group) => Some(group),
        _ => None,
    }
}

fn mask(places: usize) -> u64 {
    if places >= STOPS_MAX {
        u64::MAX
    } else {
        (1 << places) - 1
    }
}

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let place = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            place
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::intended::Forwarding;
    use super::super::network::Network;
    use super::*;

    /// a – s0 – s1 – s3 – b, with s2 beside s1, and s4 joined to s1 alone.
    fn model() -> NetworkModel {
        let names = ["s0", "s1", "s2", "s3", "s4"].map(String::from);
        let prefix = |text: &str| vec![text.parse().expect("a prefix")];
        let link = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let network = Network::new(
            names.into(),
            vec![
                ("a".into(), prefix("10.0.0.0/24")),
                ("b".into(), prefix("10.0.1.0/24")),
            ],
            &[
                link("a", "s0"),
                link("b", "s3"),
                link("s0", "s1"),
                link("s0", "s2"),
                link("s1", "s3"),
                link("s2", "s3"),
                link("s1", "s4"),
            ],
        )
        .expect("a good network");
        NetworkModel::shortest_paths(network).expect("small")
    }

    fn all_reported() -> Reports {
        Reports::all_of(5)
    }

    fn trace(counted: &[(u16, u64)], reports: &Reports) -> Way {
        trace_in(&model(), counted, reports)
    }

    fn trace_in(model: &NetworkModel, counted: &[(u16, u64)], reports: &Reports) -> Way {
        let flow = FiveTuple {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 1, 1].into(),
            src_port: 1,
            dst_port: 2,
            protocol: 6,
        };
        let (src, dst) = model.network.ends(&flow);
        let mut tracer = Tracer::default();
        let counted = counted
            .iter()
            .map(|&(s, n)| (SwitchIndex(s), Bounds::known(n)));
        tracer.trace(model, &flow, (src, dst.expect("b")), counted, reports);
        tracer.way
    }

    fn hops(way: &Way) -> Vec<(Option<u16>, Option<u16>, u64, u64)> {
        let hop = |hop: &Hop| {
            (
                hop.from.map(|from| from.0),
                hop.to.map(|to| to.0),
                hop.missing,
                hop.surplus,
            )
        };
        way.hops.iter().map(hop).collect()
    }

    #[test]
    fn losses_are_between_neighbours() {
        let way = trace(&[(3, 7), (1, 7), (0, 9)], &all_reported());
        assert!(way.entered);
        let found = hops(&way);
        assert!(found.contains(&(Some(0), Some(1), 2, 0)), "{found:?}");
        assert!(found.contains(&(Some(1), Some(3), 0, 0)), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_flow_over_two_members_is_added_up() {
        let way = trace(&[(0, 9), (1, 4), (2, 5), (3, 9)], &all_reported());
        assert!(way.hops.iter().all(Hop::is_balanced), "{way:?}");
        let way = trace(&[(0, 9), (1, 4), (2, 5), (3, 8)], &all_reported());
        let found = hops(&way);
        assert!(found.contains(&(Some(2), Some(3), 1, 0)), "{found:?}");
    }

    #[test]
    fn a_flow_may_end() {
        let found = hops(&trace(&[(0, 9), (1, 8)], &all_reported()));
        assert!(found.contains(&(Some(1), None, 8, 0)), "{found:?}");
        // But nobody knows, if the next switch did not report.
        let mut reports = all_reported();
        reports.set(SwitchIndex(3), false);
        let way = trace(&[(0, 9), (1, 8)], &reports);
        assert!(hops(&way).contains(&(Some(1), None, 0, 0)), "{way:?}");
        assert!(way.hops.iter().any(|hop| hop.unreported));
    }

    #[test]
    fn a_switch_off_every_way_has_a_sender() {
        let way = trace(&[(0, 9), (1, 9), (4, 9)], &all_reported());
        let sent = OffWay {
            at: SwitchIndex(1),
            to: SwitchIndex(4),
            packets: 9,
        };
        assert_eq!(way.off_way, [sent]);
        // What came back from there has gone around.
        let way = trace(&[(0, 9), (1, 18), (4, 9), (3, 9)], &all_reported());
        assert_eq!(way.off_way, [sent]);
        let found = hops(&way);
        assert!(found.contains(&(Some(0), Some(1), 0, 9)), "{found:?}");
    }

    #[test]
    fn a_gap_in_the_way_is_no_wrong_forwarding() {
        let mut reports = all_reported();
        for silent in [1, 2] {
            reports.set(SwitchIndex(silent), false);
        }
        let way = trace(&[(0, 9), (3, 8)], &reports);
        assert!(way.off_way.is_empty());
        assert!(
            way.hops
                .iter()
                .all(|hop| hop.missing == 0 && hop.surplus == 0)
        );
        assert_eq!(way.unexplained_stops, 0);
    }

    #[test]
    fn a_switch_of_which_nothing_is_intended_may_send_anywhere() {
        let names = ["s0", "s1", "s2", "s3", "s4"];
        let model = model();
        let text = "version = 1\n[[switch]]\nname = \"s0\"\n[[switch.route]]\n\
                    dst = \"10.0.1.0/24\"\nnext = [\"s1\"]\n";
        let forwarding = Forwarding::parse(text, &model.network).expect("is well-formed");
        assert_eq!(model.network.switch(names[4]), Some(SwitchIndex(4)));
        let model = NetworkModel::new(model.network, forwarding);
        // From s1 on anything goes; to s2 it should not have gone.
        let way = trace_in(&model, &[(0, 9), (1, 9), (4, 9)], &all_reported());
        assert!(
            way.off_way.is_empty() && way.unexplained_stops == 0,
            "{way:?}"
        );
        assert!(way.hops.iter().all(Hop::is_balanced), "{way:?}");
        let way = trace_in(&model, &[(0, 9), (2, 9), (3, 9)], &all_reported());
        let sent: Vec<_> = way.off_way.iter().map(|off| (off.at.0, off.to.0)).collect();
        assert_eq!(sent, [(0, 2)]);
    }

    #[test]
    fn packets_may_appear() {
        let way = trace(&[(0, 0), (3, 2)], &all_reported());
        assert!(hops(&way).contains(&(None, Some(3), 0, 2)), "{way:?}");
    }
}
