//! Random networks with every fault at once, against the truth.
//!
//! Whatever happens: no flow is reported that was not there, no counter is called exact that is not,
//! bounds hold, and what is missing is said. `FLOWRADAR_NETWORKS=1000` runs that many networks
//! instead of a few.

use flowradar_collector::{NetDecode, NetDecodeOptions, net_decode};
use flowradar_core::hash::HashFamilyId;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{Counter, CounterStatus, FlowKeyV4, Flowset};
use flowradar_sim::encode::encode;
use flowradar_sim::{
    ClockSkew, Fault, Faults, InFlight, KeyStyle, Simulation, Topology, Traffic, Truth,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// What came out, over many networks.
#[derive(Debug, Default)]
struct Tally {
    networks: usize,
    complete: usize,
    flows_there: usize,
    flows_missing: usize,
    invented: usize,
    exact: usize,
    exact_wrong: usize,
    joint: usize,
    joint_wrong: usize,
    unresolved: usize,
    bounds_wrong: usize,
    /// Switches where a flow is missing and nothing says so.
    silent: usize,
}

struct Chance(Xoshiro256PlusPlus);

impl Chance {
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.0.next_u64() % choices.len() as u64) as usize]
    }

    /// `value` with this probability, else zero.
    fn maybe(&mut self, probability: f64, value: f64) -> f64 {
        if self.unit() < probability {
            value * self.unit()
        } else {
            0.0
        }
    }
}

fn network(chance: &mut Chance) -> (Simulation, Layout) {
    let topology = Topology::fat_tree(4).expect("k = 4 is fine");
    let flows = chance.one_of(&[20, 100, 300, 1000]);
    let count = chance.one_of(&[0, 0, 1, 3]);
    let share = 0.05 + 0.3 * chance.unit();
    let seed = chance.0.next_u64();
    let faults = Faults {
        link_loss: chance.maybe(0.3, 0.02),
        lossy_flows: chance.maybe(0.5, 0.1),
        in_flight: InFlight {
            flows: chance.maybe(0.3, 0.1),
            packets_max: 3,
        },
        clock_skew: match chance.maybe(0.2, 0.1) {
            0.0 => ClockSkew::None,
            offset_max => ClockSkew::Random { offset_max },
        },
        planted: Fault::random(&topology, count, share, seed),
        silent_fraction: chance.maybe(0.3, 0.4),
        ..Faults::default()
    };
    let traffic = if chance.unit() < 0.5 {
        Traffic::Uniform {
            flows_per_switch: flows,
        }
    } else {
        Traffic::InterPod {
            flows_per_switch: flows,
            spread: flowradar_sim::Spread::Hashed,
        }
    };
    let simulation = Simulation::builder(topology)
        .traffic(traffic)
        .keys(chance.one_of(&[
            KeyStyle::RandomPorts,
            KeyStyle::SequentialPorts,
            KeyStyle::RandomAddresses,
        ]))
        .faults(faults)
        .seed(seed)
        .build()
        .expect("a valid simulation");
    (simulation, layout(chance, flows))
}

/// From roomy to hopelessly small, in table and filter.
fn layout(chance: &mut Chance, flows: u32) -> Layout {
    let family = chance.one_of(&HashFamilyId::ALL);
    let hashes = chance.one_of(&[2_u8, 3, 3, 3, 4]);
    let cells = flows as f64 * (0.4 + 1.6 * chance.unit());
    let subtable_cells = (cells / hashes as f64).ceil() as u32 + 2;
    let coupling = if chance.unit() < 0.2 {
        Coupling::Window {
            cells: (subtable_cells / 4).max(1),
        }
    } else {
        Coupling::Plain
    };
    let widths = chance.one_of(&[(8, 24, 0), (8, 32, 48), (4, 10, 16), (3, 8, 0)]);
    let widths = CellWidths::new(widths.0, widths.1, widths.2).expect("in range");
    let table = TableLayout::new(hashes, subtable_cells, coupling, widths).expect("fits");
    let bits_per_flow = chance.one_of(&[4.0, 10.0, 20.0, 30.0, 40.0]);
    let bits = (flows as f64 * bits_per_flow) as u32 + 64;
    let filter = if chance.unit() < 0.5 {
        FilterLayout::blocked(bits / 512 + 1)
    } else {
        FilterLayout::partitioned(chance.one_of(&[2, 4, 8]), bits / 4 + 1)
    }
    .expect("fits");
    Layout::new(family, chance.0.next_u64(), table, filter).expect("eight hashes or fewer")
}

fn judge(
    decoded: &NetDecode<FlowKeyV4>,
    simulation: &Simulation,
    truth: &Truth,
    tally: &mut Tally,
) {
    tally.networks += 1;
    tally.complete += usize::from(decoded.is_complete());
    for switch in &decoded.switches {
        let id = simulation
            .topology()
            .switch(switch.switch.as_str())
            .expect("a switch of the network");
        let there = truth.records_of(0, id).len();
        let mut found = 0;
        for flow in &switch.flows {
            let Some(counters) = truth.get(0, id, &flow.key) else {
                tally.invented += 1;
                eprintln!(
                    "invented at {id:?}: {flow:?} leftover {:?}",
                    switch.leftover
                );
                continue;
            };
            found += 1;
            judge_counter(flow.packets, counters.packets, tally);
            if let Some(bytes) = flow.bytes {
                judge_counter(bytes, counters.bytes, tally);
            }
        }
        tally.flows_there += there;
        tally.flows_missing += there - found;
        let said = switch.leftover.cells > 0
            || switch.unconfirmed_flows > 0
            || switch.unexplained_cells > 0;
        if found < there && !said {
            // A hidden flow must at least have kept its neighbours from being called exact.
            tally.silent += 1;
        }
    }
}

fn judge_counter(counter: Counter, truth: u64, tally: &mut Tally) {
    match counter.status {
        CounterStatus::Exact => {
            tally.exact += 1;
            tally.exact_wrong += usize::from(counter.value != truth);
        }
        CounterStatus::Joint => {
            tally.joint += 1;
            tally.joint_wrong += usize::from(counter.value != truth);
        }
        CounterStatus::Unresolved { least, most } => {
            tally.unresolved += 1;
            tally.bounds_wrong += usize::from(!(least..=most).contains(&truth));
        }
    }
}

#[test]
fn nothing_is_invented_and_nothing_exact_is_wrong() {
    let networks = match std::env::var("FLOWRADAR_NETWORKS") {
        Ok(number) => number.parse().expect("FLOWRADAR_NETWORKS is a number"),
        Err(_) => 24_u64,
    };
    let first = std::env::var("FLOWRADAR_FIRST_NETWORK").map_or(0, |number| {
        number.parse().expect("FLOWRADAR_FIRST_NETWORK is a number")
    });
    let mut tally = Tally::default();
    for number in first..first + networks {
        let before = (
            tally.invented,
            tally.exact_wrong,
            tally.bounds_wrong,
            tally.silent,
            tally.joint_wrong,
        );
        let mut chance = Chance(Xoshiro256PlusPlus::seed_from_u64(number));
        let (simulation, layout) = network(&mut chance);
        let truth = Truth::of_epoch(&simulation, 0);
        encode(&simulation, &layout, |_, reports| {
            let flowsets: Vec<_> = reports
                .into_iter()
                .map(|report| Flowset::new_checked(report.flowset).expect("just written"))
                .collect();
            let decoded = net_decode::<FlowKeyV4, _>(&flowsets, &NetDecodeOptions::default())
                .expect("one epoch, different switches");
            judge(&decoded, &simulation, &truth, &mut tally);
        });
        let after = (
            tally.invented,
            tally.exact_wrong,
            tally.bounds_wrong,
            tally.silent,
            tally.joint_wrong,
        );
        if before != after {
            eprintln!("network {number}: {before:?} -> {after:?} {layout:?}");
        }
    }
    eprintln!("{tally:#?}");
    assert_eq!(tally.invented, 0, "flows that were not there");
    assert_eq!(tally.exact_wrong, 0, "counters called exact that are wrong");
    assert_eq!(tally.bounds_wrong, 0, "bounds that do not hold");
    assert_eq!(
        tally.silent, 0,
        "switches with missing flows that nothing tells of"
    );
    // Not a promise here: these networks break the assumption that losses are sparse at every turn.
    assert!(
        tally.joint_wrong * 1_000 <= tally.joint,
        "too many joint counters are wrong"
    );
}
