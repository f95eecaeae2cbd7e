//! What was done wrong with a block, and the report of it.
//!
//! The report begins with a sentence and goes on as CPython's own does (`_PyObject_DebugDumpAddress`). It is made from
//! copies of a few bytes, in a buffer on the stack: a program that has damaged its heap must not be made to use it.
//!
//! **Invariant:** nothing here allocates, and the bytes after a block are copied only where its size can be believed.

use std::fmt::{self, Write};

use super::quarantine::Held;
use super::{BEFORE_BYTES, DEAD, Domain, FORBIDDEN, HEADER_BYTES, TAIL_BYTES, requested_bytes};

/// Bytes of a block's content that a report shows of each end.
const SHOWN_BYTES: usize = 8;
/// Longest report.
const REPORT_BYTES_MAX: usize = 2048;

/// What was done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MisuseKind {
    /// The bytes after the block were overwritten. CPython: `bad trailing pad byte`.
    WrittenAfter,
    /// Bytes before the block were overwritten, but not its letter. CPython: `bad leading pad byte`.
    WrittenBefore,
    /// The header is no header: it was overwritten with its letter, or nothing ever had its place there. CPython:
    /// `bad ID`.
    NoHeader,
    /// The block was freed before and is dead still. CPython: `bad ID`.
    FreedTwice,
    /// Another domain allocated it. CPython: `bad ID`.
    WrongDomain,
    /// It was written to after it was freed. CPython does not notice.
    WrittenWhenFree,
}

/// One violation: its `Display` is the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misuse {
    kind: MisuseKind,
    block: usize,
    /// Who asked for the check; who had it, of a freed block.
    domain: Domain,
    letter: u8,
    /// `None` where it cannot be believed.
    requested_bytes: Option<usize>,
    before: [u8; BEFORE_BYTES],
    /// `None` where the size cannot be believed.
    after: Option<[u8; TAIL_BYTES]>,
    /// The first and the last bytes of the content, and how many each.
    ends: [([u8; SHOWN_BYTES], usize); 2],
    /// Distance of the first byte that was written to after the block was freed, and their number.
    written: (isize, usize),
}

impl Misuse {
    /// Looks at a block whose decoration is not as it should be; `held` is what the quarantine has of it.
    ///
    /// # Safety
    /// The 16 bytes before the block and the 8 at it can be read; if the header is intact, all of it.
    #[cold]
    pub(super) unsafe fn of_block(domain: Domain, block: *mut u8, held: &Option<Held>) -> Self {
        // SAFETY: by contract. Every block has 8 bytes, its own or its tail.
        let (letter, before, first) = unsafe {
            (
                block.sub(8).read(),
                block.sub(BEFORE_BYTES).cast::<[u8; BEFORE_BYTES]>().read(),
                block.cast::<[u8; TAIL_BYTES]>().read(),
            )
        };
        let is_letter = Domain::ALL.iter().any(|domain| domain.letter() == letter);
        let is_dead = held.is_some() || (!is_letter && first == [DEAD; TAIL_BYTES]);
        let kind = match () {
            () if is_dead => MisuseKind::FreedTwice,
            () if !is_letter => MisuseKind::NoHeader,
            () if letter != domain.letter() => MisuseKind::WrongDomain,
            () if before != [FORBIDDEN; BEFORE_BYTES] => MisuseKind::WrittenBefore,
            () => MisuseKind::WrittenAfter,
        };
        let is_whole = is_letter && before == [FORBIDDEN; BEFORE_BYTES];
        // SAFETY: the header is intact.
        let told = is_whole.then(|| unsafe { requested_bytes(block) });
        let content = told.map(|bytes| {
            // SAFETY: as long as its header says, and followed by its tail.
            unsafe { (std::slice::from_raw_parts(block, bytes), block.add(bytes).cast::<[u8; TAIL_BYTES]>().read()) }
        });
        Self {
            kind,
            block: block.addr(),
            domain,
            letter,
            requested_bytes: held.map(|held| held.bytes - HEADER_BYTES - TAIL_BYTES).or(told),
            before,
            after: content.map(|(_, after)| after),
            ends: content.map_or([([0; SHOWN_BYTES], 0); 2], |(content, _)| ends(content)),
            written: (0, 0),
        }
    }

    /// A freed block, all of which should be dead: header, content and tail.
    #[cold]
    pub(super) fn of_freed(domain: Domain, whole: &[u8]) -> Self {
        let first = whole.iter().position(|byte| *byte != DEAD).unwrap_or(0);
        let (content, after) = whole[HEADER_BYTES..].split_at(whole.len() - HEADER_BYTES - TAIL_BYTES);
        let copy = |from: &[u8], to: &mut [u8]| to.copy_from_slice(from);
        let (mut before, mut tail) = ([0; BEFORE_BYTES], [0; TAIL_BYTES]);
        copy(&whole[HEADER_BYTES - BEFORE_BYTES..HEADER_BYTES], &mut before);
        copy(after, &mut tail);
        Self {
            kind: MisuseKind::WrittenWhenFree,
            block: content.as_ptr().addr(),
            domain,
            letter: whole[HEADER_BYTES - BEFORE_BYTES - 1],
            requested_bytes: Some(content.len()),
            before,
            after: Some(tail),
            ends: ends(content),
            written: (
                first.cast_signed() - HEADER_BYTES.cast_signed(),
                whole.iter().filter(|byte| **byte != DEAD).count(),
            ),
        }
    }

    /// What was done wrong.
    #[must_use]
    pub const fn kind(&self) -> MisuseKind {
        self.kind
    }

    /// Bytes that the block was requested with; `None` where its header no longer tells.
    #[must_use]
    pub const fn requested_bytes(&self) -> Option<usize> {
        self.requested_bytes
    }

    /// Writes the report to the error output and ends the process. Neither allocates nor unwinds.
    #[cold]
    pub fn abort(&self) -> ! {
        let mut report = Report { text: [0; REPORT_BYTES_MAX], bytes: 0 };
        // What does not fit is left out.
        let _ = write!(report, "{self}");
        let mut left = &report.text[..report.bytes];
        while !left.is_empty() {
            // SAFETY: the bytes are there.
            let written = unsafe { libc::write(libc::STDERR_FILENO, left.as_ptr().cast(), left.len()) };
            match usize::try_from(written) {
                Ok(written) => left = &left[written.min(left.len())..],
                Err(_) => break,
            }
        }
        // SAFETY: ends the process.
        unsafe { libc::abort() }
    }

    /// The first line: what, which block, how long, whose.
    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, other) = (char::from(self.domain.letter()), Letter(self.letter));
        let (block, block_of) = (self.block, Length(self.requested_bytes));
        let wrong = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != FORBIDDEN).count();
        match self.kind {
            MisuseKind::WrittenAfter => {
                let count = wrong(self.after.as_ref().map_or(&[], |after| after.as_slice()));
                write!(
                    f,
                    "buffer overflow: {count} of the 8 bytes after block {block:#x} ({block_of}, domain '{own}') "
                )?;
                write!(f, "{} overwritten.", were(count))
            }
            MisuseKind::WrittenBefore => {
                let count = wrong(&self.before);
                write!(f, "buffer underflow: {count} of the 7 bytes before block {block:#x} ({block_of}, ")?;
                write!(f, "domain '{own}') {} overwritten.", were(count))
            }
            MisuseKind::NoHeader => {
                write!(f, "buffer underflow: the header before block {block:#x} ({block_of}, domain '{own}') was ")?;
                write!(f, "overwritten, or this is no block: where its letter belongs is {other}.")
            }
            MisuseKind::FreedTwice => {
                write!(f, "double free: block {block:#x} ({block_of}, domain '{own}') is free already: ")?;
                write!(f, "its bytes are dead (0xdd).")
            }
            MisuseKind::WrongDomain => {
                write!(f, "wrong domain: block {block:#x} ({block_of}) was allocated in domain {other} and is ")?;
                write!(f, "freed or resized in domain '{own}'.")
            }
            MisuseKind::WrittenWhenFree => {
                let (first, count) = self.written;
                write!(
                    f,
                    "write after free: {count} {} of freed block {block:#x} ",
                    if count == 1 { "byte" } else { "bytes" }
                )?;
                write!(f, "({block_of}, domain '{own}') {} overwritten, the first at p{first:+}.", were(count))
            }
        }
    }

    /// What to look for.
    const fn remedy(&self) -> &'static str {
        match self.kind {
            MisuseKind::WrittenAfter => {
                "CPython: bad trailing pad byte. Look for what writes past the end of this block."
            }
            MisuseKind::WrittenBefore => "CPython: bad leading pad byte. Look for what writes before this block.",
            MisuseKind::NoHeader => {
                "CPython: bad ID. Look for what writes before this block, or frees what it was not given."
            }
            MisuseKind::FreedTwice => "CPython: bad ID. Look for who else frees this block.",
            MisuseKind::WrongDomain => {
                "CPython: bad ID. Free a block with the functions of the family that allocated it."
            }
            MisuseKind::WrittenWhenFree => "Look for who keeps a pointer to this block after it is freed.",
        }
    }

    /// Bytes at a place, as CPython lists them.
    fn list(
        f: &mut fmt::Formatter<'_>,
        bytes: &[u8],
        wanted: u8,
        place: &dyn Fn(usize, &mut fmt::Formatter<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = if wanted == DEAD { "DEADBYTE" } else { "FORBIDDENBYTE" };
        if bytes.iter().all(|byte| *byte == wanted) {
            return writeln!(f, "{name}, as expected.");
        }
        writeln!(f, "not all {name} ({wanted:#04x}):")?;
        for (at, byte) in bytes.iter().enumerate() {
            write!(f, "        at ")?;
            place(at, f)?;
            writeln!(f, ": {byte:#04x}{}", if *byte == wanted { "" } else { " *** OUCH" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pypool debug hooks: ")?;
        self.sentence(f)?;
        writeln!(f, "\nDebug memory block at address p={:#x}: API {}", self.block, Letter(self.letter))?;
        if let Some(bytes) = self.requested_bytes {
            writeln!(f, "    {bytes} bytes originally requested")?;
        }
        let is_free = matches!(self.kind, MisuseKind::WrittenWhenFree | MisuseKind::FreedTwice);
        let wanted = if is_free { DEAD } else { FORBIDDEN };
        write!(f, "    The {BEFORE_BYTES} pad bytes at p-{BEFORE_BYTES} are ")?;
        Self::list(f, &self.before, wanted, &|at, f| write!(f, "p-{}", BEFORE_BYTES - at))?;
        match (self.after, self.requested_bytes) {
            (Some(after), Some(bytes)) => {
                write!(f, "    The {TAIL_BYTES} pad bytes at tail={:#x} are ", self.block + bytes)?;
                Self::list(f, &after, wanted, &|at, f| write!(f, "tail+{at}"))?;
            }
            _ => writeln!(f, "    Its size cannot be believed, so what is after it is not shown.")?,
        }
        let [(first, first_count), (last, last_count)] = self.ends;
        if first_count > 0 {
            write!(f, "    Data at p:")?;
            first[..first_count].iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if self.requested_bytes.is_some_and(|bytes| bytes > first_count + last_count) {
                write!(f, " ...")?;
            }
            last[..last_count].iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
            writeln!(f)?;
        }
        writeln!(f, "{}", self.remedy())
    }
}

impl std::error::Error for Misuse {}

/// At most eight bytes of each end.
fn ends(content: &[u8]) -> [([u8; SHOWN_BYTES], usize); 2] {
    let first = content.len().min(SHOWN_BYTES);
    let last = (content.len() - first).min(SHOWN_BYTES);
    [&content[..first], &content[content.len() - last..]].map(|from| {
        let mut copy = [0; SHOWN_BYTES];
        copy[..from.len()].copy_from_slice(from);
        (copy, from.len())
    })
}

const fn were(count: usize) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// A letter of a domain, or whatever byte stands in its place.
struct Letter(u8);

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() { write!(f, "'{}'", char::from(self.0)) } else { write!(f, "{:#04x}", self.0) }
    }
}

/// `24 bytes`, or that it is not known.
struct Length(Option<usize>);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(1) => write!(f, "1 byte"),
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => write!(f, "size unknown"),
        }
    }
}

/// Text in memory of its own.
struct Report {
    text: [u8; REPORT_BYTES_MAX],
    bytes: usize,
}

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.text[self.bytes..];
        let fits = text.len().min(room.len());
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.bytes += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
