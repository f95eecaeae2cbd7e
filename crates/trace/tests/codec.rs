//! The trace file: what is written is read back, and nothing else is accepted.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::io::Cursor;
use streams::{Random, any_step, as_kept, build, metadata, read, write};
use trace::{
    BLOCK_EVENTS, Domain, Event, EventKind, Fault, Metadata, TraceError, TraceReader, TraceWriter, VERSION,
    WriteOptions, read_footer, validate,
};

const PLAIN: WriteOptions = WriteOptions { level: 1, time: false, sites: false };
const FULL: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

fn small() -> Vec<u8> {
    write(&build(&Random(7).steps(60)), FULL)
}

proptest! {
    #[test]
    fn any_stream_round_trips(
        steps in prop::collection::vec(any_step(), 0..600),
        time: bool,
        sites: bool,
    ) {
        let options = WriteOptions { level: 1, time, sites };
        let events = build(&steps);
        let bytes = write(&events, options);
        prop_assert_eq!(read(&bytes).unwrap(), as_kept(&events, options));
        let (metadata, totals) = validate(bytes.as_slice()).unwrap();
        prop_assert_eq!(&metadata.totals, &totals);
        prop_assert_eq!(read_footer(Cursor::new(&bytes)).unwrap(), (metadata, totals));
    }

    #[test]
    fn any_flipped_bit_is_noticed(bit: prop::sample::Index) {
        let mut bytes = small();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(validate(bytes.as_slice()).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes: Vec<u8>, keep in 0_usize..400) {
        prop_assert!(validate(bytes.as_slice()).is_err());
        let mut with_a_true_start = small();
        with_a_true_start.truncate(keep);
        with_a_true_start.extend_from_slice(&bytes);
        prop_assert!(validate(with_a_true_start.as_slice()).is_err());
        prop_assert!(read_footer(Cursor::new(with_a_true_start)).is_err());
    }
}

#[test]
fn a_stream_of_several_blocks_round_trips() {
    let events = build(&Random(1).steps(BLOCK_EVENTS * 3 + 17));
    let bytes = write(&events, FULL);
    assert_eq!(read(&bytes).unwrap(), as_kept(&events, FULL));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = small();
    assert!(validate(bytes.as_slice()).is_ok());
    for end in 0..bytes.len() {
        assert!(validate(&bytes[..end]).is_err(), "cut at {end}");
        assert!(read_footer(Cursor::new(&bytes[..end])).is_err(), "cut at {end}");
    }
}

#[test]
fn what_follows_the_end_is_noticed() {
    let mut bytes = small();
    bytes.push(0);
    assert!(matches!(validate(bytes.as_slice()), Err(TraceError::Damaged { .. })));
}

/// Version 1 lacks directives and is otherwise the same.
#[test]
fn the_version_before_is_read() {
    let mut bytes = small();
    assert_eq!(bytes[8], VERSION as u8);
    bytes[8] = 1;
    let header_bytes = 16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let checksum = crc32fast::hash(&bytes[..header_bytes]).to_le_bytes();
    bytes[header_bytes..header_bytes + 4].copy_from_slice(&checksum);
    assert_eq!(read(&bytes).unwrap(), read(&small()).unwrap());
    bytes[8] = 0;
    assert!(matches!(validate(bytes.as_slice()), Err(TraceError::Version { found: 0 })));
}

#[test]
fn another_version_is_named() {
    let mut bytes = small();
    bytes[8] = 7;
    let error = validate(bytes.as_slice()).unwrap_err();
    assert!(matches!(error, TraceError::Version { found: 7 }));
    assert!(error.to_string().contains("version 7"));
}

#[test]
fn the_writer_refuses_what_cannot_have_happened_and_goes_on() {
    let mut writer = TraceWriter::new(Vec::new(), &metadata(), PLAIN).unwrap();
    let alloc = |slot, size, align_log2, zeroed, touched, site| EventKind::Alloc {
        slot,
        domain: Domain::Obj,
        size,
        align_log2,
        zeroed,
        touched,
        site,
    };
    let realloc = |slot, size| EventKind::Realloc { slot, size, touched: None, site: 0 };
    writer.push(Event { time: 0, kind: alloc(0, 8, 0, false, None, 0) }).unwrap();
    for (kind, fault) in [
        (EventKind::Free { slot: 1 }, Fault::NotLive(1)),
        (realloc(7, 8), Fault::NotLive(7)),
        (EventKind::Advise { slot: u32::MAX }, Fault::NotLive(u32::MAX)),
        (realloc(0, 0), Fault::Size(0)),
        (realloc(0, 1 << 47), Fault::Size(1 << 47)),
        (alloc(1, 1 << 47, 0, false, None, 0), Fault::Size(1 << 47)),
        (alloc(2, 8, 0, false, None, 0), Fault::WrongSlot { got: 2, expected: 1 }),
        (alloc(1, 8, 31, false, None, 0), Fault::Align(31)),
        (alloc(1, 8, 4, true, None, 0), Fault::Align(4)),
        (alloc(1, 8, 0, false, Some(1 << 47), 0), Fault::Touched(1 << 47)),
        (alloc(1, 8, 0, false, None, streams::SITES), Fault::Site(streams::SITES)),
        (EventKind::Mark { mark: streams::MARKS }, Fault::Mark(streams::MARKS)),
        (EventKind::ThreadSwitch { thread: 1 << 20 }, Fault::Thread(1 << 20)),
        (EventKind::GcStop { generation: 3 }, Fault::Generation(3)),
    ] {
        let result = writer.push(Event { time: 0, kind });
        assert!(
            matches!(result, Err(TraceError::Impossible { event: 1, fault: found }) if found == fault),
            "{kind:?}: {result:?}"
        );
    }
    assert_eq!(writer.next_slot(), 1);
    let (bytes, totals) = writer.finish().unwrap();
    assert_eq!(totals.events, 1);
    validate(bytes.as_slice()).unwrap();
}

#[test]
fn totals_that_disagree_with_the_events_are_noticed() {
    let bytes = write(&build(&Random(7).steps(60)), PLAIN);
    let other = write(&build(&Random(8).steps(60)), PLAIN);
    // The footer of another trace, whole and with its own valid checksum.
    let footer = |bytes: &[u8]| {
        let json = u32::from_le_bytes(bytes[bytes.len() - 12..bytes.len() - 8].try_into().unwrap());
        bytes.len() - 24 - json as usize
    };
    let mut mixed = bytes[..footer(&bytes)].to_vec();
    mixed.extend_from_slice(&other[footer(&other)..]);
    assert!(matches!(validate(mixed.as_slice()), Err(TraceError::Totals { .. })));
    assert!(matches!(
        trace::image::compile(mixed.as_slice(), &mut trace::image::VecSink::new(1 << 10)),
        Err(TraceError::Totals { .. })
    ));
}

#[test]
fn a_time_never_goes_back() {
    let mut writer = TraceWriter::new(Vec::new(), &metadata(), FULL).unwrap();
    for time in [640, 100, 1300] {
        writer.push(Event { time, kind: EventKind::Fork }).unwrap();
    }
    let times: Vec<u64> = read(&writer.finish().unwrap().0).unwrap().iter().map(|event| event.time).collect();
    assert_eq!(times, [640, 640, 1280]);
}

#[test]
fn totals_are_there_only_at_the_end() {
    let bytes = small();
    let mut reader = TraceReader::new(bytes.as_slice()).unwrap();
    assert!(reader.totals().is_none());
    assert_eq!(reader.metadata(), &metadata());
    let count = reader.by_ref().map(Result::unwrap).count() as u64;
    assert_eq!(reader.totals().unwrap().events, count);
}

#[test]
fn marks_that_are_not_the_phases_are_refused() {
    let metadata = Metadata { marks: vec!["startup".into(), "warm".into()], ..Metadata::default() };
    assert!(matches!(TraceWriter::new(Vec::new(), &metadata, PLAIN), Err(TraceError::Metadata(_))));
}

/// A trace whose one block claims these column lengths, with true checksums.
fn claiming(events: u32, column: u32, stored: u32, bytes: u32) -> Vec<u8> {
    let empty = write(&[], PLAIN);
    let footer =
        empty.len() - 24 - u32::from_le_bytes(empty[empty.len() - 12..empty.len() - 8].try_into().unwrap()) as usize;
    let mut out = empty[..footer].to_vec();
    out.extend_from_slice(&[1, 1, 0, 0]);
    for number in [events, column, stored, bytes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&[0; 64]);
    out
}

#[test]
fn lengths_beyond_what_events_can_need_are_refused() {
    for (events, column, stored, bytes) in [
        (1 << 17, 0, 8, 8),
        (0, 0, 8, 8),
        (8, 12, 8, 8),
        (8, 0, 8, 9),
        (8, 0, u32::MAX, 8),
        (8, 0, 8, u32::MAX),
        (8, 1, 8, 41),
        (8, 8, 8, 0),
    ] {
        let bytes = claiming(events, column, stored, bytes);
        let result = validate(bytes.as_slice());
        assert!(matches!(result, Err(TraceError::Damaged { .. })), "{result:?}");
    }
}

#[test]
fn every_error_is_a_sentence_with_advice() {
    for error in [
        TraceError::NotATrace,
        TraceError::NoSteady,
        TraceError::Version { found: 9 },
        TraceError::Truncated { part: "footer" },
        TraceError::Metadata("it is empty".into()),
        TraceError::Totals { what: "events" },
        TraceError::Impossible { event: 3, fault: Fault::NotLive(2) },
        TraceError::Text { line: 1, what: "it is wrong".into() },
    ] {
        let text = error.to_string();
        let (_, advice) = text.rsplit_once("; ").unwrap_or_default();
        assert!(!advice.is_empty(), "{text}");
    }
}
