//! What any allocator owes its caller, on random calls: see [`Caller`] for what that is.

use proptest::prelude::*;
use pypool::{Before310, Current, Tuned, policy};

use crate::caller::{Caller, Step};
use crate::sources::{CountingRaw, Narrow, TestAllocator, Tiny, Wide};
use crate::subject::Subject;

const CHECK_EVERY: usize = 64;

fn keeps_its_promises<S: Subject>(steps: &[Step], place: usize) {
    let mut caller = Caller::<S>::new(place);
    for (index, &step) in steps.iter().enumerate() {
        caller.step(step);
        if index % CHECK_EVERY == 0 {
            caller.check();
        }
    }
    caller.finish();
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![
        80 => 0_usize..=160,
        40 => 0_usize..=520,
        30 => 600_usize..640,
        10 => 500_usize..5_000,
        1 => Just(usize::MAX)
    ];
    let patience = || prop_oneof![1 => 0_usize..3, 2 => Just(usize::MAX)];
    let step = prop_oneof![
        80 => bytes.clone().prop_map(Step::Allocate),
        20 => (0_usize..20, 0_usize..40).prop_map(|(count, bytes)| Step::AllocateZeroed(count, bytes)),
        40 => (any::<usize>(), bytes).prop_map(|(index, bytes)| Step::Reallocate(index, bytes)),
        60 => any::<usize>().prop_map(Step::Free),
        1 => (1_usize..60).prop_map(Step::FreeOldest),
        4 => (patience(), patience()).prop_map(|(arenas, raw)| Step::Starve(arenas, raw)),
        1 => Just(Step::Drop),
    ];
    prop::collection::vec(step, 1..1_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn tiny_arenas_keep_their_promises(steps in steps()) {
        keeps_its_promises::<TestAllocator<Tiny>>(&steps, 512);
    }

    #[test]
    fn cpythons_geometry_keeps_its_promises(steps in steps()) {
        keeps_its_promises::<TestAllocator<Current>>(&steps, 4096);
    }

    #[test]
    fn the_older_geometry_keeps_its_promises(steps in steps()) {
        keeps_its_promises::<TestAllocator<Before310>>(&steps, 0);
    }

    #[test]
    fn narrow_blocks_keep_their_promises(steps in steps()) {
        keeps_its_promises::<TestAllocator<Narrow>>(&steps, 4096);
    }

    /// The trait asks for no alignment of arenas: the first pool starts where one can.
    #[test]
    fn wide_blocks_in_arenas_at_odd_addresses_keep_their_promises(steps in steps(), shift_bytes in 0_usize..8192) {
        keeps_its_promises::<TestAllocator<Wide>>(&steps, shift_bytes);
    }

    #[test]
    fn the_tuned_allocator_keeps_its_promises(steps in steps()) {
        keeps_its_promises::<Tuned<CountingRaw>>(&steps, 0);
    }

    #[test]
    fn without_any_policy_it_keeps_them_too(steps in steps()) {
        keeps_its_promises::<Tuned<CountingRaw, 0>>(&steps, 0);
    }

    #[test]
    fn every_policy_can_be_left_out(steps in steps(), left_out in 0_usize..policy::POLICIES.len()) {
        let play = [
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::PACKED }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::RANGE }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::BATCH }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::LINGER }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::PURGE }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::POPULATE }>>,
            keeps_its_promises::<Tuned<CountingRaw, { policy::ALL & !policy::WIDE }>>,
        ];
        play[left_out](&steps, 0);
    }
}
