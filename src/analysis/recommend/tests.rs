//! Decisions on invented results.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
