//! Random networks with ground truth for the tests and the benchmark of the counter solver: cells
//! are drawn at random instead of hashed, paths are those of a fat tree.

use super::SwitchSystem;

/// What kind of network to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkSpec {
    /// Ports of a switch of the fat tree; even.
    pub(crate) arity: usize,
    /// Flows at a switch, on average over the network.
    pub(crate) flows_per_switch: usize,
    pub(crate) hashes: usize,
    pub(crate) cells_per_flow: f64,
    /// Share of flows within a rack (one switch) and within a pod (three); the rest take five.
    pub(crate) within_rack: f64,
    pub(crate) within_pod: f64,
    /// Share of flows that lose up to a tenth of their packets at one hop.
    pub(crate) lossy: f64,
    /// Share of flows that differ by one or two packets at one switch.
    pub(crate) in_flight: f64,
    /// Share of flows that loop once or more at one switch.
    pub(crate) looping: f64,
    /// Share of flow occurrences that the switch's flow filter hid from FlowCount and FlowXOR, but
    /// that are known from other switches.
    pub(crate) phantom: f64,
    /// Flows a switch that count there and are known nowhere.
    pub(crate) hidden: f64,
    /// Share of flow occurrences that are not decoded, so that their cells are no equations.
    pub(crate) undecoded: f64,
    /// Share of switches that do not report.
    pub(crate) missing: f64,
    /// Fewest packets of a flow.
    pub(crate) fewest_packets: u64,
    pub(crate) seed: u64,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            arity: 8,
            flows_per_switch: 1000,
            hashes: 3,
            cells_per_flow: 0.68,
            within_rack: 0.0,
            within_pod: 0.0,
            lossy: 0.02,
            in_flight: 0.0,
            looping: 0.0,
            phantom: 0.0,
            hidden: 0.0,
            undecoded: 0.0,
            missing: 0.0,
            fewest_packets: 1,
            seed: 1,
        }
    }
}

/// A network's equations and the counters behind them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) flow_count: usize,
    pub(crate) systems: Vec<SwitchSystem>,
    /// True counters, in the order of each system's flows.
    pub(crate) truth: Vec<Vec<u64>>,
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.word()) * bound as u128) >> 64) as usize
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Pareto distributed packets: half of the flows have fewer than twice the fewest.
    fn packets(&mut self, fewest: u64) -> u64 {
        let stretch = (1.0 - self.unit()).powf(-1.0 / 1.1);
        ((fewest as f64 * stretch) as u64).min(10_000_000)
    }
}

/// A flow at one switch.
struct Visit {
    flow: u32,
    packets: u64,
    least: u64,
    known: bool,
}

impl NetworkSpec {
    /// Draws the network.
    pub(crate) fn make(&self) -> Network {
        let random = &mut Random(self.seed);
        let half = self.arity / 2;
        let switches = self.arity * self.arity + half * half;
        let five = 1.0 - self.within_rack - self.within_pod;
        let hops = self.within_rack + 3.0 * self.within_pod + 5.0 * five;
        let flow_count = (self.flows_per_switch as f64 * switches as f64 / hops) as usize;
        let mut visits: Vec<Vec<Visit>> = (0..switches).map(|_| Vec::new()).collect();
        for flow in 0..flow_count as u32 {
            let path = self.path(random);
            for (switch, packets) in self.counters(&path, random) {
                let phantom = random.chance(self.phantom);
                visits[switch].push(Visit {
                    flow,
                    packets,
                    least: u64::from(!phantom && packets > 0),
                    known: !random.chance(self.undecoded),
                });
            }
            // The flow filter of a switch off the path may know the flow all the same.
            if random.chance(self.phantom) {
                let switch = random.below(switches);
                if !path.contains(&switch) {
                    visits[switch].push(Visit {
                        flow,
                        packets: 0,
                        least: 0,
                        known: true,
                    });
                }
            }
        }
        let mut network = Network {
            flow_count,
            systems: Vec::new(),
            truth: Vec::new(),
        };
        for visits in visits {
            let (system, truth) = self.system(&visits, random);
            if !random.chance(self.missing) {
                network.systems.push(system);
                network.truth.push(truth);
            }
        }
        network
    }

    fn path(&self, random: &mut Random) -> Vec<usize> {
        let arity = self.arity;
        let half = arity / 2;
        let edge = |pod: usize, place: usize| pod * half + place;
        let aggregation = |pod: usize, place: usize| arity * half + pod * half + place;
        let core = |place: usize, choice: usize| arity * arity + place * half + choice;
        let (pod, rack, uplink) = (random.below(arity), random.below(half), random.below(half));
        let kind = random.unit();
        if kind < self.within_rack {
            return vec![edge(pod, rack)];
        }
        if kind < self.within_rack + self.within_pod && half > 1 {
            let other = (rack + 1 + random.below(half - 1)) % half;
            return vec![edge(pod, rack), aggregation(pod, uplink), edge(pod, other)];
        }
        let other = (pod + 1 + random.below(arity - 1)) % arity;
        vec![
            edge(pod, rack),
            aggregation(pod, uplink),
            core(uplink, random.below(half)),
            aggregation(other, uplink),
            edge(other, random.below(half)),
        ]
    }

    fn counters(&self, path: &[usize], random: &mut Random) -> Vec<(usize, u64)> {
        let sent = random.packets(self.fewest_packets);
        let mut counters = vec![sent; path.len()];
        if random.chance(self.lossy) && path.len() > 1 {
            let hop = 1 + random.below(path.len() - 1);
            let lost = 1 + random.below((sent / 10).max(1) as usize) as u64;
            counters[hop..]
                .iter_mut()
                .for_each(|packets| *packets -= lost);
        }
        if random.chance(self.in_flight) {
            let hop = random.below(path.len());
            let change = 1 + random.below(2) as u64;
            let more = random.chance(0.5);
            let packets = &mut counters[hop];
            *packets = if more {
                *packets + change
            } else {
                packets.saturating_sub(change)
            };
        }
        if random.chance(self.looping) {
            let hop = random.below(path.len());
            counters[hop] *= 2 + random.below(3) as u64;
        }
        let visits = path.iter().copied().zip(counters);
        visits.filter(|&(_, packets)| packets > 0).collect()
    }

    fn system(&self, visits: &[Visit], random: &mut Random) -> (SwitchSystem, Vec<u64>) {
        let hashes = self.hashes;
        let cells = visits.len() as f64 * self.cells_per_flow;
        let subtable = ((cells / hashes as f64).round() as usize).max(2);
        let mut system = SwitchSystem {
            hashes,
            counts: vec![0; subtable * hashes],
            known: vec![true; subtable * hashes],
            ..SwitchSystem::default()
        };
        let mut truth = Vec::new();
        let rows = |random: &mut Random| -> Vec<u32> {
            (0..hashes)
                .map(|place| (place * subtable + random.below(subtable)) as u32)
                .collect()
        };
        for visit in visits {
            let rows = rows(random);
            for &row in &rows {
                system.counts[row as usize] += visit.packets;
                system.known[row as usize] &= visit.known;
            }
            if visit.known {
                system.flows.push(visit.flow);
                system.least.push(visit.least);
                system.hints.push(None);
                system.cells.extend(rows);
                truth.push(visit.packets);
            }
        }
        let mut hidden = self.hidden;
        while random.chance(hidden) {
            hidden -= 1.0;
            let packets = random.packets(1);
            rows(random)
                .iter()
                .for_each(|&row| system.counts[row as usize] += packets);
        }
        (system, truth)
    }
}
