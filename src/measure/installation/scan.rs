//! Private allocators in one library, recognised by what their sources leave in every build: names of functions where
//! the library tells them, texts where it was stripped.
//!
//! Invariant: reads the file and runs nothing of it. Whatever is no ELF file for 64 bits holds nothing. A library that
//! merely calls an allocator elsewhere holds none: only symbols that it defines count.

use super::copy::{Copy, Family};
use crate::run::bounded;
use memchr::memmem;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{ElfFile, ElfSymbol};
use object::{Endianness, Object, ObjectSection, ObjectSegment, ObjectSymbol};
use std::fs::File;
use std::io;
use std::path::Path;

/// A file that is read where it is looked at.
type Library<'a> = ElfFile<'a, FileHeader64<Endianness>, &'a ReadCache<File>>;

/// Sections that hold constants, by the beginning of their names.
const CONSTANT_SECTIONS: [&str; 3] = [".rodata", ".data", ".lrodata"];
/// Sections that hold names of symbols.
const NAME_SECTIONS: [&str; 2] = [".dynstr", ".strtab"];
/// Whole texts, zero bytes around them, of which each stands in every build of a family.
const TEXTS: &[(Family, &[u8])] = &[
    (Family::Mimalloc, b"\0mimalloc: error: \0"),
    (Family::Tcmalloc, b"\0TCMALLOC_RELEASE_RATE\0"),
    (Family::Tcmalloc, b"\0TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES\0"),
];
/// Functions, of which each belongs to a family whatever its build.
const FUNCTIONS: &[(Family, &str)] = &[
    (Family::Mimalloc, "mi_malloc"),
    (Family::Mimalloc, "mi_version"),
    (Family::Mimalloc, "_mi_malloc_generic"),
    (Family::Tcmalloc, "tc_malloc"),
    (Family::Tcmalloc, "MallocExtension_ReleaseFreeMemory"),
    (Family::Snmalloc, "sn_malloc"),
    (Family::Snmalloc, "sn_rust_alloc"),
    (Family::Rpmalloc, "rpmalloc_initialize"),
];
/// The function of a jemalloc by which its prefix can be told: `je_arrow_mallctl`.
const MALLCTL: &str = "mallctl";
/// What every jemalloc says before a message.
const JEMALLOC_TEXT: &[u8] = b"<jemalloc>: ";
/// The file that a jemalloc looks for options in has its prefix in its name: `/etc/je_arrow_malloc.conf`.
const JEMALLOC_FILE: (&[u8], &[u8]) = (b"/etc/", b"malloc.conf\0");
/// Longest prefix that is one.
const PREFIX_BYTES_MAX: usize = 40;
/// Fewest digits of a commit in a version.
const COMMIT_DIGITS_MIN: usize = 7;
/// What gperftools says before its version.
const GPERFTOOLS: &[u8] = b"gperftools ";

/// Every private allocator in a file; none in one that is no library.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn copies(path: &Path) -> io::Result<Vec<Copy>> {
    let cache = ReadCache::new(bounded::open(path)?);
    let Ok(library) = Library::parse(&cache) else { return Ok(Vec::new()) };
    let constants = constants(&library);
    let mut found = by_texts(&constants);
    by_symbols(&library, &mut found);
    for copy in &mut found {
        copy.version = match copy.family {
            Family::Jemalloc => only(constants.iter().flat_map(|bytes| commits(bytes)).collect()),
            Family::Tcmalloc => only(constants.iter().flat_map(|bytes| gperftools(bytes)).collect()),
            Family::Mimalloc => mimalloc_version(&library),
            Family::Snmalloc | Family::Rpmalloc => None,
        };
    }
    Ok(found)
}

/// What a library keeps besides its code; everything where it does not say what is what.
fn constants<'a>(library: &Library<'a>) -> Vec<&'a [u8]> {
    let is_constant = |name: &str| CONSTANT_SECTIONS.iter().any(|start| name.starts_with(start));
    let sections = library.sections().filter(|section| section.name().is_ok_and(is_constant));
    let found: Vec<&[u8]> = sections.filter_map(|section| section.data().ok()).collect();
    if !found.is_empty() {
        return found;
    }
    library.segments().filter_map(|segment| segment.data().ok()).collect()
}

fn by_texts(constants: &[&[u8]]) -> Vec<Copy> {
    let has = |text: &[u8]| constants.iter().any(|bytes| memmem::find(bytes, text).is_some());
    let mut found: Vec<Copy> = Vec::new();
    if has(JEMALLOC_TEXT) {
        let prefixes = prefixes(constants);
        for prefix in &prefixes {
            let variable = format!("{}MALLOC_CONF", prefix.to_uppercase());
            let is_read = has(format!("{variable}\0").as_bytes());
            found.push(Copy { variable: is_read.then_some(variable), ..Copy::of(Family::Jemalloc) });
        }
        if prefixes.is_empty() {
            found.push(Copy::of(Family::Jemalloc));
        }
    }
    for (family, text) in TEXTS {
        if has(text) && found.iter().all(|copy| copy.family != *family) {
            found.push(Copy::of(*family));
        }
    }
    found
}

/// Prefixes of the copies of jemalloc: what stands between the folder and the name of its file of options. Each copy
/// also has a message that names the file without its prefix; linkers let an unprefixed copy's name be the end of that.
fn prefixes(constants: &[&[u8]]) -> Vec<String> {
    let all = constants.iter().flat_map(|bytes| files_of_options(bytes));
    let (in_messages, mut own): (Vec<_>, Vec<_>) = all.partition(|(_, is_in_message)| *is_in_message);
    if own.is_empty() {
        own = in_messages;
    }
    let mut prefixes: Vec<String> = own.into_iter().map(|(prefix, _)| prefix).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

/// Each name of a file of options: its prefix, and whether words stand before it.
fn files_of_options(bytes: &[u8]) -> Vec<(String, bool)> {
    let (folder, name) = JEMALLOC_FILE;
    let before = |at: usize| {
        let part = &bytes[at.saturating_sub(folder.len() + PREFIX_BYTES_MAX)..at];
        let start = memmem::rfind(part, folder)?;
        let prefix = std::str::from_utf8(&part[start + folder.len()..]).ok()?;
        let is_prefix = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_prefix.then(|| (prefix.to_owned(), part[..start].ends_with(b" ")))
    };
    memmem::find_iter(bytes, name).filter_map(before).collect()
}

/// Adds what only symbols tell. Names are looked for in bulk; symbols are gone through only where one was found.
fn by_symbols(library: &Library<'_>, found: &mut Vec<Copy>) {
    let names = NAME_SECTIONS.iter().filter_map(|name| library.section_by_name(name)?.data().ok());
    let candidates = || FUNCTIONS.iter().map(|(_, name)| *name).chain([MALLCTL]);
    let is_candidate =
        |bytes: &[u8]| candidates().any(|name| memmem::find(bytes, format!("{name}\0").as_bytes()).is_some());
    if !names.into_iter().any(is_candidate) {
        return;
    }
    for symbol in defined(library) {
        let Ok(name) = symbol.name() else { continue };
        let function = FUNCTIONS.iter().find(|(_, function)| *function == name).map(|(family, _)| *family);
        let prefix = name.strip_suffix(MALLCTL).filter(|prefix| prefix.len() <= PREFIX_BYTES_MAX);
        let copy = match (function, prefix) {
            (Some(family), _) => Copy::of(family),
            (None, Some(prefix)) => {
                let variable = Some(format!("{}MALLOC_CONF", prefix.to_uppercase()));
                Copy { variable, ..Copy::of(Family::Jemalloc) }
            }
            (None, None) => continue,
        };
        if found.iter().all(|other| other.family != copy.family) {
            found.push(copy);
        }
    }
}

fn defined<'data, 'file>(
    library: &'file Library<'data>,
) -> impl Iterator<Item = ElfSymbol<'data, 'file, FileHeader64<Endianness>, &'data ReadCache<File>>> {
    library.dynamic_symbols().chain(library.symbols()).filter(|symbol| !symbol.is_undefined())
}

/// Versions of jemalloc, such as `5.3.0-0-g54eaed1d...`: tag, commits since, commit.
fn commits(bytes: &[u8]) -> Vec<String> {
    let before_commit = b"-g";
    let whole = |at: usize| {
        let is_head = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let begin = bytes[..at].iter().rposition(|byte| !is_head(byte)).map_or(0, |last| last + 1);
        let (tag, since) = std::str::from_utf8(&bytes[begin..at]).ok()?.rsplit_once('-')?;
        let rest = &bytes[at + before_commit.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let is_version = tag.split('.').count() == 3 && tag.split('.').all(|number| number.parse::<u32>().is_ok());
        if !is_version || digits < COMMIT_DIGITS_MIN || since.parse::<u32>().is_err() {
            return None;
        }
        let commit = std::str::from_utf8(&rest[..COMMIT_DIGITS_MIN]).ok()?;
        Some(if since == "0" { tag.to_owned() } else { format!("{tag}-{since}-g{commit}") })
    };
    memmem::find_iter(bytes, before_commit).filter_map(whole).collect()
}

/// Versions of tcmalloc, such as `2.10`.
fn gperftools(bytes: &[u8]) -> Vec<String> {
    let after = |at: usize| {
        let rest = &bytes[at + GPERFTOOLS.len()..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        Some(std::str::from_utf8(&rest[..length]).ok()?.to_owned()).filter(|text| !text.is_empty())
    };
    memmem::find_iter(bytes, GPERFTOOLS).filter_map(after).collect()
}

/// The version if there is one: of several nothing says which copy has which.
fn only(mut versions: Vec<String>) -> Option<String> {
    versions.sort();
    versions.dedup();
    if versions.len() == 1 { versions.pop() } else { None }
}

/// What `mi_version` returns, where the function is told and does nothing else (x86-64: `mov eax, NUMBER; ret`).
fn mimalloc_version(library: &Library<'_>) -> Option<String> {
    let symbol = defined(library).find(|symbol| symbol.name() == Ok("mi_version"))?;
    let section = library.section_by_index(symbol.section_index()?).ok()?;
    let code = section.data_range(symbol.address(), symbol.size()).ok()??;
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code); // endbr64
    let (number, rest) = code.strip_prefix(&[0xb8])?.split_first_chunk()?;
    let number = u32::from_le_bytes(*number);
    rest.starts_with(&[0xc3]).then(|| crate::backend::mimalloc_version(number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_jemalloc_tells_its_prefix_and_its_version_though_stripped() {
        let message = b"link named /etc/malloc.conf\0value of the environment variable MALLOC_CONF\0<jemalloc>: x\0";
        assert_eq!(by_texts(&[message])[0].variable.as_deref(), Some("MALLOC_CONF"), "unprefixed");
        let constants: &[u8] = b"Rust text/etc/je_arrow_malloc.conf\0link named /etc/malloc.conf\0<jemalloc>: x\0\
                                 JE_ARROW_MALLOC_CONF\0MALLOC_CONF\0\x35.3.0-196-ga25b9b8ba9188\0 1.2-3-g12 \0";
        let found = by_texts(&[constants]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].variable.as_deref(), Some("JE_ARROW_MALLOC_CONF"));
        assert_eq!(commits(constants), ["5.3.0-196-ga25b9b8"]);
        assert_eq!(commits(b"5.3.1-0-g81034ce1f1373e37"), ["5.3.1"]);
        assert_eq!(commits(b"-g5.3.1-g81034ce1f1373e37 5.3-0-g81034ce1"), Vec::<String>::new());
    }

    #[test]
    fn texts_about_an_allocator_are_no_allocator() {
        let talk: &[u8] = b"\0/etc/malloc.conf\0uses jemalloc\0mimalloc: error: at\0TCMALLOC_RELEASE_RATES\0mallctl\0";
        assert!(by_texts(&[talk]).is_empty());
        assert_eq!(by_texts(&[b"\0mimalloc: error: \0"])[0].family, Family::Mimalloc);
    }

    #[test]
    fn of_several_versions_none_is_chosen() {
        let versions = |texts: &[&str]| only(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(versions(&["5.3.0", "5.3.0"]).as_deref(), Some("5.3.0"));
        assert_eq!((versions(&["5.3.0", "5.2.1"]), versions(&[])), (None, None));
        assert_eq!(gperftools(b"gperftools 2.10\0gperftools \0"), ["2.10"]);
    }

    #[test]
    fn this_program_holds_its_linked_allocators_and_a_text_file_none() {
        let own = copies(Path::new("/proc/self/exe")).unwrap();
        // The texts of these tests are in it as well.
        assert!(own.iter().any(|copy| copy.variable.as_deref() == Some("_RJEM_MALLOC_CONF")), "{own:?}");
        let mimalloc = own.iter().find(|copy| copy.family == Family::Mimalloc).unwrap();
        assert!(mimalloc.version.as_deref().is_some_and(|version| version.starts_with("3.")), "{own:?}");
        assert_eq!(copies(Path::new("/proc/self/status")).unwrap(), Vec::new());
        assert!(copies(Path::new("/nonexistent")).is_err());
    }
}
