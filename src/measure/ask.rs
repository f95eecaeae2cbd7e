//! What the allocators say of themselves, and whether they keep the heap contract: asked in children with the
//! environments that workers get.
//!
//! Invariant: the answers are those of the libraries that the workers will call, in the state in which they find them.

use super::child::WORKER_VERB;
use super::config::{self, Config};
use super::environment;
use super::spawn::{ChildSpec, Ending, Finished, Running, ended_by, remedy};
use crate::backend::{self, CPYTHON_KEY, Role};
use crate::run::{AllocatorFacts, HostFacts, Outcome};
use crate::worker::MEMORY_STAGE;
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
    /// For each, the words that nobody could read back, which were allowed.
    pub unverified: Vec<Vec<String>>,
}

/// The machine, and the allocators of each configuration in the environment of its children.
///
/// # Errors
/// A sentence when the allocators do not answer, or when a word of a configuration has not taken effect.
pub fn report(exe: &Path, configs: &[Config]) -> Result<HostReport, String> {
    let answers: Vec<_> = configs.iter().map(|config| answer(exe, config)).collect::<Result<_, _>>()?;
    let (allocators, unverified) = answers.into_iter().unzip();
    Ok(HostReport { host: environment::host(Some(backend::libc_version())), allocators, unverified })
}

/// What serves a configuration, and what of its words nobody could read back.
fn answer(exe: &Path, config: &Config) -> Result<(Vec<AllocatorFacts>, Vec<String>), String> {
    let of_config = |sentence| if config.has_library() { format!("{}: {sentence}", config.name) } else { sentence };
    let (facts, errors) = facts(exe, config).map_err(of_config)?;
    let unverified = config::verify(config, &facts, &errors)?;
    if config.has_library() {
        // Nothing is known of a user's library beforehand: it has to keep the contract before it is measured.
        let own = config.keys().into_iter().filter(|key| *key == SYSTEM || config::is_users(key));
        let arguments: Vec<&str> = [WORKER_VERB, "--self-test"].into_iter().chain(own).collect();
        ask(exe, &arguments, config).map_err(of_config)?;
    }
    Ok((facts, unverified))
}

/// What the allocators say, and what the loader complained of.
fn facts(exe: &Path, config: &Config) -> Result<(Vec<AllocatorFacts>, String), String> {
    let mut arguments = vec![WORKER_VERB, "--facts"];
    for key in config.keys().into_iter().chain([SYSTEM]) {
        if !arguments[2..].contains(&key) {
            arguments.push(key);
        }
    }
    let Finished { output, errors, .. } = ask(exe, &arguments, config)?;
    let facts = serde_json::from_slice(&output)
        .map_err(|e| format!("The allocators' facts cannot be read: {e}. Please report this."))?;
    Ok((facts, errors))
}

/// Holds every allocator against the heap contract; the text says which were held, and why `cpython` was not where
/// there is no interpreter for it.
///
/// # Errors
/// The first broken promise, as a sentence.
pub fn self_test(exe: &Path) -> Result<String, String> {
    let own = backend::ALL
        .iter()
        .filter(|b| matches!(b.role, Role::Contestant | Role::Instrument | Role::ByVariable))
        .map(|b| b.key);
    let arguments: Vec<&str> = [WORKER_VERB, "--self-test"].into_iter().chain(own).collect();
    let mut text = said(ask(exe, &arguments, &Config::default())?);
    text.push('\n');
    // Only an interpreter whose pools can be had is held against anything.
    let cpython = config::parse(CPYTHON_KEY).and_then(|config| facts(exe, &config).map(|_| config));
    text.push_str(&match cpython {
        Ok(config) => {
            let held = said(ask(exe, &[WORKER_VERB, "--self-test", CPYTHON_KEY], &config)?);
            format!("{held} ({})", config.label)
        }
        Err(reason) => format!("{CPYTHON_KEY} was not held against it: {reason}"),
    });
    Ok(text)
}

fn said(finished: Finished) -> String {
    String::from_utf8_lossy(&finished.output).trim().to_owned()
}

/// Asks a child in the environment of a configuration.
fn ask(exe: &Path, arguments: &[&str], config: &Config) -> Result<Finished, String> {
    let variables = &config.variables;
    let spec = ChildSpec { exe, arguments, input: b"", padding_bytes: 0, variables, inherit: &[] };
    let finished = Running::start(&spec)
        .and_then(|running| running.wait(TIMEOUT))
        .map_err(|e| format!("A child process cannot be started: {e}. Raise the limits, or free memory."))?;
    if finished.ending == Ending::Exited(0) {
        return Ok(finished);
    }
    let todo = if config.has_library() { "Leave this library out." } else { "Please report this." };
    Err(why(&finished, &remedy(todo)))
}

/// What the child said, which ends with what to do; or that it said nothing, which is a fault.
fn why(finished: &Finished, todo: &str) -> String {
    let silent = match (serde_json::from_slice(&finished.output), finished.ending) {
        (Ok(Outcome::Failed { stage, reason }), _) if stage == MEMORY_STAGE => reason,
        (Ok(Outcome::Failed { reason, .. }), _) => return format!("An allocator cannot be had: {reason}."),
        (_, Ending::Exited(code)) => format!("code {code} {}", finished.errors).trim_end().to_owned(),
        (_, Ending::Signalled(signal)) => return format!("The process that asks an allocator {}", ended_by(signal)),
        (_, Ending::TimedOut) => "it took too long".to_owned(),
    };
    format!("An allocator gave no answer: {silent}. {todo}")
}
