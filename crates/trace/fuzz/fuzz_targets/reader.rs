//! Any bytes through everything that reads a trace file; what is accepted can be written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use trace::{TraceReader, TraceWriter, WriteOptions};

fuzz_target!(|bytes: &[u8]| {
    _ = trace::read_footer(Cursor::new(bytes));
    _ = trace::shape(bytes);
    let Ok((metadata, totals)) = trace::validate(bytes) else { return };
    let options = WriteOptions { level: 1, time: true, sites: true };
    let mut writer = TraceWriter::new(Vec::new(), &metadata, options).expect("it was accepted");
    for event in TraceReader::new(bytes).expect("it was accepted") {
        writer.push(event.expect("it was accepted")).expect("it was accepted");
    }
    let (again, totals_again) = writer.finish().expect("memory takes it");
    assert_eq!(totals, totals_again);
    assert_eq!(trace::validate(again.as_slice()).expect("it was just written").1, totals);
    _ = trace::cut(bytes, Vec::new(), 100, options);
});
