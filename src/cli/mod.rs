//! The command line: verbs, options, exit codes.
//!
//! Invariant: 0 done; 1 something that was checked failed; 2 usage, input or an unfit host; 3 inconclusive where that
//! was asked to count; 128 and a signal's number when that stopped `replay` or `live`. Every failure is a sentence on
//! the error output that ends with what to do.

mod compare;
mod doctor;
mod inspect;
mod live;
mod numpy_handler;
mod out;
mod quantity;
mod recommend;
mod record;
mod replay;
mod report;
mod splice;
mod trace;

use clap::{Parser, Subcommand};
use out::{Stop, complain};

/// Record a Python program's allocations once; replay them on every allocator it could run on.
///
/// Without a verb: replays the bundled workloads on every allocator and prints a table, charts and a report.
///
/// Exit codes: 0 done; 1 something that was checked failed; 2 usage, input or an unfit host; 3 inconclusive under
/// --strict; 130 stopped by Ctrl-C. Progress goes to the error output, one line every few seconds where that is no
/// terminal. Nothing is coloured, with or without NO_COLOR.
#[derive(Debug, Parser)]
#[command(name = "pyalloc-bench", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: replay::RunOptions,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a program with the recorder and leave a trace of its allocations
    Record(record::RecordArgs),
    /// Say what is in a trace: sizes, lifetimes, domains, threads, collections, phases
    Inspect(inspect::InspectArgs),
    /// Replay workloads or traces on allocators, and report
    Replay(replay::ReplayArgs),
    /// Hold the replay's predictions against the real program, run under each configuration
    Live(live::LiveArgs),
    /// Compare two results: exit code 1 when something got worse
    Compare(compare::CompareArgs),
    /// Say which configuration to deploy, from a result and what you ask for, and how
    Recommend(recommend::RecommendArgs),
    /// Rebuild the report and the charts of a result
    Report(report::ReportArgs),
    /// Check, cut or print a trace
    Trace(trace::TraceArgs),
    /// Check this machine and the allocators
    Doctor(doctor::DoctorArgs),
    /// Write a module that has NumPy take array data from an allocator of your choice
    NumpyHandler(numpy_handler::NumpyHandlerArgs),
    /// Compile a trace for the harness
    #[command(hide = true)]
    Compile,
}

/// Runs the command line and returns the exit code.
#[must_use]
pub fn main(arguments: std::env::ArgsOs) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version are answers, not errors; a closed pipe is neither.
            let text = e.render().to_string();
            if e.use_stderr() {
                complain(text.trim_end());
                return 2;
            }
            let _ = out::print(&text);
            return 0;
        }
    };
    let done = match arguments.verb {
        None => replay::run(&replay::ReplayArgs::bundled(arguments.run)),
        Some(Verb::Record(a)) => return record::run(&a),
        Some(Verb::Inspect(a)) => inspect::run(&a),
        Some(Verb::Replay(a)) => replay::run(&a),
        Some(Verb::Live(a)) => live::run(&a),
        Some(Verb::Compare(a)) => compare::run(&a),
        Some(Verb::Recommend(a)) => recommend::run(&a),
        Some(Verb::Report(a)) => report::run(&a),
        Some(Verb::Trace(a)) => trace::run(&a),
        Some(Verb::Doctor(a)) => doctor::run(&a),
        Some(Verb::NumpyHandler(a)) => numpy_handler::run(&a),
        Some(Verb::Compile) => crate::measure::compile_main().map_err(Stop::Unusable),
    };
    match done {
        Ok(()) => 0,
        Err(Stop::Failed(reason)) => {
            complain(&reason);
            1
        }
        Err(Stop::Unusable(reason)) => {
            complain(&reason);
            2
        }
        Err(Stop::Inconclusive(reason)) => {
            complain(&reason);
            3
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }
}
