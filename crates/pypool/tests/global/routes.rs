//! One thread, every route: pools or system, zeroed or not, and from one to the other.
//!
//! **Invariant:** where a block has to come from is stated here by size and alignment, apart from the library's rule.

use crate::parcel::{Parcel, SMALL_ALIGNMENT_BYTES_MAX, SMALL_BYTES_MAX};

/// 1 to 4096.
fn alignments() -> impl Iterator<Item = usize> {
    (0..=12).map(|bits| 1 << bits)
}

pub(crate) fn every_size_and_alignment() {
    let sizes = || (1..SMALL_BYTES_MAX + 8).chain([600, 1000, 1024, 2000, 4096, 100_000]);
    for alignment_bytes in alignments() {
        for zeroed in [false, true] {
            // All of them live at a time, freed from the middle outwards.
            let mut parcels: Vec<Parcel> =
                sizes().map(|bytes| Parcel::new(bytes, alignment_bytes, bytes as u8 ^ 0xA5, zeroed)).collect();
            while !parcels.is_empty() {
                parcels.swap_remove(parcels.len() / 2).free();
            }
        }
    }
}

/// From each of some sizes to each, over every alignment: within pools, within the system, and across both ways.
pub(crate) fn reallocation() {
    let sizes = [1, 8, 16, 17, 48, 100, 383, 385, 500, 512, 513, 600, 2000, 70_000];
    for alignment_bytes in alignments() {
        for from in sizes {
            for to in sizes {
                let parcel = Parcel::new(from, alignment_bytes, 0x5A, false).resized(to);
                assert_eq!(parcel.bytes(), to);
                parcel.resized(from).free();
            }
        }
    }
}

pub(crate) fn beyond_reason() {
    for bytes in [1, 40, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 5000] {
        for alignment_bytes in [1, SMALL_ALIGNMENT_BYTES_MAX, 64] {
            Parcel::new(bytes, alignment_bytes, 0x77, false).resized_in_vain().free();
        }
    }
    let mut vector: Vec<u64> = vec![1, 2, 3];
    assert!(vector.try_reserve(isize::MAX as usize / 8 - 8).is_err());
    assert_eq!(vector, [1, 2, 3]);
}
