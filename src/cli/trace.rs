//! `trace`: check a trace, print it, or take a smaller one out of it.
//!
//! Invariant: a file appears under its name only when it is complete.

use super::out::{Stop, print};
use crate::units::{count, mib, plain_line};
use crate::workload::{Bundle, OpenTrace, trace_sentence};
use ::trace::{Totals, TraceError, TraceReader, TraceWriter, WriteOptions};
use clap::{Args, Subcommand};
use files::{Fresh, Kind, Mode};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Arguments of `trace`.
#[derive(Clone, Debug, Args)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    verb: TraceVerb,
}

#[derive(Clone, Debug, Subcommand)]
enum TraceVerb {
    /// Check every event of a trace against its totals
    Validate {
        /// A trace file, or a bundled workload by name
        trace: String,
    },
    /// Print the events of a trace as text, one a line
    Text {
        /// A trace file, or a bundled workload by name
        trace: String,
    },
    /// Keep start-up and the first part of the steady phase
    Cut {
        /// A trace file, or a bundled workload by name
        trace: String,
        /// Events of the steady phase to keep
        #[arg(long, value_name = "N")]
        events: u64,
        /// The smaller trace
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Write a trace again, compressed as far as it goes
    Pack {
        /// A trace file, or a bundled workload by name
        trace: String,
        /// The same trace, smaller
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Does what was asked for.
pub(super) fn run(args: &TraceArgs) -> Result<(), Stop> {
    match &args.verb {
        TraceVerb::Validate { trace } => validate(trace),
        TraceVerb::Text { trace } => text(trace),
        TraceVerb::Cut { trace, events, output } => cut(trace, *events, output),
        TraceVerb::Pack { trace, output } => pack(trace, output),
    }
}

/// Opens what a word means; errors begin with its name.
fn open(word: &str) -> Result<(OpenTrace, impl Fn(String) -> Stop), Stop> {
    let bundle = Bundle::find();
    let workload = bundle.resolve(word, false).map_err(Stop::Unusable)?;
    let shown = workload.source.describe();
    let named = move |reason: String| Stop::Unusable(format!("{shown}: {reason}"));
    let trace = OpenTrace::open(&workload.source).map_err(&named)?;
    Ok((trace, named))
}

fn validate(word: &str) -> Result<(), Stop> {
    let (mut trace, named) = open(word)?;
    let (sha256, bytes) = trace.digest().map_err(&named)?;
    let reader = trace.rewound().map_err(&named)?;
    let (_, totals) = ::trace::validate(reader).map_err(|e| named(trace_sentence(&e)))?;
    print(&format!(
        "valid: {} events, {} allocations, {} MiB live at most, {:.2} bytes per event\nsha256 {sha256}\n",
        count(totals.events as f64),
        count(totals.allocs as f64),
        mib(totals.live_bytes_peak as f64),
        bytes as f64 / totals.events.max(1) as f64
    ))
}

fn text(word: &str) -> Result<(), Stop> {
    let (mut trace, named) = open(word)?;
    let reader = TraceReader::new(trace.rewound().map_err(&named)?).map_err(|e| named(trace_sentence(&e)))?;
    let mut metadata = reader.metadata().clone();
    // The one text that is not the harness's own, and that goes by no other way to the screen.
    metadata.marks.iter_mut().for_each(|mark| *mark = plain_line(mark).into_owned());
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = ::trace::text::write(&mut out, &metadata, reader);
    match written.and_then(|()| out.flush().map_err(TraceError::Io)) {
        Err(TraceError::Io(e)) if e.kind() == ErrorKind::BrokenPipe => {
            let _ = out.into_parts(); // what nobody reads is dropped, not written again
            Ok(())
        }
        Err(e) => Err(named(trace_sentence(&e))),
        Ok(()) => Ok(()),
    }
}

fn cut(word: &str, events: u64, output: &Path) -> Result<(), Stop> {
    rewrite(word, output, |reader, to| ::trace::cut(reader, to, events, WriteOptions::BUNDLED))
}

fn pack(word: &str, output: &Path) -> Result<(), Stop> {
    rewrite(word, output, |from, to| {
        let mut reader = TraceReader::new(from)?;
        let columns = WriteOptions { time: reader.has_times(), sites: reader.has_sites(), ..WriteOptions::BUNDLED };
        let mut writer = TraceWriter::new(to, &reader.metadata().clone(), columns)?;
        for event in &mut reader {
            writer.push(event?)?;
        }
        Ok(writer.finish()?.1)
    })
}

/// Reads the trace that `word` means and puts what `make` writes of it at `output`.
fn rewrite<F>(word: &str, output: &Path, make: F) -> Result<(), Stop>
where
    F: FnOnce(&mut dyn Read, &mut dyn Write) -> Result<Totals, TraceError>,
{
    files::check_target(output, Kind::Trace).map_err(|refusal| Stop::Unusable(refusal.to_string()))?;
    let (mut trace, named) = open(word)?;
    let unwritable = |e: std::io::Error| {
        Stop::Unusable(format!("{} cannot be written: {e}. Choose another file with -o.", output.display()))
    };
    let mut to = BufWriter::new(Fresh::beside(output, Kind::Trace, Mode::Usual).map_err(unwritable)?);
    let mut reader = trace.rewound().map_err(&named)?;
    let totals = make(&mut reader, &mut to).map_err(|e| named(trace_sentence(&e)))?;
    to.into_inner().map_err(|e| e.into_error()).and_then(Fresh::put).map_err(unwritable)?;
    print(&format!("{}: {} events\n", plain_line(&output.display().to_string()), count(totals.events as f64)))
}
