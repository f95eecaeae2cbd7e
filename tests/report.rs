//! `report` on the committed reference result: figures for documents, blocks to paste, regions of Markdown files.
//!
//! **Invariant:** every test runs the built program; what it must not touch is compared byte for byte.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const REFERENCE: &str = "results/reference";
const END: &str = "<!-- pyalloc-bench:end -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn report_in(folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_pyalloc-bench");
    Command::new(program).current_dir(folder).arg("report").args(arguments).output().unwrap()
}

/// Its standard output; it must have ended with this code.
fn said(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    if code == 0 { out.into_owned() } else { format!("{out}{err}") }
}

/// A folder with `result/`: the reference with one of its workloads alone, which is soon analysed.
fn small_result() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result");
    fs::create_dir(&result).unwrap();
    let read = |name: &str| fs::read_to_string(root().join(REFERENCE).join(name)).unwrap();
    let mut environment: serde_json::Value = serde_json::from_str(&read("environment.json")).unwrap();
    environment["workloads"].as_array_mut().unwrap().retain(|workload| workload["name"] == "gc-cycles");
    environment["workloads"][0].as_object_mut().unwrap().remove("fidelity"); // as of a trace that `live` never met
    fs::write(result.join("environment.json"), environment.to_string()).unwrap();
    let of_it = |line: &&str| line.contains("\"workload\":\"gc-cycles\"");
    let runs: Vec<String> = read("runs.jsonl").lines().filter(of_it).map(|line| format!("{line}\n")).collect();
    assert!(!runs.is_empty());
    fs::write(result.join("runs.jsonl"), runs.concat()).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn readme_and_methodology_are_current() {
    let output = report_in(
        root(),
        &["--splice", "README.md", "--splice", "METHODOLOGY.md", "--splice", "docs/POOL_TUNED.md", "--check"],
    );
    assert!(said(&output, 0).contains("regions current"));
}

#[test]
fn the_committed_reference_is_what_its_runs_give() {
    said(&report_in(root(), &[REFERENCE, "--check"]), 0);
}

#[test]
fn a_figure_comes_in_every_form_and_width() {
    let folder = small_result();
    let here = folder.path();
    let options = ["result", "--chart", "memory", "--workload", "gc-cycles", "-o", "out", "--width"];
    for width in ["320", "720", "1400"] {
        said(&report_in(here, &[&options[..], &[width]].concat()), 0);
        let stem = here.join(format!("out/memory-gc-cycles-{width}"));
        let file = |ending: &str| fs::read(format!("{}{ending}", stem.display())).unwrap();
        let [light, dark] = [".svg", "-dark.svg"].map(|ending| String::from_utf8(file(ending)).unwrap());
        assert!(light.starts_with("<svg ") && light.contains(&format!("width=\"{width}\" ")) && light != dark);
        let [light, dark] = [".png", "-dark.png"].map(file);
        let wide = u32::from_be_bytes(light[16..20].try_into().unwrap());
        assert_eq!(wide, 2 * width.parse::<u32>().unwrap());
        assert_ne!(light, dark);
        let alt = String::from_utf8(file(".txt")).unwrap();
        assert!(alt.starts_with("Resident memory of gc-cycles") && alt.contains("MiB at peak"), "{alt}");
        assert!((2..=3).contains(&alt.matches(". ").count()), "two to four sentences: {alt}");
    }
    assert_eq!(names(&here.join("out")).len(), 3 * 5);
    assert!(!here.join("result/charts").exists(), "what was drawn elsewhere is not among the result's charts");
}

#[test]
fn configurations_are_chosen_and_ordered() {
    let folder = small_result();
    let options = ["result", "--chart", "memory", "-c", "jemalloc", "-c", "pool", "-o", "one.svg"];
    assert_eq!(said(&report_in(folder.path(), &options), 0), "one.svg\n");
    let svg = fs::read_to_string(folder.path().join("one.svg")).unwrap();
    let place = |name: &str| svg.find(&format!(">{name}</text>"));
    assert!(place("jemalloc").unwrap() < place("pool (our pymalloc)").unwrap(), "the order given");
    assert_eq!(place("mimalloc"), None);
    let caption = svg.split("process per allocator").nth(1).unwrap();
    assert!(caption.contains("jemalloc 5") && !caption.contains("mimalloc 3"), "the caption names what is shown");
    for piece in ["Linux 6", "THP", "2 CPUs", "pyalloc-bench 0.1.0", "2026-"] {
        assert!(caption.contains(piece), "no {piece} in the caption");
    }
    let dark = [&options[..], &["--theme", "dark"]].concat();
    assert_eq!(said(&report_in(folder.path(), &dark), 0), "one.svg\n");
    assert_ne!(fs::read_to_string(folder.path().join("one.svg")).unwrap(), svg, "the file that was named is dark");
    // The same colours as with all of them: a name for a name.
    said(&report_in(folder.path(), &["result", "--chart", "memory", "-o", "all.svg"]), 0);
    let all = fs::read_to_string(folder.path().join("all.svg")).unwrap();
    let colour = |svg: &str| {
        let before = svg.split(">jemalloc ").next().unwrap().to_owned();
        before.rsplit("fill=\"").next().unwrap().split('"').next().unwrap().to_owned()
    };
    assert_eq!(colour(&svg), colour(&all));
}

#[test]
fn wrong_requests_are_sentences() {
    let folder = small_result();
    fs::write(folder.path().join("plain.md"), "# Nothing here\n").unwrap();
    fs::write(folder.path().join("latin.md"), b"\xe9\xff").unwrap();
    let cases: [(&[&str], &str); 15] = [
        (&["result", "--chart", "pie"], "There is no chart \"pie\". Name one of: memory, peak-rest,"),
        (
            &["result", "--chart", "memory", "--workload", "x"],
            "no workload \"x\" in this result. Name one of: gc-cycles.",
        ),
        (&["result", "--chart", "memory", "-c", "x"], "No configuration \"x\" was measured. Name some of: "),
        (&["result", "--chart", "memory", "-c", "null"], "No configuration \"null\" was measured"),
        (&["result", "--chart", "memory", "-c", "pool", "-c", "pool"], "is named twice"),
        (&["result", "--chart", "time", "-c", "pool"], "against the baseline, which is all that was named"),
        (&["result", "--chart", "arenas", "-c", "jemalloc"], "measured nothing that the chart \"arenas\" shows"),
        (&["result", "--chart", "memory", "--width", "319"], "319"),
        (&["result", "--chart", "memory", "--width", "2001"], "2001"),
        (&["result", "--width", "720"], "--chart"),
        (&["result", "--chart", "memory", "--snippet", "word"], "markdown, html, rest"),
        (&["nowhere", "--chart", "memory"], "environment.json cannot be read"),
        (&["result", "--splice", "plain.md"], "plain.md has no region"),
        (&["result", "--splice", "latin.md"], "latin.md cannot be read"),
        (&["result", "--splice", "absent.md", "--check"], "absent.md cannot be read"),
    ];
    for (arguments, sentence) in cases {
        let text = said(&report_in(folder.path(), arguments), 2);
        assert!(text.contains(sentence), "{arguments:?}: {text}");
    }
    assert_eq!(names(&folder.path().join("result")), ["environment.json", "runs.jsonl"], "nothing was written");
    let options = [REFERENCE, "--chart", "memory", "-o", "never.svg"];
    assert!(said(&report_in(root(), &options), 2).contains("Name one with --workload"));
}

#[test]
fn blocks_name_their_files_from_the_document() {
    let folder = small_result();
    fs::create_dir(folder.path().join("docs")).unwrap();
    let block = |more: &[&str]| {
        let options = ["result", "--chart", "memory", "--width", "720", "--snippet"];
        said(&report_in(folder.path(), &[&options[..], more].concat()), 0)
    };
    let own = block(&["markdown", "-o", "pictures"]);
    assert!(own.starts_with(
        "<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"memory-gc-cycles-720-dark.svg\">\n"
    ));
    assert!(own.contains("<img src=\"memory-gc-cycles-720.svg\" width=\"720\" alt=\"Resident memory of gc-cycles"));
    let again = "`pyalloc-bench report result --chart memory --workload gc-cycles --width 720 -o pictures`";
    for piece in ["1 process per allocator", "jemalloc 5.3.1", "2026-", again] {
        assert!(own.contains(piece), "no {piece} in\n{own}");
    }
    let elsewhere = block(&["html", "-o", "pictures", "--relative-to", "docs/page.html"]);
    assert!(elsewhere.starts_with("<figure>\n") && elsewhere.contains("src=\"../pictures/memory-gc-cycles-720.svg\""));
    assert!(elsewhere.ends_with("</figcaption>\n</figure>\n"));
    let rest = block(&["rest", "-o", "pictures", "--relative-to", "index.rst"]);
    assert!(
        rest.starts_with(".. figure:: pictures/memory-gc-cycles-720.svg\n   :width: 720px\n   :alt: Resident"),
        "{rest}"
    );
    // The command in the block draws the files that it names.
    let before = fs::read(folder.path().join("pictures/memory-gc-cycles-720.png")).unwrap();
    fs::remove_dir_all(folder.path().join("pictures")).unwrap();
    let words: Vec<&str> = again.trim_matches('`').split(' ').skip(2).collect();
    said(&report_in(folder.path(), &words), 0);
    assert_eq!(fs::read(folder.path().join("pictures/memory-gc-cycles-720.png")).unwrap(), before);
}

/// A document with a region of every kind; `break_` ends its lines.
fn document(break_: &str) -> String {
    let mut text = String::from("# Title\n\nBefore.\n\n");
    for kind in [
        "terminal result",
        "terminal result --workload gc-cycles",
        "table result",
        "verdicts result --workload gc-cycles",
        "floors result",
        "provenance result",
        "chart memory result --workload gc-cycles --width 480 --folder pictures",
        "chart time --workload gc-cycles -c jemalloc -c pool",
    ] {
        text.push_str(&format!("<!-- pyalloc-bench:begin {kind} -->\n{END}\nBetween, with a `|` and  spaces.  \n"));
    }
    text.push_str("```\n<!-- pyalloc-bench:begin an example -->\n```\nThe last line has no end");
    text.replace('\n', break_)
}

#[test]
fn regions_are_filled_kept_and_checked() {
    for break_ in ["\n", "\r\n"] {
        let folder = small_result();
        let (here, file) = (folder.path(), folder.path().join("page.md"));
        fs::write(&file, document(break_)).unwrap();
        let check = ["result", "--splice", "page.md", "--check"];
        assert!(said(&report_in(here, &check), 1).contains("8 of 8 regions stale"));
        assert_eq!(fs::read_to_string(&file).unwrap(), document(break_), "a check writes nothing");
        said(&report_in(here, &check[..3]), 0);
        let filled = fs::read_to_string(&file).unwrap();
        assert_eq!(filled.matches('\n').count() * (break_.len() - 1), filled.matches("\r\n").count(), "line ends");
        for piece in
            ["```text", "| allocator |", "1 process per allocator", "pictures/memory-gc-cycles-480-dark.svg", "against"]
        {
            assert!(filled.contains(piece), "no {piece} in\n{filled}");
        }
        assert!(here.join("pictures/memory-gc-cycles-480.svg").exists());
        assert!(here.join("result/charts/time-gc-cycles-jemalloc-pool.svg").exists());
        assert!(!filled.contains(&*here.to_string_lossy()), "a path of the machine got into the document");
        // Outside of the regions nothing has changed.
        let outside = |text: &str| {
            let mut inside = false;
            let kept = text.split_inclusive('\n').filter(|line| {
                let (begins, ends) = (line.contains(":begin ") && !line.contains("example"), line.contains(END));
                inside = begins || (inside && !ends);
                begins || ends || !inside
            });
            kept.collect::<String>()
        };
        assert_eq!(outside(&filled), document(break_));
        said(&report_in(here, &check), 0);
        said(&report_in(here, &check[..3]), 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), filled, "a second time changes nothing");
        stale_regions_are_named(here, &file, &filled, &check);
    }
}

fn stale_regions_are_named(here: &Path, file: &Path, filled: &str, check: &[&str]) {
    let changed = filled.replacen("| pool 0.1.0 |", "| pool 9.9.9 |", 1);
    assert_ne!(changed, filled);
    fs::write(file, &changed).unwrap();
    let text = said(&report_in(here, check), 1);
    assert!(text.contains(": table result\n") && text.contains("- | pool 9.9.9 |"), "{text}");
    assert!(text.contains("+ | pool 0.1.0 |") && text.contains("1 of 8 regions stale"), "{text}");
    assert_eq!(fs::read_to_string(file).unwrap(), changed);
    fs::write(file, filled).unwrap();
    let picture = here.join("pictures/memory-gc-cycles-480-dark.svg");
    fs::write(&picture, "<svg/>").unwrap();
    assert!(said(&report_in(here, check), 1).contains("is not what would be drawn"));
    fs::remove_file(&picture).unwrap();
    assert!(said(&report_in(here, check), 1).contains("is missing"));
    said(&report_in(here, &check[..3]), 0);
    said(&report_in(here, check), 0);
}

#[test]
fn wrong_marks_leave_the_file_alone() {
    let folder = small_result();
    let (here, file) = (folder.path(), folder.path().join("page.md"));
    let region = |words: &str| format!("<!-- pyalloc-bench:begin {words} -->\nold\n{END}\n");
    let cases: [(String, &str); 11] = [
        (region("tabel result"), "page.md:3: unrecognized subcommand 'tabel'"),
        (region(""), "page.md:3: "),
        (region("table"), "page.md:3: The region names no result."),
        (region("table nowhere"), "page.md:3: nowhere/environment.json cannot be read"),
        (region("table result --workload x"), "page.md:3: There is no workload \"x\""),
        (region("chart pie result"), "page.md:3: There is no chart \"pie\""),
        (region("chart memory result --width 9"), "page.md:3: invalid value '9'"),
        (region("fidelity result"), "page.md:3: The result has nothing of this kind."),
        (region("table result").replace(END, ""), "page.md:3: The region is not closed."),
        (
            format!("<!-- pyalloc-bench:begin table result -->\n{}", region("table result")),
            "page.md:4: A region begins",
        ),
        (format!("{}{END}\n", region("table result")), "page.md:6: A region ends that did not begin."),
    ];
    for (text, sentence) in cases {
        // A first region that would be written, were the second one right.
        let text =
            format!("x\n\n{text}\n{}", if text.contains(END) { region("provenance result") } else { String::new() });
        fs::write(&file, &text).unwrap();
        for more in [&[][..], &["--check"]] {
            let said = said(&report_in(here, &[&["--splice", "page.md"][..], more].concat()), 2);
            assert!(said.contains(sentence), "{said}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }
    assert!(!here.join("result/charts").exists());
}

#[test]
fn the_same_result_gives_the_same_bytes_wherever_and_whenever() {
    let made = [("UTC", "C"), ("Asia/Tokyo", "de_DE.UTF-8")].map(|(zone, locale)| {
        let folder = small_result();
        fs::write(folder.path().join("page.md"), document("\n")).unwrap();
        for arguments in [
            &["result", "--splice", "page.md"][..],
            &["result", "--chart", "peak-rest", "--width", "600", "-o", "out"],
            &["result"],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
            command.current_dir(folder.path()).arg("report").args(arguments).env("TZ", zone).env("LC_ALL", locale);
            said(&command.output().unwrap(), 0);
        }
        let files = ["page.md", "pictures/memory-gc-cycles-480.svg", "out/peak-rest-gc-cycles-600-dark.png"];
        let more = ["out/peak-rest-gc-cycles-600.txt", "result/report.html", "result/charts/memory-gc-cycles.png"];
        files.into_iter().chain(more).map(|name| (name, read(&folder.path().join(name)))).collect::<Vec<_>>()
    });
    for ((name, a), (_, b)) in made[0].iter().zip(&made[1]) {
        assert!(a == b, "{name} differs");
    }
}

fn read(path: &PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}
