//! What `live` found: readings of the real program beside readings of its replay, configuration by configuration. One
//! JSON file per trace; a result that replays the same trace carries a copy.
//!
//! Invariant: raw readings only, keyed by the trace's SHA-256; ranges, errors and verdicts are made when it is read.
//! No command line, no path, nothing that the program printed.

use super::{HostFacts, Time, bounded};
use files::{Kind, Mode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Version of the file. A reader refuses any other.
pub const FIDELITY_SCHEMA: u32 = 1;
/// What follows the name of a trace in the name of its file.
const ENDING: &str = ".fidelity.json";

/// One per trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fidelity {
    /// [`FIDELITY_SCHEMA`].
    pub schema: u32,
    /// SHA-256 of the trace file, lower-case hex.
    pub trace_sha256: String,
    /// Name of the workload, or the trace's file stem.
    pub workload: String,
    /// Crate version of the harness.
    pub harness_version: String,
    /// The machine.
    pub host: HostFacts,
    /// Milliseconds since the epoch when it began.
    pub started_unix_ms: u64,
    /// Seed of the order of runs.
    pub seed: u64,
    /// How recorded threads were replayed.
    pub mode: Option<super::Mode>,
    /// Recorded threads that made calls. Files of before 0.2 count those with a hundredth of the calls each.
    pub threads: u32,
    /// Idle delays at which rest was read, milliseconds.
    pub idle_ms: Vec<u64>,
    /// Real runs at a time.
    pub jobs: u32,
    /// How many times faster than recorded the replays for memory waited for recorded gaps; 0: they did not wait.
    #[serde(default)]
    pub pace: u32,
    /// The configuration that the program was recorded under, where that is neither `today` nor `pool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_as: Option<String>,
    /// CPU time of the recorded program in `steady` less the recorder's, nanoseconds.
    pub recorded_cpu_ns: Option<u64>,
    /// The same of everything up to the mark that rest follows; null in files from before it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_cpu_ns_all: Option<u64>,
    /// Calls of the replay in `steady`.
    pub steady_calls: u64,
    /// Memory of the recorded process at its peak that no allocator handed out: file pages, relocations, stacks.
    pub recorded_no_heap_bytes: Option<u64>,
    /// Resident bytes of what libraries mapped for themselves in the recorded process, by the mark at which they were
    /// read: no replay has them, and every prediction adds them. Null when the recording does not say.
    pub mapped_bytes: Option<BTreeMap<String, u64>>,
    /// Requested bytes live at the trace's peak.
    pub live_bytes_peak: u64,
    /// Memory of the recorded process at its peak that its allocators held, as far as the recorder could tell.
    pub recorded_heap_bytes: Option<u64>,
    /// The recorded process at its marks, in order; empty in files from before this was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recorded_marks: Vec<super::RecordedMark>,
    /// What a reader must know, sentences.
    pub notes: Vec<String>,
    /// Every configuration, in the order given.
    pub configs: Vec<FidelityConfig>,
}

/// One configuration: what was typed in front of the program, what the program did, what the replay says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FidelityConfig {
    /// Name as given.
    pub name: String,
    /// What the replay makes of it for this trace: `domain=allocator` of the domains that it uses, then variables.
    pub expansion: Vec<String>,
    /// Real runs, in executed order.
    pub real: Vec<RealRun>,
    /// Why real runs or replays failed, a sentence each.
    pub failures: Vec<String>,
    /// Replays.
    pub replayed: Vec<ReplayedRun>,
    /// Time in `steady` that the replay's calls took, touch included, one value per throughput child, nanoseconds.
    pub replayed_ns: Vec<u64>,
    /// The same of everything up to the mark that rest follows; none in files from before it was kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replayed_ns_all: Vec<u64>,
}

/// Readings of one run of the real program. Heap bytes are resident anonymous memory less what no allocator handed
/// out: written pages of file mappings, zero-initialised data, stacks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RealRun {
    /// Repetition, from 0.
    pub block: u32,
    /// Random padding of its environment, bytes; 0 in files from before there was one.
    pub padding_bytes: u32,
    /// Most heap bytes: of `steady` if the program marked it, else of everything up to the mark that rest follows.
    pub peak_bytes: u64,
    /// Heap bytes at interpreter exit; null when its beginning could not be noticed.
    pub end_bytes: Option<u64>,
    /// Idle delay in milliseconds and heap bytes then.
    pub rest: Vec<(u64, u64)>,
    /// Which mark rest follows: `drained` or `finalising`.
    pub rest_from: String,
    /// Whether the program marked `steady` itself.
    pub has_steady: bool,
    /// Heap bytes at that mark; null without it.
    pub steady_bytes: Option<u64>,
    /// What was taken off at the mark that rest follows, bytes.
    pub no_heap_bytes: u64,
    /// High-water mark of all resident memory (`VmHWM`) up to the last mark, bytes.
    pub rss_bytes_peak: u64,
    /// CPU time from `steady` to the mark that rest follows, all threads, nanoseconds; null without `steady`.
    pub cpu_ns: Option<u64>,
    /// CPU time of the process up to the mark that rest follows, nanoseconds; null in files from before it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_all: Option<u64>,
    /// Wall time from `steady` on, less what the sampler held the program, nanoseconds.
    pub wall_ns: Option<u64>,
    /// Times that the sampler looked.
    pub polls: u32,
    /// Marks of other processes, which were not followed.
    pub other_marks: u32,
    /// How the program ended, such as `with code 3`; null for code 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Transparent huge pages at the first reading at rest, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_bytes: Option<u64>,
    /// Minor page faults of the process up to the mark that rest follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults_minor: Option<u64>,
}

/// Readings of one replay, bytes above the seal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplayedRun {
    /// At `steady`; null without that mark.
    pub steady_bytes: Option<u64>,
    /// Largest reading within `steady`.
    pub peak_bytes: u64,
    /// Largest reading of all up to the mark that rest follows.
    pub peak_bytes_all: u64,
    /// At interpreter exit.
    pub end_bytes: u64,
    /// Idle delay asked for in milliseconds and bytes then.
    pub rest: Vec<(u64, u64)>,
    /// Which moment rest follows.
    pub rest_from: String,
    /// Resident and requested bytes at each of [`Fidelity::recorded_marks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_marks: Vec<[u64; 2]>,
    /// Which time the allocators met; null in files from before there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Transparent huge pages at the first reading at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_bytes: Option<u64>,
    /// Minor page faults of the replay up to rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults_minor: Option<u64>,
    /// Requested bytes at the peak that the program never touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untouched_bytes: Option<u64>,
}

impl Fidelity {
    /// The file that belongs to a trace file.
    #[must_use]
    pub fn path_beside(trace: &Path) -> PathBuf {
        let mut name = trace.as_os_str().to_owned();
        name.push(ENDING);
        PathBuf::from(name)
    }

    /// Reads the first of these files that exists, if it belongs to the trace with this checksum. The second value
    /// says why a file that is there is not used.
    #[must_use]
    pub fn find(files: &[PathBuf], trace_sha256: &str) -> (Option<Self>, Option<String>) {
        let Some(file) = files.iter().find(|file| file.exists()) else { return (None, None) };
        match Self::read(file) {
            Ok(found) if found.trace_sha256 != trace_sha256 => {
                (None, Some(format!("{} is of another recording; run `live` again.", file.display())))
            }
            Ok(found) => (Some(found), None),
            Err(reason) => (None, Some(reason)),
        }
    }

    /// Reads a file that was written before.
    ///
    /// # Errors
    /// A sentence: it is not there, no such file, or of another version.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = bounded::read(file, bounded::JSON_BYTES_MAX)
            .map_err(|e| format!("{} cannot be read: {e}. Correct the path.", file.display()))?;
        let found: Self =
            bounded::json(&text).map_err(|e| format!("{} cannot be read: {e}. Run `live` again.", file.display()))?;
        if found.schema != FIDELITY_SCHEMA {
            return Err(format!("{} is of another version; run `live` again.", file.display()));
        }
        Ok(found)
    }

    /// Checks that the file could be written, before anything runs.
    ///
    /// # Errors
    /// A sentence that ends with what to do.
    pub fn check(file: &Path) -> Result<(), String> {
        files::check_target_below(file, Kind::Json).map_err(|refusal| refusal.to_string())
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A sentence that names the option which moves it.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let fail = |e: &dyn std::fmt::Display| format!("{} cannot be written: {e}. Give -o FILE.", file.display());
        let mut text = serde_json::to_string_pretty(self).map_err(|e| fail(&e))?;
        text.push('\n');
        files::make_folders(file.parent().unwrap_or(Path::new(""))).map_err(|e| fail(&e))?;
        files::replace(file, Kind::Json, Mode::Usual, text.as_bytes()).map_err(|e| fail(&e))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::fs;

    #[test]
    fn it_is_found_beside_its_own_trace_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = Fidelity::path_beside(&folder.path().join("app.trace"));
        assert_eq!(file, folder.path().join("app.trace.fidelity.json"));
        let files = [folder.path().join("none.json"), file.clone()];
        assert_eq!(Fidelity::find(&files, "ab"), (None, None));
        let run = RealRun { end_bytes: None, rest: vec![(0, 5)], ..RealRun::default() };
        let configs = vec![FidelityConfig { name: "today".into(), real: vec![run], ..FidelityConfig::default() }];
        let written = Fidelity { schema: FIDELITY_SCHEMA, trace_sha256: "ab".into(), configs, ..Fidelity::default() };
        written.write(&file).unwrap();
        assert_eq!(Fidelity::find(&files, "ab"), (Some(written.clone()), None));
        assert!(Fidelity::find(&files, "cd").1.unwrap().contains("another recording"));
        Fidelity { schema: 99, ..written }.write(&file).unwrap();
        assert!(Fidelity::find(&files, "ab").1.unwrap().contains("another version"));
        fs::write(&file, "{").unwrap();
        assert!(Fidelity::find(&files, "ab").1.unwrap().contains("cannot be read"));
    }
}
