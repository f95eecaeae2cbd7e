//! What each setting of an allocator does to a trace and why, in sentences with numbers.
//!
//! Invariant: says what a setting can reach, never what it will save; what was not counted is said to be unknown.

use super::words::{percent, plural};
use crate::analysis::knobs::{Knobs, MMAP_THRESHOLDS, Share};
use crate::units;

/// CPython's limit, bytes, and glibc's arenas per CPU on 64 bits.
const SMALL_BYTES_MAX: u64 = crate::run::SMALL_BYTES_MAX;
const ARENAS_PER_CPU: u32 = 8;

/// One setting: how it is typed, and what it meets.
pub type Explained = (&'static str, String);

/// Every setting.
#[must_use]
pub fn explained(knobs: &Knobs) -> Vec<Explained> {
    vec![
        ("PYTHONMALLOC=malloc", python(knobs)),
        ("LD_PRELOAD, MALLOC_*", malloc(knobs)),
        ("MALLOC_MMAP_THRESHOLD_", mmap(knobs)),
        ("MALLOC_TRIM_THRESHOLD_", trim(knobs)),
        ("MALLOC_ARENA_MAX", arenas(knobs)),
        ("ARROW_DEFAULT_MEMORY_POOL", arrow(knobs)),
        ("decay and purge delays", idle(knobs)),
    ]
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "none".to_owned() } else { percent(part as f64 / whole as f64) }
}

/// `34 % of what is live at the peak (13.4 MiB), 80 % at rest (4.1 MiB)`.
fn live(part: &Share, all: &Share) -> String {
    let of = |part: u64, whole: u64| format!("{} ({} MiB)", share(part, whole), units::mib(part as f64));
    format!(
        "{} of what is live at the peak, {} at rest",
        of(part.live_bytes_peak, all.live_bytes_peak),
        of(part.live_bytes_rest, all.live_bytes_rest)
    )
}

/// `4.6 M requests (90 % of all, 12 % of the bytes)`.
fn requests(part: &Share, all: &Share) -> String {
    format!(
        "{} requests ({} of all, {} of the bytes)",
        units::count(part.requests as f64),
        share(part.requests, all.requests),
        share(part.bytes, all.bytes)
    )
}

fn python(knobs: &Knobs) -> String {
    let [small, large] = &knobs.python;
    if small.requests + small.live_bytes_peak == 0 {
        return format!("nothing: no request of Python's own domains is of up to {SMALL_BYTES_MAX} B.");
    }
    let own = Share { requests: small.requests + large.requests, bytes: small.bytes + large.bytes, ..*small };
    format!(
        "takes Python's own requests of up to {SMALL_BYTES_MAX} B from CPython's pools to malloc: {}, {} of Python's \
         own requests and {} of their bytes. They are {}. Larger ones are malloc's with and without it.",
        requests(small, &knobs.all),
        share(small.requests, own.requests),
        share(small.bytes, own.bytes),
        live(small, &knobs.all)
    )
}

fn malloc(knobs: &Knobs) -> String {
    let numpy = match knobs.numpy.bytes {
        0 => String::new(),
        bytes => format!(" NumPy's data is {} of these bytes.", share(bytes, knobs.malloc.bytes)),
    };
    format!(
        "reach what malloc serves, C code, NumPy and Python's requests above {SMALL_BYTES_MAX} B: {}; {}.{numpy} With \
         PYTHONMALLOC=malloc they reach Python's small requests as well; Arrow's buffers only with \
         ARROW_DEFAULT_MEMORY_POOL=system.",
        requests(&knobs.malloc, &knobs.all),
        live(&knobs.malloc, &knobs.all)
    )
}

fn mmap(knobs: &Knobs) -> String {
    let [from_64k, from_128k, from_32m] = &knobs.mapped;
    if from_64k.requests == 0 && from_64k.live_bytes_peak == 0 {
        return format!(
            "nothing: malloc is asked for no block of {} KiB or more here, so none is mapped by itself.",
            MMAP_THRESHOLDS[0].0 >> 10
        );
    }
    let all = &knobs.malloc;
    let side = |of: &Share| format!("{} ({} requests)", share(of.bytes, all.bytes), units::count(of.requests as f64));
    format!(
        "a block from the threshold on is mapped by itself and given back when it is freed. Of the bytes asked \
        of malloc, \
         {} are in blocks of 64 KiB and more, {} of 128 KiB (the default) and more, {} of 32 MiB and more. Left \
         alone, the \
         threshold rises to the size of any mapped block that is freed, up to 32 MiB, and later blocks up to that \
         size come from the heap; setting this or any of MALLOC_TRIM_THRESHOLD_, MALLOC_TOP_PAD_, \
         MALLOC_MMAP_MAX_ stops \
         that. At 131072 this reaches the {} in blocks of 128 KiB and more: {}.",
        side(from_64k),
        side(from_128k),
        side(from_32m),
        share(from_128k.bytes, all.bytes),
        live(from_128k, &knobs.all)
    )
}

fn trim(knobs: &Knobs) -> String {
    let [_, from_128k, _] = &knobs.mapped;
    let also = if from_128k.requests == 0 {
        "No block here is large enough for the moving threshold to matter, so only the heap's end is left to it."
            .to_owned()
    } else {
        format!(
            "Setting it also stops the mmap threshold from rising, which is what acts on the {} of malloc's bytes in \
             blocks of 128 KiB and more.",
            share(from_128k.bytes, knobs.malloc.bytes)
        )
    };
    format!(
        "gives back free memory at the heap's end beyond so many bytes, while a block below the end that is in \
        use keeps all \
         before it. {also}"
    )
}

fn arenas(knobs: &Knobs) -> String {
    let [threads, at_once] = knobs.threads;
    if at_once < 2 {
        return "nothing: one thread at a time asks malloc, and it has one arena.".to_owned();
    }
    let limit = knobs.cpus.map_or_else(
        || format!("{ARENAS_PER_CPU} per CPU"),
        |cpus| format!("{ARENAS_PER_CPU} per CPU, {} on {}", ARENAS_PER_CPU * cpus, plural(cpus as usize, "CPU")),
    );
    let most = knobs.cpus.map_or(at_once, |cpus| at_once.min(ARENAS_PER_CPU * cpus));
    format!(
        "{threads} threads ask malloc, {at_once} of them at once. glibc makes a heap for each, up to {limit}: \
        up to {most} \
         here, of which each keeps what is free in it. A lower limit has threads share heaps, and wait for each other."
    )
}

fn arrow(knobs: &Knobs) -> String {
    if knobs.arrow.requests + knobs.arrow.live_bytes_peak == 0 {
        return "nothing: Arrow is not asked here.".to_owned();
    }
    format!(
        "says who serves Arrow's buffers: {}; {}.",
        requests(&knobs.arrow, &knobs.all),
        live(&knobs.arrow, &knobs.all)
    )
}

fn idle(knobs: &Knobs) -> String {
    let recorded = match knobs.idle_ns {
        Some(ns) => format!("The recording goes on for {} after `drained`.", units::nanoseconds(ns as f64)),
        None => "How long the recording idles after its work is unknown.".to_owned(),
    };
    format!(
        "{recorded} jemalloc keeps what is free for dirty_decay_ms (10 s; Arrow's copy 1 s), mimalloc for \
        MIMALLOC_PURGE_DELAY \
         (25 ms in 2.0, 10 ms in 2.2, 1 s in 3), and without a thread of its own an allocator gives back only while it \
         is called. A replay reads both: at rest nothing calls, then a trickle of calls does."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs() -> Knobs {
        let part = |requests, bytes| Share { requests, bytes, live_bytes_peak: bytes / 2, live_bytes_rest: bytes / 4 };
        const MIB: u64 = 1 << 20;
        Knobs {
            all: part(1000, 100 * MIB),
            python: [part(600, 10 * MIB), part(200, 10 * MIB)],
            malloc: part(300, 40 * MIB),
            numpy: Share::default(),
            arrow: part(100, 50 * MIB),
            mapped: [part(30, 20 * MIB), part(10, 16 * MIB), Share::default()],
            threads: [7, 5],
            cpus: Some(2),
            idle_ns: Some(2_500_000),
        }
    }

    fn text(knobs: &Knobs, name: &str) -> String {
        explained(knobs).into_iter().find(|(own, _)| *own == name).expect("it is explained").1
    }

    #[test]
    fn both_sides_of_a_threshold_are_said() {
        let knobs = knobs();
        let python = text(&knobs, "PYTHONMALLOC=malloc");
        for part in ["600 requests (60 % of all, 10 % of the bytes)", "75 % of Python's own", "10 % (5.00 MiB) of what"]
        {
            assert!(python.contains(part), "{python}");
        }
        let mmap = text(&knobs, "MALLOC_MMAP_THRESHOLD_");
        assert!(mmap.contains("50 % (30 requests) are in blocks of 64 KiB") && mmap.contains("40 % (10"), "{mmap}");
        assert!(text(&knobs, "MALLOC_ARENA_MAX").contains("5 of them at once"));
        assert!(text(&knobs, "decay and purge delays").contains("2.50 ms after"));
    }

    #[test]
    fn a_setting_that_meets_nothing_says_so() {
        let none = Share::default();
        let mut knobs = Knobs { arrow: none, mapped: [none; 3], threads: [1, 1], ..knobs() };
        knobs.python[0] = none;
        for (name, text) in explained(&knobs) {
            let is_met = ["LD_PRELOAD, MALLOC_*", "MALLOC_TRIM_THRESHOLD_", "decay and purge delays"].contains(&name);
            assert!(is_met || text.starts_with("nothing: "), "{name}: {text}");
        }
    }
}
