//! Which OS pages of a block are present, and what that says about how much of it the program touched.
//!
//! Invariant: a page that is absent when the block ends was never touched. Pages that belong to one block alone are
//! counted; a page that the block shares with a neighbour is present whoever wrote there.

use crate::lock::Guarded;
use crate::raw::LARGE_BYTES;
use crate::{probe, stream, sys};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Distance of a block from its page where glibc has mapped it alone: the block's header lies before it.
const ALONE_AT: usize = 16;
/// OS pages of one region of [`Known`].
const REGION_PAGES: usize = 64;
const REGION_BYTES: usize = REGION_PAGES * sys::OS_PAGE;
const REGIONS: usize = 4096;
/// After so many answers about one region the kernel is asked once.
const ANSWERS_MAX: u8 = 250;
/// Reading contents may take one part in so many of the time since the recording began, as if that were so many ticks
/// longer ago.
const READING_SHARE: u64 = 64;
const READING_TICKS_AHEAD: u64 = 1 << 28;
/// Blocks from here on are scanned for written pages, which costs some microseconds.
const SCANNED_BYTES_MIN: usize = 1 << 20;
/// Whether the kernel was seen not to know `PAGEMAP_SCAN`.
static HAS_NO_SCAN: AtomicBool = AtomicBool::new(false);

/// Where the main heap ended at its lowest since [`Known`] took note; `usize::MAX` while it only grew.
static LOWEST_END: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Where it ended when last asked.
static HEAP_END: AtomicUsize = AtomicUsize::new(0);

/// Pages that were seen present, 64 in a row. They stay so until the heap gives them back.
#[derive(Clone, Copy)]
struct Region {
    /// Its number plus one.
    tag: usize,
    present: u64,
    generation: u32,
    answers: u8,
}

/// What is known without a system call. `large::LOCK` guards it.
struct Known {
    regions: [Region; REGIONS],
    /// Rises when present pages were found absent: what was known before is void.
    generation: u32,
    /// Where the main heap ended when last noted.
    heap_end: usize,
    /// End of the highest block of the main heap; what lies behind is fresh.
    high: usize,
    /// Time that reading the contents of blocks took, ticks.
    reading_ticks: u64,
}

static KNOWN: Guarded<Known> = Guarded::new(Known {
    regions: [Region { tag: 0, present: 0, generation: 0, answers: 0 }; REGIONS],
    generation: 0,
    heap_end: 0,
    high: 0,
    reading_ticks: 0,
});

/// The C library has freed a block: it may have given the end of the main heap back.
#[inline(always)]
pub fn freed() {
    // SAFETY: an increment of zero changes nothing.
    let end = unsafe { sys::sbrk(0) } as usize;
    if end < HEAP_END.load(Ordering::Relaxed) {
        HEAP_END.store(end, Ordering::Relaxed);
        LOWEST_END.fetch_min(end, Ordering::Relaxed);
    }
}

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
    /// Notes how far the main heap reaches, and returns it.
    fn follow_heap(&mut self) -> usize {
        // SAFETY: an increment of zero changes nothing.
        let end = unsafe { sys::sbrk(0) } as usize;
        HEAP_END.store(end, Ordering::Relaxed);
        let mut lowest = end;
        if LOWEST_END.load(Ordering::Relaxed) != usize::MAX {
            lowest = lowest.min(LOWEST_END.swap(usize::MAX, Ordering::Relaxed));
        }
        let (first, last) = (lowest / REGION_BYTES, self.heap_end.div_ceil(REGION_BYTES));
        if lowest < self.heap_end {
            self.high = self.high.min(lowest);
            for number in (first..last).take(REGIONS) {
                let region = &mut self.regions[number % REGIONS];
                let kept = if number == first { ones(lowest / sys::OS_PAGE % REGION_PAGES) } else { 0 };
                region.present &= if region.tag == number + 1 { kept } else { u64::MAX };
            }
        }
        self.heap_end = end;
        end
    }

    /// Whether contents may be read now: that takes a small share of the program's time at most.
    fn may_read(&self) -> bool {
        self.reading_ticks.saturating_mul(READING_SHARE) <= stream::elapsed_ticks() + READING_TICKS_AHEAD
    }

    /// Whether all pages of a small block's range are known to be present.
    fn are_present(&mut self, begin: usize, end: usize) -> bool {
        let generation = self.generation;
        masks(begin, end).into_iter().filter(|part| part.1 != 0).all(|(number, mask)| {
            let region = &mut self.regions[number % REGIONS];
            region.answers = region.answers.saturating_add(1);
            let is_current = region.tag == number + 1 && region.generation == generation;
            is_current && region.present & mask == mask && region.answers < ANSWERS_MAX
        })
    }

    /// Notes what the kernel said about the pages `asked`, which begin in this region.
    fn learn(&mut self, number: usize, asked: u128, found: u128) {
        for half in 0..2 {
            let (number, asked, found) = (number + half, (asked >> (64 * half)) as u64, (found >> (64 * half)) as u64);
            if asked == 0 {
                continue;
            }
            let region = &mut self.regions[number % REGIONS];
            if region.tag != number + 1 || region.generation != self.generation {
                *region = Region { tag: number + 1, present: 0, generation: self.generation, answers: 0 };
            }
            if region.present & asked & !found != 0 {
                // Pages were given back unseen: nothing else is certain either.
                self.generation += 1;
                region.generation = self.generation;
                region.present = 0;
            }
            region.present |= found;
            region.answers = 0;
        }
    }

    /// Which pages of a small block's range are present, the lowest bit for the first; `None` where the kernel does
    /// not say. The call costs as much for a few pages as for two regions, so it asks about the neighbours as well.
    fn look(&mut self, begin: usize, end: usize) -> Option<u64> {
        let mut present = [0_u8; 2 * REGION_PAGES];
        let number = begin / REGION_BYTES;
        let heap_end = HEAP_END.load(Ordering::Relaxed);
        let wide_end = end.next_multiple_of(REGION_BYTES);
        let wide_end = if end <= heap_end { wide_end.min(heap_end.next_multiple_of(sys::OS_PAGE)) } else { wide_end };
        for (from, to) in [(number * REGION_BYTES, wide_end), (begin, end)] {
            // SAFETY: `present` has a byte for each page of the range, which lies in two regions.
            let answer = || unsafe { sys::mincore(from as *mut c_void, to - from, present.as_mut_ptr()) };
            if sys::keeping_errno(answer) != 0 {
                continue;
            }
            let pages = (to - from) / sys::OS_PAGE;
            let first = from / sys::OS_PAGE % REGION_PAGES;
            let bits = |each: fn(u8) -> u8| {
                present[..pages].iter().rev().fold(0_u128, |mask, &page| mask << 1 | u128::from(each(page)))
            };
            let found = bits(|page| page & 1) << first;
            self.learn(number, bits(|_| 1) << first, found);
            return Some((found >> (begin / sys::OS_PAGE % REGION_PAGES)) as u64 & ones((end - begin) / sys::OS_PAGE));
        }
        None
    }
}

/// The pages of a small block's range as a mask for each of two regions, with their numbers.
fn masks(begin: usize, end: usize) -> [(usize, u64); 2] {
    let (number, pages) = (begin / REGION_BYTES, (end - begin) / sys::OS_PAGE);
    let mask = u128::from(ones(pages)) << (begin / sys::OS_PAGE % REGION_PAGES);
    [(number, mask as u64), (number + 1, (mask >> 64) as u64)]
}

/// A mask of so many pages, fewer than 64.
fn ones(pages: usize) -> u64 {
    (1 << pages) - 1
}

/// How many of a new block's own pages are present before the program could write to them; `None` where no later look
/// can say more. `large::LOCK` is held.
pub fn first_look(block: Block, is_zeroed: bool) -> Option<usize> {
    let present = present_at_first(block, is_zeroed);
    // SAFETY: the lock is held.
    let is_worth_it = present < block.own_pages() || is_zeroed && block.is_small() && unsafe { KNOWN.get() }.may_read();
    is_worth_it.then_some(present)
}

fn present_at_first(block: Block, is_zeroed: bool) -> usize {
    let (begin, end) = block.own();
    let pages = block.own_pages();
    // glibc has mapped it for this request.
    if pages == 0 || block.address % sys::OS_PAGE == ALONE_AT && !block.is_small() {
        return 0;
    }
    if !block.is_small() {
        return sys::keeping_errno(|| probe::resident_pages(begin, end)).unwrap_or(pages);
    }
    // SAFETY: the lock is held.
    let known = unsafe { KNOWN.get() };
    let heap_end = known.follow_heap();
    let (high, block_end) = (known.high, block.address + block.size);
    if block_end <= heap_end {
        known.high = high.max(block_end);
    }
    if known.are_present(begin, end) {
        return pages;
    }
    // glibc fills with zeros what it does not know to be fresh, so zeroed blocks say nothing by their address.
    let is_fresh = !is_zeroed && (high..high + sys::OS_PAGE).contains(&block.address) && block_end <= heap_end;
    if is_fresh { 0 } else { known.look(begin, end).map_or(pages, |present| present.count_ones() as usize) }
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
        return sys::keeping_errno(|| large_touched(block, pages, at_first));
    }
    let (begin, end) = block.own();
    // SAFETY: the lock is held.
    let known = unsafe { KNOWN.get() };
    let is_whole = at_first == pages || known.are_present(begin, end);
    let Some(present) = (if is_whole { Some(ones(pages)) } else { known.look(begin, end) }) else {
        return Touched { bytes: block.size as u64, unknown_pages: pages as u64 };
    };
    if is_zeroed && at_first != 0 && known.may_read() {
        let begun = sys::ticks();
        // glibc has filled those pages with zeros: what the program wrote there shows.
        let is_written = |page: &usize| written_bytes(begin + page * sys::OS_PAGE, sys::OS_PAGE) != 0;
        let written = (0..pages).filter(|page| present >> page & 1 != 0).filter(is_written);
        let bytes = bytes_of(block, written.fold(0, |mask, page| mask | 1 << page));
        known.reading_ticks += sys::ticks().wrapping_sub(begun);
        return Touched { bytes, unknown_pages: 0 };
    }
    Touched { bytes: bytes_of(block, present), unknown_pages: at_first.min(present.count_ones() as usize) as u64 }
}

fn large_touched(block: Block, pages: usize, at_first: usize) -> Touched {
    let (begin, end) = block.own();
    let scanned = (block.size >= SCANNED_BYTES_MIN && !HAS_NO_SCAN.load(Ordering::Relaxed)).then(|| {
        let written = probe::written_bytes(block.address, block.size);
        HAS_NO_SCAN.store(written.is_none(), Ordering::Relaxed);
        written
    });
    let estimated = || match probe::resident_pages(begin, end) {
        Some(0) => written_bytes(block.address, begin - block.address) as u64,
        Some(found) if found < pages => (found * sys::OS_PAGE + (begin - block.address)) as u64,
        _ => block.size as u64,
    };
    let bytes = scanned.flatten().unwrap_or_else(estimated);
    Touched { bytes, unknown_pages: at_first.min(bytes as usize / sys::OS_PAGE) as u64 }
}

/// What a program has written from the start of a small block on that touched just these of the block's own pages.
fn bytes_of(block: Block, touched: u64) -> u64 {
    let (begin, _) = block.own();
    let pages = touched.count_ones() as usize;
    if pages == block.own_pages() {
        return block.size as u64;
    }
    // The page before the first own one always has the allocator's header.
    let head = begin - block.address;
    let Some(last) = touched.checked_ilog2() else { return written_bytes(block.address, head) as u64 };
    let page = begin + last as usize * sys::OS_PAGE;
    let in_last = match written_bytes(page, sys::OS_PAGE) {
        0 => sys::OS_PAGE,
        bytes if is_former_header(block, page, bytes) => return bytes_of(block, touched & !(1 << last)),
        bytes => bytes,
    };
    (head + (pages - 1) * sys::OS_PAGE + in_last) as u64
}

/// Whether a page with so many written bytes has nothing but the header of the chunk that followed the block before it
/// grew: glibc wrote it, and a replay has glibc write it again. That chunk reached to the block's new end at least.
fn is_former_header(block: Block, page: usize, written: usize) -> bool {
    const CHUNK_BYTES_MAX: usize = 1 << 30;
    const IN_USE_BEFORE: usize = 1;
    const OF_AN_ARENA: usize = 4;
    const WORD: usize = size_of::<usize>();
    let header = page + written - WORD;
    // SAFETY: the last word of a live block's written bytes.
    let word = unsafe { (header as *const usize).read() };
    let size = word & !(IN_USE_BEFORE | OF_AN_ARENA);
    let needed = block.address + block.size - (header + WORD);
    word & IN_USE_BEFORE != 0
        && size % (2 * WORD) == 0
        && (needed..CHUNK_BYTES_MAX).contains(&size)
        && (page..header).step_by(WORD).all(is_zero::<1>)
}

/// How far the bytes of a live block reach that are not zero, to 16 bytes.
fn written_bytes(begin: usize, bytes: usize) -> usize {
    let mut end = bytes & !15;
    while end >= 128 && is_zero::<16>(begin + end - 128) {
        end -= 128;
    }
    while end > 0 && is_zero::<2>(begin + end - 16) {
        end -= 16;
    }
    end
}

/// Whether so many words of a live block, in pages that are present, are zero.
#[inline(always)]
fn is_zero<const WORDS: usize>(at: usize) -> bool {
    // SAFETY: readable memory; what other threads write there meanwhile changes one answer at most.
    let words = unsafe { (at as *const [u64; WORDS]).read_unaligned() };
    words.into_iter().fold(0, |all, word| all | word) == 0
}
