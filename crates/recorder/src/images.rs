//! The images of a recording: which of them get a trace, and what became of each.
//!
//! Invariant: an image that cannot be converted costs its own trace and no other; raw data is kept whenever a trace
//! could not be written.

use crate::convert::{self, Outside};
use crate::drain::{Finished, SLOTS_MAX, SessionFile};
use crate::error::{self, RecordError};
use crate::raw::flag;
use crate::reader::RawFile;
use crate::session::{Image, Report};
use std::path::{Path, PathBuf};

/// Python images with room for at least this many records get a trace of their own.
const WORKER_RECORDS_MIN: u64 = 50_000;

/// Which traces to write.
pub(crate) struct Wanted<'a> {
    /// The trace of the main image.
    pub(crate) output: &'a Path,
    /// Whether every Python process gets a trace, however small.
    pub(crate) all: bool,
}

/// Ends the recording and converts every image; a report without exit code.
pub(crate) fn convert_all(session: &mut SessionFile, folder: &Path, wanted: &Wanted<'_>, outside: Outside) -> Report {
    let finished = session.finish();
    session.drop_reserve();
    let pid = session.main_pid();
    let outside = Outside { refused: session.refused().map(ToString::to_string), ..outside };
    let mut report = Report { problems: problems(session), ..Report::default() };
    let (raws, unreadable) = open_all(&finished);
    report.problems.extend(unreadable);
    let Some(main) = main_of(&raws, pid) else {
        report.problems.push(nothing(session));
        return report;
    };
    report.main = main;
    for (index, (raw, waited_ns)) in raws.iter().enumerate() {
        let python = convert::python(raw);
        let is_main = index == main;
        let is_wanted = is_main || (python.is_some() && (wanted.all || raw.records_max() >= WORKER_RECORDS_MIN));
        let mut outside = Outside { waited_ns: *waited_ns, ..outside.clone() };
        if raw.pid() != pid {
            outside.peak = None;
        }
        let to = if is_main { wanted.output.to_owned() } else { worker_output(wanted.output, raw.pid(), index) };
        let trace = match is_wanted.then(|| convert::convert(raw, &to, &outside)) {
            Some(Ok(converted)) => Some((to, converted)),
            Some(Err(error)) => {
                let place = folder.display();
                report.problems.push(format!(
                    "no trace of process {}: {error}. Its raw data is kept. Then write the trace: pyalloc-bench record \
                     --recover '{place}' -o FILE",
                    raw.pid()
                ));
                report.raw_data = Some(folder.to_owned());
                None
            }
            None => None,
        };
        report.images.push(Image {
            pid: raw.pid(),
            program: raw.program(),
            python: python.map(|python| python.version),
            is_forked: raw.has_flag(flag::FORKED),
            has_exited: raw.has_exited(),
            records_max: raw.records_max(),
            trace,
        });
    }
    report
}

/// What went wrong for the session as a whole.
fn problems(session: &SessionFile) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(error) = session.refused() {
        problems
            .push(format!("raw data could not be written: {error}; the trace ends there. {}", error::advice(error)));
    }
    let turned_away = session.turned_away();
    if turned_away > 0 {
        problems.push(format!(
            "{turned_away} programs and forked children were not recorded, since a recording has room for {SLOTS_MAX}. \
             Record a part of what starts them"
        ));
    }
    if session.has_not_loaded() {
        problems.push(
            "a program that was started as another user, or below another root, could not read the recorder and was \
             not recorded. Record as that user, or in that root"
                .to_owned(),
        );
    }
    problems
}

/// Why there is no image at all.
fn nothing(session: &SessionFile) -> String {
    let why = if session.claimed() > 0 {
        "the program ended before its first recorded call"
    } else {
        "the program made no call that the recorder could see. Is it a wrapper that clears LD_PRELOAD, or one that \
         changes to a user who cannot read the raw data?"
    };
    format!("nothing was recorded: {why}")
}

/// Every readable log with the time that its process waited, in the order of their start, and about the others a
/// sentence each.
fn open_all(finished: &[Finished]) -> (Vec<(RawFile, u64)>, Vec<String>) {
    let (mut raws, mut problems) = (Vec::new(), Vec::new());
    for image in finished {
        let Some(log) = &image.log else { continue };
        match RawFile::open(log) {
            Ok(raw) => raws.push((raw, image.waited_ns)),
            Err(error) => problems.push(RecordError::Raw { path: log.clone(), error }.to_string()),
        }
    }
    (raws, problems)
}

/// The image that is the program: of those whose Python hooks took, the largest in the main process, or else the
/// largest of all; without Python, the last image of the main process.
fn main_of(raws: &[(RawFile, u64)], pid: u32) -> Option<usize> {
    let rank = |raw: &RawFile| (raw.has_flag(flag::PYTHON), raw.pid() == pid, raw.records_max());
    (0..raws.len()).max_by_key(|&index| rank(&raws[index].0))
}

/// `app.trace` becomes `app.1234.trace`; a second image of that process gets its place in the list as well.
fn worker_output(output: &Path, pid: u32, index: usize) -> PathBuf {
    let with = |label: String| match output.extension() {
        Some(extension) => output.with_extension(format!("{label}.{}", extension.to_string_lossy())),
        None => output.with_extension(label),
    };
    let plain = with(pid.to_string());
    if plain.symlink_metadata().is_ok() { with(format!("{pid}-{index}")) } else { plain }
}
