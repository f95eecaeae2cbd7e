//! What every report must hold, on invented results: whole, damaged and odd ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::analysis::fixture::{self, Invention};
use crate::analysis::{Percentile, Verdict};
use crate::run::{Environment, Outcome, Pass, Run};
use crate::units;
use proptest::prelude::*;
use std::fmt::Write;
use std::fs;
use std::sync::LazyLock;

/// Twelve blocks, six footprint runs, one failed run, one configuration without a latency pass.
fn damaged() -> (Environment, Vec<Run>) {
    let what = Invention { failures: true, footprint_runs: 6, ..Invention::default() };
    (fixture::environment(&what), fixture::runs(&what))
}

fn store(dir: &Path, environment: &Environment, runs: &[Run]) {
    fs::write(dir.join(run::ENVIRONMENT_FILE), serde_json::to_string(environment).unwrap()).unwrap();
    let mut lines = String::new();
    for run in runs {
        let _ = writeln!(lines, "{}", serde_json::to_string(run).unwrap());
    }
    fs::write(dir.join(run::RUNS_FILE), lines).unwrap();
}

/// Every file below a folder, by name, in order.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.strip_prefix(dir).unwrap().to_path_buf(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_table_shows_what_was_invented() {
    let (environment, runs) = damaged();
    let text = terminal(&analysis::analyse(environment, &runs));
    for line in [
        "2 workloads x 4 allocators, 206 runs · 2 cores · Linux 6.18.0 · THP madvise · glibc 2.36",
        "WARNING: 1 FAILED run; the reasons stand at the end, the figures are of what measured.",
        "small-objects   3.1 M calls · live 14.0 MiB at peak, 7.87 at rest · pool = 2.0 % of the program's CPU",
        "FAILED mimalloc on small-objects (throughput): replay: the child was killed by SIGSEGV <invented & escaped>;",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis missing in\n{text}");
    }
    let row = |name: &str| text.lines().find(|l| l.trim_start().starts_with(name)).unwrap();
    assert!(row("pool").contains("6.64  1.00 "), "{text}");
    assert!(row("system").contains("] worse "), "{text}");
    assert!(row("mimalloc 3.3.2").contains(" 0.72 [0.70 0.74] better "), "{text}");
    assert!(row("jemalloc").contains(" – "), "no latency pass, so no p99.9: {text}");
    assert!(row("start-up").starts_with("  start-up, ns/call: pool 6."), "{text}");
    assert!(text.contains("null allocator with the touch 2.15 ns per call · clock 20"), "{text}");
}

#[test]
fn no_line_is_too_long_for_a_terminal() {
    let (mut environment, mut runs) = damaged();
    environment.configs[1].label = "x".repeat(200);
    for config in &mut environment.configs {
        if config.name == "system" {
            config.allocators[0].version = "version ".repeat(30);
        }
    }
    for run in &mut runs {
        if let Outcome::Failed { reason, .. } = &mut run.outcome {
            *reason = format!("{} {}", "long ".repeat(80), "y".repeat(300));
        }
    }
    let text = terminal(&analysis::analyse(environment, &runs));
    for line in text.lines() {
        assert!(line.chars().count() <= terminal::WIDTH, "{line}");
    }
}

#[test]
fn few_blocks_give_ranges_and_no_verdict() {
    let found = fixture::analysis(&Invention { blocks: 5, ..Invention::default() });
    let compared: Vec<_> = found.workloads.iter().flat_map(|w| &w.configs).filter_map(|c| c.ns_per_call).collect();
    assert!(compared.iter().all(|figure| !figure.value.interval));
    let verdicts: Vec<_> = compared.iter().filter_map(|figure| figure.versus).map(|c| c.verdict).collect();
    assert_eq!(verdicts, [Verdict::Inconclusive; 6]);
    assert_eq!(found.verdicts, 0);
    assert!(terminal(&found).contains("(low high): the range; too few blocks for a verdict"));
}

#[test]
fn a_trace_without_steady_says_that_everything_counts() {
    let found = fixture::analysis(&Invention { steady: false, ..Invention::default() });
    assert!(found.workloads.iter().all(|w| !w.steady && w.program_cpu_ns.is_none()));
    for text in [terminal(&found), markdown(&found), html::page(&found, &[])] {
        assert!(text.contains("everything counts"), "{text}");
    }
}

#[test]
fn a_debug_build_is_said_loudly() {
    let what = Invention::default();
    let mut environment = fixture::environment(&what);
    environment.harness.profile = "debug".into();
    let found = analysis::analyse(environment, &fixture::runs(&what));
    for text in [terminal(&found), markdown(&found), html::page(&found, &[])] {
        assert!(text.contains("a debug build measured this"), "{text}");
    }
}

#[test]
fn an_allocator_against_itself_is_no_different() {
    let what = Invention { footprint_runs: 6, ..Invention::default() };
    let (mut environment, mut runs) = (fixture::environment(&what), fixture::runs(&what));
    let mut twin = environment.configs[1].clone();
    twin.name = "system-again".into();
    environment.configs.push(twin);
    // The twin is measured by the same allocator's runs of the block before.
    let again: Vec<Run> = runs
        .iter()
        .filter(|run| run.config == "system" && run.pass != Pass::Latency)
        .map(|run| {
            let of = if run.pass == Pass::Throughput { what.blocks } else { what.footprint_runs };
            Run { config: "system-again".into(), block: (run.block + 1) % of, ..run.clone() }
        })
        .collect();
    runs.extend(again);
    let found = analysis::analyse(environment, &runs);
    let twins = found.twins.unwrap();
    assert_eq!((twins.verdicts, twins.different), (10, 0));
    assert!(terminal(&found).contains("A/A: no difference"));
}

#[test]
fn the_same_result_gives_the_same_bytes() {
    let (environment, runs) = damaged();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), &environment, &runs);
    let written = write_all(dir.path()).unwrap();
    let first = contents(dir.path());
    assert_eq!(first.len(), written.len() + 2, "nothing but what is named is written");
    let other = tempfile::tempdir().unwrap();
    store(other.path(), &environment, &runs);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| write_all(other.path())).unwrap();
    for ((name, a), (_, b)) in first.iter().zip(contents(other.path())) {
        assert!(*a == b, "{} differs", name.display());
        let text = String::from_utf8_lossy(a);
        assert!(!text.contains(&*dir.path().to_string_lossy()), "{} names its folder", name.display());
    }
    assert!(written.iter().any(|path| path.ends_with("charts/memory-small-objects.svg")));
    assert!(written.iter().any(|path| path.ends_with("charts/time-large-arrays.png")));
    write_all(dir.path()).unwrap();
    assert!(first == contents(dir.path()), "a second report differs from the first");
}

#[test]
fn a_chart_can_be_asked_for_alone() {
    let found = fixture::analysis(&Invention { blocks: 6, footprint_runs: 1, latency_runs: 1, ..Invention::default() });
    let stems: Vec<String> = charts(&found, Some("time")).into_iter().map(|chart| chart.stem).collect();
    assert_eq!(stems, ["time-small-objects", "time-large-arrays"]);
    let request =
        |chart: &str| figures::Request { chart: chart.into(), workload: None, configs: vec![], width: chart::WIDTH };
    let stems = figures::figures(&found, &request("time")).unwrap().into_iter().map(|figure| figure.stem);
    assert_eq!(stems.collect::<Vec<_>>(), ["time-small-objects", "time-large-arrays"]);
    let error = figures::figures(&found, &request("pie")).unwrap_err().to_string();
    assert!(error.starts_with("There is no chart \"pie\". Name one of: memory, peak-rest,"), "{error}");
}

#[test]
fn a_folder_that_is_no_result_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", write_all(dir.path()).unwrap_err());
    assert!(error.contains("environment.json cannot be read: there is no such file"), "{error}");
}

/// Walks the tags of a page: every tag that opens must close in order, and every quote must end.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 4] = ["meta", "!DOCTYPE", "br", "link"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a bare > before {}", &rest[start..rest.len().min(start + 80)]);
        let end = rest[start..].find('>').map(|end| start + end).expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "a quote is open in <{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes something else");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

/// A page without style and script, in which `<` and `>` may mean something else.
fn markup(page: &str) -> String {
    let markup = page.replace(html::STYLE, "").replace(html::SCRIPT, "");
    assert!(page.len() - markup.len() == html::STYLE.len() + html::SCRIPT.len(), "style or script is not there once");
    markup
}

#[test]
fn the_page_is_well_formed_escaped_and_loads_nothing() {
    let (mut environment, mut runs) = damaged();
    let evil = "<script>alert(\"1\")</script> & 'quoted'";
    environment.workloads[1].name = evil.into();
    environment.workloads[1].story = evil.into();
    environment.configs[3].name = evil.into();
    environment.configs[3].allocators[0].version = evil.into();
    for run in &mut runs {
        if run.workload == "large-arrays" {
            run.workload = evil.into();
        }
        if run.config == "jemalloc" {
            run.config = evil.into();
        }
    }
    let found = analysis::analyse(environment, &runs);
    let svg = "<?xml version=\"1.0\"?>\n<svg viewBox=\"0 0 1 1\"><title>t</title><path d=\"M0 0\"/></svg>\n".to_owned();
    let svg_dark = svg.clone();
    let inline = chart::inline::Inline { subtitle: evil.into(), provenance: vec![evil.into()], ..Default::default() };
    let chart =
        RenderedChart { workload: 1, stem: evil.into(), title: evil.into(), svg, svg_dark, png: vec![], inline };
    let mut all = charts(&found, None);
    assert!(all.iter().all(|chart| !chart.stem.contains(['<', '/', '"', ' '])), "a name got into a file name");
    assert_eq!(all.len(), 2 * chart::ALL.len());
    all.push(chart);
    let page = html::page(&found, &all);
    assert_well_formed(&markup(&page));
    assert!(!page.contains("<script>alert"), "a name got through");
    assert_eq!(page.matches("<script").count(), all.len() + 2, "a script that is not the page's own");
    assert!(!page.contains("<?xml"), "a prolog inside the page");
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "the page loads {outside}");
    }
    assert_eq!(page.matches("<table").count(), page.matches("<caption>").count());
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("<figcaption>") && page.contains("seed 42"), "provenance is missing");
}

#[test]
fn the_page_shows_every_workload_and_marks_every_allocator_everywhere() {
    let (environment, runs) = damaged();
    let found = analysis::analyse(environment, &runs);
    let all = charts(&found, None);
    let page = html::page(&found, &all);
    for (index, workload) in found.workloads.iter().enumerate() {
        let from = page.find(&format!("<section id=\"workload-{index}\">")).unwrap();
        let section = &page[from..from + page[from..].find("</section>").unwrap()];
        assert!(page.contains(&format!("<a href=\"#workload-{index}\">{}</a>", workload.name)));
        for (name, slot) in html::names(&found, workload) {
            let row = format!("<tr data-series=\"{slot}\"><th scope=\"row\">{}</th>", html::escape(&name));
            assert!(section.contains(&row), "{name} has no row in {}", workload.name);
        }
        for chart in all.iter().filter(|chart| chart.workload == index) {
            assert!(section.contains(&chart.inline.svg) && section.contains(&chart.inline.data), "{}", chart.stem);
        }
    }
    for (slot, config) in chart::theme::slots(&found.environment.configs).into_iter().zip(&found.environment.configs) {
        let entry = format!("<li data-series=\"{slot}\"><span class=\"chip\">");
        assert!(config.floor || page.contains(&entry), "{} is in no legend", config.name);
    }
    let cells = page.matches("<td class=\"v").count();
    assert_eq!(cells, 4 * found.workloads.iter().map(|w| w.configs.len() - 1).sum::<usize>());
    assert!(page.contains("<td class=\"v better\">0.72 <span>better</span></td>"), "{page}");
}

/// The result in the repository, which is as large as a default run makes it.
#[test]
fn the_page_of_a_default_run_is_small_enough_to_send() {
    let found = analyse(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/reference")).unwrap();
    let mut all = Vec::new();
    for (workload, chart) in (0..found.workloads.len()).flat_map(|w| chart::ALL.iter().map(move |c| (w, c))) {
        let Some(drawing) = (chart.draw)(&found, workload) else { continue };
        let [svg, svg_dark] = [(); 2].map(|()| String::new());
        let (stem, title, inline) = (format!("{}-{workload}", chart.key), chart.title.to_owned(), drawing.inline());
        all.push(RenderedChart { workload, stem, title, svg, svg_dark, png: vec![], inline });
    }
    let page = html::page(&found, &all);
    assert!(all.len() > 10 && page.len() < 2_000_000, "{} charts, {} bytes", all.len(), page.len());
}

#[test]
fn the_page_says_how_blocks_died_and_what_a_switch_saves() {
    let (environment, runs) = damaged();
    let page = html::page(&analysis::analyse(environment, &runs), &[]);
    assert!(page.contains("96 % died by reference count (or were freed by C code), 3.8 % in 40 collections"), "{page}");
    assert!(page.contains("switching to the fastest saves at most"));
    assert!(page.contains("latency by size class and page fault"));
    assert!(page.contains("<th scope=\"row\">obj</th><td class=\"n\">3.1 M</td><td class=\"n\">100 %</td>"), "{page}");
    assert!(page.contains("J&amp;W 4: most over most"));
}

#[test]
fn the_pools_bytes_add_up_and_the_classes_are_told_as_cpython_tells_them() {
    let (environment, runs) = damaged();
    let found = analysis::analyse(environment, &runs);
    for (w, workload) in found.workloads.iter().enumerate() {
        let table = pools::budget(&found, workload).unwrap();
        let run = runs.iter().find_map(|run| match &run.outcome {
            Outcome::Ok(run::Observation::Footprint(f)) if run.workload == workload.name => f.pools.as_deref(),
            _ => None,
        });
        let run = run.unwrap();
        let moments = [&run.at_peak, run.at_drained.as_ref().unwrap(), &run.at_end];
        assert_eq!(table.rows.len(), moments.len());
        for ((row, at), name) in table.rows.iter().zip(moments).zip(["at peak", "at rest", "at end"]) {
            assert_eq!(at.budget().iter().map(|(_, bytes)| bytes).sum::<u64>(), at.arenas_mapped << 20);
            let released = at.arenas_mapped_total - at.arenas_mapped;
            let counts = [at.arenas_mapped, at.arenas_mapped_total, released].map(|n| n.to_string());
            assert_eq!(row[1..6], [&[name.to_owned()], &counts[..], &[units::mib(at.mapped_bytes() as f64)]].concat());
            let (mut mib, mut share) = (0.0, 0.0);
            for (cell, (_, bytes)) in row[6..].iter().zip(at.budget()) {
                let (bytes_text, share_text) = cell.split_once(" · ").unwrap();
                assert_eq!(bytes_text, units::mib(bytes as f64));
                mib += bytes_text.parse::<f64>().unwrap();
                share += share_text.trim_end_matches(" %").parse::<f64>().unwrap();
            }
            assert!((mib - at.arenas_mapped as f64).abs() < 0.2 + 0.01 * mib && (share - 100.0).abs() < 1.5, "{row:?}");
        }
        let config = &workload.configs[0];
        let classes = pools::classes(&found, workload, config).unwrap();
        let expected = run.at_end.classes.iter().enumerate().map(|(i, c)| {
            [i as u64, c.block_bytes, c.pools, c.blocks_in_use, c.blocks_available].map(|n| n.to_string()).to_vec()
        });
        assert!(classes.rows.iter().cloned().eq(expected), "{classes:?}");
        let names = html::names(&found, workload);
        let (page, text) = (html::page(&found, &[]), markdown(&found));
        for table in [&table, &classes] {
            assert!(page.contains(&table.html_by(&names)), "workload {w}: {page}");
            assert!(text.contains(&table.markdown()), "workload {w}: {text}");
        }
    }
}

#[test]
fn a_result_from_before_pools_were_read_is_read() {
    let (environment, runs) = damaged();
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), &environment, &runs);
    let path = dir.path().join(run::RUNS_FILE);
    let mut old = String::new();
    for line in fs::read_to_string(&path).unwrap().lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(footprint) = line.pointer_mut("/outcome/ok/footprint") {
            footprint.as_object_mut().unwrap().remove("pools").unwrap();
        }
        let _ = writeln!(old, "{line}");
    }
    fs::write(&path, old).unwrap();
    let written = write_all(dir.path()).unwrap();
    let charts = written.iter().filter(|path| path.extension().is_some_and(|ending| ending == "png")).count();
    assert_eq!(charts, 2 * (chart::ALL.len() - 1));
    for file in [PAGE_FILE, SUMMARY_FILE] {
        assert!(!fs::read_to_string(dir.path().join(file)).unwrap().contains("where the pool's bytes are"), "{file}");
    }
    let request = figures::Request { chart: "arenas".into(), workload: None, configs: Vec::new(), width: chart::WIDTH };
    let error = figures::figures(&analyse(dir.path()).unwrap(), &request).unwrap_err().to_string();
    assert!(error.starts_with("This result measured nothing that the chart \"arenas\" shows."), "{error}");
}

/// A damaged result without and with the `steady` mark.
static ODD: LazyLock<[(Environment, Vec<Run>); 2]> = LazyLock::new(|| {
    [false, true].map(|steady| {
        let what = Invention { failures: true, footprint_runs: 6, steady, ..Invention::default() };
        (fixture::environment(&what), fixture::runs(&what))
    })
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever subset of runs is left, everything that is read from it works, and no figure is below nothing.
    #[test]
    fn any_subset_of_runs_can_be_read(kept in proptest::collection::vec(any::<bool>(), 206), steady: bool) {
        let (environment, all) = &ODD[usize::from(steady)];
        let runs: Vec<Run> = kept.iter().zip(all).filter(|(kept, _)| **kept).map(|(_, run)| run.clone()).collect();
        let found = analysis::analyse(environment.clone(), &runs);
        prop_assert_eq!((found.ok_runs + found.failed_runs) as usize, runs.len());
        for config in found.workloads.iter().flat_map(|w| &w.configs) {
            for (key, figure) in &config.metrics {
                let value = &figure.value;
                prop_assert!(0.0 <= value.low && value.low <= value.median && value.median <= value.high, "{key}");
            }
            for row in config.latency.iter().flat_map(|l| &l.rows) {
                let ns: Vec<f64> = row.percentiles.iter().flatten().map(|p| match p {
                    Percentile::Ns(ns) | Percentile::Below(ns) => *ns,
                }).collect();
                prop_assert!(ns.iter().all(|ns| *ns > 0.0));
            }
        }
        for (workload, chart) in (0..found.workloads.len()).flat_map(|w| chart::ALL.iter().map(move |c| (w, c))) {
            prop_assert!((chart.draw)(&found, workload).is_none_or(|drawing| !drawing.alt().is_empty()));
        }
        prop_assert!(!terminal(&found).is_empty() && !markdown(&found).is_empty());
        assert_well_formed(&markup(&html::page(&found, &[])));
    }
}
