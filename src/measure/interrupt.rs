//! What becomes of a command that a signal stops: its children end with it, its finished runs stay, and a sentence
//! names them.
//!
//! Invariant: the process leaves between two lines of a result, never within one.

use super::spawn::signal_name;
use crate::probe::sys;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// SIGHUP, SIGINT and SIGTERM.
const STOPPING: [i32; 3] = [1, 2, 15];

/// What has been written so far.
#[derive(Debug)]
struct Kept {
    folder: Option<PathBuf>,
    runs: u32,
    planned: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { folder: None, runs: 0, planned: 0 });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGHUP, SIGINT and SIGTERM end this process with 128 and the signal's number, after a sentence. The
/// kernel then ends the children.
///
/// # Errors
/// A sentence when there is no descriptor or no thread for it.
pub fn end_on_signals() -> Result<(), String> {
    let failed = |e: std::io::Error| format!("Signals cannot be received: {e}. Raise the limits on descriptors.");
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    let receive = move || {
        let mut signal = [0];
        if reader.read_exact(&mut signal).is_ok() {
            leave(i32::from(signal[0]));
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(receive).map_err(failed)?;
    sys::signals_to(OwnedFd::from(writer), &STOPPING);
    Ok(())
}

/// A result's folder exists, and so many runs are to be written there.
pub(super) fn begins(folder: &Path, planned: usize) {
    *kept() = Kept { folder: Some(folder.to_owned()), runs: 0, planned };
}

/// Writes one run; no signal ends the process meanwhile.
pub(super) fn keep<E>(append: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let mut kept = kept();
    append()?;
    kept.runs += 1;
    Ok(())
}

fn leave(signal: i32) -> ! {
    // Never released: no line is begun any more.
    let kept = kept();
    if let (Some(folder), 0) = (&kept.folder, kept.runs) {
        crate::run::discard(folder);
    }
    let _ = writeln!(std::io::stderr().lock(), "\n{}", sentence(signal, &kept));
    sys::exit_now(128 + signal)
}

fn sentence(signal: i32, kept: &Kept) -> String {
    let name = signal_name(signal);
    match &kept.folder {
        Some(folder) if kept.runs > 0 => format!(
            "{name} stopped this command. {} of {} runs are kept: pyalloc-bench report {}",
            kept.runs,
            kept.planned,
            folder.display()
        ),
        _ => format!("{name} stopped this command. Nothing was written; run it again."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_what_is_kept() {
        let folder = Some(PathBuf::from("results/r"));
        let said = sentence(2, &Kept { folder: folder.clone(), runs: 3, planned: 9 });
        assert_eq!(said, "SIGINT stopped this command. 3 of 9 runs are kept: pyalloc-bench report results/r");
        for kept in [Kept { folder, runs: 0, planned: 9 }, Kept { folder: None, runs: 0, planned: 0 }] {
            assert_eq!(sentence(15, &kept), "SIGTERM stopped this command. Nothing was written; run it again.");
        }
    }
}
