//! The debug hooks: what lies around a block, what is painted when, and what is found.
//!
//! **Invariant:** expected bytes are written out here, from `Objects/obmalloc.c`, and never taken from the hooks.

mod promises;
mod violations;

use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas, Misuse, MisuseKind};

/// The hooks over the pool, as `PYTHONMALLOC=pymalloc_debug` has them.
pub(crate) type PoolHooks = DebugHooks<Allocator>;

pub(crate) fn pool_hooks() -> Box<PoolHooks> {
    Box::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)))
}

/// A block with the 16 bytes before it and the 8 after it.
pub(crate) fn around(block: *mut u8, bytes: usize) -> Vec<u8> {
    // SAFETY: all callers pass blocks of hooks, live or just freed into a pool.
    unsafe { std::slice::from_raw_parts(block.sub(16), bytes + 24) }.to_vec()
}

/// What lies around a block of `content`.
fn expected(letter: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u64).to_be_bytes().to_vec();
    bytes.push(letter);
    bytes.extend([0xFD; 7]);
    bytes.extend(content);
    bytes.extend([0xFD; 8]);
    bytes
}

#[test]
fn every_domain_has_cpythons_layout() {
    let mut hooks = pool_hooks();
    for (domain, letter) in [(Domain::Raw, b'r'), (Domain::Mem, b'm'), (Domain::Obj, b'o')] {
        for bytes in [0, 1, 7, 8, 16, 100, 488, 489, 5_000] {
            let block = hooks.allocate(domain, bytes);
            assert_eq!(around(block, bytes), expected(letter, &vec![0xCD; bytes]));
            assert!(block.addr().is_multiple_of(16));
            // SAFETY: the block is live.
            unsafe {
                assert_eq!(hooks.requested_bytes(block), bytes);
                hooks.free(domain, block);
            }
            let zeroed = hooks.allocate_zeroed(domain, bytes, 1);
            assert_eq!(around(zeroed, bytes), expected(letter, &vec![0; bytes]));
            // SAFETY: the block is live.
            unsafe { hooks.free(domain, zeroed) };
        }
    }
}

#[test]
fn the_pools_see_24_bytes_more() {
    let mut hooks = pool_hooks();
    let largest = hooks.allocate(Domain::Obj, 488);
    let larger = hooks.allocate(Domain::Mem, 489);
    assert_eq!(hooks.inner().statistics().raw_blocks, 1, "of 513 bytes, which no pool serves");
    let statistics = hooks.inner().statistics();
    let used: Vec<usize> = statistics.classes().iter().filter(|c| c.blocks_in_use > 0).map(|c| c.block_bytes).collect();
    assert_eq!(used, [512]);
    // SAFETY: live.
    unsafe {
        hooks.free(Domain::Obj, largest);
        hooks.free(Domain::Mem, larger);
    }
}

#[test]
fn what_is_too_large_or_overflows_is_null() {
    let mut hooks = pool_hooks();
    assert!(hooks.allocate(Domain::Obj, isize::MAX as usize - 23).is_null());
    assert!(hooks.allocate_zeroed(Domain::Obj, usize::MAX, 2).is_null());
    let block = hooks.allocate(Domain::Obj, 20);
    // SAFETY: live; null leaves it as it was.
    unsafe {
        assert!(hooks.reallocate(Domain::Obj, block, usize::MAX).is_null());
        assert_eq!(around(block, 20), expected(b'o', &[0xCD; 20]));
        hooks.free(Domain::Obj, block);
        hooks.free(Domain::Obj, std::ptr::null_mut());
        let fresh = hooks.reallocate(Domain::Mem, std::ptr::null_mut(), 3);
        assert_eq!(around(fresh, 3), expected(b'm', &[0xCD; 3]));
        hooks.free(Domain::Mem, fresh);
    }
}

#[test]
fn a_freed_block_is_dead_but_for_the_pools_link() {
    let mut hooks = pool_hooks();
    let (block, neighbour) = (hooks.allocate(Domain::Obj, 300), hooks.allocate(Domain::Obj, 300));
    // SAFETY: live; its pool stays, since the other block is live.
    unsafe { hooks.free(Domain::Obj, block) };
    assert_eq!(around(block, 300)[8..], [0xDD; 316]);
    assert_eq!(around(neighbour, 300), expected(b'o', &[0xCD; 300]));
    // SAFETY: live.
    unsafe { hooks.free(Domain::Obj, neighbour) };
}

#[test]
fn a_block_that_moves_leaves_64_dead_bytes_at_each_end() {
    let mut hooks = pool_hooks();
    let neighbour = hooks.allocate(Domain::Obj, 300);
    for (old, new) in [(300, 480), (300, 40), (128, 300), (129, 20), (90, 0)] {
        let block = hooks.allocate(Domain::Obj, old);
        let content: Vec<u8> = (0..old).map(|at| (at % 250) as u8).collect();
        // SAFETY: live until resized; afterwards it is free memory of a pool, which another block keeps.
        let moved = unsafe {
            block.copy_from_nonoverlapping(content.as_ptr(), old);
            hooks.reallocate(Domain::Obj, block, new)
        };
        assert_ne!(moved, block);
        let mut wanted = content[..new.min(old)].to_vec();
        wanted.resize(new, 0xCD);
        assert_eq!(around(moved, new), expected(b'o', &wanted), "{old} to {new}");
        let mut left = content.clone();
        if old <= 128 {
            left.fill(0xDD);
        } else {
            left[..64].fill(0xDD);
            left[old - 64..].fill(0xDD);
        }
        assert_eq!(around(block, old)[16..16 + old], left, "{old} to {new}");
        assert_eq!(around(block, old)[16 + old..], [0xDD; 8]);
        // SAFETY: live.
        unsafe { hooks.free(Domain::Obj, moved) };
    }
    // SAFETY: live.
    unsafe { hooks.free(Domain::Obj, neighbour) };
}

/// A mistake is seen without ending the process where `examine` is asked.
#[test]
fn an_examination_tells_what_is_wrong() {
    let mut hooks = pool_hooks();
    let mut examined = |spoil: &dyn Fn(*mut u8), domain| -> Option<(MisuseKind, Option<usize>)> {
        let block = hooks.allocate(Domain::Mem, 24);
        spoil(block);
        // SAFETY: live; it is never freed, since it is broken.
        unsafe { hooks.examine(domain, block) }.map(|found: Misuse| (found.kind(), found.requested_bytes()))
    };
    // SAFETY: all offsets lie within the block and what surrounds it.
    let write = |at: isize, byte: u8| move |block: *mut u8| unsafe { block.offset(at).write(byte) };
    assert_eq!(examined(&write(23, 1), Domain::Mem), None, "the last byte is the caller's");
    assert_eq!(examined(&write(24, 1), Domain::Mem), Some((MisuseKind::WrittenAfter, Some(24))));
    assert_eq!(examined(&write(31, 1), Domain::Mem), Some((MisuseKind::WrittenAfter, Some(24))));
    assert_eq!(examined(&write(-1, 1), Domain::Mem), Some((MisuseKind::WrittenBefore, None)));
    assert_eq!(examined(&write(-7, 1), Domain::Mem), Some((MisuseKind::WrittenBefore, None)));
    assert_eq!(examined(&write(-8, 1), Domain::Mem), Some((MisuseKind::NoHeader, None)));
    assert_eq!(examined(&write(0, 1), Domain::Obj), Some((MisuseKind::WrongDomain, Some(24))));
    // The letter is looked at first, as in CPython.
    assert_eq!(examined(&write(-1, 1), Domain::Obj), Some((MisuseKind::WrongDomain, None)));
}
