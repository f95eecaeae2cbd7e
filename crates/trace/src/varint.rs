//! Integers of one to nine bytes whose first byte says how many follow, so that decoding needs no loop.
//!
//! The number of trailing ones of the first byte is the number of bytes after it; the value is in the bits above.
//! A first byte of 255 is followed by the whole value, eight bytes, little endian.
//!
//! Invariant: decoding reads at most [`PADDING`] bytes past the data, so buffers are padded by as many zeros.

/// Zero bytes that must follow the data of a decoded buffer.
pub(crate) const PADDING: usize = 8;
/// Largest encoding of one integer, bytes.
pub(crate) const VARINT_BYTES_MAX: usize = 9;

/// Appends `value`.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: u64) {
    let bits = 64 - value.leading_zeros();
    if bits > 56 {
        out.push(255);
        out.extend_from_slice(&value.to_le_bytes());
        return;
    }
    let len = bits.div_ceil(7).max(1);
    let word = (value << len) | ((1 << (len - 1)) - 1);
    out.extend_from_slice(&word.to_le_bytes()[..len as usize]);
}

/// Signed to unsigned, small magnitudes first.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Reads integers one after another from a padded buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VarintCursor<'a> {
    padded: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> VarintCursor<'a> {
    #[cfg(test)]
    fn new(padded: &'a [u8]) -> Self {
        Self::resume(padded, 0)
    }

    /// A cursor at byte `at`, as [`Self::position`] gave it, over all but the last [`PADDING`] bytes of `padded`.
    pub(crate) fn resume(padded: &'a [u8], at: usize) -> Self {
        Self { padded, at, end: padded.len().saturating_sub(PADDING) }
    }

    /// Where the next integer begins.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Whether the data was used up exactly.
    pub(crate) fn is_done(&self) -> bool {
        self.at == self.end
    }

    /// The next integer; `None` at the end of the data or when it ends within an integer.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.at >= self.end {
            return None;
        }
        let word = u64::from_le_bytes(*self.padded.get(self.at..)?.first_chunk::<8>()?);
        if word as u8 == 255 {
            return self.next_whole();
        }
        let len = (!word).trailing_zeros() + 1;
        self.at += len as usize;
        Some((word & (u64::MAX >> (64 - 8 * len))) >> len)
    }

    #[cold]
    fn next_whole(&mut self) -> Option<u64> {
        let bytes = *self.padded.get(self.at + 1..self.end)?.first_chunk::<8>()?;
        self.at += VARINT_BYTES_MAX;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn decode(mut bytes: Vec<u8>) -> Vec<u64> {
        bytes.extend_from_slice(&[0; PADDING]);
        let mut cursor = VarintCursor::new(&bytes);
        let values = std::iter::from_fn(|| cursor.next()).collect();
        assert!(cursor.is_done());
        values
    }

    #[test]
    fn every_length_round_trips_at_its_edges() {
        let mut values = vec![0, u64::MAX];
        values.extend((0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]));
        let mut bytes = Vec::new();
        values.iter().for_each(|&value| put(&mut bytes, value));
        assert_eq!(decode(bytes), values);
    }

    proptest! {
        #[test]
        fn any_integer_round_trips(values: Vec<u64>, signed: i64) {
            let mut bytes = Vec::new();
            values.iter().for_each(|&value| put(&mut bytes, value));
            prop_assert_eq!(decode(bytes), values);
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(mut bytes: Vec<u8>) {
            bytes.extend_from_slice(&[0; PADDING]);
            let mut cursor = VarintCursor::new(&bytes);
            while cursor.next().is_some() {}
        }
    }
}
