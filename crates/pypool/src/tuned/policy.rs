//! What [`Tuned`](crate::Tuned) does and pymalloc does not, a bit each.
//!
//! The bits are a constant of the type, so a policy that is left out costs nothing, not even a test.
//!
//! **Invariant:** with any set of policies the allocator keeps its contract; they change time and memory alone.

/// One policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Its name, a single word.
    pub name: &'static str,
    /// Its bit.
    pub bit: u32,
    /// What it does, what happens without it.
    pub what: &'static str,
}

/// Headers of pools lie packed in a table of their own.
pub const PACKED: u32 = 1 << 0;
/// One comparison tells whether an address is ours.
pub const RANGE: u32 = 1 << 1;
/// Blocks are carved by the OS page.
pub const BATCH: u32 = 1 << 2;
/// The last pool of a class stays with it.
pub const LINGER: u32 = 1 << 3;
/// Empty pools are kept, and given back one by one.
pub const PURGE: u32 = 1 << 4;
/// A pool's OS pages are had with one system call.
pub const POPULATE: u32 = 1 << 5;
/// Requests of up to 2 KiB are served.
pub const WIDE: u32 = 1 << 6;

/// Every policy.
pub const ALL: u32 = (1 << POLICIES.len()) - 1;

/// All of them, in the order of their bits.
pub const POLICIES: [Policy; 7] = [
    Policy {
        name: "packed",
        bit: PACKED,
        what: "Headers of pools lie side by side in a table, two to a cache line. Without it each stands at the start \
               of its pool, as in pymalloc: all of them 16 KiB apart, so that they compete for one set of the cache.",
    },
    Policy {
        name: "range",
        bit: RANGE,
        what: "All arenas come from one reserved range of addresses, so one comparison tells whether a block is the \
               pool's. Without it the address map is asked, as in the faithful pool, which is quicker than CPython's.",
    },
    Policy {
        name: "batch",
        bit: BATCH,
        what: "A dry free list is refilled with all blocks that end on the same OS page. Without it blocks are carved \
               one at a time, as in pymalloc.",
    },
    Policy {
        name: "linger",
        bit: LINGER,
        what: "The only pool of a class stays with it when its last block is freed, for the next request, or \
               until another class would have to take a pool without memory. Without it each such free gives the \
               pool back and the next request takes one, as in pymalloc.",
    },
    Policy {
        name: "purge",
        bit: PURGE,
        what: "Empty pools are kept with their memory, at most 512 KiB or an eighth of the pools in use; beyond, the \
               longest empty ones are given back to the kernel until half of that is left. Without it memory goes back \
               as in pymalloc: an arena at a time, when it is wholly free and not the only one with free pools.",
    },
    Policy {
        name: "populate",
        bit: POPULATE,
        what: "A pool for a class that has 32 full ones and more gets its four OS pages by one system call \
               (MADV_POPULATE_WRITE, Linux 5.14). Without it each page costs a fault when it is touched.",
    },
    Policy {
        name: "wide",
        bit: WIDE,
        what: "Requests of 513 to 2048 bytes are served too, in twelve classes 128 bytes apart, each from its 257th \
               request on. Without it they go to the raw allocator, as in pymalloc.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_bit_and_a_name_of_its_own() {
        for (place, policy) in POLICIES.iter().enumerate() {
            assert_eq!(policy.bit, 1 << place, "{}", policy.name);
            assert!(POLICIES[..place].iter().all(|other| other.name != policy.name), "{}", policy.name);
        }
        assert_eq!(POLICIES.iter().fold(0, |bits, policy| bits | policy.bit), ALL);
    }
}
