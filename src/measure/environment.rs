//! Facts about the host and about this program, as far as they can be had.
//!
//! Invariant: read only; what cannot be read is `None`, never a guess.

use crate::run::{HarnessFacts, HostFacts};
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

/// The tightest memory limit of this process's control group and its parents (version 2 of the hierarchy).
fn cgroup_limit_bytes() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let inside = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = PathBuf::from("/sys/fs/cgroup").join(inside);
    let limits = folder.ancestors().take_while(|f| f.starts_with("/sys/fs/cgroup"));
    limits.filter_map(|f| fs::read_to_string(f.join("memory.max")).ok()?.trim().parse().ok()).min()
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
