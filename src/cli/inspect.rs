//! `inspect`: what a trace holds, before any allocator comes into it.
//!
//! Invariant: says what was recorded and what is unknown. About allocators it says which requests meet which
//! setting, and
//! nothing that a replay would have to find out.

use super::out::{Stop, columns, print};
use crate::analysis::knobs;
use crate::report::document::{self, Section};
use crate::report::knobs::explained;
use crate::units::{count, mib, nanoseconds, plain_line};
use crate::workload::{Bundle, OpenTrace};
use ::trace::{Domain, Metadata, NumpyData, Phase, Shape};
use clap::Args;

/// Notes, packages and threads that are printed; a trace can have millions.
const ROWS_MAX: usize = 100;

/// Arguments of `inspect`.
#[derive(Clone, Debug, Args)]
pub(super) struct InspectArgs {
    /// A trace file, or a bundled workload by name
    trace: String,
}

/// Prints everything in one go, after every event was checked.
pub(super) fn run(args: &InspectArgs) -> Result<(), Stop> {
    let bundle = Bundle::find();
    let workload = bundle.resolve(&args.trace, false).map_err(Stop::Unusable)?;
    let name = |reason: String| Stop::Unusable(format!("{}: {reason}", workload.source.describe()));
    let mut trace = OpenTrace::open(&workload.source).map_err(name)?;
    let metadata = trace.metadata().map_err(name)?;
    let shape = trace.shape().map_err(name)?;
    let sections = [
        origin(&workload.title, &metadata),
        totals(&metadata),
        phases(&metadata, &shape),
        domains(&metadata, &shape),
        threads(&metadata, &shape),
        deaths(&shape),
        powers("sizes, bytes", "blocks", &shape.sizes, Some(&shape.sizes_bytes)),
        powers("lifetimes of freed blocks, in allocations made meanwhile", "blocks", &shape.lifetimes, None),
        settings(&metadata, &shape),
    ];
    print(&sections.join("\n"))
}

fn origin(title: &str, metadata: &Metadata) -> String {
    let mut rows = Vec::new();
    let mut say =
        |what: &str, value: Option<String>| rows.push(vec![what.to_owned(), value.unwrap_or("unknown".into())]);
    say("source", Some(format!("{} {}", metadata.source, metadata.source_version).trim().to_owned()));
    let python = metadata.python.as_ref();
    say("python", python.map(|p| format!("{} {} ({} build)", p.implementation, p.version, p.build)));
    let mut packages: Vec<String> =
        metadata.packages.iter().take(ROWS_MAX).map(|(name, version)| format!("{name} {version}")).collect();
    if let Some(more) = metadata.packages.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        packages.push(format!("and {more} more"));
    }
    say("packages", Some(if packages.is_empty() { "none".to_owned() } else { packages.join(", ") }));
    say("C library", metadata.libc.clone());
    say("CPUs", metadata.cpu_count.map(|n| n.to_string()));
    let hooked = Domain::ALL.iter().filter(|domain| metadata.hook_mask & (1 << **domain as u32) != 0);
    say("domains wrapped", Some(hooked.map(|domain| domain.name()).collect::<Vec<_>>().join(", ")));
    if let Some(data) = metadata.numpy_data {
        say("NumPy's array data", Some(array_data(data).to_owned()));
    }
    say("complete", Some(if metadata.complete { "yes" } else { "no, it ended before the program" }.to_owned()));
    for note in metadata.notes.iter().take(ROWS_MAX) {
        say("note", Some(note.clone()));
    }
    if let Some(more) = metadata.notes.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        say("note", Some(format!("and {more} more notes")));
    }
    format!("{}\n{}", plain_line(title), columns(&rows, &[]))
}

/// How it was asked for, and so what of it is in the trace.
fn array_data(data: NumpyData) -> &'static str {
    match data {
        NumpyData::Cached => "by its own handler: what its cache of small blocks served is in no trace",
        NumpyData::Handler => "by the handler of pyalloc_numpy: each request, none of which met NumPy's cache",
        _ => "by a handler on a library's own functions, which the recorder does not see",
    }
}

fn totals(metadata: &Metadata) -> String {
    let t = &metadata.totals;
    let rows = [
        ("events", count(t.events as f64)),
        ("allocations", count(t.allocs as f64)),
        ("  zeroed", count(t.allocs_zeroed as f64)),
        ("  aligned", count(t.allocs_aligned as f64)),
        ("frees", count(t.frees as f64)),
        ("reallocations", count(t.reallocs as f64)),
        ("requested, MiB", mib(t.requested_bytes as f64)),
        ("most live at once, MiB", mib(t.live_bytes_peak as f64)),
        ("most blocks live at once", count(t.live_blocks_peak as f64)),
        ("live after the last event, MiB", mib(t.live_bytes_end as f64)),
        ("frees of unknown blocks, dropped", count(metadata.unknown_frees as f64)),
        ("events lost", count(metadata.lost_events as f64)),
    ];
    let mut rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
    let directives = t.directives.iter().map(|(name, calls)| vec![format!("calls of {name}"), count(*calls as f64)]);
    rows.extend(directives);
    format!("totals\n{}", columns(&rows, &[1]))
}

fn phases(metadata: &Metadata, shape: &Shape) -> String {
    let heads = ["phase", "calls", "from event", "CPU so far", "MiB libraries mapped"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for phase in Phase::ALL {
        let first = if phase == Phase::Startup { Some(0) } else { shape.phase_events[phase as usize] };
        let reading = metadata.mark_readings.iter().find(|reading| reading.mark == phase as u32);
        let mapped = reading.and_then(|r| r.mapped_bytes.as_ref());
        rows.push(vec![
            phase.name().to_owned(),
            count(shape.calls_by_phase[phase as usize] as f64),
            first.map_or("not marked".to_owned(), |event| event.to_string()),
            reading.and_then(|r| r.cpu_ns).map_or("unknown".to_owned(), |ns| nanoseconds(ns as f64)),
            mapped.map_or("unknown".to_owned(), |modules| {
                mib(modules.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) as f64)
            }),
        ]);
    }
    format!("phases\n{}", columns(&rows, &[1, 2, 3, 4]))
}

fn domains(metadata: &Metadata, shape: &Shape) -> String {
    let heads = ["domain", "calls", "MiB requested", "steady calls", "steady MiB", "MiB live at peak"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for domain in Domain::ALL {
        let of = |map: &std::collections::BTreeMap<String, u64>| map.get(domain.name()).copied().unwrap_or(0) as f64;
        rows.push(vec![
            domain.name().to_owned(),
            count(of(&metadata.totals.calls_by_domain)),
            mib(of(&metadata.totals.bytes_by_domain)),
            count(of(&shape.steady_calls_by_domain)),
            mib(of(&shape.steady_bytes_by_domain)),
            mib(of(&shape.peak_bytes_by_domain)),
        ]);
    }
    format!("domains\n{}", columns(&rows, &[1, 2, 3, 4, 5]))
}

fn threads(metadata: &Metadata, shape: &Shape) -> String {
    let mut rows = vec![vec!["thread".to_owned(), "calls".to_owned()]];
    let by_thread = metadata.totals.calls_by_thread.iter().take(ROWS_MAX);
    rows.extend(by_thread.map(|(thread, calls)| vec![thread.to_string(), count(*calls as f64)]));
    if let Some(more) = metadata.totals.calls_by_thread.len().checked_sub(ROWS_MAX).filter(|more| *more > 0) {
        rows.push(vec![format!("{more} more"), "...".to_owned()]);
    }
    let cross = count(shape.frees_cross_thread as f64);
    format!("threads ({} seen; {cross} blocks freed by another thread)\n{}", shape.threads, columns(&rows, &[0, 1]))
}

fn deaths(shape: &Shape) -> String {
    let all = (shape.deaths_by_reference + shape.deaths_by_collector).max(1) as f64;
    let share = |n: u64| format!("{:.1} %", n as f64 * 100.0 / all);
    let rows = vec![
        vec!["outside collections (reference count, or C code)".to_owned(), share(shape.deaths_by_reference)],
        vec![format!("in {} collections", shape.collections_total()), share(shape.deaths_by_collector)],
    ];
    format!("how blocks died\n{}", columns(&rows, &[1]))
}

/// What each setting of an allocator meets in the trace.
fn settings(metadata: &Metadata, shape: &Shape) -> String {
    let mut section = Section::new("what each setting of an allocator meets in this trace");
    for (name, text) in knobs::knobs(metadata, shape).iter().flat_map(explained) {
        section.item(name, text);
    }
    document::text(&[section])
}

/// A histogram by ceiling power of two, without its empty ends.
fn powers(title: &str, what: &str, counts: &[u64], bytes: Option<&[u64]>) -> String {
    let first = counts.iter().position(|n| *n > 0).unwrap_or(0);
    let last = counts.iter().rposition(|n| *n > 0).map_or(first, |last| last + 1);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut rows = vec![vec!["up to".to_owned(), what.to_owned()]];
    if bytes.is_some() {
        rows[0].push("MiB".to_owned());
    }
    for (power, blocks) in counts.iter().enumerate().take(last).skip(first) {
        let mut row = vec![count(2f64.powi(power as i32)), count(*blocks as f64)];
        if let Some(bytes) = bytes {
            row.push(mib(bytes.get(power).copied().unwrap_or(0) as f64));
        }
        row.push("#".repeat((blocks * 40).div_ceil(most) as usize));
        rows.push(row);
    }
    format!("{title}\n{}", columns(&rows, &[0, 1, 2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_drops_its_empty_ends() {
        let text = powers("sizes", "blocks", &[0, 0, 10, 0, 40], Some(&[0, 0, 40, 0, 640]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[2].trim_start().starts_with("4 ") && lines[2].ends_with(&"#".repeat(10)), "{text}");
        assert!(lines[4].ends_with(&"#".repeat(40)), "{text}");
    }
}
