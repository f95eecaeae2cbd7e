//! The trace file: what is written is read back, and nothing else is accepted.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::io::Cursor;
use streams::{Random, any_step, as_kept, build, metadata, read, write};
use trace::{
    BLOCK_EVENTS, Domain, Event, EventKind, Fault, Metadata, TraceError, TraceReader, TraceWriter, WriteOptions,
    read_footer, validate,
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

#[test]
fn another_version_is_named() {
    let mut bytes = small();
    bytes[8] = 7;
    let error = validate(bytes.as_slice()).unwrap_err();
    assert!(matches!(error, TraceError::Version { found: 7 }));
    assert!(error.to_string().contains("version 7"));
}
