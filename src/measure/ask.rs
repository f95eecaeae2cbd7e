//! What the allocators say of themselves, and whether they keep the heap contract: asked in a child with the
//! environment that workers get.
//!
//! Invariant: the answers are those of the libraries that the workers will call, in the state in which they find them.

use super::child::WORKER_VERB;
use super::spawn::{ChildSpec, Ending, Finished, Running, signal_name};
use super::{contestants, environment};
use crate::run::{AllocatorFacts, HostFacts, Outcome};
use std::path::Path;
use std::time::Duration;

/// Answers take milliseconds, a self-test a second.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The backend that is the C library itself.
const SYSTEM: &str = "system";

/// The machine and its allocators.
#[derive(Clone, Debug, PartialEq)]
pub struct HostReport {
    /// The machine.
    pub host: HostFacts,
    /// The C library's allocator and those asked for.
    pub allocators: Vec<AllocatorFacts>,
}

/// The machine and the contestants.
///
/// # Errors
/// A sentence when the allocators do not answer.
pub fn host_facts(exe: &Path) -> Result<HostReport, String> {
    let contestants = contestants();
    let keys: Vec<&str> = contestants.iter().map(|config| config.name.as_str()).collect();
    report(exe, &keys)
}

/// The machine and the allocators with these keys.
pub(super) fn report(exe: &Path, keys: &[&str]) -> Result<HostReport, String> {
    let allocators = facts(exe, keys)?;
    let libc = allocators.iter().find(|facts| facts.key == SYSTEM).map(|facts| facts.version.clone());
    Ok(HostReport { host: environment::host(libc), allocators })
}

fn facts(exe: &Path, keys: &[&str]) -> Result<Vec<AllocatorFacts>, String> {
    let mut arguments = vec![WORKER_VERB, "--facts"];
    for key in keys.iter().copied().chain([SYSTEM]) {
        if !arguments[2..].contains(&key) {
            arguments.push(key);
        }
    }
    let output = ask(exe, &arguments)?;
    serde_json::from_slice(&output)
        .map_err(|e| format!("The allocators' facts cannot be read: {e}. Please report this."))
}

/// Holds every allocator against the heap contract; the text says which were held.
///
/// # Errors
/// The first broken promise, as a sentence.
pub fn self_test(exe: &Path) -> Result<String, String> {
    ask(exe, &[WORKER_VERB, "--self-test"]).map(|output| String::from_utf8_lossy(&output).trim().to_owned())
}

fn ask(exe: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let spec = ChildSpec { exe, arguments, input: b"", padding_bytes: 0, inherit: &[] };
    let finished = Running::start(&spec)
        .and_then(|running| running.wait(TIMEOUT))
        .map_err(|e| format!("A child process cannot be started: {e}. Raise the limits, or free memory."))?;
    if finished.ending == Ending::Exited(0) {
        return Ok(finished.output);
    }
    Err(format!("An allocator gave no answer: {}. Please report this.", why(&finished)))
}

fn why(finished: &Finished) -> String {
    match (serde_json::from_slice(&finished.output), finished.ending) {
        (Ok(Outcome::Failed { reason, .. }), _) => reason,
        (_, Ending::Exited(code)) => format!("code {code} {}", finished.errors),
        (_, Ending::Signalled(signal)) => format!("ended by {}", signal_name(signal)),
        (_, Ending::TimedOut) => "it took too long".to_owned(),
    }
}
