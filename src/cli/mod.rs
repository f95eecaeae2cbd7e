//! Under construction.

/// The command line; returns the exit code.
pub fn main(_arguments: std::env::ArgsOs) -> u8 {
    2
}
