//! Turns a log into a trace file.
//!
//! Three passes over the log, none of which holds more than the live blocks: a survey (touched bytes, thread
//! ends), a walk that only counts (where the marks fall, what had to be dropped), and the walk that writes.
//!
//! Invariant: the trace says everything that is known to be missing from it, in its notes and counters.

use crate::error::RecordError;
use crate::packages;
use crate::raw::{flag, mark, stop, text, word};
use crate::reader::RawFile;
use crate::sites::Sites;
use crate::walk::{Dropped, Injected, Survey, Surveyor, Walk};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use trace::{
    Event, MarkReading, MemoryReading, Metadata, NumpyData, Phase, ProcessMemory, Python, Totals, TraceWriter,
    WriteOptions,
};

/// What a library maps for itself is worth a note from here on.
const MAPPED_NOTE_BYTES: u64 = 4 << 20;

/// A wait of the program's threads for the session is worth a note from here on, milliseconds.
const WAITED_NOTE_MS: u64 = 100;

/// What the session knows and the log does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    /// Options that shaped the recording, for the metadata.
    pub(crate) options: BTreeMap<String, String>,
    /// Largest reading of the main process seen from outside.
    pub(crate) peak: Option<MemoryReading>,
    /// Why raw data could not be written, if so.
    pub(crate) refused: Option<String>,
    /// Time that the program's threads waited for the session, nanoseconds.
    pub(crate) waited_ns: u64,
    /// Kernel, C library, CPU and so on of this host.
    pub(crate) host: Host,
}

/// Facts about the recording host.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub(crate) struct Host {
    pub(crate) kernel: Option<String>,
    pub(crate) libc: Option<String>,
    pub(crate) cpu_model: Option<String>,
    pub(crate) cpu_count: Option<u32>,
    pub(crate) thp: Option<String>,
}

/// What became of one image.
#[derive(Clone, Debug, Default)]
pub struct Converted {
    /// Totals of the trace.
    pub totals: Totals,
    /// Domains wrapped when last looked at.
    pub hook_mask: u32,
    /// Frees dropped since their blocks were never seen allocated.
    pub unknown_frees: u64,
    /// Frees added since a block appeared where one was still live.
    pub missed_frees: u64,
    /// Records that found no room.
    pub lost_events: u64,
    /// Names of the phases that were marked.
    pub phases: Vec<String>,
    /// Notes of the metadata.
    pub notes: Vec<String>,
}

/// Puts the trace of one image in its place.
pub(crate) fn convert(raw: &RawFile, to: &Path, outside: &Outside) -> Result<Converted, RecordError> {
    let unwritable = |error| RecordError::Output { path: to.to_owned(), error };
    let file = files::Fresh::beside(to, files::Kind::Trace, files::Mode::Usual).map_err(unwritable)?;
    let (file, converted) = write_trace(raw, BufWriter::new(file), outside)?;
    file.into_inner().map_err(io::IntoInnerError::into_error).and_then(files::Fresh::put).map_err(unwritable)?;
    Ok(converted)
}

/// Writes the trace of one image.
pub(crate) fn write_trace<W: Write>(raw: &RawFile, to: W, outside: &Outside) -> Result<(W, Converted), RecordError> {
    let read = |error| RecordError::Raw { path: raw.path.clone(), error };
    let plan = MarkPlan::of(raw, outside);
    let survey = survey(raw).map_err(read)?;
    let packages = packages::versions(&raw.imports);
    let mut sites = Sites::new(&raw.mappings, packages.get("numpy").map(String::as_str));

    let mut counting = Walk::new(&survey, &mut sites, &plan.marks, plan.injected.clone(), |_| Ok::<_, Infallible>(()));
    feed(raw, |thread, record| counting.feed(thread, record).map_err(|never| match never {})).map_err(read)?;
    let (dropped, mark_events) = (counting.dropped, std::mem::take(&mut counting.mark_events));
    let mapped = mapped_by_others(raw, std::mem::take(&mut counting.mapped));
    let unknown = counting.unknown;
    drop(counting);

    let mut metadata = describe(raw, packages, &plan, &mark_events, dropped, &sites, outside);
    note_mapped(&mut metadata, &mark_events, &mapped);
    let named = Phase::ALL.into_iter().map(|phase| (phase.name().to_owned(), unknown[phase as usize]));
    metadata.unknown_touch = Some(named.collect());
    let mut writer = TraceWriter::new(to, &metadata, WriteOptions::default())?;
    let mut fault = None;
    let emit = |event: Event| writer.push(event);
    let mut writing = Walk::new(&survey, &mut sites, &plan.marks, plan.injected, emit);
    feed(raw, |thread, record| {
        if fault.is_none() {
            fault = writing.feed(thread, record).err();
        }
        Ok(())
    })
    .map_err(read)?;
    drop(writing);
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    let (to, totals) = writer.finish()?;
    let phases = mark_events.iter().filter_map(|event| Phase::from_mark(event.1)).map(|phase| phase.name().to_owned());
    let converted = Converted {
        totals,
        hook_mask: metadata.hook_mask,
        unknown_frees: dropped.unknown_frees,
        missed_frees: dropped.missed_frees,
        lost_events: metadata.lost_events,
        phases: phases.collect(),
        notes: metadata.notes,
    };
    Ok((to, converted))
}

/// Hands every record that counts to `each`.
fn feed(raw: &RawFile, mut each: impl FnMut(usize, &crate::raw::Record) -> std::io::Result<()>) -> std::io::Result<()> {
    let (stop_seq, calibration) = (raw.word(word::STOP_SEQ), raw.word(word::CALIBRATION));
    let mut records = raw.records()?;
    while let Some((thread, record)) = records.next()? {
        if calibration != 0 && record.address == calibration {
            continue;
        }
        // Probes made after the stop are about blocks from before it.
        if stop_seq == 0 || record.seq < stop_seq || record.kind == crate::raw::Kind::Touch {
            each(thread, &record)?;
        }
    }
    Ok(())
}

fn survey(raw: &RawFile) -> std::io::Result<Survey> {
    let mut surveyor = Surveyor::default();
    feed(raw, |thread, record| {
        surveyor.feed(thread, record);
        Ok(())
    })?;
    Ok(surveyor.finish())
}

/// Which marks the trace will have.
struct MarkPlan {
    names: Vec<String>,
    /// By entry of the raw table: index in `names`, none for a reading or a mark that gives way to another.
    marks: Vec<Option<u32>>,
    injected: Vec<Injected>,
}

impl MarkPlan {
    /// The command line's `--after` stands above the program's own `steady`, and that above the one found by itself.
    fn of(raw: &RawFile, outside: &Outside) -> Self {
        let mut names: Vec<String> = Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect();
        let steady = Phase::Steady.name();
        let is_by_option = outside.options.contains_key("after");
        let has_own = raw.marks.iter().any(|entry| entry.by() == mark::BY_PROGRAM && entry.name == steady);
        let mut marks = Vec::new();
        for entry in &raw.marks {
            let is_mark = matches!(entry.by(), mark::BY_PROGRAM | mark::BY_RECORDER | mark::AT_MAXIMUM);
            if !is_mark || (is_by_option && entry.name == steady) {
                marks.push(None);
                continue;
            }
            let index = names.iter().position(|name| *name == entry.name).unwrap_or_else(|| {
                names.push(entry.name.clone());
                names.len() - 1
            });
            marks.push(Some(index as u32));
        }
        let found = raw.word(word::STEADY_SEQ);
        let injected = (found != 0 && (is_by_option || !has_own))
            .then_some(Injected { seq: found, mark: Phase::Steady as u32 })
            .into_iter()
            .collect();
        Self { names, marks, injected }
    }
}

fn describe(
    raw: &RawFile,
    packages: BTreeMap<String, String>,
    plan: &MarkPlan,
    mark_events: &[(Option<usize>, u32, u64)],
    dropped: Dropped,
    sites: &Sites,
    outside: &Outside,
) -> Metadata {
    let python = python(raw);
    let mut notes = notes_of(raw, python.as_ref(), dropped, outside);
    if sites.numpy_data() == NumpyData::Invisible {
        notes.push("NumPy's handler used a library's own functions: no array data was recorded through it".to_owned());
    }
    let end = raw.marks.iter().rev().find(|entry| entry.name == Phase::Finalising.name());
    let end = end.or_else(|| raw.marks.iter().rev().find(|entry| entry.by() == mark::AT_EXIT));
    let is_start =
        |entry: &&crate::reader::MarkEntry| entry.by() == mark::AFTER_STARTUP || entry.name == Phase::Steady.name();
    Metadata {
        source: "recorder".to_owned(),
        source_version: env!("CARGO_PKG_VERSION").to_owned(),
        hook_mask: hook_mask(raw),
        numpy_data: packages.contains_key("numpy").then(|| sites.numpy_data()),
        arrow_pool: python.is_some().then(|| arrow_pool(raw, &packages).to_owned()),
        python,
        packages,
        notes,
        options: outside.options.clone(),
        kernel: outside.host.kernel.clone(),
        libc: outside.host.libc.clone(),
        cpu_model: outside.host.cpu_model.clone(),
        cpu_count: outside.host.cpu_count,
        thp: outside.host.thp.clone(),
        ticks_per_second: raw.ticks_per_second(),
        recorder_ps_per_event: Some(raw.word(word::OWN_PS)).filter(|&cost| cost != 0),
        marks: plan.names.clone(),
        mark_readings: mark_events.iter().map(|event| reading(raw, *event)).collect(),
        sites: sites.list().to_vec(),
        process: Some(ProcessMemory {
            start: raw.marks.iter().find(is_start).and_then(|entry| entry.memory()),
            peak: peak(raw, outside),
            end: end.and_then(|entry| entry.memory()),
        }),
        unknown_frees: dropped.unknown_frees,
        lost_events: raw.word(word::LOST),
        unknown_touch: None,
        complete: raw.has_exited(),
        cut: None,
        totals: Totals::default(),
    }
}

/// The largest reading, from outside and from inside. The former also sees what grows without a call.
fn peak(raw: &RawFile, outside: &Outside) -> Option<MemoryReading> {
    let inside = raw.marks.iter().filter_map(crate::reader::MarkEntry::memory);
    inside.chain(outside.peak).max_by_key(|memory| memory.rss_anon_bytes)
}

fn reading(raw: &RawFile, (entry, mark_index, event): (Option<usize>, u32, u64)) -> MarkReading {
    match entry.and_then(|entry| raw.marks.get(entry)) {
        Some(entry) => MarkReading {
            mark: mark_index,
            event,
            cpu_ns: Some(entry.words[mark::CPU_NS]),
            wall_ns: Some(entry.words[mark::WALL_NS]),
            memory: entry.memory(),
            mapped_bytes: None,
        },
        None => MarkReading {
            mark: mark_index,
            event,
            cpu_ns: Some(raw.word(word::STEADY_CPU_NS)),
            wall_ns: Some(raw.word(word::STEADY_WALL_NS)),
            memory: None,
            mapped_bytes: None,
        },
    }
}

/// Without what is recorded otherwise: Python's arenas, and Arrow's pool where its entry points are seen.
fn mapped_by_others(
    raw: &RawFile,
    mut mapped: BTreeMap<usize, BTreeMap<String, u64>>,
) -> BTreeMap<usize, BTreeMap<String, u64>> {
    let python = raw.text(text::PYTHON_OBJECT);
    let has_arrow = raw.has_flag(flag::ARROW);
    for of_mark in mapped.values_mut() {
        of_mark.retain(|module, _| *module != python && !(has_arrow && module.starts_with("libarrow.so")));
    }
    mapped
}

/// Puts what libraries mapped for themselves to the marks at which it was read; what is large is said in a note.
fn note_mapped(
    metadata: &mut Metadata,
    mark_events: &[(Option<usize>, u32, u64)],
    mapped: &BTreeMap<usize, BTreeMap<String, u64>>,
) {
    let mut most = BTreeMap::<&str, u64>::new();
    for (reading, (entry, ..)) in metadata.mark_readings.iter_mut().zip(mark_events) {
        let Some(entry) = entry else { continue };
        let of_mark = mapped.get(entry);
        reading.mapped_bytes = Some(of_mark.cloned().unwrap_or_default());
        for (module, &bytes) in of_mark.into_iter().flatten() {
            let known = most.entry(module).or_default();
            *known = bytes.max(*known);
        }
    }
    let large = most.into_iter().filter(|&(_, bytes)| bytes >= MAPPED_NOTE_BYTES);
    metadata.notes.extend(large.map(|(module, bytes)| {
        let module = if module.is_empty() { "unknown code" } else { module };
        format!("{module} maps memory for itself, up to {} MiB at a mark: no event explains that", bytes >> 20)
    }));
}

/// The interpreter, if the image was one.
pub(crate) fn python(raw: &RawFile) -> Option<Python> {
    if !raw.has_flag(flag::PYTHON) {
        return None;
    }
    let version = raw.text(text::PYTHON_VERSION);
    Some(Python {
        version: version.split(' ').next().unwrap_or_default().trim_end_matches('+').to_owned(),
        implementation: "CPython".to_owned(),
        build: if raw.has_flag(flag::STATIC) { "static" } else { "shared" }.to_owned(),
        free_threaded: version.contains("free-threading"),
        hash_seed: Some(raw.text(text::HASH_SEED)).filter(|seed| !seed.is_empty()),
    })
}

/// Bits of [`trace::Domain`]: `numpy` is told from `libc` and `raw`, so it is wrapped when both are.
fn hook_mask(raw: &RawFile) -> u32 {
    let found = raw.word(word::HOOK_MASK) as u32 & 0b1111;
    let numpy = if found & 0b11 == 0b11 { 1 << trace::Domain::Numpy as u32 } else { 0 };
    let arrow = if raw.has_flag(flag::ARROW) { 1 << trace::Domain::Arrow as u32 } else { 0 };
    found | numpy | arrow
}

fn arrow_pool(raw: &RawFile, packages: &BTreeMap<String, String>) -> &'static str {
    if raw.has_flag(flag::ARROW) {
        return "interposed";
    }
    if raw.has_flag(flag::ARROW_TO_SYSTEM) {
        return "system";
    }
    if packages.contains_key("pyarrow") { "invisible" } else { "none" }
}

fn notes_of(raw: &RawFile, python: Option<&Python>, dropped: Dropped, outside: &Outside) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |applies: bool, text: String| {
        if applies {
            notes.push(text);
        }
    };
    if let Some(python) = python {
        let minor = python.version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        let is_tested = minor.is_some_and(|minor| (10..=13).contains(&minor));
        note(!is_tested, format!("untested: Python {}", python.version));
        note(python.free_threaded, "untested: free-threaded build".to_owned());
        let checked = raw.word(word::HOOK_MASK) != 0;
        let is_whole = raw.word(word::HOOK_MASK) & 0b1111 == 0b1111;
        note(checked && !is_whole, "hooks: something took Python's allocators back".to_owned());
    }
    note(raw.has_flag(flag::FORKED), "forked: blocks inherited from the parent are not in this trace".to_owned());
    note(dropped.missed_frees != 0, format!("missed frees: {}", dropped.missed_frees));
    let why = why_ended(raw, outside);
    note(why.is_some(), format!("ended early: {}", why.unwrap_or_default()));
    let waited_ms = outside.waited_ns / 1_000_000;
    note(waited_ms >= WAITED_NOTE_MS, format!("waited {waited_ms} ms in all for the recorder to write raw data"));
    note(
        raw.has_flag(flag::NO_COLLECTIONS),
        "collections are not recorded: the interpreter's collector is unknown".to_owned(),
    );
    note(raw.has_flag(flag::MAPPED_FULL), "not all that libraries map for themselves is known".to_owned());
    note(
        raw.has_flag(flag::PROBED_FULL),
        "more blocks of 8 KiB and more lived at once than the recorder keeps: the rest count as touched".to_owned(),
    );
    note(raw.has_flag(flag::RAW_EXIT), "left through _exit: no interpreter exit".to_owned());
    note(raw.word(word::LOST) != 0, format!("events lost: {}", raw.word(word::LOST)));
    notes
}

/// Why the recording ended before the program did.
fn why_ended(raw: &RawFile, outside: &Outside) -> Option<String> {
    let error = match raw.word(word::STOP_ERRNO) {
        0 => outside.refused.clone(),
        number => Some(io::Error::from_raw_os_error(number as i32).to_string()),
    };
    Some(match raw.word(word::STOP) {
        stop::EXIT => return None,
        stop::SIZE => "the size limit was reached".to_owned(),
        stop::DISK => format!("raw data could not be written: {}", error.as_deref().unwrap_or("no reason is known")),
        stop::TIME => "the time limit was reached".to_owned(),
        stop::LEFT => "the process still ran when the recording was over".to_owned(),
        stop::UNREAD => "the recorder took no raw data for a second".to_owned(),
        stop::THREADS => format!("more than {} threads allocated at once", crate::raw::WINDOWS),
        _ => "the process was killed or replaced".to_owned(),
    })
}
