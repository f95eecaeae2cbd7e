//! `report --splice`: keeps tables and figures of results current in Markdown files.
//!
//! Invariant: every file is read and every region made before the first byte is written; a wrong mark leaves all files
//! as they were. What is current is not written.

use super::out::{Stop, print};
use super::report::{open, relative, shown, unusable, width};
use crate::analysis::Analysis;
use crate::chart::WIDTH;
use crate::report::excerpt::{self, About, Excerpt, Source};
use crate::report::figures::{self, Form, Request};
use crate::report::regions::{self, Region};
use crate::report::snippet::{self, Markup, Place};
use crate::report::{self, CHARTS_FOLDER};
use crate::run::bounded;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a stale region that are shown of each side.
const LINES_SHOWN: usize = 4;
/// Forms of a figure that a document shows.
const FORMS: [Form; 2] = [Form::Svg, Form::SvgDark];

/// The words of a mark.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
struct Mark {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Terminal(Of),
    Table(Of),
    Verdicts(Of),
    Fidelity(Of),
    Floors(Of),
    Provenance(Of),
    Versus(VersusOf),
    Chart(ChartOf),
}

/// What a region is about.
#[derive(Debug, Args)]
struct Of {
    /// Folder of the result, from the document's folder
    result: Option<PathBuf>,
    #[arg(long)]
    workload: Option<String>,
}

/// What a table of all workloads is about.
#[derive(Debug, Args)]
struct VersusOf {
    #[command(flatten)]
    of: Of,
    #[arg(short, long = "config")]
    configs: Vec<String>,
}

/// A figure in a region.
#[derive(Debug, Args)]
struct ChartOf {
    name: String,
    #[command(flatten)]
    of: Of,
    #[arg(short, long = "config")]
    configs: Vec<String>,
    #[arg(long, default_value_t = WIDTH, value_parser = width())]
    width: u32,
    /// Where its files are kept, from the document's folder
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// A document with its regions made again.
struct Document {
    name: PathBuf,
    old: String,
    new: String,
    regions: Vec<Region>,
    insides: Vec<String>,
    /// Files that its figures need, each with the region that needs it.
    files: Vec<(PathBuf, Vec<u8>, usize)>,
}

/// Analyses by folder: several regions quote one result.
struct Shelf<'a> {
    /// The result of regions that name none.
    given: Option<&'a Path>,
    read: HashMap<PathBuf, Analysis>,
}

/// Splices every file, or says what is stale.
pub(super) fn run(files: &[PathBuf], result: Option<&Path>, check: bool) -> Result<(), Stop> {
    let mut shelf = Shelf { given: result, read: HashMap::new() };
    let documents: Vec<Document> = files.iter().map(|file| make(file, &mut shelf)).collect::<Result<_, _>>()?;
    if check { judge(&documents) } else { write(&documents) }
}

fn make(file: &Path, shelf: &mut Shelf<'_>) -> Result<Document, Stop> {
    let name = file.display();
    let old = bounded::read_text(file, bounded::TEXT_BYTES_MAX)
        .map_err(|e| Stop::Unusable(format!("{name} cannot be read: {e}. Name a Markdown file in UTF-8.")))?;
    let regions = regions::regions(&old).map_err(|f| Stop::Unusable(format!("{name}:{}: {}", f.line, f.reason)))?;
    if regions.is_empty() {
        return Err(Stop::Unusable(format!(
            "{name} has no region. Put `<!-- pyalloc-bench:begin table RESULT -->` and `<!-- pyalloc-bench:end -->` on \
             lines of their own."
        )));
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut document =
        Document { name: file.to_path_buf(), new: String::new(), insides: Vec::new(), files: Vec::new(), regions, old };
    for (index, region) in document.regions.iter().enumerate() {
        let at = |stop| match stop {
            Stop::Unusable(reason) => Stop::Unusable(format!("{name}:{}: {reason}", region.line)),
            other => other,
        };
        let (text, files) = inside(region, file, folder, shelf).map_err(at)?;
        document.insides.push(regions::inside(&document.old, &text));
        document.files.extend(files.into_iter().map(|(path, bytes)| (path, bytes, index)));
    }
    document.new = regions::replaced(&document.old, &document.regions, &document.insides);
    Ok(document)
}

/// Files of figures, by path.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// A region's text, and the files that it shows.
fn inside(region: &Region, file: &Path, folder: &Path, shelf: &mut Shelf<'_>) -> Result<(String, Files), Stop> {
    let mark = Mark::try_parse_from(&region.words).map_err(|e| Stop::Unusable(sentence(&e)))?;
    let mut configs = Vec::new();
    let (kind, of) = match mark.kind {
        Kind::Versus(versus) => {
            configs = versus.configs;
            (Excerpt::Versus, versus.of)
        }
        Kind::Chart(chart) => return figure(chart, folder, shelf),
        Kind::Terminal(of) => (Excerpt::Terminal, of),
        Kind::Table(of) => (Excerpt::Table, of),
        Kind::Verdicts(of) => (Excerpt::Verdicts, of),
        Kind::Fidelity(of) => (Excerpt::Fidelity, of),
        Kind::Floors(of) => (Excerpt::Floors, of),
        Kind::Provenance(of) => (Excerpt::Provenance, of),
    };
    let (name, path) = shelf.result(of.result.as_deref(), folder)?;
    let analysis = shelf.analysis(&path)?;
    let workload = of.workload.map(|name| figures::workload_named(analysis, &name)).transpose().map_err(unusable)?;
    let document = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let source = Source { result: &name, document: &document };
    Ok((
        excerpt::excerpt(kind, analysis, About { workload, configs: &configs }, &source).map_err(unusable)?,
        Vec::new(),
    ))
}

fn figure(chart: ChartOf, folder: &Path, shelf: &mut Shelf<'_>) -> Result<(String, Files), Stop> {
    let (result, path) = shelf.result(chart.of.result.as_deref(), folder)?;
    let analysis = shelf.analysis(&path)?;
    let request =
        Request { chart: chart.name, workload: chart.of.workload, configs: chart.configs, width: chart.width };
    let drawn = figures::figures(analysis, &request).map_err(unusable)?;
    let output = chart.folder.as_deref().map(shown);
    let kept = output.clone().unwrap_or_else(|| format!("{result}/{CHARTS_FOLDER}"));
    let target = chart.folder.map_or_else(|| path.join(CHARTS_FOLDER), |own| folder.join(own));
    let (mut blocks, mut files) = (Vec::new(), Files::new());
    for figure in &drawn {
        let command = figures::command(&request, figure, &result, output.as_deref());
        let place = Place { folder: &kept, themes: (true, true), command: &command };
        blocks.push(snippet::block(Markup::Markdown, figure, &place));
        files.extend(FORMS.map(|form| (target.join(figure.file(form)), figure.bytes(form))));
    }
    Ok((blocks.join("\n"), files))
}

impl Shelf<'_> {
    /// A result as the document names it, and its path.
    fn result(&self, named: Option<&Path>, folder: &Path) -> Result<(String, PathBuf), Stop> {
        match (named, self.given) {
            (Some(named), _) => Ok((shown(named), folder.join(named))),
            (None, Some(given)) => {
                let name = relative(folder, given)?;
                Ok((if name.is_empty() { ".".into() } else { name }, given.to_path_buf()))
            }
            (None, None) => {
                let sentence =
                    "The region names no result. Write its folder behind the kind, or name one before --splice.";
                Err(Stop::Unusable(sentence.into()))
            }
        }
    }

    fn analysis(&mut self, path: &Path) -> Result<&Analysis, Stop> {
        let key = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if !self.read.contains_key(&key) {
            let analysis = open(path)?;
            self.read.insert(key.clone(), analysis);
        }
        Ok(&self.read[&key])
    }
}

impl Document {
    /// How a region differs from what it should be; empty when it does not.
    fn stale(&self, index: usize) -> String {
        let old = self.regions[index].body(&self.old);
        let new = self.insides[index].as_str();
        let mut text = if old == new { String::new() } else { regions::difference(old, new, LINES_SHOWN) };
        if old != new && text.is_empty() {
            text.push_str("  line ends differ\n");
        }
        for (path, bytes, _) in self.files.iter().filter(|(_, _, needs)| *needs == index) {
            if !path.exists() {
                text.push_str(&format!("  {} is missing\n", path.display()));
            } else if !bounded::holds(path, bytes) {
                text.push_str(&format!("  {} is not what would be drawn\n", path.display()));
            }
        }
        text
    }
}

fn judge(documents: &[Document]) -> Result<(), Stop> {
    let (mut text, mut stale, mut all) = (String::new(), 0, 0);
    for document in documents {
        for (index, region) in document.regions.iter().enumerate() {
            all += 1;
            let difference = document.stale(index);
            if !difference.is_empty() {
                stale += 1;
                let (name, words) = (document.name.display(), region.words.join(" "));
                text.push_str(&format!("{name}:{}: {words}\n{difference}", region.line));
            }
        }
    }
    let count = report::words::plural(all, "region");
    if stale == 0 {
        return print(&format!("{count} current.\n"));
    }
    print(&text)?;
    Err(Stop::Failed(format!("{stale} of {count} stale. Run the same command without --check.")))
}

fn write(documents: &[Document]) -> Result<(), Stop> {
    let mut figures = documents.iter().flat_map(|document| &document.files);
    figures.try_for_each(|(path, _, _)| report::check_place(path)).map_err(unusable)?;
    for document in documents {
        let stale = (0..document.regions.len()).filter(|index| !document.stale(*index).is_empty()).count();
        for (path, bytes, _) in &document.files {
            if !bounded::holds(path, bytes) {
                report::save(path, bytes).map_err(unusable)?;
                print(&format!("{}\n", path.display()))?;
            }
        }
        if document.new != document.old {
            let name = document.name.display();
            files::edit_document(&document.name, document.new.as_bytes()).map_err(|error| {
                Stop::Unusable(format!("{name} cannot be written: {error}. Make room, or allow writing to its folder."))
            })?;
        }
        let all = report::words::plural(document.regions.len(), "region");
        print(&format!("{}: {stale} of {all} written again\n", document.name.display()))?;
    }
    Ok(())
}

/// What the parser says before it explains its usage, as one sentence.
fn sentence(error: &clap::Error) -> String {
    const KINDS: &str =
        "Kinds are terminal, table, verdicts, versus, fidelity, floors, provenance and chart NAME: write one.";
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let said = said.join(" ");
    let said = said.trim_start_matches("error: ").trim_end_matches('.');
    match error.kind() {
        ErrorKind::InvalidSubcommand => format!("{said}. {KINDS}"),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            format!("The mark names no kind. {KINDS}")
        }
        _ => format!("{said}. Correct the mark."),
    }
}
