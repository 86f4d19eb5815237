//! Networks and traffic with ground truth, for testing and evaluating FlowRadar.
//!
//! A packet-level model of a data-centre network without any clock or input and output of its own:
//! a [`Topology`] (a k-ary fat tree, or any other from JSON), shortest-path [`Routing`] with ECMP,
//! [`Traffic`] (even inter-pod load, random pairs, or a recording) with published or synthetic
//! [`FlowSizes`], [`ExtraFlows`] (scans, floods, busy services), and [`Faults`]: loss, loops, blackholes, wrong forwarding entries, ECMP imbalance,
//! packets in flight when an epoch ends, clock skew, missing reports. A [`Simulation`] shows every
//! packet at every switch to a [`PacketObserver`], such as the FlowRadar encoders of [`encode`], and
//! the [`Truth`] says what each switch counted of each flow in each epoch.
//!
//! All follows from a seed: the same seed gives the same packets on every machine, with any number
//! of threads and in any version that does not say otherwise.
//!
//! ```
//! use flowradar_sim::{Faults, Simulation, Topology, Truth};
//!
//! let simulation = Simulation::builder(Topology::fat_tree(4)?)
//!     .flows_per_switch(1_000)
//!     .faults(Faults { lossy_flows: 0.02, ..Faults::default() })
//!     .seed(42)
//!     .build()?;
//! let truth = Truth::of(&simulation);
//! let lost: u64 = truth.events().iter().map(|event| event.packets).sum();
//! assert_eq!(simulation.summary().packets_lost(), lost);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod encode;
mod extra;
mod faults;
mod flow_size;
mod forwarding;
mod observer;
mod random;
mod routing;
mod scenario;
mod simulation;
mod topology;
mod traffic;
mod truth;

pub use extra::{
    ExtraFlows, ExtraFlowsError, HostChoice, PATTERN_FLOWS_MAX, PATTERNS_MAX, PortChoice,
};
pub use faults::{
    ClockSkew, EcmpImbalance, Fault, FaultError, FaultKind, Faults, FlowSelector, InFlight,
    LOOP_PASSES_MAX, LoopEnd, LossyLink, Misforwarded, PLANTED_MAX, Silence, TTL_DEFAULT,
};
pub use flow_size::{
    CDF_POINTS_MAX, CdfError, FLOW_PACKETS_MAX, FlowSizeCdf, FlowSizes, HEADER_BYTES, MTU_BYTES_MIN,
};
pub use forwarding::{FaultEvent, Happening};
pub use observer::PacketObserver;
pub use routing::{NEXT_HOPS_MAX, NextHop, Routing, RoutingTooLarge};
pub use scenario::{Planted, Scenario, TROUBLE_BEGINS_EPOCH, Trouble};
pub use simulation::{
    FlowInfo, Observation, Observations, Simulation, SimulationBuilder, SimulationError,
};
pub use topology::{
    HOSTS_MAX, Host, HostId, LINKS_MAX, LinkDirection, NAME_BYTES_MAX, Node, Port, SWITCHES_MAX,
    SwitchId, Topology, TopologyError,
};
pub use traffic::{
    EPOCHS_MAX, FLOWS_MAX, FlowId, KeyStyle, Spread, Trace, TraceError, TraceRecord, Traffic,
};
pub use truth::{Counters, LinkSummary, Summary, SwitchSummary, Truth, TruthRecord};
