//! Which OS pages of a block are present, and what that says about how much of it the program touched.
//!
//! Invariant: a page that is absent when the block ends was never touched. Pages that belong to one block alone are
//! counted; a page that the block shares with a neighbour is present whoever wrote there.

use crate::lock::Guarded;
use crate::raw::LARGE_BYTES;
use crate::{probe, sys};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};

/// Distance of a block from its page where glibc has mapped it alone: the block's header lies before it.
const ALONE_AT: usize = 16;
/// OS pages of one region of [`Known`].
const REGION_PAGES: usize = 64;
const REGIONS: usize = 4096;
/// After so many answers from memory the kernel is asked once.
const ANSWERS_MAX: u8 = 32;
/// Blocks from here on are scanned for written pages, which costs some microseconds.
const SCANNED_BYTES_MIN: usize = 1 << 20;
/// Whether the kernel was seen not to know `PAGEMAP_SCAN`.
static HAS_NO_SCAN: AtomicBool = AtomicBool::new(false);

/// Pages that were seen present, 64 in a row.
#[derive(Clone, Copy)]
struct Region {
    /// Address divided by the region's bytes, plus one.
    tag: usize,
    present: u64,
    generation: u32,
    answers: u8,
}

/// What is known without a system call. `large::LOCK` guards it.
struct Known {
    regions: [Region; REGIONS],
    /// Rises when the heap has shrunk: what was known before is void.
    generation: u32,
    /// End of the main heap when last looked at.
    heap_end: usize,
    /// End of the highest block of the main heap; what lies behind is fresh.
    high: usize,
}

static KNOWN: Guarded<Known> = Guarded::new(Known {
    regions: [Region { tag: 0, present: 0, generation: 0, answers: 0 }; REGIONS],
    generation: 0,
    heap_end: 0,
    high: 0,
});

/// A block and the pages that are its own.
#[derive(Clone, Copy)]
pub struct Block {
    pub address: usize,
    pub size: usize,
}

impl Block {
    /// First address of its own pages, and the address after them.
    fn own(self) -> (usize, usize) {
        let end = self.address + self.size;
        let is_alone = self.address % sys::OS_PAGE == ALONE_AT;
        let end = if is_alone { end.next_multiple_of(sys::OS_PAGE) } else { end & !(sys::OS_PAGE - 1) };
        (self.address.next_multiple_of(sys::OS_PAGE), end)
    }

    pub fn own_pages(self) -> usize {
        let (begin, end) = self.own();
        end.saturating_sub(begin) / sys::OS_PAGE
    }

    fn is_small(self) -> bool {
        (self.size as u64) < LARGE_BYTES
    }
}

impl Known {
    /// The pages of this range as a mask for each region, lowest first. The range is that of a small block.
    fn parts(begin: usize, end: usize) -> [(usize, u64); 2] {
        let (first, pages) = (begin / sys::OS_PAGE, (end - begin) / sys::OS_PAGE);
        let mask = u128::MAX >> (128 - pages) << (first % REGION_PAGES);
        let region = first / REGION_PAGES;
        [(region, mask as u64), (region + 1, (mask >> 64) as u64)]
    }

    /// Notes how far the main heap reaches.
    fn follow_heap(&mut self) {
        // SAFETY: an increment of zero changes nothing.
        let heap_end = unsafe { sys::sbrk(0) } as usize;
        if heap_end < self.heap_end {
            self.generation += 1;
            self.high = self.high.min(heap_end);
        }
        self.heap_end = heap_end;
    }

    fn are_present(&mut self, begin: usize, end: usize) -> bool {
        let generation = self.generation;
        Self::parts(begin, end).into_iter().filter(|part| part.1 != 0).all(|(number, mask)| {
            let region = &mut self.regions[number % REGIONS];
            region.answers = region.answers.saturating_add(1);
            let is_current = region.tag == number + 1 && region.generation == generation;
            is_current && region.present & mask == mask && region.answers < ANSWERS_MAX
        })
    }

    /// Notes what the kernel said about a small range: a byte for each page.
    fn learn(&mut self, begin: usize, end: usize, present: &[u8]) {
        let found = present.iter().rev().fold(0_u64, |mask, page| mask << 1 | u64::from(page & 1));
        let found = u128::from(found) << (begin / sys::OS_PAGE % REGION_PAGES);
        for ((number, mask), found) in Self::parts(begin, end).into_iter().zip([found as u64, (found >> 64) as u64]) {
            if mask == 0 {
                continue;
            }
            let region = &mut self.regions[number % REGIONS];
            if region.tag != number + 1 || region.generation != self.generation {
                *region = Region { tag: number + 1, present: 0, generation: self.generation, answers: 0 };
            }
            if region.present & mask & !found != 0 {
                // Pages went away behind our back: nothing else is certain either.
                self.generation += 1;
                return;
            }
            region.present |= found;
            region.answers = 0;
        }
    }
}

/// How many of a new block's own pages are present before the program could write to them. `large::LOCK` is held.
pub fn present_at_first(block: Block, is_zeroed: bool) -> usize {
    let (begin, end) = block.own();
    let pages = block.own_pages();
    // glibc has mapped it for this request.
    if pages == 0 || block.address % sys::OS_PAGE == ALONE_AT && !block.is_small() {
        return 0;
    }
    if !block.is_small() {
        return probe::resident_pages(begin, end).unwrap_or(pages);
    }
    // SAFETY: the lock is held.
    let known = unsafe { KNOWN.get() };
    known.follow_heap();
    let high = known.high;
    let block_end = block.address + block.size;
    if block_end <= known.heap_end {
        known.high = high.max(block_end);
    }
    if known.are_present(begin, end) {
        return pages;
    }
    // glibc fills with zeros what it does not know to be fresh, so zeroed blocks say nothing by their address.
    let is_fresh = !is_zeroed && (high..high + sys::OS_PAGE).contains(&block.address) && block_end <= known.heap_end;
    if is_fresh { 0 } else { look(block).map_or(pages, |present| count(&present[..pages])) }
}

/// Which of a small block's own pages are present; `None` where the kernel does not say. `large::LOCK` is held.
fn look(block: Block) -> Option<[u8; REGION_PAGES]> {
    let (begin, end) = block.own();
    let mut present = [0_u8; REGION_PAGES];
    // SAFETY: `present` has a byte for each page of the range.
    if unsafe { sys::mincore(begin as *mut c_void, end - begin, present.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the lock is held.
    unsafe { KNOWN.get() }.learn(begin, end, &present[..block.own_pages()]);
    Some(present)
}

fn count(present: &[u8]) -> usize {
    present.iter().filter(|&page| page & 1 != 0).count()
}

/// How much of a block was touched.
pub struct Touched {
    pub bytes: u64,
    /// Own pages that were present before the program could write to them, and still are.
    pub unknown_pages: u64,
}

/// How much of a live block the program has touched, with what was present `at_first`. `large::LOCK` is held.
pub fn touched(block: Block, at_first: usize, is_zeroed: bool) -> Touched {
    let pages = block.own_pages();
    if !block.is_small() {
        return large_touched(block, pages, at_first);
    }
    let (begin, _) = block.own();
    let all = [1; REGION_PAGES];
    let present = if at_first == pages { Some(all) } else { look(block) };
    let Some(present) = present else { return Touched { bytes: block.size as u64, unknown_pages: pages as u64 } };
    let found = count(&present[..pages]);
    if is_zeroed && at_first != 0 {
        // glibc has filled those pages with zeros: what the program wrote there shows.
        let is_empty = |index: &usize| present[*index] & 1 != 0 && is_zero(begin + index * sys::OS_PAGE, sys::OS_PAGE);
        let empty = (0..pages).filter(is_empty).count().min(at_first);
        return Touched { bytes: bytes_of(block, found - empty), unknown_pages: 0 };
    }
    Touched { bytes: bytes_of(block, found), unknown_pages: at_first.min(found) as u64 }
}

fn large_touched(block: Block, pages: usize, at_first: usize) -> Touched {
    let (begin, end) = block.own();
    let scanned = (block.size >= SCANNED_BYTES_MIN && !HAS_NO_SCAN.load(Ordering::Relaxed)).then(|| {
        let written = probe::written_bytes(block.address, block.size);
        HAS_NO_SCAN.store(written.is_none(), Ordering::Relaxed);
        written
    });
    let found = || probe::resident_pages(begin, end).unwrap_or(pages);
    let bytes = scanned.flatten().unwrap_or_else(|| bytes_of(block, found()));
    Touched { bytes, unknown_pages: at_first.min(pages).min(bytes as usize / sys::OS_PAGE) as u64 }
}

/// What a program has written from the block's start on that made so many of the block's own pages present.
fn bytes_of(block: Block, found: usize) -> u64 {
    let (begin, _) = block.own();
    let head = begin - block.address;
    if found == block.own_pages() {
        return block.size as u64;
    }
    let bytes = match found {
        // The page before the first own one always has the allocator's header.
        0 if head == 0 || is_zero(block.address, head) => 0,
        0 => 16,
        // Where in the last page the program stopped is not known: the middle is as often too much as too little.
        _ if head != 0 => head + found * sys::OS_PAGE - sys::OS_PAGE / 2,
        _ => found * sys::OS_PAGE,
    };
    bytes.min(block.size) as u64
}

/// Whether these bytes of a present page of a live block are zero.
fn is_zero(begin: usize, bytes: usize) -> bool {
    // SAFETY: memory of a live block; what other threads write there meanwhile changes one answer at most.
    let byte = |at: usize| unsafe { (at as *const u8).read_volatile() };
    // SAFETY: as above; the address is a multiple of eight.
    let word = |at: usize| unsafe { (at as *const u64).read_volatile() };
    let first = begin.next_multiple_of(8).min(begin + bytes);
    let end = (begin + bytes) & !7;
    (begin..first).all(|at| byte(at) == 0)
        && (first..end).step_by(8).all(|at| word(at) == 0)
        && (end.max(first)..begin + bytes).all(|at| byte(at) == 0)
}
