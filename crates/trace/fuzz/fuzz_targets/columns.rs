//! Any columns through the readers of events: a whole file is made around them, with right lengths and checksums.
//!
//! The first byte holds the flags: 1 references are ages, 2 times, 4 call sites. Then each of twelve columns follows:
//! two bytes of length, little endian, and its bytes; what is missing is empty. The footer's totals are those of the
//! events, if these can all be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::sink;
use trace::image::{Order, RecordedClock, VecSink, apart, compile, moments};
use trace::{Metadata, Site, TraceReader, TraceWriter, WriteOptions};

const COLUMNS: usize = 12;
const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

/// Takes so many bytes off the front, or what is left.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    front
}

fn put(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&(number as u32).to_le_bytes());
}

/// A section with its checksum behind it.
fn close(out: &mut Vec<u8>, section: &[u8]) {
    out.extend_from_slice(section);
    out.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
}

fn file(mut bytes: &[u8], metadata: &[u8], totals: &[u8]) -> Vec<u8> {
    let flags = take(&mut bytes, 1).first().copied().unwrap_or(0);
    let mut header = b"\x89PyAT\r\n\x1a\x01\x00".to_vec();
    header.extend_from_slice(&[(flags >> 1) & 3, 0]);
    put(&mut header, metadata.len());
    header.extend_from_slice(metadata);
    let mut out = Vec::new();
    close(&mut out, &header);
    let mut columns = Vec::new();
    for id in 0..COLUMNS {
        let length = take(&mut bytes, 2).iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        let column = take(&mut bytes, length);
        if !column.is_empty() {
            columns.push((id, column, zstd::bulk::compress(column, 1).expect("memory takes it")));
        }
    }
    let events = columns.first().filter(|(id, ..)| *id == 0).map_or(0, |(_, column, _)| column.len());
    if events > 0 {
        let mut block = vec![1, columns.len() as u8, flags & 1, 0];
        put(&mut block, events);
        for (id, column, stored) in &columns {
            [*id, stored.len(), column.len()].map(|number| put(&mut block, number));
        }
        columns.iter().for_each(|(_, _, stored)| block.extend_from_slice(stored));
        close(&mut out, &block);
    }
    let mut footer = vec![2, 0, 0, 0];
    put(&mut footer, totals.len());
    footer.extend_from_slice(totals);
    close(&mut out, &footer);
    put(&mut out, totals.len());
    out.extend_from_slice(b"PyATend\n");
    out
}

fuzz_target!(|bytes: &[u8]| {
    let mut marks = Metadata::phase_marks();
    marks.push("own".to_owned());
    let sites = vec![Site::default(); 3];
    let metadata = Metadata { marks, sites, ticks_per_second: Some(1_000_000), ..Metadata::default() };
    let json = serde_json::to_vec(&metadata).expect("JSON");
    let draft = file(bytes, &json, b"{}");
    let mut writer = TraceWriter::new(sink(), &metadata, OPTIONS).expect("usable metadata");
    let mut events = Vec::new();
    for event in TraceReader::new(draft.as_slice()).expect("a header") {
        let Ok(event) = event else { break };
        writer.push(event).expect("the reader accepts it");
        events.push(event);
    }
    let totals = writer.finish().expect("nothing is kept").1;
    let whole = file(bytes, &json, &serde_json::to_vec(&totals).expect("JSON"));
    let mut image = VecSink::new(64);
    let compiled = compile(whole.as_slice(), &mut image);
    let valid = trace::validate(whole.as_slice());
    assert_eq!(valid.is_ok(), trace::shape(whole.as_slice()).is_ok());
    let Ok((_, stated)) = valid else { return };
    let summary = compiled.expect("the reader accepts it");
    assert_eq!((stated, summary.ops), (totals.clone(), totals.image_ops));
    let clock = RecordedClock { ticks_per_second: 1_000_000, recorder_ps_per_event: 50_000 };
    let found = moments(events.into_iter().map(Ok), clock, 1024).expect("they are its events");
    assert_eq!(found.ops, summary.ops);
    for order in [Order::Total, Order::Gil, Order::Free] {
        _ = apart(image.ops().to_vec(), summary.slots, order);
    }
    _ = trace::cut(whole.as_slice(), sink(), 10, OPTIONS);
});
