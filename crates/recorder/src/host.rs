//! Facts about the recording host, and the memory of a process seen from outside.
//!
//! Invariant: what cannot be read is unknown, never a guess; the recorder's own pages are left out of every reading.

use crate::convert::Host;
use crate::library::RECORDER_IN_MEMORY;
use std::fs;
use std::path::Path;
use trace::MemoryReading;

/// Reads what is known about this host.
pub(crate) fn read() -> Host {
    let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let cpu_model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let thp = line("/sys/kernel/mm/transparent_hugepage/enabled");
    let thp = thp.and_then(|modes| Some(modes.split_once('[')?.1.split_once(']')?.0.to_owned()));
    let cpus = std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
    Host { kernel: line("/proc/sys/kernel/osrelease"), libc: libc_version(), cpu_model, cpu_count: cpus, thp }
}

fn libc_version() -> Option<String> {
    // SAFETY: returns a static NUL-terminated string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().ok().map(|version| format!("glibc {version}"))
}

/// Whether files there live in memory.
pub(crate) fn is_memory_file_system(path: &Path) -> bool {
    const IN_MEMORY: [i64; 3] = [0x0102_1994, 0x8584_58f6, 0x958458f6];
    file_system(path).is_some_and(|kind| IN_MEMORY.contains(&kind))
}

/// Whether the file system there is Btrfs, ZFS, bcachefs or NILFS.
pub(crate) fn is_copy_on_write(path: &Path) -> bool {
    const COPYING: [i64; 4] = [0x9123_683e, 0x2fc1_2fc1, 0xca45_1a4e, 0x3434];
    file_system(path).is_some_and(|kind| COPYING.contains(&kind))
}

/// The kernel's number of the file system.
fn file_system(path: &Path) -> Option<i64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut facts = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a NUL-terminated path and room for the answer.
    let answer = unsafe { libc::statfs(path.as_ptr(), facts.as_mut_ptr()) };
    // SAFETY: filled in when the call succeeded.
    (answer == 0).then(|| unsafe { facts.assume_init() }.f_type)
}

/// Anonymous memory of a process, bytes: cheap, for deciding whether a full reading is worth its time.
pub(crate) fn anonymous_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| kibibytes(line, "Anonymous:"))
}

/// Resident memory of a process by what backs it, without the mappings of the recorder's files.
pub(crate) fn memory(pid: u32, raw_folder: &Path, library: &Path) -> Option<MemoryReading> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let (raw_folder, library) = (raw_folder.to_str()?, library.to_str()?);
    let mut sum = MemoryReading::default();
    let (mut path, mut is_own, mut library_end, mut rss) = ("", false, "", 0);
    for line in text.lines() {
        if !line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let (begin, end) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap_or_default();
            path = line.find(['/', '[']).map_or("", |at| &line[at..]);
            // The library's zeroed data follows it without a name.
            let is_library =
                path == library || path.starts_with(RECORDER_IN_MEMORY) || (path.is_empty() && begin == library_end);
            library_end = if is_library { end } else { "" };
            is_own = is_library || path.starts_with(raw_folder);
        } else if is_own {
        } else if let Some(bytes) = kibibytes(line, "Rss:") {
            rss = bytes;
            sum.rss_bytes += bytes;
        } else if let Some(anonymous) = kibibytes(line, "Anonymous:") {
            sum.rss_anon_bytes += anonymous;
            if path.starts_with('/') {
                sum.file_bytes += rss.saturating_sub(anonymous);
                sum.relocated_bytes += anonymous;
            } else if path == "[stack]" {
                sum.stack_bytes += anonymous;
            }
        }
    }
    (sum.rss_bytes != 0).then_some(sum)
}

fn kibibytes(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|count| count * 1024)
}
