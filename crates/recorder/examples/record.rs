//! The smallest use of the recorder: `record OUTPUT [--for SECONDS] [--max-size BYTES] [--all] COMMAND...`.
//!
//! Invariant: leaves with the program's own exit code, or with the recorder's when it failed itself.

use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let mut options = recorder::Options { output: arguments.next().unwrap_or_default().into(), ..Default::default() };
    let number =
        |value: Option<std::ffi::OsString>| value.and_then(|value| value.to_string_lossy().parse::<f64>().ok());
    while let Some(option) = arguments.next_if(|argument| argument.to_string_lossy().starts_with("--")) {
        match option.to_string_lossy().as_ref() {
            "--for" => options.run_for = number(arguments.next()).map(Duration::from_secs_f64),
            "--after" => options.after = number(arguments.next()).map(Duration::from_secs_f64),
            "--max-size" => options.max_bytes = number(arguments.next()).map(|bytes| bytes as u64),
            "--all" => options.all = true,
            _ => break,
        }
    }
    options.command = arguments.collect();
    match recorder::record(&options, &mut |line| eprintln!("{line}")) {
        Ok(report) => {
            eprint!("{report}");
            ExitCode::from(report.exit_code)
        }
        Err(error) => {
            eprintln!("record: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
