//! Anonymous memory that libraries map for themselves: BLAS buffers, allocators linked into a library and hidden there.
//! No event explains it, so its resident pages are read at every mark, and the call site says whose they are.
//!
//! Invariant: holds no memory that a recorded request was served from: what is mapped while an outer hook or a pool is
//! at work is part of that request. Code that maps by a system call of its own, as the C library does for its heaps and
//! for threads' stacks, is not seen.

use crate::lock::{Guarded, Spin};
use crate::raw::{Kind, flag};
use crate::stream::{self, Thread};
use crate::{probe, recording, sys};
use core::ffi::{c_int, c_void};

const RANGES: usize = 4096;

/// Where one library mapped: first address, the one after the last, the call site.
type Range = (usize, usize, usize);

/// In the order of addresses, none overlapping another.
struct Table {
    ranges: [Range; RANGES],
    used: usize,
}

/// Guarded by `LOCK`.
static TABLE: Guarded<Table> = Guarded::new(Table { ranges: [(0, 0, 0); RANGES], used: 0 });
pub static LOCK: Spin = Spin::new();

impl Table {
    /// Index of the first range that ends above this address.
    fn above(&self, address: usize) -> usize {
        self.ranges[..self.used].partition_point(|range| range.1 <= address)
    }

    /// Puts a range in its place; false when there is no room.
    fn insert(&mut self, range: Range) -> bool {
        if self.used == RANGES {
            return false;
        }
        let at = self.above(range.0);
        self.ranges.copy_within(at..self.used, at + 1);
        self.ranges[at] = range;
        self.used += 1;
        true
    }

    /// Takes these addresses out of every range; false when a range in two parts found no room for its second.
    fn remove(&mut self, begin: usize, end: usize) -> bool {
        let mut at = self.above(begin);
        while at < self.used && self.ranges[at].0 < end {
            let (first, last, caller) = self.ranges[at];
            if first < begin && end < last {
                self.ranges[at].1 = begin;
                return self.insert((end, last, caller));
            }
            if first < begin {
                self.ranges[at].1 = begin;
            } else if end < last {
                self.ranges[at].0 = end;
            } else {
                self.ranges.copy_within(at + 1..self.used, at);
                self.used -= 1;
                continue;
            }
            at += 1;
        }
        true
    }
}

/// Puts a range in the place of whatever was there; `caller` 0: nothing of interest is there now.
fn replace(begin: usize, bytes: usize, caller: usize) {
    let end = begin + bytes.next_multiple_of(sys::OS_PAGE);
    LOCK.lock();
    // SAFETY: the lock is held.
    let table = unsafe { TABLE.get() };
    let has_room = table.remove(begin, end) && (caller == 0 || table.insert((begin, end, caller)));
    LOCK.unlock();
    if !has_room {
        recording::add_flags(flag::MAPPED_FULL);
    }
}

/// The return address is the call site; it becomes a seventh argument, on the stack.
macro_rules! with_caller_on_stack {
    ($($name:ident)*) => {$(
        // SAFETY: the symbol is meant to stand before the C library's, with the same signature.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            core::arch::naked_asm!("push qword ptr [rsp]", "call {body}", "add rsp, 8", "ret", body = sym map_from)
        }
    )*};
}

with_caller_on_stack! { mmap mmap64 }

unsafe extern "C" fn map_from(
    at: *mut c_void,
    bytes: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
    caller: usize,
) -> *mut c_void {
    // SAFETY: the program's own arguments.
    let mapped = unsafe { sys::mmap(at, bytes, prot, flags, fd, offset) };
    if mapped as usize != usize::MAX {
        stream::with(|thread| {
            let is_own = flags & sys::MAP_ANONYMOUS != 0 && !thread.is_held() && !thread.is_in_pool();
            replace(mapped as usize, bytes, if is_own { caller } else { 0 });
        });
    }
    mapped
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(at: *mut c_void, bytes: usize) -> c_int {
    // Before the call: afterwards another thread may have mapped there.
    replace(at as usize, bytes, 0);
    // SAFETY: the program's own arguments.
    unsafe { sys::munmap(at, bytes) }
}

/// Writes a record for every range with resident pages, for mark entry `index`.
pub fn record_resident(thread: &Thread, index: usize) {
    LOCK.lock();
    // SAFETY: the lock is held.
    let table = unsafe { TABLE.get() };
    for &(begin, end, caller) in &table.ranges[..table.used] {
        let resident = probe::resident_pages(begin, end).unwrap_or(0) * sys::OS_PAGE;
        if resident != 0 {
            thread.push(Kind::Mapped, 0, index, resident as u64, caller);
        }
    }
    LOCK.unlock();
}
