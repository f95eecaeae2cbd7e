//! What the allocators say of themselves, and whether they keep the heap contract: asked in children with the
//! environments that workers get.
//!
//! Invariant: the answers are those of the libraries that the workers will call, in the state in which they find them.

use super::child::WORKER_VERB;
use super::config::{self, Config};
use super::environment;
use super::spawn::{ChildSpec, Ending, Finished, Running, signal_name};
use crate::backend::{self, CPYTHON_KEY, Role};
use crate::run::{AllocatorFacts, HostFacts, Outcome};
use std::ffi::OsString;
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
    /// For each configuration asked for, the C library's allocator and those that serve it.
    pub allocators: Vec<Vec<AllocatorFacts>>,
}

/// The machine, and the allocators of each configuration in the environment of its children.
///
/// # Errors
/// A sentence when the allocators do not answer.
pub fn report(exe: &Path, configs: &[Config]) -> Result<HostReport, String> {
    let allocators: Vec<_> = configs.iter().map(|config| facts(exe, config)).collect::<Result<_, _>>()?;
    let libc = allocators.iter().flatten().find(|facts| facts.key == SYSTEM).map(|facts| facts.version.clone());
    Ok(HostReport { host: environment::host(libc), allocators })
}

fn facts(exe: &Path, config: &Config) -> Result<Vec<AllocatorFacts>, String> {
    let mut arguments = vec![WORKER_VERB, "--facts"];
    for key in config.keys().into_iter().chain([SYSTEM]) {
        if !arguments[2..].contains(&key) {
            arguments.push(key);
        }
    }
    let output = ask(exe, &arguments, &config.variables)?;
    serde_json::from_slice(&output)
        .map_err(|e| format!("The allocators' facts cannot be read: {e}. Please report this."))
}

/// Holds every allocator against the heap contract; the text says which were held, and why `cpython` was not where
/// there is no interpreter for it.
///
/// # Errors
/// The first broken promise, as a sentence.
pub fn self_test(exe: &Path) -> Result<String, String> {
    let own = backend::ALL.iter().filter(|b| matches!(b.role, Role::Contestant | Role::Instrument)).map(|b| b.key);
    let arguments: Vec<&str> = [WORKER_VERB, "--self-test"].into_iter().chain(own).collect();
    let mut text = said(ask(exe, &arguments, &[])?);
    text.push('\n');
    // Only an interpreter whose pools can be had is held against anything.
    let cpython = config::parse(CPYTHON_KEY).and_then(|config| facts(exe, &config).map(|_| config));
    text.push_str(&match cpython {
        Ok(config) => {
            let held = said(ask(exe, &[WORKER_VERB, "--self-test", CPYTHON_KEY], &config.variables)?);
            format!("{held} ({})", config.label)
        }
        Err(reason) => format!("{CPYTHON_KEY} was not held against it: {reason}"),
    });
    Ok(text)
}

fn said(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn ask(exe: &Path, arguments: &[&str], variables: &[(String, OsString)]) -> Result<Vec<u8>, String> {
    let spec = ChildSpec { exe, arguments, input: b"", padding_bytes: 0, variables, inherit: &[] };
    let finished = Running::start(&spec)
        .and_then(|running| running.wait(TIMEOUT))
        .map_err(|e| format!("A child process cannot be started: {e}. Raise the limits, or free memory."))?;
    if finished.ending == Ending::Exited(0) {
        return Ok(finished.output);
    }
    Err(why(&finished))
}

/// What the child said, which ends with what to do; or that it said nothing, which is a fault.
fn why(finished: &Finished) -> String {
    let silent = match (serde_json::from_slice(&finished.output), finished.ending) {
        (Ok(Outcome::Failed { reason, .. }), _) => return format!("An allocator cannot be had: {reason}."),
        (_, Ending::Exited(code)) => format!("code {code} {}", finished.errors),
        (_, Ending::Signalled(signal)) => format!("ended by {}", signal_name(signal)),
        (_, Ending::TimedOut) => "it took too long".to_owned(),
    };
    format!("An allocator gave no answer: {silent}. Please report this.")
}
