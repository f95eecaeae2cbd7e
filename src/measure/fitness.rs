//! Whether a host is fit to measure on: each fact of it, judged, with what to do.
//!
//! Invariant: a judgement is a function of the facts alone. *Unfit* is only what makes measuring impossible or its
//! figures wrong; what merely widens or shifts them is a warning; what is not known is never held against a host.

use crate::run::HostFacts;
use crate::units::mib;
use serde::Serialize;

/// What the kernel says of the host and of this process's limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostState {
    /// What results keep.
    #[serde(skip)]
    pub host: HostFacts,
    /// CPU time that the control group may use, in hundredths of one CPU; `None`: no limit.
    pub cpu_quota_hundredths: Option<u64>,
    /// Whether the processor may exceed its nominal clock.
    pub has_turbo: Option<bool>,
    /// Memory that could be had without swapping, bytes.
    pub memory_available_bytes: Option<u64>,
    /// Swap, bytes.
    pub swap_bytes: Option<u64>,
    /// Swap in use, bytes.
    pub swap_used_bytes: Option<u64>,
    /// `RLIMIT_AS`, bytes; `None`: no limit.
    pub address_space_bytes_max: Option<u64>,
    /// `RLIMIT_NOFILE`; `None`: no limit.
    pub descriptors_max: Option<u64>,
    /// Free space where results would go, bytes.
    pub results_free_bytes: Option<u64>,
    /// Whether files can be made there.
    pub is_results_writable: bool,
    /// Names of variables in this process's environment that choose or steer an allocator.
    pub variables: Vec<String>,
    /// Whether the kernel sums up a process's pages exactly (`smaps_rollup`).
    pub has_exact_memory: bool,
    /// Whether the kernel forgets a process's peak when told to (`clear_refs`).
    pub can_forget_peaks: bool,
    /// Whether this program was built without optimisation.
    pub is_debug_build: bool,
}

/// How a fact is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Judgement {
    /// As it should be, or unknown.
    Ok,
    /// Figures are wider, or hold for fewer hosts.
    Warn,
    /// Measuring is impossible, or its figures would be wrong.
    Unfit,
}

impl Judgement {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Unfit => "unfit",
        }
    }
}

/// One fact, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub fact: &'static str,
    /// What was found.
    pub value: String,
    /// How it is to be taken.
    pub judgement: Judgement,
    /// What it does to measuring, and what to do; empty where all is well.
    pub advice: String,
}

/// Load per CPU, hundredths, above which times spread.
const LOAD_HUNDREDTHS_MAX: u64 = 50;
/// The page size that traces are recorded in and blocks are touched by.
const OS_PAGE_BYTES: u64 = trace::image::OS_PAGE_BYTES;
/// Memory that no bundled replay can do without: its image and tables beside the heap.
const MEMORY_BYTES_MIN: u64 = 512 << 20;
/// Memory that the bundled replays need with four footprint children side by side.
const MEMORY_BYTES_WANTED: u64 = 2 << 30;
/// Address space that a worker cannot do without: its private heap alone maps 1 GiB, and images come on top.
const ADDRESS_SPACE_BYTES_MIN: u64 = 2 << 30;
/// Address space beside which allocators that reserve arenas of 1 GiB, of which there are several, behave as usual.
pub(super) const ADDRESS_SPACE_BYTES_WANTED: u64 = 32 << 30;
const DESCRIPTORS_MIN: u64 = 64;
const DESCRIPTORS_WANTED: u64 = 256;
/// A result with its charts.
const RESULTS_BYTES_MIN: u64 = 16 << 20;
const RESULTS_BYTES_WANTED: u64 = 256 << 20;
/// Clocks of the kernel that are read from the processor's counter, or are as steady.
const STEADY_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// Judges every fact, in the order in which they are best read.
#[must_use]
pub fn judge(state: &HostState) -> Vec<Finding> {
    let checks: [fn(&HostState) -> Finding; 18] = [
        build,
        cpus,
        quota,
        load,
        governor,
        turbo,
        clock,
        kernel,
        peaks,
        page,
        memory,
        swap,
        huge_pages,
        overcommit,
        layout,
        address_space,
        descriptors,
        results,
    ];
    checks.iter().map(|check| check(state)).chain(std::iter::once(variables(state))).collect()
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Judgement {
    findings.iter().map(|finding| finding.judgement).max().unwrap_or(Judgement::Ok)
}

fn ok(fact: &'static str, value: impl Into<String>) -> Finding {
    Finding { fact, value: value.into(), judgement: Judgement::Ok, advice: String::new() }
}

impl Finding {
    fn warn_if(self, applies: bool, advice: &str) -> Self {
        self.judged_if(applies, Judgement::Warn, advice)
    }

    fn unfit_if(self, applies: bool, advice: &str) -> Self {
        self.judged_if(applies, Judgement::Unfit, advice)
    }

    /// What was judged first stands unless this is worse.
    fn judged_if(self, applies: bool, judgement: Judgement, advice: &str) -> Self {
        if applies && judgement > self.judgement { Self { judgement, advice: advice.to_owned(), ..self } } else { self }
    }
}

fn known(value: Option<&str>) -> String {
    value.unwrap_or("unknown").to_owned()
}

fn bytes(value: Option<u64>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |bytes| format!("{} MiB", mib(bytes as f64)))
}

/// Hundredths as people write them.
fn hundredths(value: u64) -> String {
    format!("{}.{:02}", value / 100, value % 100)
}

fn build(state: &HostState) -> Finding {
    let value = if state.is_debug_build { "debug" } else { "release" };
    ok("build", value).warn_if(
        state.is_debug_build,
        "nothing is measured with it unless --allow-debug-build; build with cargo build --release",
    )
}

fn cpus(state: &HostState) -> Finding {
    let host = &state.host;
    ok("CPU", format!("{}, {} usable", known(host.cpu_model.as_deref()), host.cpus)).warn_if(
        host.cpus == 1,
        "the program and whatever else runs share one CPU, and threads cannot run side by side; give it two",
    )
}

fn quota(state: &HostState) -> Finding {
    let all = u64::from(state.host.cpus) * 100;
    let value = state.cpu_quota_hundredths.map_or("none".to_owned(), |quota| format!("{} CPUs", hundredths(quota)));
    ok("CPU quota", value).warn_if(
        state.cpu_quota_hundredths.is_some_and(|quota| quota < all),
        "the control group is stopped whenever it has used this much, which shows as slow calls, while allocators size \
         themselves by the CPUs they see; raise the quota, or pin with taskset to as many CPUs",
    )
}

fn load(state: &HostState) -> Finding {
    let value = state.host.load_hundredths.map_or("unknown".to_owned(), hundredths);
    let most = LOAD_HUNDREDTHS_MAX * u64::from(state.host.cpus);
    ok("load", value).warn_if(
        state.host.load_hundredths.is_some_and(|load| load > most),
        "the machine is busy: times will spread, memory will not; stop what runs beside the measurement",
    )
}

fn governor(state: &HostState) -> Finding {
    let governor = state.host.governor.as_deref();
    ok("governor", known(governor)).warn_if(
        governor.is_some_and(|governor| governor != "performance"),
        "the clock follows the load, so times depend on what ran before; cpupower frequency-set -g performance",
    )
}

fn turbo(state: &HostState) -> Finding {
    let value = match state.has_turbo {
        None => "unknown",
        Some(true) => "on",
        Some(false) => "off",
    };
    // Not held against the host: interleaved blocks spread a slow drift over all configurations alike.
    ok("turbo", value)
}

fn clock(state: &HostState) -> Finding {
    let source = state.host.clock_source.as_deref();
    ok("clock", known(source)).warn_if(
        source.is_some_and(|source| !STEADY_CLOCKS.contains(&source)),
        "the kernel does not trust the processor's counter, which times single calls here; leave latencies unread",
    )
}

fn kernel(state: &HostState) -> Finding {
    ok("kernel", known(state.host.kernel.as_deref())).unfit_if(
        !state.has_exact_memory,
        "it does not tell a process's exact memory (/proc/self/smaps_rollup, Linux 4.14 and later, not every sandbox); \
         measure on one that does",
    )
}

fn peaks(state: &HostState) -> Finding {
    let value = if state.can_forget_peaks { "can be told to forget" } else { "cannot be told to forget" };
    ok("peaks", value).warn_if(
        !state.can_forget_peaks,
        "live finds peaks after start-up by looking alone (/proc/self/clear_refs cannot be written); expect them a \
         little low",
    )
}

fn page(state: &HostState) -> Finding {
    ok("page size", format!("{} bytes", state.host.page_bytes)).unfit_if(
        state.host.page_bytes != OS_PAGE_BYTES,
        "touched memory is counted and replayed in pages of 4096 bytes; measure on a kernel with those",
    )
}

fn memory(state: &HostState) -> Finding {
    let available = state.memory_available_bytes;
    let limit = state
        .host
        .cgroup_limit_bytes
        .map_or(String::new(), |bytes| format!(" (the control group's limit is {} MiB)", mib(bytes as f64)));
    ok("memory free", format!("{}{limit}", bytes(available, "unknown")))
        .unfit_if(
            available.is_some_and(|bytes| bytes < MEMORY_BYTES_MIN),
            "replays need 512 MiB and more, and would be killed or swapped; free memory, or raise the limit",
        )
        .warn_if(
            available.is_some_and(|bytes| bytes < MEMORY_BYTES_WANTED),
            "larger traces may not fit; free memory, or raise the limit",
        )
}

fn swap(state: &HostState) -> Finding {
    let value = match (state.swap_bytes, state.swap_used_bytes) {
        (Some(0), _) => "none".to_owned(),
        (all, used) => format!("{}, {} used", bytes(all, "unknown"), bytes(used, "unknown")),
    };
    ok("swap", value).warn_if(
        state.swap_used_bytes.is_some_and(|bytes| bytes > 0),
        "what is swapped out is not resident, so footprints may come out too small; swapoff -a, or free memory",
    )
}

fn huge_pages(state: &HostState) -> Finding {
    let mode = state.host.thp.as_deref();
    ok("huge pages", known(mode)).warn_if(
        mode == Some("always"),
        "the kernel rounds heaps up to huge pages: footprints hold for hosts with this mode alone; measure in the mode \
         of the hosts that you deploy to",
    )
}

fn overcommit(state: &HostState) -> Finding {
    let mode = state.host.overcommit.as_deref();
    ok("overcommit", known(mode)).warn_if(
        mode == Some("2"),
        "large reservations of address space may be refused, and mimalloc behaves otherwise; sysctl \
         vm.overcommit_memory=0 unless your hosts have 2",
    )
}

fn layout(state: &HostState) -> Finding {
    let aslr = state.host.aslr.as_deref();
    ok("address layout", known(aslr)).warn_if(
        aslr == Some("0"),
        "every process has the same layout, so intervals leave out what layout does to times; sysctl \
         kernel.randomize_va_space=2",
    )
}

fn address_space(state: &HostState) -> Finding {
    let limit = state.address_space_bytes_max;
    ok("address space", bytes(limit, "unlimited"))
        .unfit_if(
            limit.is_some_and(|bytes| bytes < ADDRESS_SPACE_BYTES_MIN),
            "a worker maps 1 GiB before it has loaded a recording; ulimit -v unlimited",
        )
        .warn_if(
            limit.is_some_and(|bytes| bytes < ADDRESS_SPACE_BYTES_WANTED),
            "allocators that reserve address space may fail here (mimalloc takes it by the GiB); ulimit -v unlimited \
             unless your service runs with this limit",
        )
}

fn descriptors(state: &HostState) -> Finding {
    let limit = state.descriptors_max;
    ok("open files", limit.map_or("unlimited".to_owned(), |count| count.to_string()))
        .unfit_if(limit.is_some_and(|count| count < DESCRIPTORS_MIN), "too few to start children; ulimit -n 1024")
        .warn_if(limit.is_some_and(|count| count < DESCRIPTORS_WANTED), "few for many workloads; ulimit -n 1024")
}

fn results(state: &HostState) -> Finding {
    let free = state.results_free_bytes;
    ok("space for results", bytes(free, "unknown"))
        .unfit_if(!state.is_results_writable, "the folder cannot be written; go to another, or give replay -o FOLDER")
        .unfit_if(
            free.is_some_and(|bytes| bytes < RESULTS_BYTES_MIN),
            "a result does not fit; make room, or give replay -o FOLDER",
        )
        .warn_if(
            free.is_some_and(|bytes| bytes < RESULTS_BYTES_WANTED),
            "room for few results and no large recording; make room, or give replay -o FOLDER",
        )
}

fn variables(state: &HostState) -> Finding {
    let value = if state.variables.is_empty() { "none".to_owned() } else { state.variables.join(", ") };
    ok("variables set", value).warn_if(
        !state.variables.is_empty(),
        "replay and live leave these out of what they start, record does not; unset them, or name them with -c",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A host that nothing is to be said against.
    fn good() -> HostState {
        let host = HostFacts {
            cpu_model: Some("A CPU".into()),
            cpus: 4,
            kernel: Some("6.1.0".into()),
            page_bytes: 4096,
            thp: Some("madvise".into()),
            overcommit: Some("0".into()),
            aslr: Some("2".into()),
            governor: Some("performance".into()),
            clock_source: Some("tsc".into()),
            load_hundredths: Some(12),
            ..HostFacts::default()
        };
        HostState {
            host,
            has_turbo: Some(true),
            memory_available_bytes: Some(8 << 30),
            swap_bytes: Some(1 << 30),
            swap_used_bytes: Some(0),
            descriptors_max: Some(1024),
            results_free_bytes: Some(1 << 30),
            is_results_writable: true,
            has_exact_memory: true,
            can_forget_peaks: true,
            ..HostState::default()
        }
    }

    #[test]
    fn a_good_host_is_fit_and_an_unknown_one_is_not_accused() {
        let findings = judge(&good());
        assert_eq!(worst(&findings), Judgement::Ok, "{findings:?}");
        assert!(findings.iter().all(|finding| !finding.value.is_empty() && finding.advice.is_empty()));
        let unknown = HostState {
            host: HostFacts { cpus: 2, page_bytes: 4096, ..HostFacts::default() },
            is_results_writable: true,
            has_exact_memory: true,
            can_forget_peaks: true,
            ..HostState::default()
        };
        assert_eq!(worst(&judge(&unknown)), Judgement::Ok, "{:?}", judge(&unknown));
    }

    /// Changes one thing of a good host.
    type Change = fn(&mut HostState);

    #[test]
    fn each_odd_host_is_found_out_by_its_own_fact_alone() {
        use Judgement::{Unfit, Warn};
        let odd: &[(&str, Judgement, Change)] = &[
            ("build", Warn, |state| state.is_debug_build = true),
            ("CPU", Warn, |state| (state.host.cpus, state.host.load_hundredths) = (1, None)),
            ("CPU quota", Warn, |state| state.cpu_quota_hundredths = Some(150)),
            ("load", Warn, |state| state.host.load_hundredths = Some(201)),
            ("governor", Warn, |state| state.host.governor = Some("powersave".into())),
            ("clock", Warn, |state| state.host.clock_source = Some("hpet".into())),
            ("kernel", Unfit, |state| state.has_exact_memory = false),
            ("peaks", Warn, |state| state.can_forget_peaks = false),
            ("page size", Unfit, |state| state.host.page_bytes = 65_536),
            ("memory free", Unfit, |state| state.memory_available_bytes = Some(100 << 20)),
            ("memory free", Warn, |state| state.memory_available_bytes = Some(1 << 30)),
            ("swap", Warn, |state| state.swap_used_bytes = Some(4096)),
            ("huge pages", Warn, |state| state.host.thp = Some("always".into())),
            ("overcommit", Warn, |state| state.host.overcommit = Some("2".into())),
            ("address layout", Warn, |state| state.host.aslr = Some("0".into())),
            ("address space", Unfit, |state| state.address_space_bytes_max = Some(1 << 30)),
            ("address space", Warn, |state| state.address_space_bytes_max = Some(8 << 30)),
            ("open files", Unfit, |state| state.descriptors_max = Some(20)),
            ("open files", Warn, |state| state.descriptors_max = Some(100)),
            ("space for results", Unfit, |state| state.results_free_bytes = Some(1 << 20)),
            ("space for results", Warn, |state| state.results_free_bytes = Some(100 << 20)),
            ("space for results", Unfit, |state| state.is_results_writable = false),
            ("variables set", Warn, |state| state.variables = vec!["LD_PRELOAD".into()]),
        ];
        for (fact, judgement, change) in odd {
            let mut state = good();
            change(&mut state);
            let found: Vec<Finding> = judge(&state).into_iter().filter(|f| f.judgement != Judgement::Ok).collect();
            assert_eq!(found.len(), 1, "{fact}: {found:?}");
            assert_eq!((found[0].fact, found[0].judgement), (*fact, *judgement));
            assert!(found[0].advice.contains(';') || found[0].advice.contains(','), "{fact} says what to do");
        }
    }

    #[test]
    fn values_are_written_for_people() {
        let mut state = good();
        (state.cpu_quota_hundredths, state.variables) = (Some(150), vec!["A".into(), "B".into()]);
        let findings = judge(&state);
        let value = |fact| findings.iter().find(|finding| finding.fact == fact).unwrap().value.as_str();
        assert_eq!((value("CPU quota"), value("load"), value("variables set")), ("1.50 CPUs", "0.12", "A, B"));
        assert_eq!(value("address space"), "unlimited");
    }
}
