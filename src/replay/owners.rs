//! Who owns the bytes: live blocks by domain and size, and what each allocator holds, at a few moments.
//!
//! Invariant: a reading allocates nothing; what it fills was made before the seal.

use super::{Account, Holder, Statistics};
use crate::run::{Held, MemoryPoint, Moment, Owned, Owners, SMALL_BYTES_MAX};
use trace::Domain;

/// Rows of live blocks: two per domain bits, small ones first.
const ROWS: usize = 16;

/// Sums over live blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    blocks: u64,
    requested: u64,
    usable: u64,
    touched: u64,
}

/// What was read at one moment.
struct Reading {
    moment: Moment,
    /// Whether it was read at all, and all memory then.
    memory: Option<MemoryPoint>,
    live: [Live; ROWS],
    /// As [`OwnerLog::statistics`].
    held: Vec<Held>,
}

/// Counts live blocks, and keeps what was read.
pub(crate) struct OwnerLog {
    statistics: &'static Statistics,
    /// Key of the allocator of each row's blocks.
    served_by: [String; ROWS],
    live: [Live; ROWS],
    /// Whether a row ever had a block.
    ever: [bool; ROWS],
    readings: [Reading; 4],
}

impl OwnerLog {
    /// `served_by` says for a domain and whether its blocks are small whose memory they are in.
    pub(crate) fn new(allocators: Vec<Holder>, served_by: impl Fn(Domain, bool) -> String) -> Self {
        let row = |at: usize| {
            let domain = Domain::from_bits(at as u8 / 2);
            domain.map_or_else(String::new, |domain| served_by(domain, at.is_multiple_of(2)))
        };
        let reading = |moment| Reading {
            moment,
            memory: None,
            live: [Live::default(); ROWS],
            held: vec![Held::default(); allocators.len()],
        };
        let readings = [Moment::Peak, Moment::Drained, Moment::End, Moment::Rest].map(reading);
        Self {
            served_by: std::array::from_fn(row),
            statistics: Statistics::new(allocators),
            live: [Live::default(); ROWS],
            ever: [false; ROWS],
            readings,
        }
    }

    fn row(&mut self, block: &Account) -> &mut Live {
        let large = block.requested as u64 > SMALL_BYTES_MAX;
        let row = (block.domain_bits & 7) * 2 + usize::from(large);
        self.ever[row] = true;
        &mut self.live[row]
    }

    pub(crate) fn gained(&mut self, block: &Account) {
        let row = self.row(block);
        row.blocks += 1;
        row.requested += block.requested as u64;
        row.usable += block.usable as u64;
        row.touched += block.touched as u64;
    }

    pub(crate) fn lost(&mut self, block: &Account) {
        let row = self.row(block);
        row.blocks -= 1;
        row.requested -= block.requested as u64;
        row.usable -= block.usable as u64;
        row.touched -= block.touched as u64;
    }

    /// Notes who owns what now; a later reading of the same moment takes its place.
    pub(crate) fn read(&mut self, moment: Moment, memory: MemoryPoint) {
        let Some(reading) = self.readings.iter_mut().find(|reading| reading.moment == moment) else { return };
        reading.memory = Some(memory);
        reading.live = self.live;
        self.statistics.read_into(&mut reading.held);
    }

    /// The allocators' statistics, which one thread reads.
    pub(crate) fn statistics(&self) -> &'static Statistics {
        self.statistics
    }

    /// What was read, for an observation.
    pub(crate) fn owners(&self) -> Vec<Owners> {
        let Self { statistics, served_by, ever, readings, .. } = self;
        let owned = |live: [Live; ROWS]| {
            let rows = live.into_iter().zip(served_by).enumerate().filter(|(at, _)| ever[*at]);
            let row = rows.filter_map(|(at, (live, allocator))| {
                Some(Owned {
                    domain: Domain::from_bits(at as u8 / 2)?.name().to_owned(),
                    small: at % 2 == 0,
                    allocator: allocator.clone(),
                    blocks: live.blocks,
                    requested_bytes: live.requested,
                    usable_bytes: live.usable,
                    touched_bytes: live.touched,
                })
            });
            row.collect()
        };
        let owners = readings.iter().filter_map(|reading| {
            let held = statistics.keys().map(str::to_owned).zip(reading.held.clone()).collect();
            Some(Owners { moment: reading.moment, memory: reading.memory?, owned: owned(reading.live), held })
        });
        owners.collect()
    }
}
