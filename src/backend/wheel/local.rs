//! Functions that a library keeps to itself, from the symbol table of its file: a wheel's copies of mimalloc and
//! jemalloc can say their version, their options and the usable size of a block, but export nothing that would.
//!
//! Invariant: read only, with every offset checked; a file without the table (a stripped one) has no such function.

use crate::run::bounded;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Sizes of the records of a 64-bit ELF file, bytes.
const HEADER_BYTES: usize = 64;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
/// Type of the section that lists all symbols.
const SYMTAB: u32 = 2;
/// Kind of a symbol that is a function, in the low four bits.
const FUNCTION: u8 = 2;

/// Addresses of functions within a library, relative to where it is loaded, in the order of the names; `None` for what
/// it lacks, or has twice.
///
/// # Errors
/// The file cannot be read, or is no library of this machine.
pub(crate) fn find<const N: usize>(library: &Path, names: [&str; N]) -> io::Result<[Option<usize>; N]> {
    let file = bounded::open(library)?;
    let header = read(&file, 0, HEADER_BYTES)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let sections = read(&file, long(&header, 0x28), usize::from(half(&header, 0x3C)) * SECTION_BYTES)?;
    let sections: Vec<&[u8]> = sections.chunks_exact(SECTION_BYTES).collect();
    let mut found = [None; N];
    let Some(table) = sections.iter().find(|section| word(section, 4) == SYMTAB) else { return Ok(found) };
    let strings = sections.get(word(table, 0x28) as usize).ok_or(io::ErrorKind::InvalidData)?;
    let content = |section: &[u8]| read(&file, long(section, 0x18), long(section, 0x20) as usize);
    let (symbols, strings) = (content(table)?, content(strings)?);
    let mut seen = [0; N];
    for symbol in symbols.chunks_exact(SYMBOL_BYTES).filter(|symbol| symbol[4] & 15 == FUNCTION) {
        let text = strings.get(word(symbol, 0) as usize..).unwrap_or_default();
        let is_it = |name: &str| text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0);
        if let Some(place) = names.iter().position(|name| is_it(name)) {
            seen[place] += 1;
            found[place] = (seen[place] == 1).then_some(long(symbol, 8) as usize);
        }
    }
    Ok(found)
}

/// So many bytes of a file from a place on; a size beyond the file's end is an error and takes no memory.
fn read(file: &File, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
    if from.saturating_add(bytes as u64) > file.metadata()?.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut content = vec![0; bytes];
    file.read_exact_at(&mut content, from)?;
    Ok(content)
}

/// Little-endian numbers of records whose length was checked.
fn half(record: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([record[at], record[at + 1]])
}

fn word(record: &[u8], at: usize) -> u32 {
    u32::from(half(record, at)) | u32::from(half(record, at + 2)) << 16
}

fn long(record: &[u8], at: usize) -> u64 {
    u64::from(word(record, at)) | u64::from(word(record, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn pyalloc_bench_function_to_be_found() -> u32 {
        4711
    }

    #[test]
    fn a_function_of_this_program_is_found_where_it_lies() {
        let own = std::env::current_exe().unwrap();
        let here = pyalloc_bench_function_to_be_found as *const ();
        let [found, none] = find(&own, ["pyalloc_bench_function_to_be_found", "pyalloc_bench_function"]).unwrap();
        // SAFETY: a structure of addresses that may be written.
        let mut place: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: `place` may be written.
        assert_ne!(unsafe { libc::dladdr(here.cast(), &raw mut place) }, 0);
        assert_eq!(place.dli_fbase as usize + found.unwrap(), here as usize);
        assert_eq!((none, pyalloc_bench_function_to_be_found()), (None, 4711));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.so");
        for bytes in [&b""[..], b"#!/bin/sh", &own[..HEADER_BYTES - 1], &own[..HEADER_BYTES]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(find(&path, ["malloc"]).is_err(), "{} bytes", bytes.len());
        }
    }
}
