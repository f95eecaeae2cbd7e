//! What the parent tells a worker on its standard input, as one JSON object.

use crate::run::{Mode, Pass, Time};
use serde::{Deserialize, Serialize};
use trace::image::ImageSummary;

/// One child's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What to measure.
    pub pass: Pass,
    /// How to replay threads.
    pub mode: Mode,
    /// Key in [`crate::backend::ALL`] for each domain, indexed by [`trace::Domain`]; `loop` calls nothing.
    pub backends: [String; 6],
    /// The image.
    pub image: ImageSummary,
    /// Where its ops are.
    pub source: ImageSource,
    /// Idle delays at which rest is read, milliseconds, ascending (footprint).
    pub idle_ms: Vec<u64>,
    /// Evenly spaced memory readings (footprint).
    pub points: u32,
    /// Which time the allocators meet (footprint).
    pub time: Time,
    /// How many times faster than recorded [`Time::Real`] passes.
    pub pace: u32,
    /// Bytes of a first block of the C library's domain, which stays (footprint): a process's heap begins anywhere in
    /// its first OS page, and behind as much as paths and variables take.
    #[serde(default)]
    pub shift_bytes: u32,
    /// The moments of the ops (footprint); [`Time::None`] needs none.
    pub moments: Option<MomentsSource>,
    /// Whether a debug build may run this (tests only; the result says so).
    pub allow_debug: bool,
}

/// Where a table of moments is; see [`trace::image::Moments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MomentsSource {
    /// Descriptor of an inherited shared-memory file of pairs of 64-bit numbers.
    pub fd: i32,
    /// Pairs in it.
    pub pairs: u64,
}

/// Where the ops of an image are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// The whole image in an inherited shared-memory file.
    Whole {
        /// Its descriptor.
        fd: i32,
    },
    /// Two windows of an inherited shared-memory file, filled in turn by a helper process.
    Windows {
        /// Its descriptor.
        fd: i32,
        /// Ops in one window; window `i` starts at byte `8 * i * window_ops`.
        window_ops: u64,
        /// Read end: a little-endian `u64` with the number of ops arrives for each filled window; 0 ends the image.
        ready_fd: i32,
        /// Write end: one byte hands a used window back.
        done_fd: i32,
    },
    /// One stream of ops per recorded thread, in an inherited shared-memory file; see [`trace::image::apart`].
    Streams {
        /// Its descriptor.
        fd: i32,
        /// Ops of each stream; they follow each other in the file.
        ops: Vec<u64>,
        /// Size of the slot table, which may be larger than the merged image's.
        slots: u32,
        /// Most threads that are there at once.
        lanes: u32,
    },
}
