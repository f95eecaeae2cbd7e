//! Whether the variables of a configuration took effect: what the allocators of a child in its environment say of
//! themselves, against what was typed.
//!
//! Invariant: a variable is verified only by a value that an allocator reported. What reaches nothing, or something
//! else than was asked for, is an error; what nobody can report is named.

use super::Config;
use super::near::nearest;
use super::variables::{self, MIMALLOC_PREFIX, PRELOAD, Reach};
use crate::backend::{GLIBC, JEMALLOC, MIMALLOC, TCMALLOC};
use crate::run::AllocatorFacts;
use std::path::Path;
use trace::Domain;

/// The key of the process's own `malloc`.
const SYSTEM: &str = "system";
/// The key of the linked jemalloc, which reads none of a user's variables by their own names.
const LINKED_JEMALLOC: &str = "jemalloc";

/// The words that nobody could read back. `loader` is what the loader complained of.
///
/// # Errors
/// A sentence about the first that has no effect, or another than was asked for.
pub(crate) fn verify(config: &Config, facts: &[AllocatorFacts], loader: &str) -> Result<Vec<String>, String> {
    let mut unverified = Vec::new();
    for (name, value) in &config.typed {
        let asked = Asked { config, facts, name, value };
        let is_verified = match variables::read(name, value)? {
            // These chose the backends themselves, whose keys and versions the result states.
            Reach::Python | Reach::ArrowPool | Reach::Numpy => true,
            Reach::Preload => asked.preload(loader)?,
            Reach::Glibc(tunable) => asked.tunables(&[(tunable, value)])?,
            Reach::GlibcTunables => asked.tunables(&variables::tunables(name, value)?)?,
            Reach::Jemalloc => asked.jemalloc(&|key| key != LINKED_JEMALLOC && !key.starts_with("wheel"))?,
            Reach::ArrowJemalloc => asked.jemalloc(&|key| key == LINKED_JEMALLOC || key == "wheel:jemalloc")?,
            Reach::Mimalloc => asked.mimalloc()?,
            Reach::Tcmalloc => {
                asked.serving(TCMALLOC, "tcmalloc")?;
                false
            }
        };
        if !is_verified {
            unverified.push(library_free(name, value));
        }
    }
    if !unverified.is_empty() && !config.allow_unverified {
        return Err(format!(
            "{}: no allocator can say whether this took effect. Leave it out, or add --allow-unverified.",
            unverified.join(" ")
        ));
    }
    Ok(unverified)
}

/// The domains that are served by what a variable sets, or chooses for NumPy; `None` for a variable that chooses other
/// allocators.
pub(in crate::measure) fn reached(
    config: &Config,
    facts: &[AllocatorFacts],
    name: &str,
    value: &str,
) -> Option<Vec<Domain>> {
    let family = match variables::read(name, value).ok()? {
        Reach::Python | Reach::ArrowPool | Reach::Preload => return None,
        Reach::Numpy => return Some(vec![Domain::Numpy]),
        Reach::Glibc(_) | Reach::GlibcTunables => GLIBC,
        Reach::Jemalloc | Reach::ArrowJemalloc => JEMALLOC,
        Reach::Mimalloc => MIMALLOC,
        Reach::Tcmalloc => TCMALLOC,
    };
    let is_its = |key: &String| facts.iter().any(|facts| facts.key == *key && facts.family == family);
    let served = Domain::ALL.into_iter().zip(&config.backends).filter(|(_, key)| is_its(key));
    Some(served.map(|(domain, _)| domain).collect())
}

/// Family and version: linked copies tell only their number.
fn named(facts: &AllocatorFacts) -> String {
    if facts.version.contains(&facts.family) {
        facts.version.clone()
    } else {
        format!("{} {}", facts.family, facts.version)
    }
}

fn library_free(name: &str, value: &str) -> String {
    super::library::without_folders(&format!("{name}={value}"))
}

/// One variable.
struct Asked<'a> {
    config: &'a Config,
    facts: &'a [AllocatorFacts],
    name: &'a str,
    value: &'a str,
}

impl<'a> Asked<'a> {
    fn word(&self) -> String {
        format!("{}={}", self.name, self.value)
    }

    /// The allocators of a family that serve a domain; at least one, or the variable reaches nothing.
    fn serving(&self, family: &str, what: &str) -> Result<Vec<&'a AllocatorFacts>, String> {
        let of = |facts: &&AllocatorFacts| facts.family == family && self.config.keys().contains(&facts.key.as_str());
        let found: Vec<_> = self.facts.iter().filter(of).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let serves = |facts: &&AllocatorFacts| self.config.keys().contains(&facts.key.as_str());
        let versions: Vec<String> = self.facts.iter().filter(serves).map(named).collect();
        Err(format!(
            "{} reaches nothing: {what} serves no domain here ({} do). Leave it out.",
            self.word(),
            versions.join(", ")
        ))
    }

    /// Holds options against what they were set to; whether somebody could tell.
    fn holds(&self, facts: &[&AllocatorFacts], prefix: &str, pairs: &[(&str, &str)]) -> Result<bool, String> {
        let mut is_verified = true;
        for (name, wanted) in pairs {
            let key = format!("{prefix}{name}");
            let told: Vec<&&AllocatorFacts> = facts.iter().filter(|facts| facts.options.len() > 1).collect();
            if told.is_empty() {
                is_verified = false;
                continue;
            }
            let found: Vec<(String, &String)> =
                told.iter().filter_map(|facts| Some((named(facts), facts.options.get(&key)?))).collect();
            let versions = || told.iter().map(|facts| named(facts)).collect::<Vec<_>>().join(" and ");
            if found.is_empty() {
                let known =
                    told.iter().flat_map(|facts| facts.options.keys()).filter_map(|key| key.strip_prefix(prefix));
                let hint = nearest(name, known).map_or(String::new(), |near| format!(" Did you mean {near}?"));
                return Err(format!(
                    "{}: {} has no option {name} that it would tell.{hint} Leave it out, or correct it.",
                    self.word(),
                    versions()
                ));
            }
            if let Some((version, value)) = found.iter().find(|(_, value)| !is_same(value, wanted)) {
                return Err(format!(
                    "{} did not take effect: {version} says {name} is {value}. Correct the value, or leave it out.",
                    self.word()
                ));
            }
        }
        Ok(is_verified)
    }

    fn tunables(&self, pairs: &[(&str, &str)]) -> Result<bool, String> {
        self.holds(&self.serving(GLIBC, "glibc's malloc")?, "", pairs)
    }

    fn jemalloc(&self, reads_it: &dyn Fn(&str) -> bool) -> Result<bool, String> {
        let all = self.serving(JEMALLOC, "a jemalloc that reads it")?;
        let reading: Vec<&AllocatorFacts> = all.into_iter().filter(|facts| reads_it(&facts.key)).collect();
        if reading.is_empty() {
            return Err(format!(
                "{} reaches nothing: no jemalloc here reads that variable. Leave it out.",
                self.word()
            ));
        }
        self.holds(&reading, "opt.", &variables::pairs(self.name, self.value)?)
    }

    fn mimalloc(&self) -> Result<bool, String> {
        let option = self.name.strip_prefix(MIMALLOC_PREFIX).unwrap_or_default().to_lowercase();
        self.holds(&self.serving(MIMALLOC, "mimalloc")?, "", &[(&option, self.value)])
    }

    /// Whether the process's `malloc` lies in one of the libraries that were preloaded.
    fn preload(&self, loader: &str) -> Result<bool, String> {
        let system = self.facts.iter().find(|facts| facts.key == SYSTEM);
        let is_it = |path: &str, library: &str| Path::new(path).file_name().is_some_and(|name| name == library);
        let library = system.and_then(|facts| facts.options.get("library")).map_or("the C library", String::as_str);
        let complaint = loader.lines().find(|line| line.contains(PRELOAD)).map_or(String::new(), |line| {
            let reason =
                line.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or(line, |(reason, _)| reason);
            format!(" The loader says: {reason}.")
        });
        if !self.value.split([':', ' ']).any(|path| is_it(path, library)) {
            return Err(format!(
                "{}: malloc still comes from {library}.{complaint} Preload a library that is an allocator, by a path \
                 that the loader finds.",
                self.word()
            ));
        }
        Ok(true)
    }
}

/// Whether a reported value is the one that was set: numbers in any notation, sizes in KiB as in bytes, flags as words.
pub(in crate::measure) fn is_same(reported: &str, wanted: &str) -> bool {
    let plain = |text: &str| -> Option<i128> {
        let text = text.trim().to_lowercase();
        match text.as_str() {
            "true" | "yes" | "on" => return Some(1),
            "false" | "no" | "off" => return Some(0),
            _ => {}
        }
        if let Some(hex) = text.strip_prefix("0x") {
            return i128::from_str_radix(hex, 16).ok();
        }
        text.parse().ok()
    };
    if let Some(kibibytes) = reported.strip_suffix(" KiB") {
        // mimalloc keeps such an option in KiB.
        return plain(kibibytes).is_some_and(|reported| kibibytes_of(wanted) == Some(reported));
    }
    reported == wanted || plain(reported).is_some_and(|reported| plain(wanted) == Some(reported))
}

/// A size as mimalloc reads it: `64K`, `64KiB` and `65536` are 64 KiB; bytes are rounded up.
fn kibibytes_of(text: &str) -> Option<i128> {
    let text = text.trim().to_uppercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = digits.parse::<i128>().ok()?;
    Some(match text[digits.len()..].trim_end_matches("IB").trim_end_matches('B') {
        "" => (number + 1023) / 1024,
        "K" => number,
        "M" => number << 10,
        "G" => number << 20,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn facts(key: &str, family: &str, version: &str, options: &[(&str, &str)]) -> AllocatorFacts {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        AllocatorFacts { key: key.into(), family: family.into(), version: version.into(), options }
    }

    /// What a child would say in which `text` took effect on glibc as it should.
    fn said() -> Vec<AllocatorFacts> {
        let glibc = [("arena_max", "0x2"), ("trim_threshold", "0x10000"), ("perturb", "0x0")];
        let mimalloc = [("purge_delay", "0"), ("arena_reserve", "1048576 KiB"), ("allow_thp", "1")];
        vec![
            facts("system", GLIBC, "glibc 2.36", &glibc),
            facts("pool", GLIBC, "pypool 0.1.0 over glibc 2.36", &glibc),
            facts("mimalloc", MIMALLOC, "3.3.2", &mimalloc),
        ]
    }

    fn verdict(text: &str, facts: &[AllocatorFacts]) -> Result<Vec<String>, String> {
        verify(&super::super::parse(text).unwrap(), facts, "")
    }

    #[test]
    fn what_was_read_back_is_verified() {
        for text in [
            "today",
            "MALLOC_ARENA_MAX=2",
            "MALLOC_TRIM_THRESHOLD_=65536",
            "GLIBC_TUNABLES=glibc.malloc.arena_max=2:glibc.malloc.trim_threshold=0x10000",
            "MIMALLOC_PURGE_DELAY=0",
            "MIMALLOC_ARENA_RESERVE=1GiB MIMALLOC_ALLOW_THP=yes",
            "MIMALLOC_ARENA_RESERVE=1073741824",
        ] {
            assert_eq!(verdict(text, &said()), Ok(vec![]), "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_or_another_is_an_error() {
        let jemalloc =
            vec![facts("system", JEMALLOC, "jemalloc 5.3.0", &[("opt.dirty_decay_ms", "0"), ("opt.retain", "true")])];
        for (text, facts, expected) in [
            ("MALLOC_ARENA_MAX=3", said(), "arena_max is 0x2"),
            ("nopool MALLOC_ARENA_MAX=2", jemalloc.clone(), "reaches nothing: glibc's malloc serves no domain"),
            ("MALLOC_CONF=dirty_decay_ms:0", said(), "reaches nothing"),
            ("nopool MALLOC_CONF=dirty_decy_ms:0", jemalloc.clone(), "Did you mean dirty_decay_ms?"),
            ("nopool MALLOC_CONF=dirty_decay_ms:7", jemalloc.clone(), "dirty_decay_ms is 0"),
            ("MIMALLOC_PURGE_DELAYS=0", said(), "Did you mean purge_delay?"),
            ("MIMALLOC_PURGE_DELAY=5", said(), "purge_delay is 0"),
            ("arrow-system MIMALLOC_PURGE_DELAY=0", said(), "reaches nothing: mimalloc serves no domain"),
            ("LD_PRELOAD=libjemalloc.so.2", said(), "malloc still comes from the C library"),
            ("TCMALLOC_RELEASE_RATE=10", said(), "reaches nothing"),
        ] {
            let error = verdict(text, &facts).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(verdict("nopool MALLOC_CONF=dirty_decay_ms:0,retain:true", &jemalloc), Ok(vec![]));
    }

    #[test]
    fn what_nobody_can_say_is_refused_unless_allowed() {
        let tcmalloc = [facts("system", TCMALLOC, "tcmalloc 2.10", &[("library", "libtcmalloc.so.4")])];
        let text = "nopool LD_PRELOAD=libtcmalloc.so.4 TCMALLOC_RELEASE_RATE=10";
        assert!(verdict(text, &tcmalloc).unwrap_err().contains("--allow-unverified"));
        let config = Config { allow_unverified: true, ..super::super::parse(text).unwrap() };
        assert_eq!(verify(&config, &tcmalloc, ""), Ok(vec!["TCMALLOC_RELEASE_RATE=10".to_owned()]));
    }

    #[test]
    fn the_loader_s_reason_is_passed_on() {
        let config = super::super::parse("LD_PRELOAD=liba.so").unwrap();
        let loader = "ERROR: ld.so: object 'liba.so' from LD_PRELOAD cannot be preloaded \
                      (cannot open shared object file): ignored.";
        let error = verify(&config, &said(), loader).unwrap_err();
        assert!(error.contains("The loader says: cannot open shared object file."), "{error}");
    }
}
