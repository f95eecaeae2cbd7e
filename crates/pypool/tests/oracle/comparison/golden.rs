//! Golden logs: what the real pool answered once, kept as text, so that a machine without a libpython compares too.
//!
//! A file has sections, each headed by `== its title`. Lines that begin with `#` say what it is and who answered.
//!
//! **Invariant:** a file that was checked without an error has each of its sections compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::Mode;

/// One file.
pub(crate) struct Golden {
    path: PathBuf,
    mode: Mode,
    sections: BTreeMap<String, String>,
    /// Order of sections when they are written.
    titles: Vec<String>,
}

impl Golden {
    /// Reads the file, unless it is to be written or left alone.
    pub(crate) fn open(path: PathBuf, mode: Mode) -> Result<Self, String> {
        let mut golden = Self { path, mode, sections: BTreeMap::new(), titles: Vec::new() };
        if mode.checks_golden() {
            let text = fs::read_to_string(&golden.path).map_err(|error| {
                format!("{}: {error}. Restore it from git, or write it: see CONTRIBUTING.md.", golden.path.display())
            })?;
            let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
            for section in text.split("== ").skip(1) {
                let (title, body) = section.split_once('\n').unwrap_or((section, ""));
                golden.sections.insert(title.to_owned(), body.to_owned());
            }
        }
        Ok(golden)
    }

    /// Compares a section, or takes it to be written.
    pub(crate) fn settle(&mut self, title: &str, body: String) -> Result<(), String> {
        if self.mode == Mode::WriteGolden {
            self.titles.push(title.to_owned());
            self.sections.insert(title.to_owned(), body);
            return Ok(());
        }
        if !self.mode.checks_golden() {
            return Ok(());
        }
        let place = format!("{}, section `{title}`", self.path.display());
        let golden = self.sections.remove(title).ok_or_else(|| format!("{place} is missing"))?;
        let mut lines = golden.lines().zip(body.lines()).enumerate();
        if let Some((index, (kept, ours))) = lines.find(|(_, (kept, ours))| kept != ours) {
            return Err(format!("{place}, line {}: the real pool: {kept:?}; ours: {ours:?}", index + 1));
        }
        if golden == body { Ok(()) } else { Err(format!("{place}: one of the two ends early")) }
    }

    /// Writes the file, or sees that all of it was compared.
    pub(crate) fn close(self, what: &str, originals: &[String]) -> Result<(), String> {
        if self.mode == Mode::WriteGolden {
            let mut text = format!("# {what}\n# Equal answers of:\n");
            originals.iter().for_each(|original| text.push_str(&format!("#   {original}\n")));
            for title in &self.titles {
                text.push_str(&format!("== {title}\n{}", self.sections[title]));
            }
            return fs::write(&self.path, text).map_err(|error| format!("{}: {error}", self.path.display()));
        }
        match self.sections.keys().next() {
            Some(title) => Err(format!("{}: nothing was compared with section `{title}`", self.path.display())),
            None => Ok(()),
        }
    }
}
