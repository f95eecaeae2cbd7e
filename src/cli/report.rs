//! `report`: everything that a result shows, from its two files alone; one figure of it; its pieces in a document.
//!
//! Invariant: the same result gives the same bytes.

use super::out::{Stop, complain, print};
use super::replay::default_base;
use super::splice;
use crate::analysis::{self, Analysis};
use crate::chart::{WIDTH, WIDTHS};
use crate::report::figures::{self, DocumentFigure, Form, Request};
use crate::report::snippet::{self, Markup, Place};
use crate::report::{self, CHARTS_FOLDER};
use crate::run::{self, LATEST_LINK};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Arguments of `report`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    /// Folder of a result [default: the latest]
    result: Option<PathBuf>,
    /// Draw this chart alone: SVG and PNG, light and dark, and its alt text
    #[arg(long, value_name = "NAME")]
    chart: Option<String>,
    /// Of this workload [default: all]
    #[arg(long, value_name = "NAME", requires = "chart")]
    workload: Option<String>,
    /// With this configuration, in the order given; repeatable [default: all]
    #[arg(short, long = "config", value_name = "CONFIG", requires = "chart")]
    configs: Vec<String>,
    /// Lay it out for this width, CSS pixels
    #[arg(long, value_name = "PIXELS", default_value_t = WIDTH, requires = "chart", value_parser = width())]
    width: u32,
    /// For pages of this kind [default: both]
    #[arg(long, value_name = "THEME", requires = "chart")]
    theme: Option<ThemeChoice>,
    /// Folder for the figure's files, or one file that ends in .svg, .png or .txt [default: charts/ of the result]
    #[arg(short, long = "output", value_name = "FOLDER|FILE", requires = "chart")]
    output: Option<PathBuf>,
    /// Print a block to paste into a document, with alt text and caption
    #[arg(long, value_name = "MARKUP", requires = "chart", value_parser = ["markdown", "html", "rest"])]
    snippet: Option<String>,
    /// Document that the block is for: its paths begin there
    #[arg(long, value_name = "FILE", requires = "snippet")]
    relative_to: Option<PathBuf>,
    /// Write the marked regions of this Markdown file again; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "chart")]
    splice: Vec<PathBuf>,
    /// Write nothing: exit with 1 when a region, or without --splice a file of the result, is not what would be written
    #[arg(long, conflicts_with = "chart")]
    check: bool,
}

/// Pages that a figure is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ThemeChoice {
    /// White pages
    Light,
    /// Dark pages
    Dark,
    /// A file for each
    Both,
}

/// What `--width` takes.
pub(super) fn width() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*WIDTHS.start())..=i64::from(*WIDTHS.end()))
}

/// Rebuilds and names the files.
pub(super) fn run(args: &ReportArgs) -> Result<(), Stop> {
    if !args.splice.is_empty() {
        return splice::run(&args.splice, args.result.as_deref(), args.check);
    }
    let path = args.result.clone().unwrap_or_else(|| default_base().join(LATEST_LINK));
    let analysis = open(&path)?;
    if let Some(chart) = &args.chart {
        return draw(args, chart, &path, &analysis);
    }
    if args.check {
        return check(&path, &analysis);
    }
    print(&report::terminal(&analysis))?;
    print(&lines(&report::write(&path, &analysis).map_err(unusable)?))
}

/// A result, analysed; what was odd about its files is said.
pub(super) fn open(path: &Path) -> Result<Analysis, Stop> {
    let stored = run::open(path).map_err(Stop::unusable)?;
    stored.notes.iter().for_each(|note| complain(note));
    Ok(analysis::analyse(stored.environment, &stored.runs))
}

pub(super) fn unusable(error: anyhow::Error) -> Stop {
    Stop::Unusable(format!("{error:#}"))
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("{}\n", file.display())).collect()
}

/// Whether every derived file of a result is what its runs give.
fn check(path: &Path, analysis: &Analysis) -> Result<(), Stop> {
    let stale = report::stale(path, analysis).map_err(unusable)?;
    if stale.is_empty() {
        return print(&format!("{}: every derived file is current.\n", path.display()));
    }
    print(&lines(&stale))?;
    let count = report::words::plural(stale.len(), "derived file");
    Err(Stop::Failed(format!("{count} not current. Run: pyalloc-bench report {}", path.display())))
}

/// One chart: its files, or a block around them.
fn draw(args: &ReportArgs, chart: &str, result: &Path, analysis: &Analysis) -> Result<(), Stop> {
    let request = Request {
        chart: chart.to_owned(),
        workload: args.workload.clone(),
        configs: args.configs.clone(),
        width: args.width,
    };
    let mut drawn = figures::figures(analysis, &request).map_err(unusable)?;
    let folder = args.output.clone().unwrap_or_else(|| result.join(CHARTS_FOLDER));
    let (folder, forms) = match single_file(&folder) {
        None => (folder, Form::ALL.to_vec()),
        Some((parent, stem, forms)) => {
            let [figure] = &mut drawn[..] else {
                let sentence = "One file cannot hold a figure of each workload. Name one with --workload, or a folder.";
                return Err(Stop::Unusable(sentence.into()));
            };
            if args.snippet.is_some() {
                return Err(Stop::Unusable("A block needs SVG for both kinds of page. Name a folder with -o.".into()));
            }
            figure.stem = stem;
            (parent, forms)
        }
    };
    // One file is for light pages unless the other kind is asked for.
    let both = args.theme.unwrap_or(if forms.len() < 3 { ThemeChoice::Light } else { ThemeChoice::Both });
    let themes = (both != ThemeChoice::Dark, both != ThemeChoice::Light);
    let wanted = |form: &&Form| form.dark().is_none_or(|dark| if dark { themes.1 } else { themes.0 });
    // A file that was named has that name, whatever it is for.
    let named = forms.len() < 3 && themes != (true, true);
    let file = |figure: &DocumentFigure, form: Form| folder.join(figure.file(if named { form.light() } else { form }));
    let forms: Vec<Form> = forms.iter().filter(wanted).copied().collect();
    let files = || drawn.iter().flat_map(|figure| forms.iter().map(move |form| (figure, *form)));
    files().try_for_each(|(figure, form)| report::check_place(&file(figure, form))).map_err(unusable)?;
    let mut written = Vec::new();
    for (figure, form) in files() {
        let path = file(figure, form);
        report::save(&path, &figure.bytes(form)).map_err(unusable)?;
        written.push(path);
    }
    let Some(markup) = &args.snippet else { return print(&lines(&written)) };
    let markup =
        Markup::ALL.into_iter().find(|(name, _)| name == markup).map_or(Markup::Markdown, |(_, markup)| markup);
    let from = args.relative_to.as_ref().map(|file| file.parent().unwrap_or(Path::new("")).to_path_buf());
    let base = from.map_or(Ok(String::new()), |from| relative(&from, &folder))?;
    let output = args.output.as_ref().map(|folder| shown(folder));
    let blocks = drawn.iter().map(|figure| {
        let command = figures::command(&request, figure, &shown(result), output.as_deref());
        snippet::block(markup, figure, &Place { folder: &base, themes, command: &command })
    });
    print(&blocks.collect::<Vec<_>>().join("\n"))
}

/// Folder, name without its ending, and forms of one file, light and dark; `None` for a folder.
fn single_file(path: &Path) -> Option<(PathBuf, String, Vec<Form>)> {
    let forms = match path.extension()?.to_str()? {
        "svg" => vec![Form::Svg, Form::SvgDark],
        "png" => vec![Form::Png, Form::PngDark],
        "txt" => vec![Form::Alt],
        _ => return None,
    };
    if path.is_dir() {
        return None;
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    Some((folder, path.file_stem()?.to_string_lossy().into_owned(), forms))
}

/// A folder as it is written into a document: as it was typed, but nothing of the machine where that is absolute.
pub(super) fn shown(path: &Path) -> String {
    let last = || path.file_name().map_or_else(|| path.to_path_buf(), PathBuf::from);
    let typed = if path.is_absolute() { last() } else { path.components().collect() };
    typed.to_string_lossy().into_owned()
}

/// The way from one folder to another, with `/`; empty where they are the same.
pub(super) fn relative(from: &Path, to: &Path) -> Result<String, Stop> {
    let real = |folder: &Path| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::canonicalize(folder).map_err(|e| {
            Stop::Unusable(format!("{} cannot be found: {e}. Name a folder that exists.", folder.display()))
        })
    };
    let (from, to) = (real(from)?, real(to)?);
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| "..".to_owned());
    let down = to.components().skip(shared).filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    Ok(up.chain(down).collect::<Vec<_>>().join("/"))
}
