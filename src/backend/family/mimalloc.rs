//! mimalloc, any version: its options change their numbers from one to the next, but each names them when it starts
//! verbosely.
//!
//! Invariant: options are what the very copy prints in a child process whose environment is this one's and in which it
//! is the first to start. Each reads its variables once, as it starts, so the child's options are this process's.

use super::symbols::Symbols;
use libc::{c_int, c_long};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use trace::{Directive, DirectiveCall};

/// Functions of one copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct Mimalloc {
    /// `mi_version`.
    pub(in crate::backend) version: unsafe extern "C" fn() -> c_int,
    /// `mi_collect`.
    pub(in crate::backend) collect: unsafe extern "C" fn(bool),
    /// `mi_option_set` of a library that a configuration names: the recorded number of an option is one of that
    /// library's version, and may be another option's in the linked copy.
    pub(in crate::backend) option_set: Option<OptionSet>,
}

pub(in crate::backend) type OptionSet = unsafe extern "C" fn(c_int, c_long);

/// Where a copy is found by a child process.
pub(in crate::backend) enum Copy {
    /// Linked into this program.
    Linked,
    /// A shared library.
    File(PathBuf),
}

/// Options that steer speed or memory, of any version. Others are said only when a variable sets them.
const STEERING: &[&str] = &[
    "abandoned_page_decommit",
    "abandoned_page_purge",
    "allow_decommit",
    "allow_large_os_pages",
    "allow_thp",
    "arena_eager_commit",
    "arena_purge_mult",
    "arena_reserve",
    "decommit_delay",
    "disallow_os_alloc",
    "eager_commit",
    "eager_commit_delay",
    "generic_collect",
    "large_os_pages",
    "minimal_purge_size",
    "page_commit_on_demand",
    "page_full_retain",
    "page_max_reclaim",
    "page_reclaim_on_free",
    "page_reset",
    "purge_decommits",
    "purge_delay",
    "reserve_huge_os_pages",
    "reserve_os_memory",
    "segment_decommit_delay",
];
/// What begins the name of a variable that sets an option.
const VARIABLE_PREFIX: &str = "MIMALLOC_";
/// The variable that makes a copy speak.
const VERBOSE_VARIABLE: &str = "MIMALLOC_VERBOSE";

impl Mimalloc {
    pub(super) fn find(symbols: &Symbols) -> Option<Self> {
        let (version, collect) = (symbols.find(c"mi_version")?, symbols.find(c"mi_collect")?);
        let option_set = symbols.find(c"mi_option_set");
        // SAFETY: every version declares these functions so.
        unsafe {
            Some(Self {
                version: std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> c_int>(version),
                collect: std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(bool)>(collect),
                option_set: option_set.map(|set| std::mem::transmute::<*mut libc::c_void, OptionSet>(set)),
            })
        }
    }

    pub(in crate::backend) fn version(self) -> String {
        // SAFETY: no precondition.
        written(unsafe { (self.version)() }.unsigned_abs())
    }

    /// `mi_collect` and `mi_option_set`.
    pub(super) fn carry_out(self, call: DirectiveCall) -> bool {
        match (call.directive, self.option_set) {
            // SAFETY: no precondition.
            (Directive::MiCollect, _) => unsafe { (self.collect)(call.value != 0) },
            // SAFETY: the library ignores a number that is no option's.
            (Directive::MiOptionSet, Some(set)) => unsafe { set(call.key.into(), call.value.into()) },
            _ => return false,
        }
        true
    }

    /// A forced collection.
    pub(in crate::backend) fn release(self) {
        // SAFETY: no precondition.
        unsafe { (self.collect)(true) };
    }
}

/// A version in words. `mi_version` returns `major * 10000 + minor * 100 + patch` in newer ones, and
/// `major * 100 + minor * 10 + patch` before.
#[must_use]
pub fn written(number: u32) -> String {
    match number {
        10_000.. => format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100),
        _ => format!("{}.{}.{}", number / 100, number / 10 % 10, number % 10),
    }
}

/// Effective options of a copy in this environment. Empty when no child can be asked.
pub(in crate::backend) fn options(copy: &Copy) -> BTreeMap<String, String> {
    let mut command = Command::new("/proc/self/exe");
    // A verb that does nothing: the copies start before `main`, and say what they have to say.
    command.args(["worker", "--nothing"]).env(VERBOSE_VARIABLE, "1").env_remove("LD_PRELOAD");
    if let Copy::File(file) = copy {
        command.env("LD_PRELOAD", file);
    }
    let Ok(output) = command.stdin(Stdio::null()).output() else { return BTreeMap::new() };
    let is_set = |name: &str| std::env::var_os(format!("{VARIABLE_PREFIX}{}", name.to_uppercase())).is_some();
    let mut options = said(&String::from_utf8_lossy(&output.stderr)).into_iter().next().unwrap_or_default();
    options.retain(|name, _| STEERING.contains(&name.as_str()) || is_set(name));
    options
}

/// What each copy that starts verbosely says of its options, in the order in which they speak: lines such as
/// `mimalloc: option 'purge_delay': 10` or `option 'arena_reserve': 1048576 KiB`. A copy names an option once.
#[must_use]
pub fn said(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut copies: Vec<BTreeMap<String, String>> = Vec::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once("option '").and_then(|(_, rest)| rest.split_once("':")) else {
            continue;
        };
        if copies.last().is_none_or(|options| options.contains_key(name)) {
            copies.push(BTreeMap::new());
        }
        if let Some(options) = copies.last_mut() {
            options.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_s_options_are_told_apart_in_every_version_s_words() {
        let text = "mimalloc: option 'show_errors': 0\nmimalloc: option 'decommit_delay': 25\nmimalloc: process init\n\
                    option 'show_errors': 1 \noption 'arena_reserve': 1048576 KiB\n";
        let first = [("show_errors", "0"), ("decommit_delay", "25")];
        let copies = said(text);
        assert_eq!(copies.len(), 2);
        assert_eq!(copies[0], first.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(copies[1]["arena_reserve"], "1048576 KiB");
        assert!(said("mimalloc: process init\n").is_empty());
    }

    #[test]
    fn versions_are_written_in_either_way() {
        unsafe extern "C" fn old() -> c_int {
            209
        }
        unsafe extern "C" fn new() -> c_int {
            30_302
        }
        unsafe extern "C" fn nothing(_: bool) {}
        let version = |version| Mimalloc { version, collect: nothing, option_set: None }.version();
        assert_eq!((version(old), version(new)), ("2.0.9".to_owned(), "3.3.2".to_owned()));
    }
}
