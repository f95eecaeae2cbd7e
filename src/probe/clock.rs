//! The two clocks: the kernel's monotonic one for spans, the processor's counter for single calls.
//!
//! Invariant: [`begin`] is read after everything before it has finished, and [`end`] before anything after it
//! starts, so that neither the harness's own stores nor its next loads leak into a timed call.

use super::sys;

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    sys::monotonic_ns()
}

/// The counter before a timed call, in ticks.
#[inline(always)]
#[must_use]
pub fn begin() -> u64 {
    sys::ticks_begin()
}

/// The counter after a timed call, in ticks.
#[inline(always)]
#[must_use]
pub fn end() -> u64 {
    sys::ticks_end()
}

/// Shortest span over which the counter's rate is worked out, nanoseconds.
const RATE_SPAN_NS: u64 = 50_000_000;

/// Both clocks at one moment, from which the counter's rate follows.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    ns: u64,
    ticks: u64,
}

impl Rate {
    /// Reads both clocks.
    #[must_use]
    pub fn start() -> Self {
        Self { ns: now_ns(), ticks: begin() }
    }

    /// Ticks in one second over the time since [`Rate::start`], waiting until at least 50 ms have passed.
    #[must_use]
    pub fn ticks_per_second(self) -> u64 {
        sys::sleep_until_ns(self.ns + RATE_SPAN_NS);
        let now = Self::start();
        let ticks = u128::from(now.ticks - self.ticks) * 1_000_000_000;
        (ticks / u128::from((now.ns - self.ns).max(1))) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_moves_and_its_rate_is_that_of_a_processor() {
        let start = Rate::start();
        let (first, second) = (begin(), end());
        assert!(second >= first);
        let rate = start.ticks_per_second();
        assert!((100_000_000..20_000_000_000).contains(&rate), "{rate}");
    }
}
