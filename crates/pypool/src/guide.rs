//! How pymalloc works, for readers who have never opened `obmalloc.c`. There is no code in this module.
//!
//! Numbers are those of [`Current`](crate::Current), that is of 64-bit CPython since 3.10. CPython's own names stand in
//! parentheses.
//!
//! # Who is served
//! A request of 1 to 512 bytes is *small*. It is rounded up to the next multiple of 16, which makes 32 size classes,
//! and gets a block of exactly its class. Everything else, including a request for 0 bytes, is passed to the raw
//! allocator, by default the C library's `malloc`; 0 bytes are asked for as 1, so that every block has its own address.
//!
//! No block carries a header. Whose a block is follows from its address: the [address map](#whose-address-is-this)
//! tells whether it lies in an arena; if so, clearing the low 14 bits of the address leads to the pool's header, which
//! knows the class. So `free` needs no size, and a block of 48 bytes takes 48 bytes.
//!
//! # The life of a block
//! ```text
//!            carve                     allocate
//!  virgin ----------->  on free list <----------->  in use
//!                                        free
//! ```
//! A pool's blocks start out *virgin*: never handed out, never touched. `allocate` takes the head of the free list of
//! the front pool of its class (`usedpools`). If that was the last entry, exactly one more virgin block is carved off
//! and becomes the whole list. A fresh pool thus hands out its blocks in address order and touches its memory page by
//! page, as late as it can.
//!
//! `free` pushes the block on its pool's free list, so the block freed last is the one handed out next. The list is
//! linked through the first word of each free block; the rest of a freed block keeps its content until it is reused.
//!
//! A freed block is never merged with its neighbours. It can serve its own class only, until the whole pool is empty.
//!
//! # The life of a pool
//! A pool is in one of three states, and in at most one list:
//!
//! | state | blocks | where it is |
//! |---|---|---|
//! | used | some in use, some free | the list of its class; only the front one is allocated from |
//! | full | none free | in no list: its own blocks lead back to it |
//! | empty | none in use | its arena's list of empty pools (`freepools`), last emptied first |
//!
//! - When the last block of the front pool goes, the pool is full and leaves the list.
//! - When a block of a full pool is freed, the pool enters its class's list at the *front*, so it serves the next
//!   request.
//! - When the last block in use is freed, the pool is empty and goes back to its arena. That holds for a pool anywhere
//!   in the list, and also for the only one of its class.
//!
//! A class without a used pool takes one from the front arena of the [usable list](#the-life-of-an-arena): the pool
//! emptied last, or, if none is empty, a virgin one. A recycled pool that was of the same class before keeps its free
//! list as its last life left it, and with it the order of addresses; for another class it is set up afresh: block 0 is
//! returned, block 1 is the free list, the rest is virgin.
//!
//! # The life of an arena
//! An arena is one anonymous mapping of 1 MiB. The kernel aligns it to an OS page, not to a pool. An arena that happens
//! to be aligned to a pool holds 64 of them; any other holds 63, and loses 16 KiB at its two ends.
//!
//! Arenas that have a free pool, empty or virgin, are in the *usable list* (`usable_arenas`), in ascending order of how
//! many they have. Pools are taken from the front, so the fullest arena is filled first. The reason is what happens at
//! the other end: memory can go back to the kernel only when an arena has *no* block in use. Requests that go to full
//! arenas leave the emptier ones alone, and those get the chance to drain.
//!
//! The order is kept like this, and ties matter, for they decide addresses:
//! - an arena whose last free pool is taken leaves the list;
//! - an arena that gets its first free pool enters at the front;
//! - an arena that gets one more free pool goes just behind the last arena that has as many as it had before. It so
//!   becomes the first of its new group; if it was itself the last of the old one, it is there already. The table of
//!   group ends (`nfp2lasta`) finds the place without a search.
//!
//! A new arena is mapped only when the usable list is empty.
//!
//! # What goes back to the kernel, and when
//! An arena is unmapped at the moment its last block is freed, unless it stands last in the usable list. That one is
//! kept, wholly free, so that a program at the edge of an arena does not map and unmap one with every object. It is
//! kept for its place, not in a cache: when another arena becomes wholly free it stands before this one, and goes.
//!
//! Nothing else is ever given back: no single pool, no OS page inside an arena, not the vector of arena descriptors,
//! not a node of the address map. One block in use keeps its whole arena: the example `debugmallocstats` of this crate
//! frees 99,995 of 100,000 blocks and still holds 5 MiB for the 240 bytes left. Requests above 512 bytes are the C
//! library's and follow its rules.
//!
//! # Growing and shrinking
//! `reallocate` compares the new size `n` with the size of the *block*, `b`, not with what was asked for:
//! - `n <= b` and `4 n > 3 b`: the block stays where it is. So growth within the block is free, and a shrink that would
//!   save less than a quarter is not worth a copy.
//! - any other `n`: allocate, copy, free. Also a shrink moves, and may fail for lack of memory.
//! - a block of the raw allocator stays with the raw allocator, even if it shrinks to 8 bytes.
//! - a pool's block that is reallocated to 0 bytes moves to the raw allocator, as a request for 0 bytes is its.
//!
//! # When there is no memory
//! No arena can be had if the mapping fails, if the vector of descriptors cannot grow, or if a node of the address map
//! cannot be made. In each case what was begun is undone, and the request goes to the raw allocator like a big one.
//! Only if that refuses too is the result null. The next small request tries for an arena again. A `reallocate` that
//! returns null has left the block alone.
//!
//! # Whose address is this?
//! A radix tree of three levels over all 64 bits (`arena_map`): root and middle nodes resolve 15 bits each, leaves 14,
//! which leaves the 20 bits of an offset within 1 MiB. Since arenas are not aligned to their size, a leaf entry says
//! how much at its beginning belongs to one arena and how much at its end to the next. Nodes come from the raw
//! allocator when they are first needed: 256 KiB for a middle node, 128 KiB for a leaf, which covers 16 GiB.
//!
//! # The debug hooks
//! `PYTHONMALLOC=debug` (or `pymalloc_debug`, over the C library `malloc_debug`) puts [`DebugHooks`] between callers
//! and allocator. Each domain has its own. A request for `n` bytes asks the allocator below for `n + 24`:
//! ```text
//!  8 bytes             1            7          n bytes                 8 bytes
//!  n, big-endian       r, m or o    0xFD ...   0xCD ..., or zeros      0xFD ...
//!                                              ^ what the caller gets
//! ```
//! So the pools serve requests of up to 488 bytes, and also those for 0 bytes. `free` looks at the letter, the seven
//! bytes behind it and the eight after the block, in this order, and then paints all of it 0xDD, of which the pool
//! overwrites the first 8 bytes with its link. `reallocate` looks too; while the allocator below works, header, tail
//! and 64 bytes at each end of the old block are 0xDD. What a block gains is 0xCD.
//!
//! Found are writes just before and after a block, a free in another domain's name, and a second free as long as the
//! dead bytes lie there. A write to a freed block is not found: nobody looks at dead bytes again. `DebugHooks` can do
//! that as well, with a quarantine that CPython does not have; with one, blocks are reused later, so addresses and cost
//! are no longer CPython's. Not looked at, here as there: reads, writes that miss the 24 bytes, and blocks that nobody
//! frees. CPython's hooks of mem and obj ask in each call whether the caller holds the GIL; these do not.
//!
//! # Reading the statistics
//! [`Allocator::statistics`](crate::Allocator::statistics) prints as `sys._debugmallocstats()` does. From the top:
//! - **The class table** has a row for each class with a pool in use. *avail blocks* are free blocks of those pools,
//!   carved or virgin: memory that only this class can use. Many of them after a burst are fragmentation.
//! - **arenas allocated total, reclaimed, highwater mark, current**: mapped ever, unmapped ever, most at a time, now. A
//!   total far above the high-water mark is arena churn.
//! - **The byte budget** accounts for every byte of the mapped arenas and adds up to them: blocks in use, blocks
//!   available, *unused pools* (empty or virgin, free for any class), pool headers, *quantization* (what is left behind
//!   the last block of a pool: 464 bytes with blocks of 512), and *arena alignment* (the room lost at both ends).
//! - **arena map counts**: nodes of the address map, beside the budget.
//!
//! The report knows blocks, not requests: a request for 33 bytes counts as 48. It knows addresses, not residence: an
//! unused pool may never have been touched. [`Allocator::occupancy`](crate::Allocator::occupancy) adds what CPython
//! does not print: how many pools of each arena are in use. Arenas with one or two are the ones that a survivor pins.
//!
//! # What the structure costs
//! Measured for this project on CPython 3.10 to 3.13 itself, on a 2-core EPYC virtual machine; they are costs of the
//! policy, and a faithful model has them too.
//! - **Arena churn.** Every arena that goes and comes back is an `munmap`, an `mmap` and a page fault for each OS page.
//!   A program that grows to a million blocks of 64 bytes and shrinks again spent 33 ns for each allocation; with an
//!   arena source that keeps what it is given back, 4.7 ns, and its frees fell from 9 to 4.2 ns. Such a source is an
//!   implementation of [`ArenaSource`].
//! - **Headers fall on each other.** All pool headers lie at a distance of 16 KiB, so they compete for one set of the
//!   first-level cache. A chain of dependent loads over 400 such lines took 6.1 ns a load, over packed lines 1.1 ns.
//! - **Ping-pong of an empty pool.** While no other block of its class is in use, each allocation takes a pool from its
//!   arena and each free gives it back. That made a pair of both 10.4 ns instead of 7.5 on 3.11.
//!
//! [`Tuned`](crate::Tuned) is the same structure without these costs, and gives single pools back.
//!
//! # Which CPython is this
//! | release | what changed | source |
//! |---|---|---|
//! | 3.4 | domains and replaceable allocators, the arena source among them | PEP 445 |
//! | 3.8 | the usable list is kept sorted in constant time | bpo-37029, gh-81210 |
//! | 3.8, and patch releases before | blocks aligned to 16 bytes instead of 8 on 64-bit machines | bpo-27987 |
//! | 3.9 | the last usable arena is kept when it is wholly free | bpo-37257, gh-81438 |
//! | 3.10 | the address map, no look at foreign headers; arenas of 1 MiB, pools of 16 KiB | bpo-37448, gh-81629 |
//! | 3.11 | the address map covers 64 bits instead of 48, with larger nodes | bpo-45526, gh-89689 |
//! | 3.12 | the state belongs to an interpreter instead of to the process | |
//! | 3.13 | free-threaded builds use mimalloc instead; others are as before | PEP 703 |
//!
//! The policy is the same in 3.10, 3.11, 3.12 and 3.13: given arenas at the same addresses, all four return the same
//! address for every request; the test `oracle` of this crate plays millions on each, and on 3.9 for
//! [`Before310`](crate::Before310). 3.14 was neither run nor read: the sources of 3.13.5 and of the main branch of 2026
//! have the same policy, so it is taken to be the same. [`Statistics`](crate::Statistics) prints the address map of
//! 3.11 and later.
//!
//! Not modelled: sub-interpreters, the free lists that single types keep in
//! front of the allocator, 32-bit builds, and the optional huge-page arenas of 3.15.
//!
//! [`ArenaSource`]: crate::ArenaSource
//! [`DebugHooks`]: crate::DebugHooks
