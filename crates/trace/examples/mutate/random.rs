//! A seeded stream of numbers, and changes of bytes and JSON drawn from it.
//!
//! Invariant: the same seed gives the same changes on every machine.

use serde_json::Value;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

/// Numbers at the edges of types and of the format's bounds.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    127,
    128,
    255,
    65_535,
    65_536,
    1 << 20,
    1 << 25,
    u32::MAX as u64,
    1 << 32,
    (1 << 47) - 1,
    1 << 47,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Texts that a reader may trip over: none, control sequences, a long one, a path, two lines.
const TEXTS: [&str; 6] = ["", "\u{1b}[31mred\u{1b}[0m", "\u{0}", "../../etc/passwd", "two\nlines", "\u{202e}\u{feff}é"];
const LONG_TEXT_BYTES: usize = 100_000;

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn edge(&mut self) -> u64 {
        EDGES[self.below(EDGES.len())]
    }

    /// Changes a few bytes: flips, overwrites, takes out, puts in, repeats or moves.
    pub(crate) fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len());
            let length = (1 + self.below(8)).min(bytes.len() - at.min(bytes.len()));
            match self.below(8) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = self.next() as u8,
                3 => bytes[at] = [0, 1, 127, 128, 254, 255][self.below(6)],
                4 => drop(bytes.drain(at..at + length)),
                5 => bytes.insert(at, self.next() as u8),
                6 => {
                    let part = bytes[at..at + length].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
                _ => {
                    // The largest number that nine bytes can hold, or one near it.
                    let mut number = vec![255];
                    number.extend_from_slice(&u64::MAX.wrapping_sub(self.next() & 3).to_le_bytes());
                    bytes.splice(at..at + length, number);
                }
            }
        }
    }

    /// Changes bytes where they are; nothing moves.
    pub(crate) fn overwrite(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len());
            let change = self.next() as u8;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if change & 1 == 0 { *byte ^ (1 << (change >> 5)) } else { self.next() as u8 };
            }
        }
    }

    /// Changes one value somewhere inside.
    pub(crate) fn change_json(&mut self, value: &mut Value) {
        match value {
            Value::Object(entries) if !entries.is_empty() && self.below(8) > 0 => {
                let at = self.below(entries.len());
                let key = entries.keys().nth(at).cloned().unwrap_or_default();
                match self.below(10) {
                    0 => drop(entries.remove(&key)),
                    1 => drop(entries.insert(TEXTS[self.below(TEXTS.len())].to_owned(), Value::from(self.edge()))),
                    _ => entries.values_mut().nth(at).into_iter().for_each(|inside| self.change_json(inside)),
                }
            }
            Value::Array(items) if !items.is_empty() && self.below(8) > 0 => {
                let (at, other) = (self.below(items.len()), self.below(items.len()));
                match self.below(10) {
                    0 => drop(items.remove(at)),
                    1 => items.insert(at, items[other].clone()),
                    2 => items.swap(at, other),
                    _ => self.change_json(&mut items[at]),
                }
            }
            _ => *value = self.value(value),
        }
    }

    /// Another value: usually of the same type.
    fn value(&mut self, old: &Value) -> Value {
        let is_same_type = self.below(5) > 0;
        match old {
            Value::Number(number) if is_same_type => match (self.below(4), number.as_u64()) {
                (0, Some(old)) => Value::from(old.wrapping_add(1)),
                (1, Some(old)) => Value::from(old.wrapping_sub(1)),
                _ => Value::from(self.edge()),
            },
            Value::String(_) if is_same_type => self.text(),
            Value::Bool(old) if is_same_type => Value::from(!old),
            _ => match self.below(7) {
                0 => Value::Null,
                1 => Value::from(self.edge()),
                2 => Value::from(-1.5e300),
                3 => Value::from(true),
                4 => Value::Array(vec![Value::from(self.edge()); self.below(4)]),
                5 => serde_json::json!({}),
                _ => self.text(),
            },
        }
    }

    fn text(&mut self) -> Value {
        match self.below(TEXTS.len() + 1) {
            place if place < TEXTS.len() => Value::from(TEXTS[place]),
            _ => Value::from("x".repeat(LONG_TEXT_BYTES)),
        }
    }
}
