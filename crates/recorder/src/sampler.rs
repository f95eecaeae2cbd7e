//! Watches the main process's memory from outside while it is recorded.
//!
//! Invariant: costs the program's memory lock milliseconds only at a new peak.

use crate::host;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trace::MemoryReading;

/// How often the program's memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// A thread that keeps the largest reading.
pub(crate) struct Sampler {
    folder: PathBuf,
    preload: PathBuf,
    is_over: Arc<AtomicBool>,
    peak: Arc<Mutex<Option<MemoryReading>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Sampler {
    pub(crate) fn new(folder: &Path, library: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            preload: library.to_owned(),
            is_over: Arc::default(),
            peak: Arc::default(),
            thread: Mutex::default(),
        }
    }

    pub(crate) fn start(&self, pid: u32) {
        let (folder, library) = (self.folder.clone(), self.preload.clone());
        let (is_over, peak) = (Arc::clone(&self.is_over), Arc::clone(&self.peak));
        let watch = move || {
            let mut highest = 0;
            while !is_over.load(Ordering::Relaxed) {
                // The split by kind costs milliseconds of the program's memory lock: only for a new peak.
                let now = host::anonymous_bytes(pid).unwrap_or(0);
                if now > highest + highest / 256 {
                    highest = now;
                    if let (Some(reading), Ok(mut peak)) = (host::memory(pid, &folder, &library), peak.lock()) {
                        let is_higher = |old: MemoryReading| reading.rss_anon_bytes > old.rss_anon_bytes;
                        if peak.is_none_or(is_higher) {
                            *peak = Some(reading);
                        }
                    }
                }
                std::thread::park_timeout(SAMPLE_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("sampler".to_owned()).spawn(watch).ok();
        if let Ok(mut slot) = self.thread.lock() {
            *slot = thread;
        }
    }

    pub(crate) fn finish(self) -> Option<MemoryReading> {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.into_inner().ok().flatten() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.peak.lock().ok().and_then(|peak| *peak)
    }
}
