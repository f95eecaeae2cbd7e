//! Makes seeded mutants of traces, repairs their checksums, and has every reader of the crate look at each.
//!
//! ```text
//! cargo run -p trace --example mutate -- SEED COUNT KEEP_FOLDER KEEP_EVERY TRACE...
//! ```
//! One JSON object a mutant on the standard output: its kind, whether it is refused, in what it differs from its
//! original where it is not, and what is wrong with the readers. About one mutant in KEEP_EVERY is kept as a file.
//!
//! Invariant: the same arguments give the same mutants. `scripts/mutate` runs this, and judges.

mod file;
mod judge;
mod kinds;
mod originals;
mod random;

use file::TraceFile;
use judge::{Accepted, Read};
use random::Random;
use serde_json::json;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events of the small originals.
const SMALL_EVENTS: usize = 3000;
/// Every so many mutants, a whole trace is the original.
const WHOLE_EVERY: usize = 12;
/// Accepted mutants are kept so many times as often as refused ones, which most are.
const ACCEPTED_MORE_OFTEN: u64 = 4;
/// A mutant that takes longer hangs.
const HANG: Duration = Duration::from_secs(20);
/// What a mutant is called that ended in one.
const PANIC: &str = "panic";
/// Exit code after a hang.
const HUNG: i32 = 3;

/// An original.
struct Original {
    name: String,
    file: TraceFile,
    read: Read,
}

impl Original {
    fn new(name: String, bytes: &[u8]) -> Self {
        let read = Read::of(bytes).expect("an original is valid");
        Self { name, file: TraceFile::parse(bytes), read }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, count, keep_folder, keep_every, traces @ ..] = arguments.as_slice() else {
        eprintln!("give SEED COUNT KEEP_FOLDER KEEP_EVERY TRACE...");
        std::process::exit(2);
    };
    let [seed, count, keep_every] = [seed, count, keep_every].map(|word| word.parse().expect("a number"));
    let (small, whole) = originals(traces);
    let running = Arc::new(AtomicU64::new(0));
    watch(&running);
    let said = Arc::new(Mutex::new(String::new()));
    let hook = Arc::clone(&said);
    std::panic::set_hook(Box::new(move |panic| *hook.lock().expect("no panic holds it") = panic.to_string()));

    let mut out = std::io::stdout().lock();
    for number in 0..count {
        running.store(number << 1 | 1, Ordering::Relaxed);
        let mut random = Random(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let place = number as usize;
        let pool = if place.is_multiple_of(WHOLE_EVERY) { &whole } else { &small };
        let begun = Instant::now();
        let judged = catch_unwind(AssertUnwindSafe(|| one(pool, place, &mut random)));
        let (kind, name, bytes, mut verdict) = judged.unwrap_or_else(|_| ("", "", Vec::new(), Err(PANIC.to_owned())));
        if verdict.as_ref().is_err_and(|broken| broken == PANIC) {
            verdict = Err(format!("{PANIC}: {}", said.lock().expect("no panic holds it")));
        }
        running.store(number << 1, Ordering::Relaxed);
        let mut kept = None;
        let is_wanted = match &verdict {
            Ok(None) => number % keep_every == 0,
            Ok(Some(_)) => number % keep_every < ACCEPTED_MORE_OFTEN,
            Err(_) => true,
        };
        if is_wanted {
            let path = format!("{keep_folder}/{number}.trace");
            std::fs::write(&path, bytes).expect("the folder can be written");
            kept = Some(path);
        }
        let (accepted, broken) = match verdict {
            Ok(accepted) => (accepted, None),
            Err(broken) => (None, Some(broken)),
        };
        let (differs, live_bytes) = accepted.map(|accepted| (accepted.differs, accepted.live_bytes)).unzip();
        let milliseconds = begun.elapsed().as_millis() as u64;
        let line = json!({ "number": number, "kind": kind, "trace": name, "differs": differs, "live_bytes": live_bytes,
            "broken": broken, "kept": kept, "ms": milliseconds });
        writeln!(out, "{line}").expect("somebody reads this");
    }
}

/// The small originals, and the whole ones.
fn originals(traces: &[String]) -> (Vec<Original>, Vec<Original>) {
    let mut small = vec![Original::new("by hand".to_owned(), &originals::by_hand())];
    let mut whole = Vec::new();
    for path in traces {
        let bytes = std::fs::read(path).expect("a trace can be read");
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        small.push(Original::new(name.clone(), &originals::beginning(&bytes, SMALL_EVENTS)));
        whole.push(Original::new(format!("{name}, whole"), &bytes));
    }
    (small, whole)
}

/// Kind, name of the original, the mutant, and what is to be known of it where it is accepted, or what is wrong.
type Judged<'a> = (&'static str, &'a str, Vec<u8>, Result<Option<Accepted>, String>);

/// Makes a mutant of the kind whose turn it is, of the first original from a place on that has it, and judges it.
fn one<'a>(originals: &'a [Original], place: usize, random: &mut Random) -> Judged<'a> {
    let (kind, change) = kinds::KINDS[place % kinds::KINDS.len()];
    let from = random.below(originals.len());
    let made = originals.iter().cycle().skip(from).take(originals.len()).find_map(|original| {
        let bytes = kinds::mutant(&original.file, change, random, judge::totals)?;
        Some((original, bytes))
    });
    let Some((original, bytes)) = made else { return (kind, "none has it", Vec::new(), Ok(None)) };
    let judged = catch_unwind(AssertUnwindSafe(|| judge::judge(&bytes, &original.read)));
    (kind, &original.name, bytes, judged.unwrap_or_else(|_| Err(PANIC.to_owned())))
}

/// Ends the process when one mutant takes too long; an odd number is a mutant at work.
fn watch(running: &Arc<AtomicU64>) {
    let running = Arc::clone(running);
    std::thread::spawn(move || {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = running.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            } else if now & 1 == 1 && since.elapsed() > HANG {
                println!(
                    "{}",
                    json!({ "number": now >> 1, "kind": "", "broken": "hang", "ms": HANG.as_millis() as u64 })
                );
                std::process::exit(HUNG);
            }
        }
    });
}
