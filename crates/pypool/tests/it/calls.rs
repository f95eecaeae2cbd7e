//! Any bytes as a sequence of calls: what the fuzz target runs, and here what a fixed set of random strings runs.
//!
//! **Invariant:** every string of bytes is a legal sequence of calls, so whatever fails is the allocator's fault.

use pypool::{Before310, Current, Tuned, policy};

use crate::caller::{Caller, Step};
use crate::sources::{CountingRaw, Narrow, TestAllocator, Tiny, Wide};
use crate::subject::Subject;

const CHECK_EVERY: usize = 64;

/// Runs the calls that `bytes` spell: the first byte picks the allocator, the second where arenas lie.
pub(crate) fn run(bytes: &[u8]) {
    let &[subject, place, ref calls @ ..] = bytes else { return };
    let shift_bytes = if place < 0x80 { 4096 * usize::from(place % 2) } else { 37 * usize::from(place) };
    match subject % 8 {
        0 => spell::<TestAllocator<Tiny>>(shift_bytes, calls),
        1 => spell::<TestAllocator<Current>>(shift_bytes, calls),
        2 => spell::<TestAllocator<Before310>>(shift_bytes, calls),
        3 => spell::<TestAllocator<Narrow>>(shift_bytes, calls),
        4 => spell::<TestAllocator<Wide>>(shift_bytes, calls),
        5 => spell::<Tuned<CountingRaw>>(0, calls),
        6 => spell::<Tuned<CountingRaw, 0>>(0, calls),
        _ => spell::<Tuned<CountingRaw, { policy::ALL & !policy::PACKED }>>(0, calls),
    }
}

/// Three bytes a call; a rest shorter than that is left.
fn spell<S: Subject>(place: usize, calls: &[u8]) {
    let mut caller = Caller::<S>::new(place);
    let mut favourite_bytes = S::SMALL_BYTES_MAX;
    for (index, call) in calls.chunks_exact(3).enumerate() {
        let (small, large) = (usize::from(call[1]), usize::from(u16::from_le_bytes([call[1], call[2]])));
        match call[0] {
            0..0x30 => caller.step(Step::Allocate(large % (S::SMALL_BYTES_MAX + 2))),
            // Runs of one size fill pools and arenas, which single calls of any size seldom do.
            0x30..0x60 => (0..small % 64).for_each(|_| caller.step(Step::Allocate(favourite_bytes))),
            0x60..0x68 => favourite_bytes = large % (S::SMALL_BYTES_MAX + 2),
            0x68..0x78 => caller.step(Step::AllocateZeroed(small, usize::from(call[2]) % 16)),
            0x78..0x90 => caller.step(Step::Reallocate(small, usize::from(call[2]) * 3)),
            0x90..0x94 => caller.step(Step::Reallocate(small, large)),
            0x94..0x96 => caller.step(Step::AllocateZeroed(usize::MAX / 2, small)),
            0x96..0x98 => caller.step(Step::Reallocate(small, usize::MAX - large)),
            0x98..0xD0 => caller.step(Step::Free(large)),
            0xD0..0xF0 => caller.step(Step::FreeOldest(small)),
            0xF0..0xF8 => caller.step(Step::Starve(patience(call[1]), patience(call[2]))),
            0xF8..0xFC => caller.step(Step::Starve(usize::MAX, usize::MAX)),
            0xFC..0xFE => caller.check(),
            _ => caller.step(Step::Drop),
        }
        if index % CHECK_EVERY == 0 {
            caller.check();
        }
    }
    caller.finish();
}

fn patience(byte: u8) -> usize {
    if byte < 8 { usize::from(byte) } else { usize::MAX }
}

/// Bytes of a linear congruential generator.
#[cfg(test)]
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn random_strings_are_legal_calls() {
    for seed in 0..200 {
        let mut bytes = random_bytes(seed, 3_000);
        bytes[0] = seed as u8;
        run(&bytes);
    }
}

#[test]
fn short_strings_are_legal_calls() {
    (0..8).for_each(|length| run(&[0xFE; 8][..length]));
}
