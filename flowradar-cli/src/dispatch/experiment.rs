//! Policies over the same packets.

use std::net::IpAddr;
use std::time::Duration;

use flowradar_balancer::Timestamp;
use flowradar_balancer::dispatch::DispatcherSettings;
use flowradar_balancer::dispatch::simulate::{
    Knowledge, Simulation, SimulationResult, SimulationSettings, imbalance_bound,
};
use flowradar_balancer::policy::{BackEndId, Policy};
use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use rayon::prelude::*;

use super::scenario::Scenario;

/// Windows of time in a scenario, about, if their length is not given.
const WINDOWS: u32 = 60;
const WINDOW_MIN: Duration = Duration::from_millis(10);

/// A policy as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ComparedPolicy {
    /// By address ranges
    #[value(name = "fixed-ip")]
    FixedIp,
    /// Each new flow to the next server
    #[value(name = "round-robin")]
    RoundRobin,
    /// To the server that has most room now
    #[value(name = "least-loaded")]
    LeastLoaded,
    /// To the server that will have most room after a round trip
    #[value(name = "estimated")]
    Estimated,
    /// The same, knowing only what servers report from time to time
    #[value(name = "estimated-reports")]
    EstimatedReports,
    /// By consistent hash of the flow
    #[value(name = "consistent-hash")]
    ConsistentHash,
}

/// How to simulate.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    pub(crate) servers: usize,
    pub(crate) tokens: u64,
    /// None: so that the servers work for `utilisation` of the time.
    pub(crate) service_time: Option<Duration>,
    pub(crate) utilisation: f64,
    /// None: about a sixtieth of the trace.
    pub(crate) window: Option<Duration>,
    pub(crate) report_every: Duration,
    /// Address ranges of the fixed policy; none: made from the trace.
    pub(crate) routes: Vec<(IpNet, Vec<BackEndId>)>,
    pub(crate) rate_time_constant: Duration,
    pub(crate) seed: u64,
    pub(crate) policies: Vec<ComparedPolicy>,
}

/// A scenario with the results of all policies.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) scenario: Scenario,
    pub(crate) service_time: Duration,
    pub(crate) window: Duration,
    /// No policy that keeps flows together can be more even than that.
    pub(crate) bound: f64,
    pub(crate) results: Vec<(ComparedPolicy, SimulationResult)>,
}

impl ComparedPolicy {
    pub(crate) const ALL: [Self; 6] = [
        Self::FixedIp,
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::Estimated,
        Self::EstimatedReports,
        Self::ConsistentHash,
    ];

    /// The name, the paper's where it has one.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FixedIp => "FIXED_IP",
            Self::RoundRobin => "FB_RR",
            Self::LeastLoaded => "FB_LEAST",
            Self::Estimated => "FB_EST",
            Self::EstimatedReports => "FB_EST, reports",
            Self::ConsistentHash => "consistent hash",
        }
    }
}

impl Experiment {
    /// Runs all policies over a scenario, each on a thread of its own.
    pub(crate) fn run(&self, scenario: Scenario) -> Compared {
        let duration = scenario.shape.duration;
        let count = scenario.packets.len().max(1) as f64;
        let service_time = self.service_time.unwrap_or_else(|| {
            let seconds = self.utilisation * self.servers as f64 * duration.as_secs_f64() / count;
            Duration::from_secs_f64(seconds.max(1e-9))
        });
        let window = self
            .window
            .unwrap_or_else(|| round_window(duration / WINDOWS));
        let results = self.policies.par_iter().map(|&policy| {
            (
                policy,
                self.simulate(&scenario, policy, service_time, window),
            )
        });
        let results = results.collect();
        let bound = imbalance_bound(&scenario.packets, self.servers, window);
        Compared {
            scenario,
            service_time,
            window,
            bound,
            results,
        }
    }

    fn simulate(
        &self,
        scenario: &Scenario,
        policy: ComparedPolicy,
        service_time: Duration,
        window: Duration,
    ) -> SimulationResult {
        let estimated = Policy::EstimatedLoad {
            // Until a round trip has been measured.
            horizon: Duration::from_millis(100),
        };
        let (kind, knowledge) = match policy {
            ComparedPolicy::FixedIp => {
                let routes = if self.routes.is_empty() {
                    ranges(&scenario.initiators(), self.servers)
                } else {
                    self.routes.clone()
                };
                (Policy::Fixed { routes }, Knowledge::Nothing)
            }
            ComparedPolicy::RoundRobin => (Policy::RoundRobin, Knowledge::Nothing),
            ComparedPolicy::LeastLoaded => (Policy::LeastLoaded, Knowledge::Exact),
            ComparedPolicy::Estimated => (estimated, Knowledge::Exact),
            ComparedPolicy::EstimatedReports => {
                let every = self.report_every;
                (estimated, Knowledge::Reported { every })
            }
            ComparedPolicy::ConsistentHash => {
                (Policy::Rendezvous { load_bound: None }, Knowledge::Nothing)
            }
        };
        let mut dispatcher = DispatcherSettings::new(kind);
        dispatcher.balancer.seed = self.seed;
        dispatcher.balancer.estimator.rate_time_constant = self.rate_time_constant;
        dispatcher.flows = dispatcher.flows.max(scenario.shape.flows as usize);
        let settings = SimulationSettings {
            dispatcher,
            servers: self.servers,
            tokens: self.tokens,
            service_time,
            knowledge,
            window,
        };
        let mut simulation = Simulation::new(settings, Timestamp::ZERO);
        for (packet, at) in &scenario.packets {
            simulation.offer(packet, *at);
        }
        simulation.finish()
    }
}

/// A length that is easy to read: 1, 2 or 5 of a power of ten.
fn round_window(length: Duration) -> Duration {
    let length_ns = length.max(WINDOW_MIN).as_nanos() as f64;
    let power = 10_f64.powf(length_ns.log10().floor());
    let factor = match length_ns / power {
        part if part < 1.5 => 1.0,
        part if part < 3.5 => 2.0,
        part if part < 7.5 => 5.0,
        _ => 10.0,
    };
    Duration::from_nanos((factor * power).round() as u64)
}

/// Ranges of addresses with equal numbers of hosts, one for each server, as prefixes: what a careful
/// administrator does who knows the hosts, but not what they will do.
pub(crate) fn ranges(hosts: &[IpAddr], servers: usize) -> Vec<(IpNet, Vec<BackEndId>)> {
    let mut routes = vec![];
    // Versions apart: no range holds both.
    let split = hosts.partition_point(IpAddr::is_ipv4);
    let (v4, v6) = hosts.split_at(split);
    for hosts in [v4, v6] {
        for server in 0..servers {
            let first = hosts.len() * server / servers;
            let end = hosts.len() * (server + 1) / servers;
            let Some(hosts) = hosts.get(first..end) else {
                continue;
            };
            let subnets = match (hosts.first(), hosts.last()) {
                (Some(&IpAddr::V4(first)), Some(&IpAddr::V4(last))) => {
                    IpSubnets::from(Ipv4Subnets::new(first, last, 0))
                }
                (Some(&IpAddr::V6(first)), Some(&IpAddr::V6(last))) => {
                    IpSubnets::from(Ipv6Subnets::new(first, last, 0))
                }
                _ => continue,
            };
            let id = BackEndId(u16::try_from(server).unwrap_or(u16::MAX));
            routes.extend(subnets.map(|prefix| (prefix, vec![id])));
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_all_hosts_and_each_one_server() {
        let hosts: Vec<IpAddr> = [1_u8, 2, 3, 64, 65, 150, 151, 200, 255]
            .map(|last| IpAddr::from([131, 179, 0, last]))
            .into();
        let routes = ranges(&hosts, 3);
        for (index, host) in hosts.iter().enumerate() {
            let holding: Vec<_> = routes
                .iter()
                .filter(|(prefix, _)| prefix.contains(host))
                .map(|(_, servers)| servers[0].0)
                .collect();
            assert_eq!(holding, [(index / 3) as u16], "{host}");
        }
        assert!(ranges(&[], 3).is_empty());
        // Fewer hosts than servers: some get none.
        assert_eq!(ranges(&hosts[..1], 3).len(), 1);
    }

    #[test]
    fn windows_are_round() {
        let round = |ms| round_window(Duration::from_millis(ms)).as_millis();
        assert_eq!(
            [0, 14, 16, 40, 80, 1940].map(round),
            [10, 10, 20, 50, 100, 2000]
        );
    }
}
