//! Any bytes through the text form; what is accepted prints and reads back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trace::text;

fuzz_target!(|bytes: &[u8]| {
    let Ok((metadata, events)) = text::parse(bytes) else { return };
    let mut printed = Vec::new();
    if text::write(&mut printed, &metadata, events.iter().copied().map(Ok)).is_ok() {
        let (again, events_again) = text::parse(printed.as_slice()).expect("it was just printed");
        assert_eq!((metadata.marks, events), (again.marks, events_again));
    }
});
