//! A long sequence in the manner of a Python program: it fills memory with a few sizes at a time, works on what is
//! there, and drops it in one of three orders, while a little of everything stays for long.
//!
//! It draws from a generator of its own, from a fixed seed, so that golden logs of it can be kept.
//!
//! **Invariant:** the same seed gives the same calls, on any machine and with any version of any library.

use std::collections::VecDeque;

use libpython::oracle::Call;

/// Most bytes that a phase fills.
const FILL_BYTES_MAX: u64 = 20 << 20;

/// In which order blocks are dropped.
#[derive(Clone, Copy)]
enum Order {
    Newest,
    Oldest,
    Any,
}

#[derive(Clone, Copy)]
enum Phase {
    /// So many bytes to come.
    Fill(u64),
    /// So many calls to come.
    Work(u64),
    /// Until so few blocks are left.
    Drain(Order, usize),
}

#[derive(Clone)]
pub(crate) struct Generator {
    state: u64,
    left: u64,
    phase: Phase,
    favourites: [u64; 4],
    /// Slot and bytes of live blocks, oldest first.
    live: VecDeque<(usize, u64)>,
    slots_free: Vec<usize>,
    slots: usize,
}

impl Generator {
    pub(crate) fn new(seed: u64, calls: u64) -> Self {
        let mut generator = Self {
            state: seed,
            left: calls,
            phase: Phase::Work(0),
            favourites: [0; 4],
            live: VecDeque::new(),
            slots_free: Vec::new(),
            slots: 0,
        };
        generator.fill_next();
        generator
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    fn fill_next(&mut self) {
        let is_large = self.below(8) > 0;
        for index in 0..self.favourites.len() {
            // Programs ask for small sizes most often; large ones fill arenas with fewer calls.
            let most = if is_large { 512 } else { 128 };
            self.favourites[index] = 1 + most / 2 * u64::from(is_large) + self.below(most / 2);
        }
        self.phase = Phase::Fill(self.below(FILL_BYTES_MAX));
    }

    fn next_phase(&mut self) {
        match self.phase {
            Phase::Fill(_) => self.phase = Phase::Work(self.below(20_000)),
            Phase::Work(_) => {
                let order = [Order::Newest, Order::Oldest, Order::Any][self.below(3) as usize];
                // One time in two everything goes; else up to a twentieth stays.
                let kept = if self.below(2) == 0 { 0 } else { self.below(1 + self.live.len() as u64 / 20) };
                self.phase = Phase::Drain(order, kept as usize);
            }
            Phase::Drain(..) => self.fill_next(),
        }
    }

    fn bytes(&mut self) -> u64 {
        match self.below(100) {
            0 => 0,
            1..=2 => 513 + self.below(4000),
            3..=9 => 1 + self.below(512),
            _ => self.favourites[self.below(4) as usize],
        }
    }

    fn slot(&mut self) -> usize {
        self.slots_free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    fn allocate(&mut self) -> Call {
        let (slot, bytes) = (self.slot(), self.bytes());
        let call = match self.below(40) {
            0..=1 => Call::calloc(slot, 1, bytes as usize),
            2 => Call::calloc(slot, 8, bytes as usize / 8),
            3 => Call::realloc(slot, bytes as usize),
            _ => Call::malloc(slot, bytes as usize),
        };
        self.live.push_back((slot, bytes));
        call
    }

    /// A container grows by an eighth, or a text is cut to its length, or anything becomes anything.
    fn reallocate(&mut self, index: usize) -> Call {
        let old = self.live[index].1;
        let bytes = match self.below(20) {
            0..=10 => (old + old / 8 + 8).min(6000),
            11..=16 => old - self.below(1 + old / 2),
            17 => old,
            _ => self.bytes(),
        };
        self.live[index].1 = bytes;
        Call::realloc(self.live[index].0, bytes as usize)
    }

    fn free(&mut self, order: Order) -> Option<Call> {
        let (slot, _) = match order {
            Order::Newest => self.live.pop_back(),
            Order::Oldest => self.live.pop_front(),
            Order::Any => {
                let index = self.below(self.live.len() as u64) as usize;
                self.live.swap_remove_back(index)
            }
        }?;
        self.slots_free.push(slot);
        Some(Call::free(slot))
    }

    /// The next call of the phase; none if the phase is over.
    fn step(&mut self) -> Option<Call> {
        match self.phase {
            Phase::Fill(bytes) | Phase::Work(bytes) if bytes == 0 => None,
            Phase::Fill(left) => {
                if self.below(6) == 0 && !self.live.is_empty() {
                    // Containers grow while they are filled: mostly the youngest.
                    let back = self.below(self.live.len().min(50) as u64) as usize;
                    return Some(self.reallocate(self.live.len() - 1 - back));
                }
                let call = self.allocate();
                let bytes = self.live.back().map_or(0, |(_, bytes)| *bytes);
                self.phase = Phase::Fill(left.saturating_sub(bytes.max(16)));
                Some(call)
            }
            Phase::Work(left) => {
                self.phase = Phase::Work(left - 1);
                if self.live.is_empty() {
                    return Some(self.allocate());
                }
                let any = self.below(self.live.len() as u64) as usize;
                match self.below(20) {
                    0..=8 => Some(self.allocate()),
                    9..=11 => Some(self.reallocate(any)),
                    // Most blocks die young.
                    12..=17 => self.free(Order::Newest),
                    _ => self.free(Order::Any),
                }
            }
            Phase::Drain(_, kept) if self.live.len() <= kept => None,
            // A program that drops things goes on working a little.
            Phase::Drain(order, _) => match self.below(64) {
                0 => Some(self.allocate()),
                _ => self.free(order),
            },
        }
    }
}

impl Iterator for Generator {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(call) = self.step() {
                return Some(call);
            }
            self.next_phase();
        }
    }
}
