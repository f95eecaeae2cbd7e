//! The worked example of `docs/TRACE_FORMAT.md`: its bytes are read as the events it says.

#![allow(clippy::unwrap_used, reason = "tests")]

use trace::image::{VecSink, compile};
use trace::{Event, Metadata, TraceReader, TraceWriter, WriteOptions, text};

const DOCUMENT: &str = include_str!("../../../docs/TRACE_FORMAT.md");
const OPTIONS: WriteOptions = WriteOptions { level: 6, time: false, sites: false };

/// The lines of the fenced block that begins with this word.
fn fenced(language: &str) -> String {
    let (_, rest) = DOCUMENT.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn document_bytes() -> Vec<u8> {
    let digits = fenced("hex").lines().map(|line| line.split(';').next().unwrap().to_owned()).collect::<String>();
    digits.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn footer_start(trace: &[u8]) -> usize {
    let json = u32::from_le_bytes(trace[trace.len() - 12..trace.len() - 8].try_into().unwrap());
    trace.len() - 24 - json as usize
}

#[test]
fn the_worked_example_is_true() {
    let (metadata, events) = text::parse(fenced("trace").as_bytes()).unwrap();
    let mut writer = TraceWriter::new(Vec::new(), &metadata, OPTIONS).unwrap();
    for event in &events {
        writer.push(*event).unwrap();
    }
    let (written, _) = writer.finish().unwrap();
    let header_bytes = 20 + u32::from_le_bytes(written[12..16].try_into().unwrap()) as usize;
    // The block of the document between header and footer of the same events. zstd may choose other bytes in
    // another version, so the block is read, not compared.
    let mut file = written[..header_bytes].to_vec();
    file.extend_from_slice(&document_bytes());
    file.extend_from_slice(&written[footer_start(&written)..]);
    let mut reader = TraceReader::new(file.as_slice()).unwrap();
    let read: Vec<Event> = reader.by_ref().map(Result::unwrap).collect();
    assert_eq!(read, events);
    assert_eq!(reader.metadata().marks, Metadata::phase_marks());

    let mut sink = VecSink::new(64);
    compile(file.as_slice(), &mut sink).unwrap();
    let ops = fenced("image").lines().map(|line| u64::from_str_radix(&line[..16], 16).unwrap()).collect::<Vec<_>>();
    assert_eq!(sink.ops(), ops);
}
