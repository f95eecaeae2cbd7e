//! Any JSON as a trace's metadata: the header is made around it, no event follows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, sink};
use trace::{Totals, TraceWriter, WriteOptions};

fuzz_target!(|bytes: &[u8]| {
    let totals = serde_json::to_vec(&Totals::default()).expect("JSON");
    let mut file = Vec::new();
    for (head, json) in [(b"\x89PyAT\r\n\x1a\x01\x00\x03\x00".as_slice(), bytes), (b"\x02\x00\x00\x00", &totals)] {
        let length = (json.len() as u32).to_le_bytes();
        let section = [head, &length, json].concat();
        file.extend_from_slice(&section);
        file.extend_from_slice(&crc32fast::hash(&section).to_le_bytes());
    }
    file.extend_from_slice(&(totals.len() as u32).to_le_bytes());
    file.extend_from_slice(b"PyATend\n");
    let read = trace::read_footer(Cursor::new(&file));
    let Ok((metadata, _)) = trace::validate(file.as_slice()) else { return };
    assert_eq!(read.expect("it is valid").0, metadata);
    TraceWriter::new(sink(), &metadata, WriteOptions::default()).expect("it was accepted");
    let json = serde_json::to_vec(&metadata).expect("JSON");
    assert_eq!(metadata, serde_json::from_slice(&json).expect("it was just written"));
});
