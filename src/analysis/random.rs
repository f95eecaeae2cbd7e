//! A small generator of reproducible random numbers for resampling; nothing here needs to be unpredictable.
//!
//! Invariant: the same seed gives the same numbers on every machine and in every version of this crate.

/// SplitMix64: one 64-bit word of state, passes the usual test batteries, no dependency.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a result's seed and the names of what is being resampled, so that neither the order of work nor
    /// the number of threads decides which numbers a cell draws.
    #[must_use]
    pub fn new(seed: u64, names: &[&str]) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed; // FNV-1a, started at the seed
        for name in names {
            for byte in name.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self(hash)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; `bound` must be above 0 and below 2^32 (the bias is then below 2^-32).
    pub fn below(&mut self, bound: usize) -> usize {
        (((self.next_u64() >> 32) * bound as u64) >> 32) as usize
    }

    /// Uniform above 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_seed_decide_the_numbers() {
        let draw = |seed, names: &[&str]| Random::new(seed, names).next_u64();
        assert_eq!(draw(1, &["a", "b"]), draw(1, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(2, &["a", "b"]));
        assert_ne!(draw(1, &["a", "b"]), draw(1, &["ab"]));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(7, &["spread"]);
        let mut seen = [0u32; 12];
        for _ in 0..12_000 {
            seen[random.below(12)] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..10_000 {
            let x = random.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / 1e4f64).abs() < 0.05, "{sum}");
        assert!((squares / 1e4f64 - 1.0).abs() < 0.05, "{squares}");
    }
}
