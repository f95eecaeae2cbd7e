//! What the hooks owe a caller that makes no mistake, on random calls, with and without a quarantine.
//!
//! **Invariant:** every live block is looked at in full, decoration and content, after every call that changed it.

use proptest::prelude::*;
use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas, RawAllocator};

use super::around;

#[derive(Debug, Clone, Copy)]
enum Step {
    Allocate(usize, usize),
    AllocateZeroed(usize, usize),
    Reallocate(usize, usize),
    Free(usize),
}

struct Live {
    block: *mut u8,
    domain: Domain,
    content: Vec<u8>,
}

impl Live {
    fn assert_intact(&self) {
        let mut wanted = (self.content.len() as u64).to_be_bytes().to_vec();
        wanted.push(self.domain.letter());
        wanted.extend([0xFD; 7]);
        wanted.extend(&self.content);
        wanted.extend([0xFD; 8]);
        assert_eq!(around(self.block, self.content.len()), wanted);
    }

    /// Fills a block that was looked at.
    fn own(mut self, fill: u8) -> Self {
        self.assert_intact();
        self.content.fill(fill);
        // SAFETY: the block is live and that long.
        unsafe { self.block.copy_from_nonoverlapping(self.content.as_ptr(), self.content.len()) };
        self
    }
}

fn keep_their_promises<A: RawAllocator, const N: usize>(hooks: &mut DebugHooks<A, N>, steps: &[Step]) {
    let mut live: Vec<Live> = Vec::new();
    for (fill, step) in steps.iter().enumerate() {
        let fill = fill as u8;
        match *step {
            Step::Allocate(domain, bytes) => {
                let domain = Domain::ALL[domain];
                let block = hooks.allocate(domain, bytes);
                live.push(Live { block, domain, content: vec![0xCD; bytes] }.own(fill));
            }
            Step::AllocateZeroed(domain, bytes) => {
                let domain = Domain::ALL[domain];
                let block = hooks.allocate_zeroed(domain, bytes, 3);
                live.push(Live { block, domain, content: vec![0; 3 * bytes] }.own(fill));
            }
            Step::Reallocate(..) | Step::Free(_) if live.is_empty() => {}
            Step::Reallocate(index, bytes) => {
                let at = index % live.len();
                let mut old = live.swap_remove(at);
                old.assert_intact();
                // SAFETY: live until here.
                old.block = unsafe { hooks.reallocate(old.domain, old.block, bytes) };
                old.content.resize(bytes, 0xCD);
                live.push(old.own(fill));
            }
            Step::Free(index) => {
                let at = index % live.len();
                let old = live.swap_remove(at);
                old.assert_intact();
                // SAFETY: live until here.
                unsafe { hooks.free(old.domain, old.block) };
            }
        }
    }
    hooks.check_quarantine();
    for old in live {
        old.assert_intact();
        // SAFETY: live until here.
        unsafe { hooks.free(old.domain, old.block) };
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![20 => 0_usize..=140, 10 => 140_usize..=520, 3 => 500_usize..5_000];
    let step = prop_oneof![
        8 => (0_usize..3, bytes.clone()).prop_map(|(domain, bytes)| Step::Allocate(domain, bytes)),
        2 => (0_usize..3, 0_usize..200).prop_map(|(domain, bytes)| Step::AllocateZeroed(domain, bytes)),
        6 => (any::<usize>(), bytes).prop_map(|(index, bytes)| Step::Reallocate(index, bytes)),
        6 => any::<usize>().prop_map(Step::Free),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn hooks_over_the_pool_keep_their_promises(steps in steps()) {
        let mut hooks: Box<DebugHooks<Allocator>> = Box::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)));
        keep_their_promises(&mut hooks, &steps);
    }

    #[test]
    fn hooks_over_the_c_library_keep_their_promises(steps in steps()) {
        keep_their_promises(&mut DebugHooks::<LibcRaw, 0>::new(LibcRaw), &steps);
    }

    /// Also: a quarantine finds nothing where nothing is wrong, whatever is below.
    #[test]
    fn a_quarantine_is_silent_for_those_without_fault(steps in steps()) {
        let pool = Allocator::new(LibcRaw, MappedArenas);
        keep_their_promises(&mut Box::new(DebugHooks::<_, 20>::new(pool)), &steps);
        keep_their_promises(&mut DebugHooks::<_, 3>::new(LibcRaw), &steps);
    }
}
