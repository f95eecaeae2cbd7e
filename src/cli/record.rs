//! `record`: runs a program with the recorder and leaves a trace of its allocations.
//!
//! Invariant: leaves with the program's own exit code; the recorder's own failures are 125 to 127, as with `env`.

use super::out::complain;
use super::quantity;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `record`.
#[derive(Args, Clone, Debug)]
pub(super) struct RecordArgs {
    /// Trace to write [default: python.trace; with --recover the one that was asked for then]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Stop recording after this long; the program goes on (such as 500ms, 60s, 5m)
    #[arg(long = "for", value_name = "TIME", value_parser = quantity::duration)]
    run_for: Option<Duration>,
    /// What happens in this time after the start counts as start-up
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    after: Option<Duration>,
    /// Most raw data per process (32 bytes an event); then recording stops and the program goes on
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Write a trace of every Python process, however small
    #[arg(long)]
    all: bool,
    /// Write the trace of a recording that was killed from the raw data that it left, and remove the data
    #[arg(
        long, value_name = "FOLDER",
        conflicts_with_all = ["discard", "command", "run_for", "after", "max_size", "all"]
    )]
    recover: Option<PathBuf>,
    /// Remove the raw data that a killed recording left
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["command", "output"])]
    discard: Option<PathBuf>,
    /// Program and arguments
    #[arg(
        trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD",
        required_unless_present_any = ["recover", "discard"]
    )]
    command: Vec<OsString>,
}

/// Records the program, or finishes what a killed recording left. Whatever is said goes to standard error: standard
/// output is the program's.
#[must_use]
pub(super) fn run(args: &RecordArgs) -> u8 {
    if let Some(folder) = &args.discard {
        return end_of_left(recorder::discard(folder).map(|()| recorder::Report::default()));
    }
    if let Some(folder) = &args.recover {
        return end_of_left(recorder::recover(folder, args.output.as_deref()));
    }
    let options = recorder::Options {
        output: args.output.clone().unwrap_or_else(|| PathBuf::from("python.trace")),
        run_for: args.run_for,
        after: args.after,
        max_bytes: args.max_size,
        all: args.all,
        command: args.command.clone(),
    };
    end(recorder::record(&options, &mut |line| complain(line)))
}

/// For raw data of an earlier session: no program runs whose exit code to return.
fn end_of_left(result: Result<recorder::Report, recorder::RecordError>) -> u8 {
    let is_whole = result.as_ref().map(|report| report.raw_data.is_none()).map_err(drop);
    end(result);
    match is_whole {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(()) => 2,
    }
}

/// Says what was recorded, and gives the code to leave with.
fn end(result: Result<recorder::Report, recorder::RecordError>) -> u8 {
    match result {
        Ok(report) => {
            let text = report.to_string();
            if !text.is_empty() {
                complain(text.trim_end());
            }
            if let Some(trace) = report.trace() {
                complain(&format!("next: pyalloc-bench replay {}", trace.display()));
            }
            report.exit_code
        }
        Err(error) => {
            complain(&format!("record: {error}"));
            error.exit_code()
        }
    }
}

/// A size with a binary unit: `512K`, `100M`, `1G`, also `1GiB`; bytes without one.
fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(char, u64); 4] = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];
    let bare = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
    let (number, bytes) = UNITS
        .iter()
        .find_map(|(unit, bytes)| Some((bare.strip_suffix([*unit, unit.to_ascii_lowercase()])?, *bytes)))
        .unwrap_or((bare, 1));
    let number: u64 = number.trim().parse().map_err(|_| format!("`{text}` is no size; write 512K, 100M or 1G"))?;
    number.checked_mul(bytes).ok_or_else(|| format!("`{text}` is out of range; write 512K, 100M or 1G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("100m"), Ok(100 << 20));
        assert_eq!(size("4KiB"), Ok(4096));
        assert_eq!(size("17"), Ok(17));
        assert!(size("big").is_err() && size("999999999T").is_err());
    }
}
