//! The parent's side: starts a driver and asks it.
//!
//! **Invariant:** between two calls of a method, the driver waits for the next word.

use crate::Interpreter;
use crate::oracle::{Call, DRIVE, Place, READY, REFUSED};
use std::io::{self, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A real pool in a process of its own.
#[derive(Debug)]
pub struct Original {
    /// Whose pool it is.
    pub interpreter: Interpreter,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    bytes: Vec<u8>,
}

/// The answers to one frame of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// A place per call.
    pub places: Vec<Place>,
    /// The reports that were asked for, in order.
    pub reports: Vec<String>,
}

impl Original {
    /// Starts the running program as a driver of an interpreter's pool; its `main` has to know [`DRIVE`].
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the library has other pools. Otherwise it does not start, or says on its error
    /// output why it cannot drive.
    pub fn start(interpreter: &Interpreter) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(DRIVE).env_clear().envs(interpreter.environment());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (input, output) = streams.ok_or(io::ErrorKind::BrokenPipe)?;
        let interpreter = interpreter.clone();
        let mut original = Self { interpreter, child, input, output: BufReader::new(output), bytes: Vec::new() };
        match original.read_word()? {
            READY => Ok(original),
            REFUSED => Err(io::Error::new(io::ErrorKind::Unsupported, original.read_text()?)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the program does not drive when it is told to")),
        }
    }

    /// Begins a case on fresh pools, with arenas `shift_bytes` behind the start of their slots.
    ///
    /// # Errors
    /// The driver has ended; so for all methods.
    pub fn begin(&mut self, shift_bytes: usize) -> io::Result<()> {
        self.input.write_all(&(shift_bytes as u64).to_ne_bytes())
    }

    /// Has calls played; the answers must be [received](Self::receive) before the next ones are sent.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn send(&mut self, calls: &[Call]) -> io::Result<()> {
        if calls.is_empty() {
            return Ok(());
        }
        self.bytes.clear();
        self.bytes.extend((calls.len() as u64).to_ne_bytes());
        self.bytes.extend(calls.iter().flat_map(|call| call.word().to_ne_bytes()));
        self.input.write_all(&self.bytes)
    }

    /// The answers to the calls that were sent last.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn receive(&mut self, calls: &[Call], replies: &mut Replies) -> io::Result<()> {
        self.bytes.resize(calls.len() * 8, 0);
        self.output.read_exact(&mut self.bytes)?;
        replies.places.clear();
        replies.reports.clear();
        let words = self.bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        replies.places.extend(words.map(Place::from_word));
        for _ in calls.iter().filter(|call| **call == Call::report()) {
            replies.reports.push(self.read_text()?);
        }
        Ok(())
    }

    /// Ends the case.
    ///
    /// # Errors
    /// See [`Self::begin`].
    pub fn end(&mut self) -> io::Result<()> {
        self.input.write_all(&0_u64.to_ne_bytes())
    }

    fn read_word(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.output.read_exact(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn read_text(&mut self) -> io::Result<String> {
        let length = self.read_word()?;
        let mut text = String::new();
        self.output.by_ref().take(length).read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        // It may be in the middle of a case; nothing of it is wanted any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
