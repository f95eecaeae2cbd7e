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
    /// Trace to write
    #[arg(short, long, value_name = "FILE", default_value = "python.trace")]
    output: PathBuf,
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
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Records the program. Whatever is said goes to standard error: standard output is the program's.
#[must_use]
pub(super) fn run(args: &RecordArgs) -> u8 {
    let options = recorder::Options {
        output: args.output.clone(),
        run_for: args.run_for,
        after: args.after,
        max_bytes: args.max_size,
        all: args.all,
        command: args.command.clone(),
    };
    match recorder::record(&options, &mut |line| complain(line)) {
        Ok(report) => {
            complain(report.to_string().trim_end());
            complain(&format!("next: pyalloc-bench replay {}", args.output.display()));
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
