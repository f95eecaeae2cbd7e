//! Any bytes through the image compiler, which accepts what the reader accepts, in windows of any size.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trace::image::{VecSink, compile};

fuzz_target!(|bytes: &[u8]| {
    let window = usize::from(bytes.first().copied().unwrap_or(0)) + 4;
    let (mut small, mut large) = (VecSink::new(window), VecSink::new(1 << 16));
    let compiled = compile(bytes, &mut small);
    if trace::validate(bytes).is_ok() {
        let summary = compiled.expect("the reader accepts it");
        assert_eq!(compile(bytes, &mut large).expect("the reader accepts it"), summary);
        assert_eq!(small.ops(), large.ops());
    }
});
