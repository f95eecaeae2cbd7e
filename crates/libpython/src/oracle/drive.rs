//! The child's side: brings the real pool up, and forks for each case to play its calls on fresh pools.
//!
//! **Invariant:** the process that forks never calls the pool, so every case begins with the state that
//! [`Pymalloc::bring_up`] left; and a case that ends badly ends the driver, so its parent never waits for it.

use crate::oracle::{Action, Block, Call, Place, READY, REFUSED, SlotArenas};
use crate::{Arenas, BringUpError, Pymalloc};
use libc::c_void;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::ptr::null_mut;

/// What is written to the start of each block, as a program would: no allocator may rely on what was there.
const TOUCH: [u8; 8] = [0xA5; 8];

/// Plays cases from the standard input on the preloaded pool until there is no more, and answers on the standard
/// output. See [`crate::oracle`].
///
/// # Errors
/// A sentence, to be printed on the error output.
///
/// # Safety
/// As for [`Pymalloc::bring_up`]; the standard streams are this function's alone.
pub unsafe fn drive() -> Result<(), String> {
    let mut streams = Streams::open().map_err(|error| sentence(&error))?;
    // SAFETY: the caller's promise.
    let pymalloc = match unsafe { Pymalloc::bring_up() } {
        Ok(pymalloc) => pymalloc,
        Err(error @ (BringUpError::Unsupported(_) | BringUpError::NotPymalloc(_))) => {
            return streams
                .write(&[REFUSED])
                .and_then(|()| streams.write_text(&error.to_string()))
                .map_err(|error| sentence(&error));
        }
        Err(error) => return Err(format!("no pool to drive: {error}.")),
    };
    streams.write(&[READY]).map_err(|error| sentence(&error))?;
    while let Some(shift_bytes) = streams.read_word().map_err(|error| sentence(&error))? {
        // SAFETY: there is one thread, so the child is as whole as its parent.
        match unsafe { libc::fork() } {
            -1 => return Err(sentence(&io::Error::last_os_error())),
            0 => {
                let played = play_case(&pymalloc, shift_bytes as usize, &mut streams);
                let code = match played {
                    Ok(()) => 0,
                    // The parent has found a difference and gone.
                    Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => 0,
                    Err(error) => {
                        eprintln!("{}", sentence(&error));
                        1
                    }
                };
                // Nothing of the interpreter is to be wound up: its state is a copy.
                // SAFETY: ends this process and returns to nobody.
                unsafe { libc::_exit(code) };
            }
            child => {
                let mut status = 0;
                // SAFETY: waits for a child of this process; the status is written to a local.
                let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                if waited != child || status != 0 {
                    return Err(format!(
                        "a case ended with status {status:#x}; it is a fault of the calls, or a crash."
                    ));
                }
            }
        }
    }
    Ok(())
}

fn sentence(error: &io::Error) -> String {
    format!("the driver of the real pool cannot go on: {error}. It is started by a test and by nothing else.")
}

/// The standard streams without buffers, which a fork would double.
struct Streams {
    input: File,
    output: File,
}

impl Streams {
    fn open() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?.into();
        let output = io::stdout().as_fd().try_clone_to_owned()?.into();
        Ok(Self { input, output })
    }

    /// A word; `None` at the end of the stream.
    fn read_word(&mut self) -> io::Result<Option<u64>> {
        let mut bytes = [0; 8];
        match self.input.read(&mut bytes)? {
            0 => return Ok(None),
            length => self.input.read_exact(&mut bytes[length..])?,
        }
        Ok(Some(u64::from_ne_bytes(bytes)))
    }

    fn write(&mut self, words: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.output.write_all(&bytes)
    }

    fn write_text(&mut self, text: &str) -> io::Result<()> {
        self.write(&[text.len() as u64])?;
        self.output.write_all(text.as_bytes())
    }
}

fn play_case(pymalloc: &Pymalloc, shift_bytes: usize, streams: &mut Streams) -> io::Result<()> {
    let arenas: *mut SlotArenas = Box::into_raw(Box::new(SlotArenas::reserve(shift_bytes)?));
    // SAFETY: no arena exists yet in this fork, and the source lives as long as the fork.
    unsafe { pymalloc.set_arenas(Arenas { context: arenas.cast(), allocate: map, free: unmap }) };
    let mut case = Case { pymalloc, arenas, blocks: Vec::new() };
    let (mut bytes, mut places, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(calls) = streams.read_word()?.filter(|calls| *calls > 0) {
        bytes.resize(calls as usize * 8, 0);
        streams.input.read_exact(&mut bytes)?;
        places.clear();
        for word in bytes.as_chunks::<8>().0 {
            let call = Call::from_word(u64::from_ne_bytes(*word))
                .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an unknown call"))?;
            places.push(case.play(call, &mut reports)?.word());
        }
        streams.write(&places)?;
        for report in reports.drain(..) {
            streams.write_text(&report)?;
        }
    }
    Ok(())
}

/// One case: the pool, its arenas, and the table of slots.
struct Case<'a> {
    pymalloc: &'a Pymalloc,
    arenas: *mut SlotArenas,
    blocks: Vec<*mut c_void>,
}

impl Case<'_> {
    fn play(&mut self, call: Call, reports: &mut Vec<String>) -> io::Result<Place> {
        let slot = call.slot();
        if slot >= self.blocks.len() {
            self.blocks.resize(slot + 1, null_mut());
        }
        let functions = self.pymalloc.functions;
        // SAFETY: a slot holds null or a live block of this pool: it is replaced when the block moves and emptied when
        // it is freed. One thread, which brought the pools up (before the fork).
        let (block, bytes) = unsafe {
            match call.action() {
                Action::Malloc(bytes) => ((functions.malloc)(bytes), bytes),
                Action::Calloc(count, bytes) => ((functions.calloc)(count, bytes), count * bytes),
                Action::Realloc(bytes) => ((functions.realloc)(self.blocks[slot], bytes), bytes),
                Action::Free => {
                    (functions.free)(std::mem::replace(&mut self.blocks[slot], null_mut()));
                    return Ok(self.place(Block::None));
                }
                Action::Report => {
                    reports.push(self.pymalloc.statistics()?);
                    return Ok(self.place(Block::None));
                }
            }
        };
        if block.is_null() {
            return Ok(self.place(Block::Null));
        }
        self.blocks[slot] = block;
        // SAFETY: the block is `bytes` long.
        unsafe { block.copy_from_nonoverlapping(TOUCH.as_ptr().cast(), bytes.min(TOUCH.len())) };
        // SAFETY: the pool calls the source only within calls of the pool.
        let lies = unsafe { &*self.arenas }.place(block.cast());
        Ok(self.place(lies.map_or(Block::Raw, |(ordinal, offset)| Block::Pool(ordinal, offset))))
    }

    fn place(&mut self, block: Block) -> Place {
        // SAFETY: as above.
        let (created, released) = unsafe { &mut *self.arenas }.take_events();
        Place::new(block, created, released)
    }
}

unsafe extern "C" fn map(arenas: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the context is the case's source, which nobody else uses during this call.
    unsafe { &mut *arenas.cast::<SlotArenas>() }.map(bytes).cast()
}

unsafe extern "C" fn unmap(arenas: *mut c_void, arena: *mut c_void, _bytes: usize) {
    // SAFETY: as above; the pool has given the arena up.
    let taken = unsafe { (*arenas.cast::<SlotArenas>()).unmap(arena.cast()) };
    if !taken {
        // Nothing may unwind into C.
        eprintln!("the real pool gave back an arena that is none");
        std::process::abort();
    }
}
