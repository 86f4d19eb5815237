//! Network-wide numbers for the flows that switches find.
//!
//! Millions of flows are numbered between two rounds of FlowDecode: on one thread, with a table much
//! larger than any cache, that would take as long as all the look-ups do on a few. So keys are spread
//! over shards by their hash. Each shard numbers its own on one thread, in a table that fits the cache,
//! in the order of the switches and of what each found: what comes out does not depend on the threads.

use core::hash::BuildHasher;
use core::ops::Range;

use flowradar_core::FlowKey;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use rayon::prelude::*;

use super::InCell;

/// Shards that keys are spread over.
const SHARDS: usize = 64;

/// The number of what is no flow: what errors added up to.
pub(super) const NO_FLOW: u32 = u32::MAX;

/// Numbers of flows: those of a later round are higher.
#[derive(Debug)]
pub(super) struct Registry<K> {
    /// The flows, by number.
    pub(super) keys: Vec<K>,
    shards: Vec<Shard<K>>,
    /// Seeded at random: flows are made by whoever sends packets.
    hasher: DefaultHashBuilder,
}

/// The flows with one hash modulo [`SHARDS`].
#[derive(Debug)]
struct Shard<K> {
    /// Flows and their places in the shard, in the order in which they were found.
    places: HashTable<(K, u32)>,
    /// Flows in the shard.
    count: u32,
    /// Flows found since the last round.
    new: Vec<K>,
    /// Of each round, the place of its first flow in the shard, and that flow's number.
    rounds: Vec<(u32, u32)>,
    /// How many times a switch put a key into its table that was never taken out of it, nor exists.
    ghosts: HashMap<(usize, K), u32>,
}

/// What a switch found, by shard.
struct Spread<K> {
    /// Indices of what was found, shard after shard.
    order: Vec<u32>,
    /// The keys in the same order, and whether each was in the table: here a shard reads them one after
    /// the other, and not from all over what was found.
    keys: Vec<(K, bool)>,
    /// Where in `order` each shard begins, and the last ends.
    starts: [u32; SHARDS + 1],
}

impl<K> Default for Registry<K> {
    fn default() -> Self {
        let shard = |_| Shard {
            places: HashTable::new(),
            count: 0,
            new: Vec::new(),
            rounds: Vec::new(),
            ghosts: HashMap::new(),
        };
        Self {
            keys: Vec::new(),
            shards: (0..SHARDS).map(shard).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl<K: FlowKey> Registry<K> {
    /// The numbers of what the switches found in a round, new ones if need be; [`NO_FLOW`] for what is
    /// no flow.
    pub(super) fn number(&mut self, found: &[Vec<InCell<K>>]) -> Vec<Vec<u32>> {
        let hasher = &self.hasher;
        let spread: Vec<Spread<K>> = found
            .par_iter()
            .map(|found| Spread::new(hasher, found))
            .collect();
        // Of each shard, the places there, switch after switch.
        let places: Vec<Vec<u32>> = self
            .shards
            .par_iter_mut()
            .enumerate()
            .map(|(number, shard)| {
                let mut places = Vec::new();
                for (switch, spread) in spread.iter().enumerate() {
                    let own = spread.keys[spread.of_shard(number)].iter();
                    let place = |&(key, present)| shard.place(hasher, switch, key, present);
                    places.extend(own.map(place));
                }
                places
            })
            .collect();
        for shard in &mut self.shards {
            let first =
                u32::try_from(self.keys.len()).expect("fewer flows than cells, and those fit");
            shard
                .rounds
                .push((shard.count - shard.new.len() as u32, first));
            self.keys.append(&mut shard.new);
        }
        // Where in each shard's places those of each switch begin.
        let mut next = [0; SHARDS];
        let starts: Vec<[usize; SHARDS]> = spread
            .iter()
            .map(|spread| {
                let starts = next;
                for (shard, next) in next.iter_mut().enumerate() {
                    *next += spread.of_shard(shard).len();
                }
                starts
            })
            .collect();
        spread
            .into_par_iter()
            .zip(&starts)
            .map(|(spread, starts)| {
                let mut numbers = vec![NO_FLOW; spread.order.len()];
                for (number, shard) in self.shards.iter().enumerate() {
                    let own = spread.order[spread.of_shard(number)].iter();
                    for (&index, &place) in own.zip(&places[number][starts[number]..]) {
                        numbers[index as usize] = shard.number(place);
                    }
                }
                numbers
            })
            .collect()
    }
}

impl<K: FlowKey> Shard<K> {
    /// The place of what a switch found, a new one if need be.
    fn place(&mut self, hasher: &DefaultHashBuilder, switch: usize, key: K, present: bool) -> u32 {
        if present
            && !self.ghosts.is_empty()
            && let Some(times) = self.ghosts.get_mut(&(switch, key))
            && *times > 0
        {
            // What errors added up to was taken out before, and is now put back.
            *times -= 1;
            return NO_FLOW;
        }
        let hash = |key: &K| hasher.hash_one(key);
        let is_it = |(other, _): &(K, u32)| *other == key;
        match self.places.entry(hash(&key), is_it, |(key, _)| hash(key)) {
            Entry::Occupied(entry) => entry.get().1,
            Entry::Vacant(entry) if present => {
                let place = self.count;
                entry.insert((key, place));
                self.new.push(key);
                self.count += 1;
                place
            }
            Entry::Vacant(_) => {
                // Never subtracted, so not a flow but what errors add up to.
                *self.ghosts.entry((switch, key)).or_default() += 1;
                NO_FLOW
            }
        }
    }

    /// The network-wide number of the flow at a place.
    fn number(&self, place: u32) -> u32 {
        if place == NO_FLOW {
            return NO_FLOW;
        }
        let round = self.rounds.iter().rfind(|(first, _)| *first <= place);
        let (first, number) = round.expect("places begin at zero in the first round");
        number + (place - first)
    }
}

impl<K: FlowKey> Spread<K> {
    fn new(hasher: &DefaultHashBuilder, found: &[InCell<K>]) -> Self {
        // The tables use the lowest and the highest bits.
        let shard = |found: &InCell<K>| (hasher.hash_one(found.key) >> 40) as u8 % SHARDS as u8;
        let shards: Vec<u8> = found.iter().map(shard).collect();
        let mut starts = [0; SHARDS + 1];
        for &shard in &shards {
            starts[shard as usize + 1] += 1;
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut next = starts;
        let mut order = vec![0; found.len()];
        // Any key will do where others will be.
        let mut keys: Vec<_> = found
            .iter()
            .map(|found| (found.key, found.present))
            .collect();
        for ((index, &shard), found) in (0..).zip(&shards).zip(found) {
            let next = &mut next[shard as usize];
            order[*next as usize] = index;
            keys[*next as usize] = (found.key, found.present);
            *next += 1;
        }
        Self {
            order,
            keys,
            starts,
        }
    }

    fn of_shard(&self, shard: usize) -> Range<usize> {
        self.starts[shard] as usize..self.starts[shard + 1] as usize
    }
}
