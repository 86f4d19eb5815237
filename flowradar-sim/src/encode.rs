//! Drives a FlowRadar encoder at every switch of a simulation.

use flowradar_core::flowset::{Epoch, Totals};
use flowradar_core::hash::{HashFamily, Xxh3};
use flowradar_core::layout::Layout;
use flowradar_core::{Encoder, FlowKeyV4, with_hash_family};
use rayon::prelude::*;

use crate::random::{Purpose, Seed};
use crate::simulation::{Observation, Simulation};
use crate::topology::SwitchId;

/// What a switch reports of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The switch.
    pub switch: SwitchId,
    /// The epoch.
    pub epoch: u64,
    /// The encoded flowset, as it goes over the wire.
    pub flowset: Vec<u8>,
    /// What the switch counted besides.
    pub totals: Totals,
}

/// Encodes all epochs of a simulation and hands over the reports of each epoch, by switch. Silent
/// switches are left out.
///
/// All switches have the given layout, with seeds of their own: see [`switch_seed`]. The hash
/// family is the layout's.
///
/// Takes 64 bytes of memory a cell and switch (two banks), besides the reports of one epoch.
///
/// ```
/// use flowradar_core::plan::PlanRequest;
/// use flowradar_core::{FlowKeyV4, Flowset, decode::single_decode};
/// use flowradar_sim::{Simulation, Topology, encode::encode};
///
/// let simulation = Simulation::builder(Topology::fat_tree(4)?).flows_per_switch(500).build()?;
/// encode(&simulation, &PlanRequest::flows(1_000).plan()?.layout, |_epoch, reports| {
///     assert_eq!(reports.len(), 20);
///     for report in reports {
///         let flowset = Flowset::new_checked(&report.flowset[..]).expect("just written");
///         let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4 keys");
///         assert!(decoded.flows.len() > 490);
///     }
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(simulation: &Simulation, layout: &Layout, mut take: impl FnMut(u64, Vec<Report>)) {
    with_hash_family!(layout.family(), H => {
        for (epoch, reports) in Encoders::<H>::new(simulation, layout) {
            take(epoch, reports);
        }
    });
}

/// The hash seed of a switch: derived from a base seed and the switch's number, so that flows
/// collide differently at every switch, as FlowDecode needs.
pub fn switch_seed(base_seed: u64, switch: SwitchId) -> u64 {
    Seed(base_seed).bits(Purpose::EncoderSeed, switch.0.into(), 0)
}

/// An encoder for each switch of a simulation: iterates over its epochs.
#[derive(Clone, Debug)]
pub struct Encoders<'a, H: HashFamily = Xxh3> {
    simulation: &'a Simulation,
    /// By [`SwitchId`].
    encoders: Vec<Encoder<FlowKeyV4, H>>,
    next_epoch: u64,
    /// When the first epoch begins, and how long each is, in nanoseconds; 0 if they have no times.
    start_ns: u64,
    length_ns: u64,
}

impl<'a, H: HashFamily> Encoders<'a, H> {
    /// Encoders of one layout, whose seed is the base of [`switch_seed`].
    ///
    /// # Panics
    /// If the layout is for another hash family than `H`.
    pub fn new(simulation: &'a Simulation, layout: &Layout) -> Self {
        Self::with_layouts(simulation, |switch| {
            layout.with_seed(switch_seed(layout.seed(), switch))
        })
    }

    /// Encoders of a layout for each switch.
    ///
    /// # Panics
    /// If a layout is for another hash family than `H`.
    pub fn with_layouts(
        simulation: &'a Simulation,
        mut layout_of: impl FnMut(SwitchId) -> Layout,
    ) -> Self {
        let topology = simulation.topology();
        let encoders = topology
            .switch_ids()
            .map(|switch| {
                let name = topology.switches()[switch.index()].clone();
                Encoder::new(name, layout_of(switch), Epoch::number(0))
                    .expect("layouts are for the encoders' hash family, as documented")
            })
            .collect();
        Self {
            simulation,
            encoders,
            next_epoch: 0,
            start_ns: 0,
            length_ns: 0,
        }
    }

    /// Gives the epochs times: when the first one began, in nanoseconds since 1970, and how long each is.
    ///
    /// # Panics
    /// If an epoch was encoded already.
    #[must_use]
    pub fn with_times(mut self, start_ns: u64, length_ns: u64) -> Self {
        assert_eq!(self.next_epoch, 0, "times are given before the first epoch");
        (self.start_ns, self.length_ns) = (start_ns, length_ns);
        let first = epoch_at(start_ns, length_ns, 0);
        let switches = self.simulation.topology().switches();
        for (encoder, name) in self.encoders.iter_mut().zip(switches) {
            *encoder = Encoder::new(name.clone(), *encoder.layout(), first)
                .expect("the layout had an encoder before");
        }
        self
    }
}

/// An epoch with its times, if the first one has any.
fn epoch_at(start_ns: u64, length_ns: u64, number: u64) -> Epoch {
    match start_ns {
        0 => Epoch::number(number),
        _ => Epoch {
            number,
            start_ns: start_ns + number * length_ns,
            length_ns,
        },
    }
}

/// Encodes one epoch after the other, on all threads: its number and the reports that reach the
/// collector, by switch. The reports do not depend on the number of threads.
impl<H: HashFamily> Iterator for Encoders<'_, H> {
    type Item = (u64, Vec<Report>);

    fn next(&mut self) -> Option<Self::Item> {
        let Self {
            simulation,
            encoders,
            next_epoch,
            start_ns,
            length_ns,
        } = self;
        let next = epoch_at(*start_ns, *length_ns, *next_epoch + 1);
        let epoch = *next_epoch;
        if epoch == simulation.epochs() {
            return None;
        }
        *next_epoch += 1;
        simulation.for_each_block(epoch, |pieces| {
            let numbered = encoders.par_iter_mut().enumerate();
            numbered.for_each(|(switch, encoder)| {
                let switch = SwitchId::from_index(switch);
                for observation in pieces.iter().flat_map(|piece| piece.of(switch)) {
                    count(encoder, observation);
                }
            });
        });
        let report = |(switch, encoder): (usize, &mut Encoder<FlowKeyV4, H>)| {
            let switch = SwitchId::from_index(switch);
            let sealed = encoder
                .end_epoch(next)
                .expect("every epoch is released below");
            let report = simulation.reports(switch, epoch).then(|| Report {
                switch,
                epoch,
                flowset: sealed.to_flowset(),
                totals: sealed.totals(),
            });
            encoder.release();
            report
        };
        let reports: Vec<Option<Report>> =
            encoders.par_iter_mut().enumerate().map(report).collect();
        Some((epoch, reports.into_iter().flatten().collect()))
    }
}

/// Counts all packets of an observation; the flow is looked up once.
fn count<H: HashFamily>(encoder: &mut Encoder<FlowKeyV4, H>, observation: &Observation) {
    let mut packets = observation.packets();
    // Many turns of a loop may make more packets than one call takes.
    while packets > u64::from(u32::MAX) {
        encoder.packets_of_flow(&observation.key, u32::MAX, 0);
        packets -= u64::from(u32::MAX);
    }
    encoder.packets_of_flow(&observation.key, packets as u32, observation.bytes());
}
