//! Facts about the host and about this program, as far as they can be had.
//!
//! The one place of the harness that reads what the kernel says of the host.
//!
//! Invariant: read only; what cannot be read is `None`, never a guess.

use super::fitness::HostState;
use super::live;
use crate::run::{HarnessFacts, HostFacts};
use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine. `libc` is what the system allocator reported as its version.
#[must_use]
pub(super) fn host(libc: Option<String>) -> HostFacts {
    HostFacts {
        cpu_model: first_field("/proc/cpuinfo", "model name"),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        kernel: Some(rustix::system::uname().release().to_string_lossy().into_owned()),
        libc,
        page_bytes: rustix::param::page_size() as u64,
        memory_bytes: first_field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
        thp: line("/sys/kernel/mm/transparent_hugepage/enabled").map(|text| bracketed(&text)),
        overcommit: line("/proc/sys/vm/overcommit_memory"),
        aslr: line("/proc/sys/kernel/randomize_va_space"),
        governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_source: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        load_hundredths: line("/proc/loadavg").and_then(|text| load_hundredths(&text)),
        cgroup_limit_bytes: cgroup_limit_bytes(),
    }
}

/// What decides whether one may measure here. `results` is the folder that results would go into.
#[must_use]
pub(super) fn state(host: HostFacts, results: &Path) -> HostState {
    let limit = |resource| getrlimit(resource).current;
    let swap = |name| first_field("/proc/meminfo", name).and_then(|text| kibibytes(&text));
    // Of a folder that is not there yet, the one that it would be made in counts.
    let folder = results.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    HostState {
        cpu_quota_hundredths: cpu_quota_hundredths(),
        has_turbo: turbo(),
        memory_available_bytes: memory_available_bytes(),
        swap_bytes: swap("SwapTotal"),
        swap_used_bytes: swap("SwapTotal").zip(swap("SwapFree")).map(|(all, free)| all.saturating_sub(free)),
        address_space_bytes_max: limit(Resource::As),
        descriptors_max: limit(Resource::Nofile),
        results_free_bytes: statvfs(folder).ok().map(|facts| facts.f_bavail.saturating_mul(facts.f_frsize)),
        is_results_writable: access(folder, Access::WRITE_OK).is_ok(),
        variables: live::left_out(),
        has_exact_memory: fs::read_to_string("/proc/self/smaps_rollup").is_ok_and(|text| text.contains("Anonymous:")),
        can_forget_peaks: access("/proc/self/clear_refs", Access::WRITE_OK).is_ok(),
        is_debug_build: cfg!(debug_assertions),
        host,
    }
}

/// This program.
#[must_use]
pub(super) fn harness() -> HarnessFacts {
    let rustc = env!("PYALLOC_BENCH_RUSTC");
    HarnessFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: revision(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        rustc: (!rustc.is_empty()).then(|| rustc.to_owned()),
    }
}

/// Memory that could be had without swapping, bytes.
#[must_use]
pub(super) fn memory_available_bytes() -> Option<u64> {
    let free = first_field("/proc/meminfo", "MemAvailable").and_then(|text| kibibytes(&text));
    let limit = cgroup_limit_bytes();
    free.into_iter().chain(limit).min()
}

/// Revision of the checkout that this binary was built from, `-dirty` added when tracked files differ from it. A
/// packaged binary was told it when it was built.
fn revision() -> Option<String> {
    let built_in = env!("PYALLOC_BENCH_REVISION");
    if !built_in.is_empty() {
        return Some(built_in.to_owned());
    }
    let root = Path::new(env!("PYALLOC_BENCH_CLONE"));
    if root.as_os_str().is_empty() || !root.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let done = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { head } else { format!("{head}-dirty") })
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The value after `name` and a colon in the first line that has it.
fn first_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(left, _)| left.trim() == name).map(|(_, right)| right.trim().to_owned())
}

/// `12 kB` in bytes.
fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `madvise` of `always [madvise] never`.
fn bracketed(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text, |(word, _)| word).to_owned()
}

/// `123` of `1.23 0.5 ...`.
fn load_hundredths(text: &str) -> Option<u64> {
    let first: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((first * 100.0).round() as u64)
}

/// Whether the processor may run faster than its nominal clock; unknown where the kernel steers no clock.
fn turbo() -> Option<bool> {
    let intel = line("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|text| text == "0");
    intel.or_else(|| line("/sys/devices/system/cpu/cpufreq/boost").map(|text| text == "1"))
}

/// Values of a file in this process's control group and its parents; `old` is where version 1 of the hierarchy keeps
/// that of a controller.
fn of_control_groups(name: &str, (controller, old): (&str, &str)) -> Vec<String> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    // Lines such as `0::/a/b` and, in version 1, `4:cpu,cpuacct:/a/b`.
    for (controllers, inside) in membership.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')) {
        let (root, name) = match controllers {
            "" => (PathBuf::from("/sys/fs/cgroup"), name),
            several if several.split(',').any(|one| one == controller) => {
                (Path::new("/sys/fs/cgroup").join(controller), old)
            }
            _ => continue,
        };
        let folder = root.join(inside.trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(&root));
        found.extend(folders.filter_map(|folder| fs::read_to_string(folder.join(name)).ok()));
    }
    found
}

/// The tightest memory limit of this process's control group and its parents.
fn cgroup_limit_bytes() -> Option<u64> {
    let limits = of_control_groups("memory.max", ("memory", "memory.limit_in_bytes"));
    // Version 1 writes a number near the largest for no limit, version 2 a word.
    limits.iter().filter_map(|text| text.trim().parse().ok()).filter(|bytes| *bytes < 1 << 60).min()
}

/// The tightest share of CPUs that this process's control group may use, in hundredths of one.
fn cpu_quota_hundredths() -> Option<u64> {
    let quotas = of_control_groups("cpu.max", ("cpu", "cpu.cfs_quota_us"));
    let periods = of_control_groups("cpu.max", ("cpu", "cpu.cfs_period_us"));
    quotas.iter().zip(&periods).filter_map(|(quota, period)| quota_hundredths(quota, period)).min()
}

/// `150` of `150000 100000`, or of `150000` and `100000`; none for `max` and `-1`.
fn quota_hundredths(quota: &str, period: &str) -> Option<u64> {
    let quota: u64 = quota.split_whitespace().next()?.parse().ok()?;
    let period: u64 = period.split_whitespace().last()?.parse().ok()?;
    quota.checked_mul(100)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_understood() {
        assert_eq!(bracketed("always [madvise] never"), "madvise");
        assert_eq!(kibibytes("16 kB"), Some(16_384));
        assert_eq!(kibibytes("many"), None);
        assert_eq!(load_hundredths("1.23 0.50 0.10 1/200 77"), Some(123));
        assert_eq!(quota_hundredths("150000 100000\n", "150000 100000\n"), Some(150));
        assert_eq!(quota_hundredths("50000\n", "100000\n"), Some(50));
        assert_eq!((quota_hundredths("max 100000", "max 100000"), quota_hundredths("-1", "100000")), (None, None));
    }

    #[test]
    fn this_host_says_something() {
        let host = host(None);
        assert!(host.cpus > 0 && host.page_bytes >= 4096);
        assert!(host.kernel.is_some_and(|k| !k.is_empty()));
        assert!(memory_available_bytes().is_none_or(|bytes| bytes > 1 << 20));
        assert!(harness().rustc.unwrap().starts_with("rustc "));
    }
}
