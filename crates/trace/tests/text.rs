//! The text form: read back as written, and wrong lines named.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use streams::{any_step, build, metadata};
use trace::{Directive, DirectiveCall, Domain, Event, EventKind, TraceError, text};

proptest! {
    #[test]
    fn any_stream_round_trips(steps in prop::collection::vec(any_step(), 0..200)) {
        let events = build(&steps);
        let mut printed = Vec::new();
        text::write(&mut printed, &metadata(), events.iter().copied().map(Ok)).unwrap();
        let (read_metadata, read) = text::parse(printed.as_slice()).unwrap();
        // Own marks are numbered as they appear, so compare their names.
        let named = |events: &[Event], marks: &[String]| -> Vec<(Event, Option<String>)> {
            let name = |event: &Event| match event.kind {
                EventKind::Mark { mark } => {
                    (Event { kind: EventKind::Fork, ..*event }, Some(marks[mark as usize].clone()))
                }
                _ => (*event, None),
            };
            events.iter().map(name).collect()
        };
        prop_assert_eq!(named(&read, &read_metadata.marks), named(&events, &metadata().marks));
    }

    #[test]
    fn any_bytes_parse_without_a_panic(bytes: Vec<u8>, line in "[acdfrhmtg#@ +=0-9a-z\n]{0,200}") {
        _ = text::parse(bytes.as_slice());
        _ = text::parse(line.as_bytes());
    }
}

#[test]
fn every_operation_has_a_line() {
    let text = "\
# a comment, and an empty line

a 10 48 obj
a 11 4096 arrow align=64 touched=100 site=3 @640
c 12 100
r 10 64
h 11
f 10
t 1
ts 2
te 2
m steady
m @1280 half way
gc+ 2
gc- 2
fork
d mallopt -3 65536
";
    let (metadata, events) = text::parse(text.as_bytes()).unwrap();
    assert_eq!(metadata.marks[4], "half way");
    assert_eq!(events.len(), 15);
    let aligned = EventKind::Alloc {
        slot: 1,
        domain: Domain::Arrow,
        size: 4096,
        align_log2: 6,
        zeroed: false,
        touched: Some(100),
        site: 3,
    };
    assert_eq!(events[1], Event { time: 640, kind: aligned });
    let call = DirectiveCall { directive: Directive::Mallopt, key: -3, value: 65_536 };
    assert_eq!(events[14], Event { time: 1280, kind: EventKind::Direct(call) });
    assert_eq!(events[10], Event { time: 1280, kind: EventKind::Mark { mark: 4 } });
}

#[test]
fn wrong_lines_are_named() {
    for (line, part) in [
        ("x 1", "no operation"),
        ("a 1", "no operation"),
        ("a 1 2 three", "domain"),
        ("a 1 x", "not a number"),
        ("a 1 999999999999999", "cannot have"),
        ("a 1 10 obj align=3", "alignment"),
        ("c 1 10 obj align=8", "alignment"),
        ("f 7", "not live"),
        ("r 0 0", "cannot be resized"),
        ("f 0 touched=1", "only `a`, `c` and `r`"),
        ("a 0 1", "live already"),
        ("m", "no name"),
        ("gc+ 256", "too large"),
        ("d malloc 0 0", "none of malloc_trim"),
        ("d mallopt 40000 0", "16 bits"),
        ("d mallopt 0 5000000000", "32 bits"),
        ("d malloc_trim", "no operation"),
    ] {
        let text = format!("a 0 1\n{line}\n");
        let error = text::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(&error, TraceError::Text { line: 2, .. }), "{line}: {error}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
    let endless = vec![b'a'; 1 << 20];
    assert!(matches!(text::parse(endless.as_slice()), Err(TraceError::Text { line: 1, .. })));
}
