//! Micro patterns of allocate and free: the pool allocator against the C entry points of the other three, and the
//! `GlobalAlloc` types that Rust programs use.
//!
//! They explain differences; they do not rank allocators: the replay of real recordings does. Every block gets 16 bytes
//! written. Where a pattern needs it, one block of the class stays live, as it does in any interpreter; without it
//! pymalloc gives a pool back with every free. All calls go through pointers that the compiler cannot see through,
//! since LLVM removes pairs of `malloc` and `free` that it can see.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use pypool::{Allocator, GilCell, GlobalPool, LibcRaw, MappedArenas};

/// How a pattern allocates and frees.
trait Calls {
    fn allocate(&self, bytes: usize) -> *mut u8;
    fn free(&self, block: *mut u8, bytes: usize);
}

/// Plain C functions, as Python calls them: the size is not passed to `free`.
struct CCalls {
    malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
}

impl Calls for CCalls {
    #[inline(always)]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: any size may be asked for.
        unsafe { (self.malloc)(bytes) }.cast()
    }

    #[inline(always)]
    fn free(&self, block: *mut u8, _bytes: usize) {
        // SAFETY: the patterns free each block once.
        unsafe { (self.free)(block.cast()) }
    }
}

/// A Rust allocator, which is told size and alignment at both ends.
struct RustCalls(&'static dyn GlobalAlloc);

impl Calls for RustCalls {
    #[inline(always)]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the patterns ask for at least 16 bytes.
        unsafe { self.0.alloc(layout(bytes)) }
    }

    #[inline(always)]
    fn free(&self, block: *mut u8, bytes: usize) {
        // SAFETY: the patterns free each block once, with the size that it was asked for with.
        unsafe { self.0.dealloc(block, layout(bytes)) }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("sizes of the patterns are small")
}

static POOL: GilCell<Allocator> = GilCell::new(Allocator::new(LibcRaw, MappedArenas));

unsafe extern "C" fn pool_malloc(bytes: usize) -> *mut c_void {
    // SAFETY: criterion runs benchmarks on one thread.
    unsafe { POOL.get() }.allocate(bytes).cast()
}

unsafe extern "C" fn pool_free(block: *mut c_void) {
    // SAFETY: as above; the patterns free each block once.
    unsafe { POOL.get().free(block.cast()) }
}

/// Blocks that are live between two runs of a pattern, and the order in which churn replaces them.
struct Blocks {
    live: Vec<(*mut u8, usize)>,
    /// (index of the live block, size of its successor).
    replacements: Vec<(usize, usize)>,
    next: usize,
}

/// One pattern; `run` makes `pairs` calls of each kind.
struct Pattern<C> {
    name: &'static str,
    live: usize,
    pairs: usize,
    run: fn(&C, &mut Blocks, usize),
}

fn patterns<C: Calls>() -> [Pattern<C>; 5] {
    [
        Pattern { name: "lifo-pair-48", live: 1, pairs: 1_000, run: lifo_pair },
        Pattern { name: "stack-of-16-48", live: 1, pairs: 1_600, run: stack_of_16 },
        Pattern { name: "fifo-batch-1000-48", live: 1, pairs: 1_000, run: fifo_batch },
        Pattern { name: "churn-100k-16-512", live: 100_000, pairs: 1_000, run: churn },
        Pattern { name: "grow-100k-64", live: 0, pairs: 100_000, run: grow },
    ]
}

#[inline(always)]
fn allocate_touched(calls: &impl Calls, bytes: usize) -> *mut u8 {
    let block = calls.allocate(bytes);
    // SAFETY: the block is at least 16 bytes long and aligned to 8 at least.
    unsafe { block.cast::<[u64; 2]>().write_volatile([1, 2]) };
    block
}

fn lifo_pair<C: Calls>(calls: &C, _: &mut Blocks, pairs: usize) {
    for _ in 0..pairs {
        let block = allocate_touched(calls, 48);
        calls.free(block, 48);
    }
}

fn stack_of_16<C: Calls>(calls: &C, _: &mut Blocks, pairs: usize) {
    for _ in 0..pairs / 16 {
        let stack: [*mut u8; 16] = std::array::from_fn(|_| allocate_touched(calls, 48));
        stack.iter().rev().for_each(|&block| calls.free(block, 48));
    }
}

fn fifo_batch<C: Calls>(calls: &C, blocks: &mut Blocks, pairs: usize) {
    queue(calls, blocks, pairs, 48);
}

fn grow<C: Calls>(calls: &C, blocks: &mut Blocks, pairs: usize) {
    queue(calls, blocks, pairs, 64);
}

/// Allocates all, then frees all, oldest first. Blocks that were live before stay.
fn queue(calls: &impl Calls, blocks: &mut Blocks, pairs: usize, bytes: usize) {
    let before = blocks.live.len();
    blocks.live.extend((0..pairs).map(|_| (allocate_touched(calls, bytes), bytes)));
    blocks.live.drain(before..).for_each(|(block, bytes)| calls.free(block, bytes));
}

/// Replaces random blocks of a large live set by blocks of other sizes.
fn churn<C: Calls>(calls: &C, blocks: &mut Blocks, pairs: usize) {
    for _ in 0..pairs {
        let (index, bytes) = blocks.replacements[blocks.next];
        blocks.next = (blocks.next + 1) % blocks.replacements.len();
        let (old, old_bytes) = blocks.live[index];
        calls.free(old, old_bytes);
        blocks.live[index] = (allocate_touched(calls, bytes), bytes);
    }
}

impl Blocks {
    /// `live` blocks and room for `pairs` more. A single one is of the class that the patterns of 48 bytes use; sizes
    /// and replacements of many come from a fixed seed, the same for every allocator.
    fn new(calls: &impl Calls, live: usize, pairs: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % limit as u64) as usize
        };
        let mut blocks = Vec::with_capacity(live + pairs);
        let mut replacements = Vec::new();
        if live == 1 {
            blocks.push((allocate_touched(calls, 48), 48));
        } else if live > 1 {
            blocks.extend((0..live).map(|_| 16 + below(497)).map(|bytes| (allocate_touched(calls, bytes), bytes)));
            replacements.extend((0..1 << 20).map(|_| (below(live), 16 + below(497))));
        }
        Self { live: blocks, replacements, next: 0 }
    }
}

fn compare<C: Calls>(criterion: &mut Criterion, group: &str, contestants: &[(&str, C)]) {
    for Pattern { name, live, pairs, run } in patterns::<C>() {
        let mut group = criterion.benchmark_group(format!("{group}/{name}"));
        group.throughput(Throughput::Elements(pairs as u64)).sampling_mode(SamplingMode::Flat);
        for (key, calls) in contestants {
            group.bench_function(BenchmarkId::from_parameter(key), |bencher| {
                let calls = black_box(calls);
                let mut blocks = Blocks::new(calls, live, pairs);
                bencher.iter(|| run(calls, &mut blocks, pairs));
                blocks.live.drain(..).for_each(|(block, bytes)| calls.free(block, bytes));
            });
        }
        group.finish();
    }
}

fn pool(criterion: &mut Criterion) {
    let contestants = [
        ("pool", CCalls { malloc: pool_malloc, free: pool_free }),
        ("system", CCalls { malloc: libc::malloc, free: libc::free }),
        ("mimalloc", CCalls { malloc: libmimalloc_sys::mi_malloc, free: libmimalloc_sys::mi_free }),
        ("jemalloc", CCalls { malloc: tikv_jemalloc_sys::malloc, free: tikv_jemalloc_sys::free }),
    ];
    compare(criterion, "pool", &contestants);
}

fn global_alloc(criterion: &mut Criterion) {
    let contestants = [
        // Takes a lock per call, as its users have to; the pool above takes none.
        ("pool", RustCalls(&GlobalPool)),
        ("system", RustCalls(&System)),
        ("mimalloc", RustCalls(&mimalloc::MiMalloc)),
        ("jemalloc", RustCalls(&tikv_jemallocator::Jemalloc)),
    ];
    compare(criterion, "global_alloc", &contestants);
}

/// Runs every pattern that criterion's filter lets through.
pub(crate) fn run() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    pool(&mut criterion);
    global_alloc(&mut criterion);
    criterion.final_summary();
}
