//! The policies.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::estimate::{EstimatorSettings, LoadEstimate};
use super::rendezvous::{mix, name_hash, rendezvous_score, uniform};
use crate::time::Timestamp;

/// A back end, for as long as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackEndId(pub u16);

/// How a back end is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// By the unit's address: the longest prefix that holds it names back ends, the first of which
    /// that is up gets the unit. Units of no prefix, or whose back ends are all down, are spread by
    /// rendezvous.
    Fixed {
        /// Prefixes and their back ends in order of preference.
        routes: Vec<(IpNet, Vec<BackEndId>)>,
    },
    /// Each new unit to the next back end, in proportion to weights.
    RoundRobin,
    /// Rendezvous hashing. With a bound, no back end is given a unit that would take it above
    /// `(1 + bound)` times its fair share of the load; the unit goes to its next choice.
    Rendezvous {
        /// Allowed excess over the fair share: 0.25 for a quarter.
        load_bound: Option<f64>,
    },
    /// The back end with the largest residual capacity at this moment.
    LeastLoaded,
    /// The back end with the largest residual capacity in the near future, equation 1:
    /// `R_i - sum over its units of horizon * rate * busy probability`.
    EstimatedLoad {
        /// How far to look ahead: the round trip time in the paper.
        horizon: Duration,
    },
}

/// What a [`Balancer`] is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct BalancerSettings {
    /// How a back end is chosen.
    pub policy: Policy,
    /// Of the rates and busy probabilities of units and back ends.
    pub estimator: EstimatorSettings,
    /// A back end that comes back reaches its full weight after this time.
    pub recovery_ramp: Duration,
    /// A unit is moved for better balance only after so long at its back end.
    pub minimum_stay: Duration,
    /// A unit is moved for better balance only if the more loaded of the two back ends is then
    /// better off by this factor: 0.2 for a fifth.
    pub improvement: f64,
    /// Whether units stay at a draining back end until they end, as flows of packets must; units
    /// that never end, such as exporters, are moved at once.
    pub draining_keeps_units: bool,
    /// Changes all hashes.
    pub seed: u64,
}

impl Default for BalancerSettings {
    fn default() -> Self {
        Self {
            policy: Policy::Rendezvous {
                load_bound: Some(0.25),
            },
            estimator: EstimatorSettings::default(),
            recovery_ramp: Duration::from_secs(30),
            minimum_stay: Duration::from_secs(30),
            improvement: 0.2,
            draining_keeps_units: false,
            seed: 0,
        }
    }
}

/// What is configured of a back end.
#[derive(Clone, Debug, PartialEq)]
pub struct BackEndSettings {
    /// Its name for the caller.
    pub id: BackEndId,
    /// Hashed, so that assignments do not depend on ids and orders.
    pub name: String,
    /// Its share in proportion to the others' weights.
    pub weight: f64,
    /// Amount per second that it can take. If unknown, the capacities are taken to be in proportion
    /// to weights and twice the present load.
    pub capacity_per_second: Option<f64>,
}

impl BackEndSettings {
    /// Of weight 1 and unknown capacity.
    pub fn new(id: BackEndId, name: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            weight: 1.0,
            capacity_per_second: None,
        }
    }
}

/// Whether a back end takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Takes its share.
    Up,
    /// Takes no new units; see [`BalancerSettings::draining_keeps_units`].
    Draining,
    /// Takes nothing; its units move when they next send.
    Down,
}

/// What identifies a unit to the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitKey {
    /// For [`Policy::Fixed`]: the exporter, or a flow's source.
    pub address: IpAddr,
    /// A hash of everything that makes the unit what it is; well mixed by the constructor.
    pub hash: u64,
}

impl UnitKey {
    /// `hash` may be any number that differs between units.
    pub fn new(address: IpAddr, hash: u64) -> Self {
        Self {
            address,
            hash: mix(hash),
        }
    }
}

/// What the owner of a unit keeps for the balancer.
///
/// A unit that is forgotten must be given to [`Balancer::release`], or its load stays accounted.
#[derive(Debug)]
pub struct Unit {
    assigned: Option<BackEndId>,
    assigned_at: Timestamp,
    estimate: LoadEstimate,
    /// What of this unit is part of its back end's `assigned_per_second`.
    accounted_per_second: f64,
}

impl Unit {
    /// A unit that has no back end yet.
    pub fn new(now: Timestamp) -> Self {
        Self {
            assigned: None,
            assigned_at: now,
            estimate: LoadEstimate::new(now),
            accounted_per_second: 0.0,
        }
    }

    /// The unit's back end, once it has one.
    pub fn assigned(&self) -> Option<BackEndId> {
        self.assigned
    }

    /// Rate and busy probability.
    pub fn estimate(&self) -> &LoadEstimate {
        &self.estimate
    }
}

/// Where a unit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The unit's back end.
    pub back_end: BackEndId,
    /// The back end that it had until now, if it has just moved.
    pub previous: Option<BackEndId>,
}

/// A back end as the balancer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackEndStatus {
    /// Which.
    pub id: BackEndId,
    /// Whether it takes traffic.
    pub availability: Availability,
    /// Amount per second that arrives for it, averaged.
    pub rate_per_second: f64,
    /// Sum over its units of rate times busy probability.
    pub assigned_per_second: f64,
    /// Units assigned.
    pub units: u64,
    /// Weight, with the ramp after a recovery.
    pub weight: f64,
    /// Load over capacity; the back end's own report if that is higher.
    pub utilisation: f64,
}

/// Back ends, their loads, and a policy that assigns units to them.
///
/// Each call takes time in proportion to the number of back ends, and no memory.
#[derive(Clone, Debug)]
pub struct Balancer {
    settings: BalancerSettings,
    back_ends: Vec<BackEnd>,
}

#[derive(Clone, Debug)]
struct BackEnd {
    settings: BackEndSettings,
    name_hash: u64,
    availability: Availability,
    /// Set while the weight grows after a recovery.
    recovering_since: Option<Timestamp>,
    /// Of all that is dispatched here.
    arrivals: LoadEstimate,
    assigned_per_second: f64,
    units: u64,
    /// Load from elsewhere: other threads, other balancers.
    external_per_second: f64,
    /// The back end's own word, as a fraction of its capacity.
    reported_load: Option<f64>,
    /// The amount that it can take at this moment, if that is known.
    residual: Option<f64>,
    /// Of smooth weighted round robin.
    credit: f64,
}

impl BackEnd {
    fn load_per_second(&self) -> f64 {
        self.assigned_per_second + self.external_per_second
    }
}

impl Balancer {
    /// All back ends are up. Repeated ids count once.
    pub fn new(
        settings: BalancerSettings,
        back_ends: impl IntoIterator<Item = BackEndSettings>,
    ) -> Self {
        let mut balancer = Self {
            settings,
            back_ends: Vec::new(),
        };
        for back_end in back_ends {
            balancer.add(back_end, None);
        }
        balancer
    }

    /// Adds a back end, or changes the settings of the one with this id. With a time, a new one
    /// starts small and reaches its weight after the recovery ramp.
    pub fn add(&mut self, settings: BackEndSettings, ramp_from: Option<Timestamp>) {
        let name_hash = name_hash(&settings.name, self.settings.seed);
        if let Some(known) = self.find_mut(settings.id) {
            known.settings = settings;
            known.name_hash = name_hash;
            return;
        }
        self.back_ends.push(BackEnd {
            settings,
            name_hash,
            availability: Availability::Up,
            recovering_since: ramp_from,
            arrivals: LoadEstimate::new(ramp_from.unwrap_or_default()),
            assigned_per_second: 0.0,
            units: 0,
            external_per_second: 0.0,
            reported_load: None,
            residual: None,
            credit: 0.0,
        });
    }

    /// Takes a back end away. Its units move when they next send.
    pub fn remove(&mut self, id: BackEndId) {
        self.back_ends.retain(|back_end| back_end.settings.id != id);
    }

    /// Changes the policy and its settings; the back ends, their loads and units stay.
    pub fn set_settings(&mut self, settings: BalancerSettings) {
        for back_end in &mut self.back_ends {
            back_end.name_hash = name_hash(&back_end.settings.name, settings.seed);
        }
        self.settings = settings;
    }

    /// Takes note that a back end failed, came back, or is to be drained.
    pub fn set_availability(&mut self, id: BackEndId, availability: Availability, now: Timestamp) {
        if let Some(back_end) = self.find_mut(id) {
            if availability == Availability::Up && back_end.availability != Availability::Up {
                back_end.recovering_since = Some(now);
                back_end.credit = 0.0;
            }
            back_end.availability = availability;
        }
    }

    /// Takes a back end's own word about its load: a fraction of its capacity, or none if it does
    /// not say.
    pub fn set_reported_load(&mut self, id: BackEndId, load: Option<f64>) {
        if let Some(back_end) = self.find_mut(id) {
            back_end.reported_load = load.filter(|load| load.is_finite() && *load >= 0.0);
        }
    }

    /// Takes the residual capacity of a back end, `R_i` of equation 1: the amount that it can take
    /// at this moment, such as the room in its queue. Where it is known, [`Policy::LeastLoaded`] and
    /// [`Policy::EstimatedLoad`] go by it, and not by rates and capacities. Known of some back ends
    /// only, it would be compared with what it cannot be compared with: give it for all or for none.
    pub fn set_residual(&mut self, id: BackEndId, amount: Option<f64>) {
        if let Some(back_end) = self.find_mut(id) {
            back_end.residual = amount.filter(|amount| amount.is_finite());
        }
    }

    /// Takes the times that were measured of the traffic: how far [`Policy::EstimatedLoad`] looks
    /// ahead, the round trip time in the paper, and the silence after which a unit is idle, N times
    /// that.
    pub fn set_time_scales(&mut self, ahead: Duration, idle_after: Duration) {
        if let Policy::EstimatedLoad { horizon } = &mut self.settings.policy {
            *horizon = ahead;
        }
        self.settings.estimator.idle_after = idle_after;
    }

    /// Takes note of what others send to a back end, amount per second.
    pub fn set_external_load(&mut self, id: BackEndId, per_second: f64) {
        if let Some(back_end) = self.find_mut(id) {
            back_end.external_per_second = per_second.max(0.0);
        }
    }

    /// The ids of all back ends.
    pub fn ids(&self) -> impl Iterator<Item = BackEndId> + '_ {
        self.back_ends.iter().map(|back_end| back_end.settings.id)
    }

    /// What is assigned to each back end here, amount per second.
    pub fn assigned_loads(&self) -> impl Iterator<Item = (BackEndId, f64)> + '_ {
        let load = |back_end: &BackEnd| (back_end.settings.id, back_end.assigned_per_second);
        self.back_ends.iter().map(load)
    }

    /// The ids of the back ends that are up.
    pub fn up(&self) -> impl Iterator<Item = BackEndId> + '_ {
        let up = |back_end: &&BackEnd| back_end.availability == Availability::Up;
        self.back_ends
            .iter()
            .filter(up)
            .map(|back_end| back_end.settings.id)
    }

    /// Accounts an amount that a unit sends, and says where it goes: to the back end it has, to a
    /// chosen one if it has none or if that is gone. `None` if no back end is up.
    pub fn dispatch(
        &mut self,
        unit: &mut Unit,
        key: UnitKey,
        amount: f64,
        now: Timestamp,
    ) -> Option<Dispatch> {
        unit.estimate.observe(amount, now, &self.settings.estimator);
        let previous = unit.assigned;
        let stays = previous.is_some_and(|id| self.keeps_units(id));
        if !stays {
            self.unassign(unit);
            let chosen = self.choose(key, unit.expected(now, &self.settings), now);
            // Without anything up, what is draining is better than nothing.
            let chosen = chosen.or_else(|| self.draining())?;
            self.assign(unit, chosen, now);
        }
        let back_end = unit.assigned?;
        self.account(unit, now);
        let estimator = self.settings.estimator;
        if let Some(back_end) = self.find_mut(back_end) {
            back_end.arrivals.observe(amount, now, &estimator);
        }
        Some(Dispatch {
            back_end,
            previous: previous.filter(|id| *id != back_end),
        })
    }

    /// Where an amount goes that belongs to no unit, such as one message of many.
    pub fn dispatch_once(
        &mut self,
        key: UnitKey,
        amount: f64,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let chosen = self.choose(key, 0.0, now).or_else(|| self.draining())?;
        let estimator = self.settings.estimator;
        if let Some(back_end) = self.find_mut(chosen) {
            back_end.arrivals.observe(amount, now, &estimator);
            // There are no units whose rates could be summed.
            back_end.assigned_per_second = back_end.arrivals.rate_per_second();
        }
        Some(chosen)
    }

    /// The back end of a hash alone, by weighted rendezvous: no state, no bound, the same for all
    /// who know the same back ends.
    pub fn by_hash(&self, hash: u64, now: Timestamp) -> Option<BackEndId> {
        self.best(now, |_, back_end, weight| {
            rendezvous_score(hash, back_end.name_hash, weight)
        })
        .or_else(|| self.draining())
    }

    /// Accounts an amount that [`Balancer::by_hash`] sent somewhere.
    pub fn account_by_hash(&mut self, id: BackEndId, amount: f64, now: Timestamp) {
        let estimator = self.settings.estimator;
        if let Some(back_end) = self.find_mut(id) {
            back_end.arrivals.observe(amount, now, &estimator);
            back_end.assigned_per_second = back_end.arrivals.rate_per_second();
        }
    }

    /// The back end of a unit by its key alone, and by which back ends are up: for units of which
    /// nothing can be kept. Rendezvous, but for [`Policy::Fixed`]. Accounts nothing.
    pub fn stateless(&self, key: UnitKey, now: Timestamp) -> Option<BackEndId> {
        let routed = match &self.settings.policy {
            Policy::Fixed { routes } => self.routed(routes, key, now),
            _ => None,
        };
        routed
            .or_else(|| self.by_score(key, now))
            .or_else(|| self.draining())
    }

    /// Whether units stay at a back end: it is up, or draining and keeps them.
    pub fn keeps(&self, id: BackEndId) -> bool {
        self.keeps_units(id)
    }

    /// The silence after which a unit is idle.
    pub fn idle_after(&self) -> Duration {
        self.settings.estimator.idle_after
    }

    /// Brings the accounts up to date for a unit that may be silent, and leaves it where it is.
    pub fn refresh(&mut self, unit: &mut Unit, now: Timestamp) {
        self.account(unit, now);
    }

    /// Gives a unit to a back end that was chosen elsewhere; whatever that is, if it does not take
    /// units, the next [`Balancer::dispatch`] chooses another.
    pub fn place(&mut self, unit: &mut Unit, id: BackEndId, now: Timestamp) {
        self.unassign(unit);
        self.assign(unit, id, now);
    }

    /// Takes a unit that has ended out of its back end's load, until it sends again. It stays
    /// assigned, for what may still come.
    pub fn mute(&mut self, unit: &mut Unit) {
        let accounted = std::mem::take(&mut unit.accounted_per_second);
        unit.estimate = LoadEstimate::new(unit.estimate.last_arrival());
        if let Some(back_end) = unit.assigned.and_then(|id| self.find_mut(id)) {
            back_end.assigned_per_second = (back_end.assigned_per_second - accounted).max(0.0);
        }
    }

    /// Forgets a unit.
    pub fn release(&mut self, mut unit: Unit) {
        self.unassign(&mut unit);
    }

    /// Brings the accounts up to date for a unit that may be silent, and moves it if that is worth
    /// it. To be called for each unit from time to time.
    pub fn rebalance(&mut self, unit: &mut Unit, key: UnitKey, now: Timestamp) -> Option<Dispatch> {
        let current = unit.assigned?;
        self.account(unit, now);
        if !self.keeps_units(current) || now.since(unit.assigned_at) < self.settings.minimum_stay {
            return None;
        }
        let target = self.better_place(unit, key, current, now)?;
        self.unassign(unit);
        self.assign(unit, target, now);
        self.account(unit, now);
        Some(Dispatch {
            back_end: target,
            previous: Some(current),
        })
    }

    /// All back ends as they are now.
    pub fn status(&self, now: Timestamp) -> Vec<BackEndStatus> {
        let total = self.total_load();
        let statuses = self.back_ends.iter().map(|back_end| {
            let estimator = &self.settings.estimator;
            let rate_per_second = back_end.arrivals.decayed_rate_per_second(now, estimator);
            let capacity = self.capacity(back_end, total, now);
            let used = if capacity > 0.0 {
                back_end.load_per_second() / capacity
            } else {
                0.0
            };
            BackEndStatus {
                id: back_end.settings.id,
                availability: back_end.availability,
                rate_per_second,
                assigned_per_second: back_end.assigned_per_second,
                units: back_end.units,
                weight: self.weight(back_end, now),
                utilisation: used.max(back_end.reported_load.unwrap_or(0.0)),
            }
        });
        statuses.collect()
    }

    /// Chooses a back end for something that adds `load` per second.
    fn choose(&mut self, key: UnitKey, load: f64, now: Timestamp) -> Option<BackEndId> {
        match &self.settings.policy {
            Policy::Fixed { routes } => self
                .routed(routes, key, now)
                .or_else(|| self.by_score(key, now)),
            Policy::RoundRobin => self.next_in_turn(now),
            Policy::Rendezvous { load_bound: None } => self.by_score(key, now),
            Policy::Rendezvous {
                load_bound: Some(bound),
            } => self.within_bound(key, load, *bound, now),
            Policy::LeastLoaded => self.least_loaded(key, now),
            Policy::EstimatedLoad { horizon } => self.largest_residual(key, *horizon, now),
        }
    }

    /// Where a unit would be better off, if anywhere.
    fn better_place(
        &self,
        unit: &Unit,
        key: UnitKey,
        current: BackEndId,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let target = match &self.settings.policy {
            Policy::Fixed { routes } => self
                .routed(routes, key, now)
                .or_else(|| self.by_score(key, now))?,
            Policy::RoundRobin => return self.fewer_units(current, now),
            Policy::Rendezvous { load_bound: None } => self.by_score(key, now)?,
            Policy::Rendezvous {
                load_bound: Some(bound),
            } => return self.back_within_bound(unit, key, current, *bound, now),
            Policy::LeastLoaded | Policy::EstimatedLoad { .. } => {
                return self.evener(unit, current, now);
            }
        };
        (target != current).then_some(target)
    }

    fn routed(
        &self,
        routes: &[(IpNet, Vec<BackEndId>)],
        key: UnitKey,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let holds = |(prefix, _): &&(IpNet, Vec<BackEndId>)| prefix.contains(&key.address);
        let (_, back_ends) = routes
            .iter()
            .filter(holds)
            .max_by_key(|(prefix, _)| prefix.prefix_len())?;
        // Units return to a recovered back end one after the other, by their hashes.
        let takes = |id: &&BackEndId| {
            self.find(**id).is_some_and(|back_end| {
                back_end.availability == Availability::Up
                    && uniform(mix(key.hash)) <= self.ramp(back_end, now)
            })
        };
        back_ends.iter().find(takes).copied()
    }

    fn by_score(&self, key: UnitKey, now: Timestamp) -> Option<BackEndId> {
        self.best(now, |_, back_end, weight| {
            rendezvous_score(key.hash, back_end.name_hash, weight)
        })
    }

    fn next_in_turn(&mut self, now: Timestamp) -> Option<BackEndId> {
        let mut total = 0.0;
        for index in 0..self.back_ends.len() {
            let weight = self.weight(&self.back_ends[index], now);
            if self.back_ends[index].availability == Availability::Up {
                self.back_ends[index].credit += weight;
                total += weight;
            }
        }
        let chosen = self.best(now, |_, back_end, _| back_end.credit)?;
        if let Some(back_end) = self.find_mut(chosen) {
            back_end.credit -= total;
        }
        Some(chosen)
    }

    fn within_bound(
        &self,
        key: UnitKey,
        load: f64,
        bound: f64,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let total = self.total_load() + load;
        let weights = self.total_weight(now);
        self.best(now, |_, back_end, weight| {
            let share = (1.0 + bound) * total * weight / weights;
            // A unit must go somewhere even if it alone is more than a share: to one that carries
            // nothing, by score; or else to the one that carries the least for its weight, which
            // is within its share before.
            let fits =
                back_end.load_per_second() + load <= share || back_end.load_per_second() <= 0.0;
            if fits {
                rendezvous_score(key.hash, back_end.name_hash, weight)
            } else {
                -(back_end.load_per_second() + f64::MIN_POSITIVE) / weight
            }
        })
    }

    fn least_loaded(&self, key: UnitKey, now: Timestamp) -> Option<BackEndId> {
        let total = self.total_load();
        let estimator = &self.settings.estimator;
        self.best_of_ties(key, now, |back_end| {
            if let Some(residual) = back_end.residual {
                return residual;
            }
            let capacity = self.capacity(back_end, total, now);
            let rate = back_end.arrivals.decayed_rate_per_second(now, estimator);
            let present = rate + back_end.external_per_second;
            capacity - present.max(back_end.reported_load.unwrap_or(0.0) * capacity)
        })
    }

    /// Equation 1.
    fn largest_residual(
        &self,
        key: UnitKey,
        horizon: Duration,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let total = self.total_load();
        let horizon_seconds = horizon.as_secs_f64();
        self.best_of_ties(key, now, |back_end| {
            if let Some(residual) = back_end.residual {
                return residual - horizon_seconds * back_end.load_per_second();
            }
            let capacity = self.capacity(back_end, total, now);
            // What the back end reports beyond what it is sent here takes from its capacity.
            let reported = back_end.reported_load.unwrap_or(0.0) * capacity;
            let unexplained = (reported - back_end.load_per_second()).max(0.0);
            let residual = (capacity - unexplained) * horizon_seconds;
            residual - horizon_seconds * back_end.load_per_second()
        })
    }

    /// The back end to which a unit should return, or flee from one above its bound.
    fn back_within_bound(
        &self,
        unit: &Unit,
        key: UnitKey,
        current: BackEndId,
        bound: f64,
        now: Timestamp,
    ) -> Option<BackEndId> {
        let load = unit.accounted_per_second;
        let total = self.total_load();
        let weights = self.total_weight(now);
        let here = self.find(current)?;
        let share = |back_end: &BackEnd| total * self.weight(back_end, now) / weights;
        // Leave only when clearly above the bound, come only where clearly below: no flapping.
        let margin = bound / 4.0;
        let must_leave =
            here.load_per_second() > (1.0 + bound + margin) * share(here) && here.units > 1;
        let here_score = rendezvous_score(key.hash, here.name_hash, self.weight(here, now));
        let target = self.best(now, |id, back_end, weight| {
            let score = rendezvous_score(key.hash, back_end.name_hash, weight);
            let fits =
                back_end.load_per_second() + load <= (1.0 + bound - margin) * share(back_end);
            let wanted = must_leave || score > here_score;
            if id != current && fits && wanted {
                score
            } else {
                f64::NEG_INFINITY
            }
        })?;
        let found = self.find(target)?;
        let score = rendezvous_score(key.hash, found.name_hash, self.weight(found, now));
        let fits = found.load_per_second() + load <= (1.0 + bound - margin) * share(found);
        (target != current && fits && (must_leave || score > here_score)).then_some(target)
    }

    /// A back end that has so few units that one more leaves it below the current one.
    fn fewer_units(&self, current: BackEndId, now: Timestamp) -> Option<BackEndId> {
        let here = self.find(current)?;
        let fewest = self.best(now, |_, back_end, weight| -(back_end.units as f64) / weight)?;
        let there = self.find(fewest)?;
        let weight_here = self.weight(here, now).max(f64::MIN_POSITIVE);
        let weight_there = self.weight(there, now);
        let improves = (there.units + 1) as f64 / weight_there < here.units as f64 / weight_here;
        (fewest != current && improves).then_some(fewest)
    }

    /// A back end that a unit can move to so that the more loaded of the two has clearly less.
    fn evener(&self, unit: &Unit, current: BackEndId, now: Timestamp) -> Option<BackEndId> {
        let load = unit.accounted_per_second;
        if load <= 0.0 {
            return None;
        }
        let total = self.total_load();
        let utilisation = |back_end: &BackEnd, more: f64| {
            let capacity = self.capacity(back_end, total, now).max(f64::MIN_POSITIVE);
            let used = (back_end.load_per_second() + more) / capacity;
            used.max(
                back_end
                    .reported_load
                    .map_or(0.0, |reported| reported + more / capacity),
            )
        };
        let here = self.find(current)?;
        let target = self.best(now, |_, back_end, _| -utilisation(back_end, load))?;
        let there = self.find(target)?;
        let improves =
            utilisation(there, load) * (1.0 + self.settings.improvement) < utilisation(here, 0.0);
        (target != current && improves).then_some(target)
    }

    /// The back end that is up and has the highest score; negative infinity never wins over more.
    fn best(
        &self,
        now: Timestamp,
        score: impl Fn(BackEndId, &BackEnd, f64) -> f64,
    ) -> Option<BackEndId> {
        let mut best: Option<(f64, BackEndId)> = None;
        for back_end in &self.back_ends {
            if back_end.availability != Availability::Up {
                continue;
            }
            let id = back_end.settings.id;
            let score = score(id, back_end, self.weight(back_end, now));
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Like `best`; equal scores are decided by units per weight, then by rendezvous.
    fn best_of_ties(
        &self,
        key: UnitKey,
        now: Timestamp,
        score: impl Fn(&BackEnd) -> f64,
    ) -> Option<BackEndId> {
        let candidates = self.back_ends.iter().filter(|back_end| {
            back_end.availability == Availability::Up && self.weight(back_end, now) > 0.0
        });
        let ranked = candidates.map(|back_end| {
            let weight = self.weight(back_end, now);
            let rank = (
                score(back_end),
                -(back_end.units as f64) / weight,
                rendezvous_score(key.hash, back_end.name_hash, weight),
            );
            (rank, back_end.settings.id)
        });
        let best = ranked.max_by(|(a, _), (b, _)| {
            (a.0.total_cmp(&b.0))
                .then(a.1.total_cmp(&b.1))
                .then(a.2.total_cmp(&b.2))
        });
        best.map(|(_, id)| id)
    }

    fn draining(&self) -> Option<BackEndId> {
        let draining = |back_end: &&BackEnd| back_end.availability == Availability::Draining;
        self.back_ends
            .iter()
            .find(draining)
            .map(|back_end| back_end.settings.id)
    }

    fn keeps_units(&self, id: BackEndId) -> bool {
        self.find(id)
            .is_some_and(|back_end| match back_end.availability {
                Availability::Up => true,
                Availability::Draining => self.settings.draining_keeps_units,
                Availability::Down => false,
            })
    }

    /// How much of its weight a back end has, from a twentieth after it came back to all of it.
    fn ramp(&self, back_end: &BackEnd, now: Timestamp) -> f64 {
        let Some(since) = back_end.recovering_since else {
            return 1.0;
        };
        let ramp = self.settings.recovery_ramp.as_secs_f64();
        if ramp <= 0.0 {
            return 1.0;
        }
        (now.seconds_since(since) / ramp).clamp(0.05, 1.0)
    }

    fn weight(&self, back_end: &BackEnd, now: Timestamp) -> f64 {
        back_end.settings.weight.max(0.0) * self.ramp(back_end, now)
    }

    fn total_weight(&self, now: Timestamp) -> f64 {
        let up = self
            .back_ends
            .iter()
            .filter(|back_end| back_end.availability == Availability::Up);
        let sum: f64 = up.map(|back_end| self.weight(back_end, now)).sum();
        sum.max(f64::MIN_POSITIVE)
    }

    fn total_load(&self) -> f64 {
        self.back_ends.iter().map(BackEnd::load_per_second).sum()
    }

    fn capacity(&self, back_end: &BackEnd, total_load: f64, now: Timestamp) -> f64 {
        let ramp = self.ramp(back_end, now);
        match back_end.settings.capacity_per_second {
            Some(capacity) => capacity * ramp,
            None => 2.0 * total_load.max(1.0) * self.weight(back_end, now) / self.total_weight(now),
        }
    }

    fn assign(&mut self, unit: &mut Unit, id: BackEndId, now: Timestamp) {
        unit.assigned = Some(id);
        unit.assigned_at = now;
        if let Some(back_end) = self.find_mut(id) {
            back_end.units += 1;
        }
    }

    fn unassign(&mut self, unit: &mut Unit) {
        let accounted = std::mem::take(&mut unit.accounted_per_second);
        if let Some(back_end) = unit.assigned.take().and_then(|id| self.find_mut(id)) {
            back_end.units = back_end.units.saturating_sub(1);
            back_end.assigned_per_second = (back_end.assigned_per_second - accounted).max(0.0);
            if back_end.units == 0 {
                // Rounding must not leave a load behind.
                back_end.assigned_per_second = 0.0;
            }
        }
    }

    /// Brings the back end's sum up to date with the unit's present estimate.
    fn account(&mut self, unit: &mut Unit, now: Timestamp) {
        let expected = unit.expected(now, &self.settings);
        let before = unit.accounted_per_second;
        if let Some(back_end) = unit.assigned.and_then(|id| self.find_mut(id)) {
            back_end.assigned_per_second =
                (back_end.assigned_per_second + expected - before).max(0.0);
            unit.accounted_per_second = expected;
        }
    }

    fn find(&self, id: BackEndId) -> Option<&BackEnd> {
        self.position(id).map(|index| &self.back_ends[index])
    }

    fn find_mut(&mut self, id: BackEndId) -> Option<&mut BackEnd> {
        self.position(id).map(|index| &mut self.back_ends[index])
    }

    /// Ids that count from 0 are found at once.
    #[inline]
    fn position(&self, id: BackEndId) -> Option<usize> {
        let is_it = |back_end: &BackEnd| back_end.settings.id == id;
        let guess = usize::from(id.0);
        if self.back_ends.get(guess).is_some_and(is_it) {
            return Some(guess);
        }
        self.back_ends.iter().position(is_it)
    }
}

impl Unit {
    fn expected(&self, now: Timestamp, settings: &BalancerSettings) -> f64 {
        self.estimate.expected_per_second(now, &settings.estimator)
    }
}
