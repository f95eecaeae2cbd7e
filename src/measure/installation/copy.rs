//! A copy of an allocator that lies inside an interpreter or a library of its packages.
//!
//! Invariant: what is not known of a copy is `None`.

use serde::Serialize;
use std::collections::BTreeMap;

/// What is known of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// What it is.
    pub family: Family,
    /// The library it lies in, from its folder of packages on; the interpreter's own is named by its base name.
    pub file: String,
    /// Such as `5.3.0`.
    pub version: Option<String>,
    /// jemalloc alone: the variable that it takes options from. `None`: not known.
    pub variable: Option<String>,
    /// Whether it answered when a child process loaded it with a variable that makes it speak, and so reads variables.
    pub answers: bool,
    /// Its options without any variable, as it told them: mimalloc all, jemalloc those that differ from its defaults.
    pub options: BTreeMap<String, String>,
}

/// Allocators that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// <https://github.com/microsoft/mimalloc>
    Mimalloc,
    /// <https://github.com/jemalloc/jemalloc>
    Jemalloc,
    /// gperftools' tcmalloc.
    Tcmalloc,
    /// <https://github.com/microsoft/snmalloc>
    Snmalloc,
    /// <https://github.com/mjansson/rpmalloc>
    Rpmalloc,
}

impl Family {
    /// Its name in texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mimalloc => "mimalloc",
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Snmalloc => "snmalloc",
            Self::Rpmalloc => "rpmalloc",
        }
    }
}

impl Copy {
    /// One of which nothing else is known yet.
    pub(super) fn of(family: Family) -> Self {
        Self { family, file: String::new(), version: None, variable: None, answers: false, options: BTreeMap::new() }
    }

    /// Such as `jemalloc 5.3.0 in pyarrow/libarrow.so.2600`.
    #[must_use]
    pub fn describe(&self) -> String {
        let version = self.version.as_ref().map_or(String::new(), |version| format!(" {version}"));
        format!("{}{version} in {}", self.family.name(), self.file)
    }

    /// What sets its options, in words.
    #[must_use]
    pub fn reads(&self) -> &str {
        match self.family {
            Family::Mimalloc => "MIMALLOC_*",
            Family::Jemalloc => self.variable.as_deref().unwrap_or("unknown"),
            Family::Tcmalloc => "TCMALLOC_*",
            Family::Snmalloc | Family::Rpmalloc => "none",
        }
    }
}
