//! The text form: one line an operation, for cases written by hand and for anyone to convert into.
//!
//! Invariant: what [`write()`] prints, [`parse`] reads back as the same events, marks' names included.

use crate::error::TraceError;
use crate::{
    ALIGN_LOG2_MAX, Directive, DirectiveCall, Domain, Event, EventKind, Metadata, Phase, SIZE_MAX, SlotAllocator,
};
use std::collections::HashMap;
use std::io::{self, BufRead, Write};

/// Longest line that is read, bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Reads the text form: metadata with its marks, and the events.
///
/// Memory is proportional to the text. Times are read from `@` words and are 0 without.
///
/// # Errors
/// [`TraceError::Text`] with the number of the first wrong line; [`TraceError::Io`].
pub fn parse(mut from: impl BufRead) -> Result<(Metadata, Vec<Event>), TraceError> {
    let mut parser = Parser::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = io::Read::take(&mut from, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let wrong = |what: String| TraceError::Text { line: number, what };
        if read as u64 == LINE_BYTES_MAX {
            return Err(wrong(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&line).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
        parser.line(text).map_err(wrong)?;
    }
    let metadata = Metadata {
        source: "text".to_owned(),
        source_version: env!("CARGO_PKG_VERSION").to_owned(),
        marks: parser.marks,
        complete: true,
        ..Metadata::default()
    };
    Ok((metadata, parser.events))
}

/// What has been read so far.
struct Parser {
    slots: SlotAllocator,
    /// Slots of the live blocks by the identifiers of the text.
    live: HashMap<u64, u32>,
    marks: Vec<String>,
    time: u64,
    events: Vec<Event>,
}

impl Parser {
    fn new() -> Self {
        Self {
            slots: SlotAllocator::new(),
            live: HashMap::new(),
            marks: Metadata::phase_marks(),
            time: 0,
            events: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (letter, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if letter == "m" {
            let mark = self.mark(rest.trim())?;
            self.events.push(Event { time: self.time, kind: EventKind::Mark { mark } });
            return Ok(());
        }
        let mut words: Vec<&str> = rest.split_whitespace().collect();
        let extras = Extras::take(&mut words)?;
        if let Some(time) = extras.time {
            self.time = time;
        }
        let kind = self.kind(letter, &words, &extras)?;
        self.events.push(Event { time: self.time, kind });
        Ok(())
    }

    fn kind(&mut self, letter: &str, words: &[&str], extras: &Extras) -> Result<EventKind, String> {
        let Extras { align_log2, touched, site, .. } = *extras;
        if align_log2 > 0 && letter != "a" {
            return Err("only `a` takes an alignment".to_owned());
        }
        if (touched.is_some() || site > 0) && !["a", "c", "r"].contains(&letter) {
            return Err("only `a`, `c` and `r` take touched bytes or a call site".to_owned());
        }
        match (letter, words) {
            ("a" | "c", [id, size]) => self.alloc(letter, id, size, "libc", extras),
            ("a" | "c", [id, size, domain]) => self.alloc(letter, id, size, domain, extras),
            ("f", [id]) => {
                let id = number(id)?;
                let slot = self.live.remove(&id).ok_or_else(|| format!("block {id} is not live"))?;
                self.slots.free(slot);
                Ok(EventKind::Free { slot })
            }
            ("r", [id, size]) => match number(size)? {
                size @ 1..=SIZE_MAX => Ok(EventKind::Realloc { slot: self.slot(id)?, size, touched, site }),
                size => Err(format!("a block cannot be resized to {size} bytes")),
            },
            ("h", [id]) => Ok(EventKind::Advise { slot: self.slot(id)? }),
            ("gc+", [generation]) => Ok(EventKind::GcStart { generation: small(generation)? }),
            ("gc-", [generation]) => Ok(EventKind::GcStop { generation: small(generation)? }),
            ("fork", []) => Ok(EventKind::Fork),
            ("d", [name, key, value]) => directive(name, key, value),
            ("t", [thread]) => Ok(EventKind::ThreadSwitch { thread: small(thread)? }),
            ("ts", [thread]) => Ok(EventKind::ThreadStart { thread: small(thread)? }),
            ("te", [thread]) => Ok(EventKind::ThreadEnd { thread: small(thread)? }),
            (letter, words) => Err(format!("there is no operation `{letter}` of {} words", words.len())),
        }
    }

    fn alloc(
        &mut self,
        letter: &str,
        id: &str,
        size: &str,
        domain: &str,
        extras: &Extras,
    ) -> Result<EventKind, String> {
        let (id, size) = (number(id)?, number(size)?);
        if size > SIZE_MAX {
            return Err(format!("a block cannot have {size} bytes"));
        }
        let domain = Domain::ALL.into_iter().find(|known| known.name() == domain);
        let domain = domain.ok_or("the domain is none of libc, raw, mem, obj, numpy, arrow")?;
        if self.live.contains_key(&id) {
            return Err(format!("block {id} is live already"));
        }
        let slot = self.slots.next().ok_or("too many blocks are live")?;
        self.live.insert(id, slot);
        let Extras { align_log2, touched, site, .. } = *extras;
        Ok(EventKind::Alloc { slot, domain, size, align_log2, zeroed: letter == "c", touched, site })
    }

    fn slot(&self, id: &str) -> Result<u32, String> {
        let id = number(id)?;
        self.live.get(&id).copied().ok_or_else(|| format!("block {id} is not live"))
    }

    fn mark(&mut self, rest: &str) -> Result<u32, String> {
        // A mark's time stands in front of its name, which may hold blanks.
        let name = match rest.strip_prefix('@').and_then(|rest| rest.split_once(char::is_whitespace)) {
            Some((time, name)) => {
                self.time = number(time)?;
                name.trim()
            }
            None => rest,
        };
        if name.is_empty() {
            return Err("the mark has no name".to_owned());
        }
        let known = self.marks.iter().position(|mark| mark == name);
        let index = known.unwrap_or_else(|| {
            self.marks.push(name.to_owned());
            self.marks.len() - 1
        });
        u32::try_from(index).map_err(|_| "there are too many marks".to_owned())
    }
}

/// The words `align=N`, `touched=N`, `site=N` and `@TIME` of a line.
#[derive(Clone, Copy, Default)]
struct Extras {
    align_log2: u8,
    touched: Option<u64>,
    site: u32,
    time: Option<u64>,
}

impl Extras {
    /// Takes them out of the words.
    fn take(words: &mut Vec<&str>) -> Result<Self, String> {
        let mut extras = Self::default();
        let mut wrong = None;
        words.retain(|word| match extras.word(word) {
            Ok(is_extra) => !is_extra,
            Err(what) => {
                wrong = Some(what);
                false
            }
        });
        wrong.map_or(Ok(extras), Err)
    }

    fn word(&mut self, word: &str) -> Result<bool, String> {
        if let Some(time) = word.strip_prefix('@') {
            self.time = Some(number(time)?);
            return Ok(true);
        }
        match word.split_once('=') {
            None => return Ok(false),
            Some(("align", align)) => {
                let align = number(align)?;
                if align < 2 || !align.is_power_of_two() || align.ilog2() > u32::from(ALIGN_LOG2_MAX) {
                    return Err(format!("{align} is no alignment: a power of two from 2 to 2^{ALIGN_LOG2_MAX} is"));
                }
                self.align_log2 = align.ilog2() as u8;
            }
            Some(("touched", touched)) => self.touched = Some(number(touched)?),
            Some(("site", site)) => self.site = small(site)?,
            Some((name, _)) => return Err(format!("there is no word `{name}=`")),
        }
        Ok(true)
    }
}

fn directive(name: &str, key: &str, value: &str) -> Result<EventKind, String> {
    let directive = Directive::from_name(name).ok_or_else(|| {
        let names = Directive::ALL.map(Directive::name).join(", ");
        format!("`{name}` is none of {names}")
    })?;
    let key = key.parse().map_err(|_| format!("`{key}` is not a number of 16 bits"))?;
    let value = value.parse().map_err(|_| format!("`{value}` is not a number of 32 bits"))?;
    Ok(EventKind::Direct(DirectiveCall { directive, key, value }))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

fn small<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    T::try_from(number(word)?).map_err(|_| format!("{word} is too large"))
}

/// Prints events in the text form, with slots as the identifiers of blocks, and times where they change.
///
/// # Errors
/// [`TraceError::Metadata`] for a mark that is not in the metadata, or one whose name a line cannot hold;
/// [`TraceError::Io`]; the first error among the events.
pub fn write(
    to: &mut impl Write,
    metadata: &Metadata,
    events: impl IntoIterator<Item = Result<Event, TraceError>>,
) -> Result<(), TraceError> {
    let mut before = 0;
    for event in events {
        let Event { time, kind } = event?;
        let stamp = if time == before { String::new() } else { format!(" @{time}") };
        before = time;
        match kind {
            EventKind::Alloc { slot, domain, size, align_log2, zeroed, touched, site } => {
                let letter = if zeroed { 'c' } else { 'a' };
                write!(to, "{letter} {slot} {size} {}", domain.name())?;
                if align_log2 > 0 {
                    write!(to, " align={}", 1_u64 << align_log2)?;
                }
                write_sized(to, touched, site)?;
            }
            EventKind::Free { slot } => write!(to, "f {slot}")?,
            EventKind::Realloc { slot, size, touched, site } => {
                write!(to, "r {slot} {size}")?;
                write_sized(to, touched, site)?;
            }
            EventKind::Advise { slot } => write!(to, "h {slot}")?,
            EventKind::ThreadSwitch { thread } => write!(to, "t {thread}")?,
            EventKind::ThreadStart { thread } => write!(to, "ts {thread}")?,
            EventKind::ThreadEnd { thread } => write!(to, "te {thread}")?,
            EventKind::Mark { mark } => {
                writeln!(to, "m{stamp} {}", mark_name(metadata, mark)?)?;
                continue;
            }
            EventKind::GcStart { generation } => write!(to, "gc+ {generation}")?,
            EventKind::GcStop { generation } => write!(to, "gc- {generation}")?,
            EventKind::Fork => write!(to, "fork")?,
            EventKind::Direct(DirectiveCall { directive, key, value }) => {
                write!(to, "d {} {key} {value}", directive.name())?;
            }
        }
        writeln!(to, "{stamp}")?;
    }
    to.flush()?;
    Ok(())
}

fn write_sized(to: &mut impl Write, touched: Option<u64>, site: u32) -> io::Result<()> {
    if let Some(bytes) = touched {
        write!(to, " touched={bytes}")?;
    }
    if site > 0 {
        write!(to, " site={site}")?;
    }
    Ok(())
}

fn mark_name(metadata: &Metadata, mark: u32) -> Result<&str, TraceError> {
    let named = metadata.marks.get(mark as usize).map(String::as_str);
    let name = named.or_else(|| Phase::from_mark(mark).map(Phase::name)).unwrap_or_default();
    let is_one_line = !name.is_empty() && name.trim() == name && !name.starts_with('@') && !name.contains('\n');
    if is_one_line && name.len() < LINE_BYTES_MAX as usize / 2 {
        Ok(name)
    } else {
        Err(TraceError::Metadata(format!("mark {mark} has no name that fits a line")))
    }
}
