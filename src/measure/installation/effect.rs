//! Whether variables would take effect in an installation: each is set, and what it is to steer is asked.
//!
//! Invariant: a variable takes effect only by the word of an allocator that had it, or of the interpreter; what reaches
//! nothing has no effect, and what nobody tells is said to be unknown, which counts as none.

use super::Installation;
use super::copy::{Copy, Family};
use crate::backend::libc_version;
use crate::measure::config::{self, ARROW, MIMALLOC_PREFIX, NUMPY, PRELOAD, PYTHON_VARIABLE as PYTHON, is_same, pairs};
use serde::Serialize;
use std::path::Path;

/// What came of one variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// `VAR=VALUE`; several that are judged together are separated by spaces.
    pub word: String,
    /// Whether it takes effect.
    pub takes_effect: bool,
    /// By whose word, or why not.
    pub evidence: String,
}

/// What ends the name of the variable of a jemalloc.
const JEMALLOC_SUFFIX: &str = "MALLOC_CONF";
/// Prints the pool that Arrow took; `os.write`, since only the error output is read.
const POOL: &str = "import sys; sys.path = [path for path in sys.path if path]
import os, pyarrow; os.write(2, pyarrow.default_memory_pool().backend_name.encode())";

/// Installs NumPy's handler as a program would, and prints whose an array is then.
const HANDLER: &str = "import sys; sys.path = [path for path in sys.path if path]
import os, numpy, pyalloc_numpy; pyalloc_numpy.install()
os.write(2, pyalloc_numpy.handler(numpy.empty(1000)).encode())";

/// What becomes of each variable of a configuration in an installation. Variables of the C library, and libraries that
/// are preloaded, are read back as `replay` does, in a child of `exe`.
///
/// # Errors
/// A sentence about a word that is no variable, or a name that nothing reads.
pub fn effects(found: &Installation, exe: &Path, words: &str) -> Result<Vec<Effect>, String> {
    let variables = variables(words)?;
    let is_preloading = variables.iter().any(|(name, _)| name == PRELOAD);
    let mut effects = Vec::new();
    let mut left: Vec<String> = Vec::new();
    for (name, value) in &variables {
        let word = format!("{name}={value}");
        match within(found, name, value, is_preloading) {
            Some(verdict) => effects.push(effect(word, verdict)),
            None => left.push(word),
        }
    }
    if !left.is_empty() {
        effects.push(elsewhere(found, exe, &left.join(" "))?);
    }
    Ok(effects)
}

fn effect(word: String, verdict: Result<String, String>) -> Effect {
    let takes_effect = verdict.is_ok();
    Effect { word, takes_effect, evidence: verdict.unwrap_or_else(|why| why) }
}

/// The variables that words stand for, in their order.
fn variables(words: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for word in words.split_whitespace() {
        match word.split_once('=').filter(|(name, _)| config::is_variable(name)) {
            Some((name, value)) => variables.push((name.to_owned(), value.to_owned())),
            None => {
                let preset = config::parse(word)?;
                if preset.deploy.is_none() {
                    return Err(format!(
                        "{word} asks what if: no variable stands for it, so no environment can be asked. Give \
                         variables such as PYTHONMALLOC=malloc."
                    ));
                }
                variables.extend(preset.typed);
            }
        }
    }
    if variables.is_empty() {
        return Err("There is no variable among the words. Give some, such as MALLOC_ARENA_MAX=2.".to_owned());
    }
    if let Some((name, _)) = variables
        .iter()
        .enumerate()
        .find_map(|(at, variable)| variables[..at].iter().any(|(name, _)| *name == variable.0).then_some(variable))
    {
        return Err(format!("{name} is given twice. Leave one out."));
    }
    Ok(variables)
}

/// What the installation itself says of a variable; `None` for one that it is not to be asked about.
fn within(found: &Installation, name: &str, value: &str, is_preloading: bool) -> Option<Result<String, String>> {
    let jemallocs: Vec<&Copy> =
        found.of(Family::Jemalloc).filter(|copy| copy.variable.as_deref() == Some(name)).collect();
    if name == PYTHON {
        return Some(python(found, value));
    }
    if name == ARROW {
        return Some(arrow(found, value));
    }
    if name == NUMPY {
        return Some(numpy(found, value));
    }
    if !jemallocs.is_empty() {
        return Some(all(&jemallocs, &|copy| jemalloc(found, copy, name, value)));
    }
    if name.ends_with(JEMALLOC_SUFFIX) && !(name == JEMALLOC_SUFFIX && is_preloading) {
        return Some(Err("no jemalloc in this environment reads it".to_owned()));
    }
    if name.starts_with(MIMALLOC_PREFIX) {
        let copies: Vec<&Copy> = found.of(Family::Mimalloc).collect();
        return match copies.is_empty() {
            true if is_preloading => None,
            true => Some(Err("this environment contains no mimalloc".to_owned())),
            false => Some(all(&copies, &|copy| mimalloc(found, copy, name, value))),
        };
    }
    None
}

/// Takes effect where one copy says so; what others say is told too.
fn all(copies: &[&Copy], one: &dyn Fn(&Copy) -> Result<String, String>) -> Result<String, String> {
    let verdicts: Vec<Result<String, String>> = copies.iter().map(|copy| one(copy)).collect();
    let takes_effect = verdicts.iter().any(Result::is_ok);
    let text = verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|why| why)).collect::<Vec<_>>().join("; ");
    if takes_effect { Ok(text) } else { Err(text) }
}

fn python(found: &Installation, value: &str) -> Result<String, String> {
    let said = |error| format!("the interpreter does not start with it: {error}");
    let serving = found.python.serving(&[(PYTHON.to_owned(), value.into())]).map_err(said)?;
    let wanted = match value.trim_end_matches("_debug") {
        "default" | "debug" => found.python.default_allocator.as_deref().unwrap_or_default(),
        plain => plain,
    };
    let text = format!("{serving} serves the interpreter's objects");
    if serving == wanted { Ok(text) } else { Err(text) }
}

fn arrow(found: &Installation, value: &str) -> Result<String, String> {
    let Some(arrow) = &found.arrow else { return Err("this environment has no pyarrow".to_owned()) };
    let said = |error| format!("pyarrow cannot be asked: {error}");
    let taken = found.python.run(&["-c", POOL], &[(ARROW.to_owned(), value.into())]).map_err(said)?;
    // Arrow warns of a value that it does not know, and goes on with its default.
    let taken = taken.lines().last().unwrap_or_default().trim().to_owned();
    let text = format!("pyarrow {} says that its pool is {taken}", arrow.version);
    if taken == value { Ok(text) } else { Err(text) }
}

/// Whether arrays come from where the variable says, once a program has installed the handler. Where the module lies is
/// the one thing that the environment has to tell.
fn numpy(found: &Installation, value: &str) -> Result<String, String> {
    let mut variables = config::parse(&format!("{NUMPY}={value}"))?.deploy.unwrap_or_default();
    variables.extend(std::env::var_os("PYTHONPATH").map(|path| ("PYTHONPATH".to_owned(), path)));
    let said = |error| format!("NumPy's handler cannot be installed: {error}");
    let taken = found.python.run(&["-c", HANDLER], &variables).map_err(said)?;
    let taken = taken.lines().last().unwrap_or_default().trim().to_owned();
    let wanted = Path::new(value).file_name().unwrap_or_default().to_string_lossy();
    let text = format!("an array says that its handler is {taken}, in a program that calls pyalloc_numpy.install()");
    if taken == format!("pyalloc:{wanted}") { Ok(text) } else { Err(text) }
}

fn jemalloc(found: &Installation, copy: &Copy, name: &str, value: &str) -> Result<String, String> {
    let who = copy.describe();
    let wanted = pairs(&format!("{name}={value}"), value)?;
    let answer = found.ask(copy, name, value).map_err(|why| format!("{who} does not tell: {why}"))?;
    if let Some(pair) = answer.refused.first() {
        return Err(format!("{who} refuses {pair}"));
    }
    match wanted.iter().find(|(option, value)| answer.options.get(*option).is_none_or(|told| told != value)) {
        Some((option, _)) => Err(format!("{who} does not say that {option} was set")),
        None => Ok(format!("{who} says that it set {value}")),
    }
}

fn mimalloc(found: &Installation, copy: &Copy, name: &str, value: &str) -> Result<String, String> {
    let (who, option) = (copy.describe(), name[MIMALLOC_PREFIX.len()..].to_lowercase());
    let answer = found.ask(copy, name, value).map_err(|why| format!("{who} does not tell: {why}"))?;
    match answer.options.get(&option) {
        Some(told) if is_same(told, value) => Ok(format!("{who} says that {option} is {told}")),
        Some(told) => Err(format!("{who} says that {option} is {told}")),
        None => Err(format!("{who} has no option {option}")),
    }
}

/// What the C library and what is preloaded into it say, in a child like those that replay. Arrow is left to the C
/// library there, so that no stand-in for its pools answers for them. The words stand or fall together: a library that
/// is preloaded and its options are one thing.
fn elsewhere(found: &Installation, exe: &Path, words: &str) -> Result<Effect, String> {
    let config = config::parse(&format!("{words} {ARROW}=system"))?;
    let ours = libc_version();
    let verdict = match found.python.libc.as_deref().unwrap_or("another C library than glibc") {
        theirs if theirs != ours => {
            Err(format!("the interpreter runs on {theirs}, and the child to be asked on {ours}"))
        }
        _ => crate::measure::report(exe, &[config]).map(|_| format!("read back from a child process on {ours}")),
    };
    Ok(effect(words.to_owned(), verdict))
}
