//! What an allocator's pools hold, noted down while a trace is replayed.
//!
//! Invariant: the lists are made before the seal and filled within their room, so that a reading allocates nothing;
//! when the room is used up, the readings become fewer, and if that does not help they stop and the log says so.

use crate::backend::{Arena, PoolReader};
use crate::run::{ArenaMap, ArenaRow, PoolStatistics, Pools};

/// Room for so many mapped arenas over all readings; 4 MiB.
const ARENAS_MAX: usize = 1 << 18;
/// Room for so many readings.
const READINGS_MAX: usize = 1_024;
/// Fewest readings that make a map; a larger map keeps no fewer.
const READINGS_LEAST: usize = 16;
/// A map with more changes than this gets fewer readings: about 128 KiB of text.
const CHANGES_MAX: usize = 16_384;

/// The readings so far.
pub(super) struct ArenaLog {
    reader: PoolReader,
    /// Ops between two evenly spaced readings, and the op of the next.
    every: u64,
    next: u64,
    readings: Vec<Reading>,
    arenas: Vec<Arena>,
    stopped_at: Option<u64>,
    at_peak: PoolStatistics,
    at_drained: PoolStatistics,
    at_end: PoolStatistics,
    drained: bool,
}

/// One reading: its arenas follow each other in the list.
#[derive(Clone, Copy, Default)]
struct Reading {
    op: u64,
    first: usize,
    arenas: usize,
    /// Taken at a mark, and never given up.
    marked: bool,
}

impl ArenaLog {
    /// Makes the lists, for a trace with this many ops between two readings.
    pub(super) fn new(reader: PoolReader, every: u64) -> Self {
        Self::with_room(reader, every, READINGS_MAX, ARENAS_MAX)
    }

    fn with_room(reader: PoolReader, every: u64, readings: usize, arenas: usize) -> Self {
        // Filled once, so that no page of a list is missing when something is put into it.
        let mut readings = vec![Reading::default(); readings];
        let mut arenas = vec![Arena::default(); arenas];
        readings.clear();
        arenas.clear();
        let statistics =
            || PoolStatistics { classes: Vec::with_capacity(PoolReader::CLASSES_MAX), ..PoolStatistics::default() };
        Self {
            reader,
            every,
            next: 0,
            readings,
            arenas,
            stopped_at: None,
            at_peak: statistics(),
            at_drained: statistics(),
            at_end: statistics(),
            drained: false,
        }
    }

    /// The op with this index comes next: reads the map if that is due.
    pub(super) fn reach(&mut self, op: u64) {
        if op >= self.next {
            self.next = op + self.every;
            self.read(op, false);
        }
    }

    /// A new resident peak.
    pub(super) fn peak(&mut self) {
        (self.reader.statistics)(&mut self.at_peak);
    }

    /// A mark before which nothing more happens to the arenas.
    pub(super) fn mark(&mut self, op: u64) {
        self.read(op, true);
    }

    /// The program's work is dropped.
    pub(super) fn drained(&mut self) {
        self.drained = true;
        (self.reader.statistics)(&mut self.at_drained);
    }

    /// The end, live set still live.
    pub(super) fn end(&mut self) {
        (self.reader.statistics)(&mut self.at_end);
    }

    fn read(&mut self, op: u64, marked: bool) {
        if let Some(last) = self.readings.last_mut().filter(|last| last.op == op) {
            last.marked |= marked;
            return;
        }
        while self.stopped_at.is_none() {
            let first = self.arenas.len();
            let mut fits = self.readings.len() < self.readings.capacity();
            (self.reader.arenas)(&mut |arena| {
                fits &= self.arenas.len() < self.arenas.capacity();
                if fits {
                    self.arenas.push(arena);
                }
            });
            if fits {
                let arenas = self.arenas.len() - first;
                self.readings.push(Reading { op, first, arenas, marked });
                return;
            }
            self.arenas.truncate(first);
            if !self.thin_out() {
                self.stopped_at = Some(op);
            }
        }
    }

    /// Gives up every second reading that is not at a mark; `false` when that would leave too few.
    fn thin_out(&mut self) -> bool {
        let unmarked = self.readings.iter().filter(|reading| !reading.marked).count();
        if unmarked / 2 < READINGS_LEAST {
            return false;
        }
        let (mut kept, mut end, mut seen) = (0, 0, 0);
        for at in 0..self.readings.len() {
            let reading = self.readings[at];
            seen += usize::from(!reading.marked);
            if reading.marked || seen % 2 == 1 {
                self.arenas.copy_within(reading.first..reading.first + reading.arenas, end);
                self.readings[kept] = Reading { first: end, ..reading };
                kept += 1;
                end += reading.arenas;
            }
        }
        self.readings.truncate(kept);
        self.arenas.truncate(end);
        self.every *= 2;
        true
    }

    /// What goes into an observation, after the replay.
    pub(super) fn into_pools(mut self) -> Pools {
        let mut arenas = self.rows();
        while arenas.iter().map(|row| row.in_use.len()).sum::<usize>() > CHANGES_MAX && self.thin_out() {
            arenas = self.rows();
        }
        let ops = self.readings.iter().map(|reading| reading.op).collect();
        Pools {
            map: ArenaMap { ops, arenas, stopped_at: self.stopped_at },
            at_peak: self.at_peak,
            at_drained: self.drained.then_some(self.at_drained),
            at_end: self.at_end,
        }
    }

    /// The readings by arena, in address order.
    fn rows(&self) -> Vec<ArenaRow> {
        let mut seen: Vec<(usize, u32)> = self.arenas.iter().map(|arena| (arena.address, arena.pools)).collect();
        seen.sort_unstable();
        seen.dedup_by_key(|(address, _)| *address);
        let mut rows: Vec<ArenaRow> =
            seen.iter().map(|(_, pools)| ArenaRow { pools: *pools, in_use: vec![] }).collect();
        let mut now = vec![None; rows.len()];
        for reading in &self.readings {
            now.fill(None);
            for arena in &self.arenas[reading.first..reading.first + reading.arenas] {
                if let Ok(row) = seen.binary_search_by_key(&arena.address, |(address, _)| *address) {
                    now[row] = Some(arena.pools_in_use);
                }
            }
            for (row, now) in rows.iter_mut().zip(&now) {
                match row.in_use.last_mut() {
                    Some((readings, last)) if last == now => *readings += 1,
                    _ => row.in_use.push((1, *now)),
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{memory, sys};
    use crate::replay::{Heap, Pass};
    use std::cell::RefCell;
    use trace::Domain;
    use trace::image::{Op, OpKind};

    /// A pass that does nothing but replay.
    struct Plain;

    impl Pass for Plain {}

    thread_local! {
        /// What the invented allocator has mapped: address and pools in use.
        static MAPPED: RefCell<Vec<(usize, u32)>> = const { RefCell::new(Vec::new()) };
    }

    const INVENTED: PoolReader = PoolReader {
        arenas: |each| {
            let arena = |(address, pools_in_use): &(usize, u32)| Arena {
                address: *address,
                pools: 64,
                pools_in_use: *pools_in_use,
            };
            MAPPED.with_borrow(|mapped| mapped.iter().for_each(|one| each(arena(one))));
        },
        statistics: |into| into.arenas_mapped = MAPPED.with_borrow(Vec::len) as u64,
    };

    fn map(arenas: &[(usize, u32)]) {
        MAPPED.set(arenas.to_vec());
    }

    fn rows(map: &ArenaMap) -> Vec<Vec<Option<u32>>> {
        map.arenas.iter().map(|row| row.at_each_reading().collect()).collect()
    }

    #[test]
    fn arenas_are_numbered_by_address_over_the_whole_trace() {
        let mut log = ArenaLog::new(INVENTED, 10);
        map(&[(0x5000, 1)]);
        log.reach(0);
        map(&[(0x5000, 3), (0x1000, 2)]);
        log.peak();
        log.reach(5); // not due yet
        log.reach(10);
        log.mark(10); // the same moment
        map(&[(0x9000, 64), (0x1000, 2)]);
        log.drained();
        log.mark(17);
        log.end();
        let pools = log.into_pools();
        assert_eq!(pools.map.ops, [0, 10, 17]);
        let expected = [[None, Some(2), Some(2)], [Some(1), Some(3), None], [None, None, Some(64)]];
        assert_eq!(rows(&pools.map), expected);
        assert_eq!(pools.map.arenas[0].in_use, [(1, None), (2, Some(2))]);
        assert_eq!(pools.map.stopped_at, None);
        assert_eq!(pools.at_peak.arenas_mapped, 2);
        assert_eq!((pools.at_drained.map(|at| at.arenas_mapped), pools.at_end.arenas_mapped), (Some(2), 2));
    }

    #[test]
    fn a_full_log_gives_up_readings_between_marks_and_in_the_end_says_so() {
        let mut log = ArenaLog::with_room(INVENTED, 1, 1_000, 400);
        map(&[(1, 1), (2, 2), (3, 3)]);
        for op in 0..300 {
            log.reach(op);
            if op == 101 {
                log.mark(op);
            }
        }
        let kept: Vec<u64> = log.readings.iter().map(|reading| reading.op).collect();
        assert!(kept.len() > READINGS_LEAST && kept.contains(&101) && kept.is_sorted(), "{kept:?}");
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= log.every && pair[1] > pair[0]), "{kept:?}");
        assert!(*kept.last().expect("a reading") + log.every >= 299, "{kept:?}");
        map(&(0..250).map(|i| (i, 1)).collect::<Vec<_>>());
        log.mark(300);
        log.mark(301);
        map(&[]);
        log.mark(302);
        let map = log.into_pools().map;
        assert!(map.ops.contains(&300) && !map.ops.contains(&302), "{:?}", map.ops);
        assert_eq!(map.stopped_at, Some(301));
        assert!(map.arenas.iter().all(|row| row.at_each_reading().count() == map.ops.len()));
    }

    #[test]
    fn a_map_of_many_changes_keeps_fewer_readings() {
        let mut log = ArenaLog::new(INVENTED, 1);
        for op in 0..256 {
            map(&(0..500).map(|i| (i, (i as u32 + op as u32) % 64)).collect::<Vec<_>>());
            log.reach(op);
        }
        let map = log.into_pools().map;
        assert!((READINGS_LEAST..64).contains(&map.ops.len()), "{}", map.ops.len());
        assert!(map.arenas.iter().map(|row| row.in_use.len()).sum::<usize>() <= CHANGES_MAX);
        let text = serde_json::to_string(&map).expect("text");
        assert!(text.len() < 192 << 10, "{}", text.len());
        for (row, arena) in map.arenas.iter().enumerate() {
            let expected = map.ops.iter().map(|op| Some((row as u32 + *op as u32) % 64));
            assert!(arena.at_each_reading().eq(expected), "row {row}");
        }
    }

    #[test]
    fn reading_the_pool_adds_no_anonymous_memory() {
        sys::in_a_child(|| {
            let (pool, _) = crate::backend::find("pool").expect("in the table");
            let ready = (pool.prepare)(&crate::backend::Need::default()).expect("it needs nothing");
            let reader = ready.pools.expect("a pool can tell");
            let mut heap = Heap::new([ready.entry; 6], 200_000).expect("a slot table");
            let ops: Vec<u64> =
                (0..200_000).map(|slot| Op::new(OpKind::Alloc, Domain::Obj, slot, 16 + slot % 400).0).collect();
            assert!(crate::replay::replay(&ops, 0, &mut heap, &mut Plain));
            let mut log = ArenaLog::new(reader, 1);
            let memory = memory::Reader::open().expect("a kernel with smaps_rollup");
            let read = |log: &mut ArenaLog, ops: std::ops::Range<u64>| {
                ops.for_each(|op| {
                    log.reach(op);
                    log.peak();
                    log.end();
                })
            };
            read(&mut log, 0..1); // what a first call maps is there now
            let before = memory.read().expect("a reading").anonymous_bytes;
            read(&mut log, 1..500);
            let after = memory.read().expect("a reading").anonymous_bytes;
            assert!(after <= before + 2 * sys::page_bytes(), "{before} to {after}");
            let pools = log.into_pools();
            assert!(pools.at_end.arenas_mapped > 30 && pools.map.arenas.len() as u64 == pools.at_end.arenas_mapped);
            let parts: u64 = pools.at_end.budget().iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(parts, pools.at_end.mapped_bytes());
        });
    }
}
