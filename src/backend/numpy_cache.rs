//! NumPy's cache of small blocks before another allocator: `cached:system`, `cached:library:/abs/path.so`.
//!
//! NumPy's own data-memory handler keeps freed blocks of less than 1,024 bytes by their exact size, seven of each, and
//! hands out the last one first; zeroed ones too, which it then clears. Resized blocks pass it by. A recording that was
//! made under another handler has every request in it, and this puts back what NumPy would have served by itself.
//!
//! Invariant: a block of `n` bytes is handed out for a request of `n` bytes and for no other; what is not in the cache
//! is the other allocator's, called as if it were alone.

use super::{Backend, Need, Ready, Role};
use crate::heap::{Entry, SizedCalls};
use crate::probe::sys::Mapping;
use libc::c_void;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// Key of the backend that takes another one's key.
pub const CACHED_KEY: &str = "cached";

/// `cached`.
pub(super) const BACKEND: Backend =
    Backend { key: CACHED_KEY, label: "NumPy's cache", role: Role::ByArgument, prepare };

/// Blocks below this size are kept, bytes.
const BYTES_END: usize = 1024;
/// Blocks of one size that are kept at most.
const DEPTH: usize = 7;
/// Largest alignment that [`check`](crate::heap::check) may ask for. NumPy asks for none.
const ALIGNMENT_BYTES_MAX: usize = 4096;

/// Kept blocks of one size: the whole of a cache line, as in NumPy.
#[repr(C)]
struct Bucket {
    kept: usize,
    blocks: [*mut c_void; DEPTH],
}

/// The cache, and what stands behind it.
struct Cache {
    buckets: [Bucket; BYTES_END],
    inner: Entry,
}

/// The one of this process, in shared memory: what the harness keeps is not in the heap that it measures. Null before
/// [`prepare`].
static CACHE: AtomicPtr<Cache> = AtomicPtr::new(null_mut());
/// Key of what stands behind it.
static INNER: OnceLock<String> = OnceLock::new();

fn prepare(need: &Need) -> Result<Ready, String> {
    let (backend, argument) =
        super::find(&need.argument).filter(|(backend, _)| backend.key != CACHED_KEY).ok_or_else(|| {
            format!("{:?} is no allocator behind NumPy's cache; give one such as cached:system", need.argument)
        })?;
    let ready = (backend.prepare)(&Need { block_bytes_max: need.block_bytes_max, argument: argument.to_owned() })?;
    if ready.entry.sized.is_some() {
        return Err(format!("{} is told sizes and cannot stand behind NumPy's cache; give another", need.argument));
    }
    let inner = INNER.get_or_init(|| need.argument.clone());
    if *inner != need.argument {
        return Err(format!("NumPy's cache stands before {inner} in this process; give that one"));
    }
    if CACHE.load(Relaxed).is_null() {
        let failed = |error| format!("NumPy's cache cannot be mapped ({error}); free some memory");
        let memory = Mapping::shared(size_of::<Cache>()).map_err(failed)?;
        memory.make_present(size_of::<Cache>());
        let cache: *mut Cache = memory.base().as_ptr().cast();
        // SAFETY: fresh memory of that size, zero, which is what empty buckets are; pages are aligned enough, and a
        // mapping stays for good.
        unsafe { (&raw mut (*cache).inner).write(ready.entry) };
        CACHE.store(cache, Relaxed);
    }
    let sized = SizedCalls { realloc, free, alignment_bytes_max: ALIGNMENT_BYTES_MAX };
    let entry = Entry {
        malloc,
        calloc,
        realloc: realloc_without_size,
        free: free_without_size,
        aligned,
        usable_size,
        sized: Some(sized),
    };
    // NumPy's cache has no lock: the interpreter's is held.
    Ok(Ready { entry, others: &[], pools: None, one_thread_at_a_time: true, ..ready })
}

impl Cache {
    /// A kept block of this size, or null.
    fn take(&mut self, bytes: usize) -> *mut c_void {
        match self.buckets.get_mut(bytes) {
            Some(bucket) if bucket.kept > 0 => {
                bucket.kept -= 1;
                bucket.blocks[bucket.kept]
            }
            _ => null_mut(),
        }
    }

    /// Keeps a block, if there is room for one of its size.
    fn keep(&mut self, block: *mut c_void, bytes: usize) -> bool {
        match self.buckets.get_mut(bytes) {
            Some(bucket) if bucket.kept < DEPTH && !block.is_null() => {
                bucket.blocks[bucket.kept] = block;
                bucket.kept += 1;
                true
            }
            _ => false,
        }
    }

    fn malloc(&mut self, bytes: usize) -> *mut c_void {
        let kept = self.take(bytes);
        // SAFETY: no precondition.
        if kept.is_null() { unsafe { (self.inner.malloc)(bytes) } } else { kept }
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut c_void {
        let bytes = count.wrapping_mul(size); // as NumPy computes it, which has checked before
        if bytes >= BYTES_END {
            // SAFETY: no precondition.
            return unsafe { (self.inner.calloc)(count, size) };
        }
        let block = self.malloc(bytes);
        if !block.is_null() {
            // SAFETY: a live block of at least that many bytes.
            unsafe { block.cast::<u8>().write_bytes(0, bytes) };
        }
        block
    }

    /// # Safety
    /// The block is live, of this cache and of that size.
    unsafe fn free(&mut self, block: *mut c_void, bytes: usize) {
        if !self.keep(block, bytes) {
            // SAFETY: the caller's promise: a block of the allocator behind.
            unsafe { (self.inner.free)(block) };
        }
    }
}

/// The cache of this process.
///
/// # Safety
/// [`prepare`] has run, and no other thread is in here: see [`Ready::one_thread_at_a_time`].
#[inline(always)]
unsafe fn cache<'a>() -> &'a mut Cache {
    // SAFETY: the caller's promise; the memory is never unmapped.
    unsafe { &mut *CACHE.load(Relaxed) }
}

unsafe extern "C" fn malloc(bytes: usize) -> *mut c_void {
    // SAFETY: entry points are had from `prepare` alone.
    unsafe { cache() }.malloc(bytes)
}

unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { cache() }.calloc(count, size)
}

unsafe extern "C" fn realloc(block: *mut c_void, _old: usize, bytes: usize) -> *mut c_void {
    // SAFETY: as above; the caller's promise of a live block.
    unsafe { (cache().inner.realloc)(block, bytes) }
}

unsafe extern "C" fn free(block: *mut c_void, bytes: usize) {
    // SAFETY: as above; the caller's promise of a live block of that size.
    unsafe { cache().free(block, bytes) }
}

unsafe extern "C" fn aligned(alignment: usize, bytes: usize) -> *mut c_void {
    // SAFETY: as above; the alignment is a power of two.
    unsafe { (cache().inner.aligned)(alignment, bytes) }
}

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: as above; the caller's promise of a live block.
    unsafe { (cache().inner.usable_size)(block) }
}

/// Never called: see [`Entry::sized`]. A wrong size would hand a block out for more than it has; this ends the worker.
unsafe extern "C" fn free_without_size(_: *mut c_void) {
    std::process::abort()
}

/// As [`free_without_size`].
unsafe extern "C" fn realloc_without_size(_: *mut c_void, _: usize) -> *mut c_void {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        /// What the allocator behind was asked for: `(kind, bytes)`, and a block's number for a free.
        static ASKED: RefCell<Vec<(char, usize)>> = const { RefCell::new(Vec::new()) };
        static NEXT: RefCell<usize> = const { RefCell::new(0) };
    }

    /// Memory for every block that a test takes.
    const ROOM: usize = 2048;

    fn fresh(kind: char, bytes: usize) -> *mut c_void {
        ASKED.with_borrow_mut(|asked| asked.push((kind, bytes)));
        NEXT.with_borrow_mut(|next| *next += 1);
        Box::leak(vec![0xAA_u8; ROOM].into_boxed_slice()).as_mut_ptr().cast()
    }

    unsafe extern "C" fn inner_malloc(bytes: usize) -> *mut c_void {
        fresh('m', bytes)
    }

    unsafe extern "C" fn inner_calloc(count: usize, size: usize) -> *mut c_void {
        fresh('c', count * size)
    }

    unsafe extern "C" fn inner_free(block: *mut c_void) {
        ASKED.with_borrow_mut(|asked| asked.push(('f', block as usize)));
    }

    fn cache_of_test() -> Box<Cache> {
        let entry =
            Entry { malloc: inner_malloc, calloc: inner_calloc, free: inner_free, ..super::super::system::ENTRY };
        let bucket = || Bucket { kept: 0, blocks: [null_mut(); DEPTH] };
        Box::new(Cache { buckets: std::array::from_fn(|_| bucket()), inner: entry })
    }

    /// One request of a test: a size and whether it is zeroed, or which of the live blocks goes.
    #[derive(Clone, Debug)]
    enum Step {
        Take(usize, bool),
        Give(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sizes = prop_oneof![0_usize..4, 1020_usize..1030, Just(64), 0_usize..1500];
        prop_oneof![
            (sizes, any::<bool>()).prop_map(|(bytes, zeroed)| Step::Take(bytes, zeroed)),
            any::<usize>().prop_map(Step::Give),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// The naive statement: a list of addresses for each size, cut at seven.
        #[test]
        fn it_serves_what_a_list_for_each_size_would(steps in prop::collection::vec(step(), 1..400)) {
            ASKED.with_borrow_mut(Vec::clear);
            let mut cache = cache_of_test();
            let mut lists: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            let mut live: Vec<(usize, usize)> = Vec::new();
            let mut expected = Vec::new();
            for step in steps {
                match step {
                    Step::Take(bytes, zeroed) => {
                        let kept = (bytes <= 1023).then(|| lists.get_mut(&bytes)?.pop()).flatten();
                        let block = if zeroed { cache.calloc(bytes, 1) } else { cache.malloc(bytes) };
                        match kept {
                            Some(kept) => prop_assert_eq!(block as usize, kept),
                            None => expected.push((if zeroed && bytes > 1023 { 'c' } else { 'm' }, bytes)),
                        }
                        if zeroed && bytes <= 1023 {
                            // SAFETY: blocks of the tests have more room than that.
                            let content = unsafe { std::slice::from_raw_parts(block.cast::<u8>(), bytes) };
                            prop_assert!(content.iter().all(|byte| *byte == 0));
                        }
                        live.push((block as usize, bytes));
                    }
                    Step::Give(_) if live.is_empty() => {}
                    Step::Give(which) => {
                        let (block, bytes) = live.swap_remove(which % live.len());
                        let list = lists.entry(bytes).or_default();
                        if bytes <= 1023 && list.len() < 7 {
                            list.push(block);
                        } else {
                            expected.push(('f', block));
                        }
                        // SAFETY: a live block of that size.
                        unsafe { cache.free(block as *mut c_void, bytes) };
                    }
                }
            }
            prop_assert_eq!(ASKED.take(), expected);
        }
    }

    #[test]
    fn it_keeps_the_contract_before_the_c_library_and_refuses_what_cannot_be() {
        assert_eq!(BACKEND.check("system"), Ok(()));
        for (argument, expected) in
            [("", "no allocator"), ("cached:system", "no allocator"), ("mimalloc", "give that one")]
        {
            assert!(BACKEND.check(argument).is_err_and(|why| why.contains(expected)), "{argument}");
        }
    }
}
