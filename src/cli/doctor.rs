//! `doctor`: what this machine is, and whether the allocators keep the heap contract here.
//!
//! Invariant: changes nothing on the machine.

use super::out::{Stop, columns, print};
use crate::backend::CPYTHON_KEY;
use crate::measure;
use clap::Args;

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
pub(super) struct DoctorArgs {
    /// Check the heap contract of every allocator, each in a child process
    #[arg(long)]
    self_test: bool,
}

/// Prints facts and warnings, and with `--self-test` the verdict on every allocator.
pub(super) fn run(args: &DoctorArgs) -> Result<(), Stop> {
    let exe = std::env::current_exe().map_err(Stop::unusable)?;
    let facts = measure::report(&exe, &measure::contestants()).map_err(Stop::Unusable)?;
    // An interpreter that cannot serve is no reason to say nothing of the rest.
    let cpython = measure::parse_config(CPYTHON_KEY).and_then(|config| measure::report(&exe, &[config]));
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let host = &facts.host;
    let mut rows = vec![
        vec!["CPU".to_owned(), format!("{}, {} usable", known(&host.cpu_model), host.cpus)],
        vec!["kernel".to_owned(), known(&host.kernel)],
        vec!["huge pages".to_owned(), known(&host.thp)],
        vec!["overcommit".to_owned(), known(&host.overcommit)],
        vec!["governor".to_owned(), known(&host.governor)],
    ];
    let with_cpython = cpython.iter().flat_map(|facts| &facts.allocators);
    for allocator in facts.allocators.iter().chain(with_cpython).flatten() {
        let row = vec![allocator.key.clone(), allocator.version.clone()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    if let Err(reason) = cpython {
        rows.push(vec![CPYTHON_KEY.to_owned(), format!("not to be had: {reason}")]);
    }
    let mut text = columns(&rows, &[]);
    let busy = host.load_hundredths.is_some_and(|load| load > 50 * u64::from(host.cpus));
    if busy {
        text.push_str("The machine is busy: times will spread. Stop what runs beside the measurement.\n");
    }
    print(&text)?;
    if args.self_test {
        print(&format!("{}\n", measure::self_test(&exe).map_err(Stop::Failed)?))?;
    }
    Ok(())
}
