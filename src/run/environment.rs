//! `environment.json`: everything about a result that is not one child's reading.
//!
//! Invariant: written before the first child is started; unknown is `null`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trace::image::ImageSummary;

/// One per result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// The harness.
    pub harness: HarnessFacts,
    /// The host.
    pub host: HostFacts,
    /// What was asked for.
    pub plan: PlanFacts,
    /// Every configuration, in the order given.
    pub configs: Vec<ConfigFacts>,
    /// Every workload, in the order given.
    pub workloads: Vec<WorkloadFacts>,
}

/// The program that measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HarnessFacts {
    /// Crate version.
    pub version: String,
    /// Git revision of the checkout it was built from, if it was one.
    pub revision: Option<String>,
    /// `release` or `debug`; readers say loudly that a debug build measured nothing.
    pub profile: String,
    /// Compiler version.
    pub rustc: Option<String>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// CPU model name.
    pub cpu_model: Option<String>,
    /// CPUs this process may use.
    pub cpus: u32,
    /// Kernel release.
    pub kernel: Option<String>,
    /// C library and version.
    pub libc: Option<String>,
    /// OS page size, bytes.
    pub page_bytes: u64,
    /// Physical memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Transparent huge page mode.
    pub thp: Option<String>,
    /// Overcommit mode.
    pub overcommit: Option<String>,
    /// Address space randomisation.
    pub aslr: Option<String>,
    /// Frequency governor.
    pub governor: Option<String>,
    /// Clock source of the kernel.
    pub clock_source: Option<String>,
    /// One-minute load average when the result began, in hundredths.
    pub load_hundredths: Option<u64>,
    /// Memory limit of the control group, bytes.
    pub cgroup_limit_bytes: Option<u64>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// Seed of order and padding.
    pub seed: u64,
    /// Throughput blocks.
    pub blocks: u32,
    /// Latency runs per cell.
    pub latency_runs: u32,
    /// Footprint runs per cell.
    pub footprint_runs: u32,
    /// Idle delays at which rest is read, milliseconds.
    pub idle_ms: Vec<u64>,
    /// Whether small cuts were used.
    pub quick: bool,
    /// Milliseconds since the epoch when the result began.
    pub started_unix_ms: u64,
    /// Why so many repetitions; null where they were given, and in results from before they could be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetFacts>,
}

/// How the number of repetitions was chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetFacts {
    /// The time that was given, milliseconds.
    pub budget_ms: u64,
    /// Of which the pilot took so much, milliseconds. Its runs are not kept.
    pub pilot_ms: u64,
    /// What was chosen and why, in sentences.
    pub reasons: Vec<String>,
}

/// One configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigFacts {
    /// Name as given and as printed.
    pub name: String,
    /// How charts label it.
    pub label: String,
    /// Whether it is no contestant: part of the floor (`null`, `loop`), or a control.
    pub floor: bool,
    /// The allocator that serves each domain, by domain name.
    pub domains: BTreeMap<String, String>,
    /// Every allocator in it.
    pub allocators: Vec<AllocatorFacts>,
    /// The words that its name stands for, without folders; empty where none do, and in old results.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// Whether variables stand for all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deployable: bool,
    /// Settings that no allocator could confirm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<String>,
    /// Of a control: the configuration that it is once more, under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_of: Option<String>,
}

/// What an allocator says of itself at run time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocatorFacts {
    /// Key, such as `mimalloc`.
    pub key: String,
    /// Family of the library that reported the options, such as `glibc`; empty where none does, and in old results.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub family: String,
    /// Version that the library reported.
    pub version: String,
    /// Effective options that the library reported.
    pub options: BTreeMap<String, String>,
}

/// One workload, and what its trace says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkloadFacts {
    /// Name.
    pub name: String,
    /// One-line title.
    pub title: String,
    /// What it is and why it is here.
    pub story: String,
    /// SHA-256 of the trace file.
    pub sha256: String,
    /// Size of the trace file, bytes.
    pub trace_bytes: u64,
    /// The compiled image.
    pub image: ImageSummary,
    /// Metadata of the trace without its site table.
    pub metadata: trace::Metadata,
    /// What the events say.
    pub shape: trace::Shape,
    /// How well replays of this trace predicted the real program; null when `live` never compared them, and in
    /// results from before there was `live`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Box<super::Fidelity>>,
}

impl AllocatorFacts {
    /// The version for a line of text: without the revision that some libraries append (`5.3.1-0-g81034ce`), without
    /// what the allocator stands on (`0.1.0 over glibc 2.36`), which has facts of its own, and without remarks in
    /// parentheses.
    #[must_use]
    pub fn release(&self) -> String {
        let own = self.version.split(" over ").next().unwrap_or_default();
        let own = own.split(" (").next().unwrap_or_default();
        let words = own.split_whitespace().map(|word| word.split_once('-').map_or(word, |(release, _)| release));
        words.collect::<Vec<_>>().join(" ")
    }
}
