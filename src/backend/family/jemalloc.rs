//! jemalloc, any build, through `mallctl` under whatever prefix it has.
//!
//! Invariant: an option is what `mallctl` reports, and is left out where this build does not have it.

use super::symbols::Symbols;
use crate::run::Held;
use libc::{c_char, c_int, c_void};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Write as _;
use trace::{Directive, DirectiveCall};

pub(in crate::backend) type Mallctl =
    unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;

/// Functions of one copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct Jemalloc {
    /// `mallctl`.
    pub(in crate::backend) mallctl: Mallctl,
}

/// Options that steer speed or memory. Others are said only when a variable sets them.
const STEERING: &[&str] = &[
    "opt.narenas",
    "opt.percpu_arena",
    "opt.background_thread",
    "opt.dirty_decay_ms",
    "opt.muzzy_decay_ms",
    "opt.tcache",
    "opt.tcache_max",
    "opt.retain",
    "opt.metadata_thp",
    "opt.thp",
    "opt.dss",
    "opt.oversize_threshold",
    "config.cache_oblivious",
];
/// Options whose value is text, which `mallctl` returns by its address.
const TEXT: &[&str] = &[
    "version",
    "config.malloc_conf",
    "opt.dss",
    "opt.junk",
    "opt.metadata_thp",
    "opt.percpu_arena",
    "opt.prof_prefix",
    "opt.stats_interval_opts",
    "opt.stats_print_opts",
    "opt.thp",
    "opt.zero_realloc",
];
/// Room for the name of a control with an arena's number.
const NAME_BYTES: usize = 48;
/// Variables that hold options, one of which this copy reads.
const VARIABLES: [&str; 3] = ["MALLOC_CONF", "_RJEM_MALLOC_CONF", "JE_ARROW_MALLOC_CONF"];

impl Jemalloc {
    pub(super) fn find(symbols: &Symbols) -> Option<Self> {
        let names = [c"mallctl", c"je_mallctl", c"_rjem_mallctl"];
        let mallctl = names.into_iter().find_map(|name| symbols.find(name))?;
        // SAFETY: every version declares the function so.
        Some(Self { mallctl: unsafe { std::mem::transmute::<*mut c_void, Mallctl>(mallctl) } })
    }

    /// Reads a value of one type; `None` when this build does not have it, or in another type.
    fn value<T: Copy>(self, name: &CStr, mut start: T) -> Option<T> {
        let mut bytes = size_of::<T>();
        let (to, nothing) = ((&raw mut start).cast::<c_void>(), std::ptr::null_mut());
        // SAFETY: `to` has room for `bytes` bytes, and the library refuses a type of another size.
        let rc = unsafe { (self.mallctl)(name.as_ptr(), to, &raw mut bytes, nothing, 0) };
        (rc == 0).then_some(start)
    }

    /// Reads a value by its name; its size tells its type, and a list tells which are text.
    fn read(self, name: &str) -> Option<String> {
        let c_name = CString::new(name).ok()?;
        if TEXT.contains(&name) {
            let start: *const c_char = self.value(&c_name, std::ptr::null())?;
            // SAFETY: text values of the library are static C strings.
            return (!start.is_null()).then(|| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned());
        }
        let flag = self.value(&c_name, false).map(|value| value.to_string());
        let small = || self.value(&c_name, 0u32).map(|value| value.to_string());
        // Sizes stay far below the sign bit, delays may be -1.
        flag.or_else(small).or_else(|| self.value(&c_name, 0isize).map(|value| value.to_string()))
    }

    /// Such as `5.3.1`; the commit that the library appends is kept.
    pub(in crate::backend) fn version(self) -> String {
        self.read("version").unwrap_or_else(|| "of unknown version".to_owned())
    }

    /// What steers it, and what a variable sets.
    pub(in crate::backend) fn options(self) -> BTreeMap<String, String> {
        let set = VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
        let set: Vec<String> = set
            .flat_map(|text| {
                text.split(',').map(|pair| pair.split(':').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
            })
            .map(|name| format!("opt.{name}"))
            .collect();
        let names = STEERING.iter().copied().chain(set.iter().map(String::as_str));
        names.filter_map(|name| Some((name.to_owned(), self.read(name)?))).collect()
    }

    /// Why it needs real time: its own threads purge while others allocate.
    pub(in crate::backend) fn real_time(self) -> Option<&'static str> {
        let has_thread = self.value(c"opt.background_thread", false) == Some(true);
        has_thread.then_some("jemalloc purges in a thread of its own (background_thread:true)")
    }

    /// The copy's statistics, made anew. Unknown to a build without them.
    pub(in crate::backend) fn holds(self) -> Held {
        let mut epoch = 1_u64;
        let nothing = std::ptr::null_mut();
        // SAFETY: the name's type is a 64-bit number, which is only read.
        unsafe { (self.mallctl)(c"epoch".as_ptr(), nothing, nothing.cast(), (&raw mut epoch).cast(), 8) };
        let read = |name: &CStr| self.value(name, 0_usize).map(|bytes| bytes as u64);
        Held { mapped_bytes: read(c"stats.mapped"), resident_bytes_max: read(c"stats.resident") }
    }

    /// The controls that [`Directive`] knows. One that this build refuses changes nothing.
    pub(super) fn carry_out(self, call: DirectiveCall) -> bool {
        let DirectiveCall { directive, key, value } = call;
        let action = match directive {
            Directive::ArenaPurge => "purge",
            Directive::ArenaDecay => "decay",
            Directive::DirtyDecayMs => "dirty_decay_ms",
            Directive::MuzzyDecayMs => "muzzy_decay_ms",
            Directive::BackgroundThread => {
                self.set(c"background_thread", value != 0);
                return true;
            }
            Directive::TcacheFlush => {
                self.act(c"thread.tcache.flush");
                return true;
            }
            _ => return false,
        };
        // The replay is sealed: the name is written to the stack.
        let mut name = [0_u8; NAME_BYTES];
        let mut rest = &mut name[..NAME_BYTES - 1];
        let written = match key {
            0.. => write!(rest, "arena.{key}.{action}"),
            _ => write!(rest, "arenas.{action}"),
        };
        let (Ok(()), Ok(name)) = (written, CStr::from_bytes_until_nul(&name)) else { return true };
        match directive {
            Directive::ArenaPurge | Directive::ArenaDecay => self.act(name),
            _ => self.set(name, value as isize),
        }
        true
    }

    /// Sets a value of one type.
    fn set<T: Copy>(self, name: &CStr, mut value: T) {
        let nothing = std::ptr::null_mut();
        let from = (&raw mut value).cast::<c_void>();
        // SAFETY: `from` has so many bytes, and the library refuses a type of another size.
        unsafe { (self.mallctl)(name.as_ptr(), nothing, nothing.cast(), from, size_of::<T>()) };
    }

    /// Does what a name without a value stands for.
    fn act(self, name: &CStr) {
        let nothing = std::ptr::null_mut();
        // SAFETY: the library refuses a name that wants a value.
        unsafe { (self.mallctl)(name.as_ptr(), nothing, nothing.cast(), nothing, 0) };
    }

    /// Flushes this thread's cache, then purges every arena (4096 is jemalloc's `MALLCTL_ARENAS_ALL`).
    pub(in crate::backend) fn release(self) {
        for action in [c"thread.tcache.flush", c"arena.4096.purge"] {
            self.act(action);
        }
    }
}
