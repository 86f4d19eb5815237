//! Assigning units of traffic to back ends, by policies that know or predict their load.
//!
//! A *unit* is whatever must stay together: an exporter, a stream of flow exports, or a flow of
//! packets. The engine knows nothing about its traffic but a [`UnitKey`] and amounts (records,
//! packets, bytes: any unit, the same throughout), so the balancer of flow exports and the
//! dispatcher of captured packets share it. It keeps no table of units: the owner of a unit keeps
//! its [`Unit`] beside whatever else it knows of it, and so bounds the memory.
//!
//! | policy | chooses | moves units that are assigned |
//! | --- | --- | --- |
//! | [`Policy::Fixed`] | by address prefix; others by rendezvous | back to their prefix's back end |
//! | [`Policy::RoundRobin`] | in turn, by weight | only to fill a back end that came back |
//! | [`Policy::Rendezvous`] | highest score of (unit, back end) whose load is within the bound | only over the bound, or back |
//! | [`Policy::LeastLoaded`] | largest residual capacity now | if it evens out the load |
//! | [`Policy::EstimatedLoad`] | largest residual capacity soon, by the units' rates and busy probabilities | if it evens out the load |
//!
//! The last three follow Lee, Park, Sanadidi, Gerla, *Flow Based Dynamic Load Balancing for Passive
//! Network Monitoring*, section 3.3: [`estimate`] has equation 2, [`Balancer`] equation 1.
//!
//! Everything is deterministic: the same calls with the same times give the same assignments, on
//! every machine and in every process that has the same seed.
//!
//! ```
//! use flowradar_balancer::Timestamp;
//! use flowradar_balancer::policy::{
//!     Availability, BackEndId, BackEndSettings, Balancer, BalancerSettings, Policy, Unit, UnitKey,
//! };
//!
//! let settings = BalancerSettings {
//!     policy: Policy::Rendezvous { load_bound: Some(0.25) },
//!     ..BalancerSettings::default()
//! };
//! let back_ends = (0..3).map(|id| BackEndSettings::new(BackEndId(id), format!("collector {id}")));
//! let mut balancer = Balancer::new(settings, back_ends);
//!
//! let key = UnitKey::new("192.0.2.1".parse()?, 7);
//! let mut unit = Unit::new(Timestamp::ZERO);
//! let first = balancer.dispatch(&mut unit, key, 30.0, Timestamp::ZERO).expect("one is up");
//! balancer.set_availability(first.back_end, Availability::Down, Timestamp::from_millis(5));
//! let second = balancer.dispatch(&mut unit, key, 30.0, Timestamp::from_millis(10)).expect("two are up");
//! assert_eq!(second.previous, Some(first.back_end));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

mod balancer;
pub mod estimate;
mod rendezvous;

pub use balancer::{
    Availability, BackEndId, BackEndSettings, BackEndStatus, Balancer, BalancerSettings, Dispatch,
    Policy, Unit, UnitKey,
};
pub(crate) use rendezvous::mix;
pub use rendezvous::rendezvous_score;
