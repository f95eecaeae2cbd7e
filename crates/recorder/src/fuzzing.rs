//! A log of any bytes, converted: for `fuzz/` and for a test.
//!
//! Invariant: compiled for those two alone.

use crate::convert::{self, Outside};
use crate::raw;
use crate::reader::RawFile;
use std::io::Write;

/// Converts a log whose header is the first bytes, whose tables are empty, and whose chunks are the rest.
///
/// # Panics
/// When a file in the temporary folder cannot be written.
pub fn log(bytes: &[u8]) {
    let (header, chunks) = bytes.split_at(bytes.len().min(raw::HEADER_BYTES));
    let mut file = tempfile::NamedTempFile::new().expect("the temporary folder can be written to");
    let mut tables = vec![0; raw::TABLES_BYTES];
    tables[..header.len()].copy_from_slice(header);
    file.write_all(&tables).and_then(|()| file.write_all(chunks)).expect("the temporary folder has room");
    let Ok(raw) = RawFile::open(file.path()) else { return };
    let Ok((trace, converted)) = convert::write_trace(&raw, Vec::new(), &Outside::default()) else { return };
    let mut reader = trace::TraceReader::new(trace.as_slice()).expect("what was written is a trace");
    let mut events = 0;
    for event in reader.by_ref() {
        event.expect("every event is valid");
        events += 1;
    }
    assert_eq!(events, converted.totals.events);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{Kind, Record, chunk, word};

    fn words(list: &[u64]) -> Vec<u8> {
        list.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A header and two chunks of two threads: blocks that come, grow, go, and are freed by the other thread.
    fn sample() -> Vec<u8> {
        let mut header = vec![0; raw::HEADER_BYTES / 8];
        header[word::MAGIC] = raw::MAGIC;
        header[word::STOP] = raw::stop::EXIT;
        let mut bytes = words(&header);
        let record = |kind, seq: u64, address, size| Record {
            kind,
            domain: (seq % 4) as u8,
            align_log2: 0,
            seq,
            time: seq * 10,
            address,
            size,
            caller: 0,
        };
        let threads = [
            [(Kind::Alloc, 1, 64, 300_000), (Kind::ReallocBegin, 3, 64, 0), (Kind::ReallocEnd, 4, 128, 20)],
            [(Kind::AllocZeroed, 2, 96, 10), (Kind::Free, 5, 128, 0), (Kind::GcStart, 6, 1, 0)],
        ];
        for (thread, records) in threads.into_iter().enumerate() {
            let mut head = [0; raw::CHUNK_HEADER_BYTES / 8];
            head[chunk::MAGIC] = raw::CHUNK_MAGIC;
            head[chunk::SERIAL] = thread as u64 + 1;
            head[chunk::BYTES] = (raw::CHUNK_HEADER_BYTES + records.len() * raw::RECORD_BYTES) as u64;
            bytes.extend(words(&head));
            bytes.extend(
                records.into_iter().flat_map(|(kind, seq, at, size)| words(&record(kind, seq, at, size).pack())),
            );
        }
        bytes
    }

    #[test]
    fn a_damaged_log_gives_a_trace_or_an_error() {
        let sample = sample();
        log(&sample);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..3000 {
            let mut damaged = sample.clone();
            for _ in 0..=round % 4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (place, value) = ((state >> 33) as usize, (state >> 24) as u8);
                // Most of the header is padding.
                let tail = damaged.len() - raw::HEADER_BYTES;
                let at = if round % 3 == 0 { place % 192 } else { raw::HEADER_BYTES + place % tail };
                damaged[at] = value;
            }
            if round % 50 == 0 {
                damaged.truncate(raw::HEADER_BYTES + round % (sample.len() - raw::HEADER_BYTES));
            }
            log(&damaged);
        }
    }
}
