//! What must hold for every chart of every result, however odd the result.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::figure::{Figure, Mark, Series};
use super::scene::{Area, Shape};
use super::*;
use crate::analysis::fixture::{self, Invention};
use crate::analysis::{ConfigAnalysis, MemoryAnalysis};
use crate::run::{ArenaRow, ConfigFacts, RestState};
use crate::units::MIB;
use std::sync::LazyLock;

/// A result without anything odd.
fn plain() -> Analysis {
    static PLAIN: LazyLock<Analysis> = LazyLock::new(|| fixture::analysis(&Invention::default()));
    PLAIN.clone()
}

fn changed(mut change: impl FnMut(&mut Analysis)) -> Analysis {
    let mut analysis = plain();
    change(&mut analysis);
    analysis
}

/// Multiplies every memory reading and figure.
fn scale_memory(memory: &mut MemoryAnalysis, factor: f64) {
    let bytes = |value: &mut u64| *value = (*value as f64 * factor) as u64;
    let points = memory.curve.iter_mut().chain(memory.rest_curve.iter_mut().map(|rest| &mut rest.memory));
    for point in points.chain([&mut memory.at_peak, &mut memory.at_rest]) {
        bytes(&mut point.requested_bytes);
        bytes(&mut point.usable_bytes);
        bytes(&mut point.resident_bytes);
        bytes(&mut point.lazy_free_bytes);
    }
    for figure in [&mut memory.peak, &mut memory.end, &mut memory.rest] {
        figure.value.median *= factor;
        figure.value.low *= factor;
        figure.value.high *= factor;
    }
    memory.rest_live_bytes *= factor;
    memory.peak_live_bytes *= factor;
}

fn each_config(analysis: &mut Analysis, mut change: impl FnMut(usize, &mut ConfigAnalysis)) {
    for workload in &mut analysis.workloads {
        workload.configs.iter_mut().enumerate().for_each(|(i, config)| change(i, config));
    }
}

/// A result with many configurations of long names.
fn crowd(count: usize) -> Analysis {
    changed(|analysis| {
        for i in 0..count {
            let name = format!("lean-{i}");
            let label = format!("MALLOC_ARENA_MAX={i} ARROW_DEFAULT_MEMORY_POOL=system");
            let facts = ConfigFacts { name: name.clone(), label: label.clone(), ..ConfigFacts::default() };
            analysis.environment.configs.push(facts);
            let config = analysis.environment.configs.len() - 1;
            for workload in &mut analysis.workloads {
                let like = workload.configs[i % 4].clone();
                workload.configs.push(ConfigAnalysis { config, name: name.clone(), label: label.clone(), ..like });
            }
        }
    })
}

/// A result whose pool has so many arenas, each of which shows every step of the scale and is gone for a while.
pub(super) fn with_arenas(count: u32) -> Analysis {
    changed(|analysis| {
        each_config(analysis, |_, config| {
            let Some(pools) = config.memory.as_mut().unwrap().pools.as_mut() else { return };
            let readings = pools.map.ops.len() as u32;
            let in_use = |arena: u32, i: u32| (arena + i) % 7 * u32::from(!(arena + i).is_multiple_of(3)) * 11 % 65;
            let at = |arena, i| ((arena + i / 9) % 5 > 0).then(|| in_use(arena, i));
            let row = |arena| ArenaRow { pools: 64, in_use: (0..readings).map(|i| (1, at(arena, i))).collect() };
            pools.map.arenas = (0..count).map(row).collect();
        });
    })
}

/// Results that have gone wrong for some chart somewhere.
fn odd_results() -> Vec<(&'static str, Analysis)> {
    let scaled = |factor: f64| {
        changed(|analysis| each_config(analysis, |_, c| scale_memory(c.memory.as_mut().unwrap(), factor)))
    };
    let mut all = odd_pools();
    all.extend([
        ("plain", plain()),
        ("failures", fixture::analysis(&Invention { failures: true, ..Invention::default() })),
        ("no steady mark", fixture::analysis(&Invention { steady: false, ..Invention::default() })),
        (
            "one process each",
            fixture::analysis(&Invention { blocks: 1, latency_runs: 1, footprint_runs: 1, ..Invention::default() }),
        ),
        ("one allocator", changed(|a| a.workloads.iter_mut().for_each(|w| w.configs.truncate(1)))),
        ("baseline missing", changed(|a| a.workloads.iter_mut().for_each(|w| drop(w.configs.remove(0))))),
        ("eight more configurations", crowd(8)),
        ("a few KiB", scaled(1e-4)),
        ("hundreds of GiB", scaled(1e4)),
        ("nothing resident", scaled(0.0)),
        (
            "magnitudes apart",
            changed(|a| {
                each_config(a, |i, c| scale_memory(c.memory.as_mut().unwrap(), 30f64.powi(i as i32)));
                each_config(a, |i, c| {
                    if let Some(versus) = c.ns_per_call.as_mut().unwrap().versus.as_mut() {
                        versus.ratio.median *= 20f64.powi(i as i32);
                        versus.ratio.high *= 40f64.powi(i as i32);
                    }
                });
            }),
        ),
        (
            "thousands of collections",
            changed(|a| {
                for workload in &mut a.environment.workloads {
                    let every = workload.image.events / 5000;
                    let spans = (0..4999).map(|i| (i * every, i * every + every / 3, u8::from(i % 10 == 0)));
                    workload.shape.collections = spans.collect();
                }
            }),
        ),
        (
            "marks on top of each other",
            changed(|a| {
                for workload in &mut a.environment.workloads {
                    workload.image.phase_ops = [Some(0), Some(990_000), Some(995_000), Some(999_999)];
                }
            }),
        ),
        (
            "no facts of the host",
            changed(|a| {
                a.environment.host = crate::run::HostFacts::default();
                a.environment.workloads.iter_mut().for_each(|w| w.shape = trace::Shape::default());
            }),
        ),
        (
            "curves of nothing",
            changed(|a| {
                each_config(a, |_, c| {
                    let memory = c.memory.as_mut().unwrap();
                    memory.curve.clear();
                    memory.rest_curve.clear();
                })
            }),
        ),
        (
            "a long name",
            changed(|a| {
                a.workloads[0].name = "a-workload-whose-name-somebody-took-from-the-path-of-the-file-".repeat(2)
            }),
        ),
    ]);
    all
}

/// Results in which the pools are odd.
fn odd_pools() -> Vec<(&'static str, Analysis)> {
    vec![
        ("nobody tells of pools", changed(|a| each_config(a, |_, c| c.memory.as_mut().unwrap().pools = None))),
        ("no arenas", with_arenas(0)),
        ("one arena", with_arenas(1)),
        ("two arenas", with_arenas(2)),
        ("three hundred arenas", with_arenas(300)),
        ("five thousand arenas", with_arenas(5_000)),
        (
            "arenas read only once, and then no more",
            changed(|a| {
                each_config(a, |_, c| {
                    let Some(pools) = c.memory.as_mut().unwrap().pools.as_mut() else { return };
                    pools.map.ops = vec![1_000_000];
                    pools.map.stopped_at = Some(1_000_000);
                    pools.map.arenas.iter_mut().for_each(|arena| arena.in_use = vec![(1, Some(0))]);
                });
            }),
        ),
        (
            "pools in every configuration",
            changed(|a| {
                for workload in &mut a.workloads {
                    let pools = workload.configs[0].memory.as_ref().unwrap().pools.clone();
                    workload.configs.iter_mut().for_each(|c| c.memory.as_mut().unwrap().pools = pools.clone());
                }
            }),
        ),
    ]
}

/// Every chart of a result, with a name for messages.
fn drawings(analysis: &Analysis) -> Vec<(String, Drawing)> {
    let workloads = 0..analysis.workloads.len();
    let pairs = workloads.flat_map(|w| ALL.iter().map(move |chart| (w, chart)));
    pairs.filter_map(|(w, chart)| Some((format!("{}-{w}", chart.key), (chart.draw)(analysis, w)?))).collect()
}

#[test]
fn every_chart_draws_every_workload_of_a_plain_result() {
    assert_eq!(drawings(&plain()).len(), 2 * ALL.len());
    assert!(drawings(&plain()).iter().all(|(_, drawing)| !drawing.alt().is_empty()));
    assert!(ALL.iter().all(|chart| (chart.draw)(&plain(), 99).is_none()));
}

/// Widths from a telephone's to a slide's.
const TRIED: [u32; 6] = [320, 480, 720, 1000, 1400, 2000];

#[test]
fn no_text_is_clipped_or_overlaps_another_at_any_width() {
    for (result, analysis) in odd_results() {
        for (name, drawing) in drawings(&analysis) {
            for width in TRIED {
                let scene = drawing.clone().laid_out(width).scene;
                let what = format!("{result}, {name}, {width} wide");
                let canvas = Area { left: 0.0, top: 0.0, right: scene.size.0, bottom: scene.size.1 };
                assert_eq!(canvas.right, f64::from(width));
                let boxes: Vec<(&str, Area)> =
                    scene.texts.iter().map(|text| (text.text.as_str(), text.area())).collect();
                for (i, (text, area)) in boxes.iter().enumerate() {
                    assert!(canvas.contains(area), "{what}: \"{text}\" is clipped: {area:?} in {canvas:?}");
                    for (other, place) in boxes[..i].iter().filter(|(other, _)| !other.is_empty()) {
                        let apart = text.is_empty() || !area.overlaps(place);
                        assert!(apart, "{what}: \"{text}\" and \"{other}\" overlap: {area:?}, {place:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_shape_lies_on_the_canvas_at_any_width() {
    for (result, analysis) in odd_results() {
        for (name, drawing) in drawings(&analysis) {
            for width in TRIED {
                let scene = drawing.clone().laid_out(width).scene;
                let (wide, high) = scene.size;
                for shape in &scene.shapes {
                    let points = match shape {
                        Shape::Path { points, .. } | Shape::Polygon { points, .. } => points.clone(),
                        Shape::Rect { from, to, .. } => vec![*from, *to],
                        Shape::Cells { cells, .. } => cells.iter().flat_map(|(from, to)| [*from, *to]).collect(),
                        Shape::Disc { at, .. } => vec![*at],
                    };
                    for (x, y) in points {
                        let on = (0.0..=wide).contains(&x) && (0.0..=high).contains(&y);
                        assert!(on, "{result}, {name}, {width} wide: ({x}, {y}) of {shape:?}");
                    }
                }
            }
        }
    }
}

/// A picture shown at half its size still has letters that can be read: 7 px for what is said, 6 px for the caption.
#[test]
fn texts_are_large_enough_for_half_the_size() {
    for (name, drawing) in drawings(&plain()) {
        let caption = drawing.figure.provenance.join(" · ");
        for width in TRIED {
            for text in &drawing.clone().laid_out(width).scene.texts {
                let least = if caption.contains(&text.text) { 6.0 } else { 6.75 };
                assert!(text.size / 2.0 >= least, "{name}, {width} wide: {} px for \"{}\"", text.size, text.text);
            }
        }
    }
}

/// Whatever the width: every value that a wide picture writes into columns, every axis label and the whole caption.
#[test]
fn a_narrow_picture_says_what_a_wide_one_says() {
    for (name, drawing) in drawings(&plain()) {
        for width in TRIED {
            let scene = drawing.clone().laid_out(width).scene;
            let written: Vec<&str> = scene.texts.iter().map(|text| text.text.as_str()).collect();
            let written = written.join(" ");
            let panels = || drawing.figure.panels.iter();
            let labels = panels().flat_map(|panel| [&panel.x.label, &panel.y.label]);
            let cells = panels().flat_map(|panel| &panel.columns).flat_map(|column| &column.cells);
            let named = panels().flat_map(|panel| panel.x.ticks.iter().chain(&panel.y.ticks)).filter(|tick| tick.name);
            let said = labels.chain(cells.map(|(_, text)| text)).chain(named.map(|tick| &tick.text));
            for text in said.chain(&drawing.figure.provenance) {
                let broken = || text.split(' ').all(|word| written.contains(word));
                assert!(written.contains(text.as_str()) || broken(), "{name}, {width} wide: no \"{text}\"");
            }
        }
    }
}

#[test]
fn every_axis_says_what_it_shows_and_in_which_unit() {
    const UNITS: [&str; 9] = ["MiB", "KiB", "GiB", "%", ", s", "ns", "ratio", "allocator", "arena"];
    for (result, analysis) in odd_results() {
        for (name, drawing) in drawings(&analysis) {
            for axis in drawing.figure.panels.iter().flat_map(|panel| [&panel.x, &panel.y]) {
                let known = UNITS.iter().any(|unit| axis.label.contains(unit));
                assert!(known, "{result}, {name}: no unit in \"{}\"", axis.label);
                assert!(axis.high > axis.low && !axis.ticks.is_empty(), "{result}, {name}: {axis:?}");
                assert!(drawing.scene.texts.iter().any(|text| text.text == axis.label), "{name}: {}", axis.label);
            }
        }
    }
}

#[test]
fn the_legend_names_each_series_once() {
    for (result, analysis) in odd_results() {
        for (name, drawing) in drawings(&analysis) {
            let mut of_series: Vec<&str> =
                drawing.figure.panels.iter().flat_map(|p| &p.series).map(|series| series.key.as_str()).collect();
            let mut of_legend: Vec<&str> = drawing.figure.legend.iter().map(|entry| entry.text.as_str()).collect();
            of_series.sort_unstable();
            of_series.dedup();
            of_legend.sort_unstable();
            assert_eq!(of_legend, of_series, "{result}, {name}");
        }
    }
}

#[test]
fn bars_start_from_zero_and_add_up_to_what_is_resident() {
    for (result, analysis) in odd_results() {
        for (w, workload) in analysis.workloads.iter().enumerate() {
            let Some(drawing) = fragmentation::draw(&analysis, w) else { continue };
            let panel = drawing.figure.panels.last().unwrap();
            assert_eq!(panel.x.low, 0.0);
            let unit = unit_of(&panel.x.label);
            let mut ends: Vec<(f64, f64)> = Vec::new();
            for bar in panel.series.iter().filter(|series| matches!(series.mark, Mark::Bar(_))) {
                let ((end, row), (from, to)) = (bar.pieces[0][0], bar.spans[0]);
                assert_eq!(end, to);
                match ends.last_mut() {
                    Some(last) if last.1 == row => {
                        assert_eq!(last.0, from, "{result}: a gap in a stack");
                        last.0 = to;
                    }
                    _ => {
                        assert_eq!(from, 0.0, "{result}: a stack that does not start from zero");
                        ends.push((to, row));
                    }
                }
            }
            let memory = workload.configs.iter().filter_map(|config| config.memory.as_ref());
            let resident: Vec<f64> =
                memory.flat_map(|m| [m.at_peak, m.at_rest]).map(|p| p.resident_bytes as f64).collect();
            assert_eq!(ends.len(), resident.len());
            for ((end, _), resident) in ends.iter().zip(resident) {
                assert!((end * unit - resident).abs() <= 1.0, "{result}: {end} of {resident}");
            }
        }
    }
}

fn unit_of(label: &str) -> f64 {
    let units = [("KiB", 1024.0), ("MiB", MIB), ("GiB", 1024.0 * MIB)];
    units.iter().find(|(name, _)| label.contains(name)).unwrap().1
}

/// Series of a panel with a legend text.
fn series<'a>(figure: &'a Figure, panel: usize, key: &str) -> &'a Series {
    figure.panels[panel].series.iter().find(|series| series.key == key).unwrap()
}

fn ys(series: &Series) -> Vec<f64> {
    series.pieces.iter().flatten().map(|(_, y)| *y).collect()
}

#[test]
fn memory_series_equal_the_analysis() {
    let analysis = plain();
    for (w, workload) in analysis.workloads.iter().enumerate() {
        let figure = memory::draw(&analysis, w).unwrap().figure;
        let ops = analysis.environment.workloads[workload.facts].image.ops as f64;
        for config in &workload.configs {
            let memory = config.memory.as_ref().unwrap();
            let expected: Vec<(f64, f64)> = memory
                .curve
                .iter()
                .map(|p| ((p.op as f64 * 100.0 / ops).min(100.0), p.resident_bytes as f64 / MIB))
                .collect();
            assert_eq!(series(&figure, 0, &config.label).pieces[0], expected);
            let rest: Vec<f64> = memory.rest_curve.iter().map(|r| r.memory.resident_bytes as f64 / MIB).collect();
            let drawn = series(&figure, 1, &config.label);
            assert_eq!(ys(drawn), rest);
            let idle = memory.rest_curve.iter().filter(|r| r.state == RestState::Idle);
            let seconds: Vec<f64> = idle.map(|r| r.after_ms as f64 / 1000.0).collect();
            let drawn: Vec<f64> = drawn.pieces[0].iter().map(|(x, _)| *x).take(seconds.len()).collect();
            assert_eq!(drawn, seconds);
        }
        let first = workload.configs[0].memory.as_ref().unwrap();
        let live: Vec<f64> = first.curve.iter().map(|p| p.requested_bytes as f64 / MIB).collect();
        assert_eq!(ys(series(&figure, 0, "live requested bytes")), live);
        assert_eq!(
            (figure.panels[0].y.low, figure.panels[0].y.high),
            (figure.panels[1].y.low, figure.panels[1].y.high)
        );
        assert_eq!(figure.panels[0].y.low, 0.0);
    }
}

#[test]
fn peak_and_rest_equal_the_analysis_and_are_sorted_by_rest() {
    let analysis = plain();
    for (w, workload) in analysis.workloads.iter().enumerate() {
        let figure = peak_rest::draw(&analysis, w).unwrap().figure;
        let panel = &figure.panels[0];
        let values = |key: &str| -> Vec<(f64, (f64, f64))> {
            let dots = panel.series.iter().filter(|series| series.key == key);
            dots.map(|dot| (dot.pieces[0][0].0 * MIB, dot.spans[0])).collect()
        };
        let rest = values("at rest, 10 s idle");
        assert!(rest.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        for (tick, (row, peak)) in panel.y.ticks.iter().zip(rest.iter().zip(values("at peak"))) {
            let config = workload.configs.iter().find(|config| config.label == tick.text).unwrap();
            let memory = config.memory.as_ref().unwrap();
            for ((value, span), estimate) in [(*row, memory.rest.value), (peak, memory.peak.value)] {
                assert!((value - estimate.median).abs() < 1e-6 * MIB);
                assert_eq!(span, (estimate.low / MIB, estimate.high / MIB));
            }
        }
        assert_eq!(panel.x.low, 0.0);
    }
}

#[test]
fn latency_series_equal_the_analysis_and_end_at_ten_calls() {
    let analysis = plain();
    for (w, workload) in analysis.workloads.iter().enumerate() {
        let figure = latency::draw(&analysis, w).unwrap().figure;
        for config in &workload.configs {
            let latency = config.latency.as_ref().unwrap();
            for (panel, curve) in [&latency.allocate, &latency.free].into_iter().enumerate() {
                let drawn = &series(&figure, panel, &config.label).pieces[0];
                assert!(!drawn.is_empty() && drawn == curve);
                let of_all = |free: bool| {
                    let rows = latency.rows.iter().filter(|row| row.class.is_none() && row.fault.is_none());
                    let kind =
                        rows.filter(|row| row.kind.is_some_and(|kind| (kind == crate::run::CallKind::Free) == free));
                    kind.map(|row| row.calls).sum::<u64>()
                };
                let calls = of_all(panel == 1) as f64;
                assert!(calls > 0.0 && drawn.iter().all(|(_, share)| share * calls >= 10.0 - 1e-6));
            }
        }
        for panel in 0..2 {
            assert_eq!(series(&figure, panel, "clock alone").pieces[0], workload.clock_survival);
        }
    }
}

#[test]
fn time_series_equal_the_analysis() {
    let analysis = plain();
    for (w, workload) in analysis.workloads.iter().enumerate() {
        let figure = time::draw(&analysis, w).unwrap().figure;
        let panel = &figure.panels[0];
        for (row, config) in workload.configs.iter().enumerate() {
            let value = config.ns_per_call.unwrap();
            let at_row = |mark: Mark| {
                let mut series = panel.series.iter().filter(move |series| series.mark == mark);
                series.find(|series| series.pieces[0][0].1 == row as f64).unwrap()
            };
            let dot = at_row(Mark::Dot);
            match value.versus {
                Some(versus) => {
                    assert_eq!(dot.pieces[0][0].0, versus.ratio.median);
                    assert_eq!(dot.spans, [(versus.ratio.low, versus.ratio.high)]);
                }
                None => assert_eq!((dot.pieces[0][0].0, dot.spans.len()), (1.0, 0)),
            }
            let baseline = workload.configs[0].ns_per_call.unwrap().value.median;
            assert_eq!(at_row(Mark::Tick).pieces[0][0].0, workload.floor_null.unwrap().median / baseline);
            assert_eq!(panel.columns[0].cells[row].1, crate::units::significant(value.value.median));
        }
        assert!(panel.x.ticks.iter().any(|tick| tick.at == 1.0));
    }
}

#[test]
fn ratios_equal_the_analysis_where_enough_is_live() {
    let analysis = plain();
    for (w, workload) in analysis.workloads.iter().enumerate() {
        let exit = analysis.environment.workloads[workload.facts].image.phase_ops[3].unwrap();
        let figure = fragmentation::draw(&analysis, w).unwrap().figure;
        for config in &workload.configs {
            let curve = &config.memory.as_ref().unwrap().curve;
            let shown = curve.iter().filter(|p| p.requested_bytes >= 4 << 20 && p.op <= exit);
            let expected: Vec<f64> = shown.map(|p| p.resident_bytes as f64 / p.requested_bytes as f64).collect();
            assert!(!expected.is_empty());
            assert_eq!(ys(series(&figure, 0, &config.label)), expected);
        }
    }
}

#[test]
fn an_allocator_looks_the_same_in_every_chart() {
    let analysis = plain();
    let mut looks: std::collections::BTreeMap<String, theme::Ink> = std::collections::BTreeMap::new();
    let labels: Vec<&str> = analysis.workloads[0].configs.iter().map(|config| config.label.as_str()).collect();
    for (name, drawing) in drawings(&analysis) {
        for line in drawing.figure.panels.iter().flat_map(|p| &p.series).filter(|s| labels.contains(&s.key.as_str())) {
            assert_eq!(*looks.entry(line.key.clone()).or_insert(line.ink), line.ink, "{name}: {}", line.key);
        }
    }
    assert_eq!(looks.len(), labels.len());
}

#[test]
fn the_caption_says_what_was_measured_with_what_and_when() {
    let analysis = plain();
    for (name, drawing) in drawings(&analysis) {
        let caption = drawing.figure.provenance.join(" · ");
        for piece in
            ["process", "pool (our pymalloc) 0.1.0", "mimalloc 3.3.2", "jemalloc 5.3.1", "glibc 2.36", "2026-09-21"]
        {
            assert!(caption.contains(piece), "{name}: no \"{piece}\" in \"{caption}\"");
        }
        assert!(caption.contains("Linux 6.18.0") && caption.contains("CPU"), "{name}: {caption}");
    }
}

#[test]
fn the_same_analysis_gives_the_same_bytes() {
    let analysis = plain();
    for ((name, a), (_, b)) in drawings(&analysis).into_iter().zip(drawings(&analysis.clone())).take(ALL.len()) {
        assert_eq!(a.svg(), b.svg(), "{name}");
        assert_eq!(a.png(), b.png(), "{name}");
        assert_ne!(a.svg(), a.svg_in(&theme::DARK), "{name}");
    }
}

#[test]
fn every_odd_result_can_be_rendered() {
    for (result, analysis) in odd_results() {
        for (name, drawing) in drawings(&analysis) {
            let (wide, high) = drawing.scene.size;
            let whole = wide.fract() == 0.0 && high.fract() == 0.0;
            assert!(whole && (200.0..1600.0).contains(&high), "{result}, {name}: {wide} x {high}");
            assert!(drawing.svg().len() < 1 << 20, "{result}, {name}");
        }
    }
    for (name, drawing) in drawings(&crowd(8)).into_iter().take(ALL.len()) {
        assert!(drawing.png().starts_with(b"\x89PNG"), "{name}");
    }
}

#[test]
fn svg_holds_every_text_as_text_and_its_description() {
    for (name, drawing) in drawings(&plain()) {
        let svg = drawing.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
        let escaped =
            |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;");
        for text in &drawing.scene.texts {
            assert!(svg.contains(&format!(">{}</text>", escaped(&text.text))), "{name}: \"{}\"", text.text);
        }
        let description = svg.split("<desc>").nth(1).and_then(|rest| rest.split("</desc>").next()).unwrap();
        assert_eq!(description.replace('\'', "&apos;"), escaped(drawing.alt()), "{name}");
        let dashed = drawing.scene.shapes.iter().filter(|s| matches!(s, Shape::Path { dash, .. } if !dash.is_empty()));
        assert_eq!(svg.matches("stroke-dasharray").count(), dashed.count(), "{name}");
    }
}

#[test]
fn png_shows_every_text_where_it_was_measured() {
    for (name, drawing) in drawings(&plain()).into_iter().take(ALL.len()) {
        let bytes = drawing.png();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(f64::from(info.width), 2.0 * drawing.scene.size.0, "{name}");
        assert_eq!(f64::from(info.height), (2.0 * drawing.scene.size.1).round(), "{name}");
        for text in drawing.scene.texts.iter().filter(|text| !text.text.is_empty()) {
            let area = text.area();
            let dark = |x: u32, y: u32| pixels[(y * info.width + x) as usize * 3..][..3].iter().any(|c| *c < 200);
            let inside = |from: f64, to: f64| (2.0 * from) as u32..(2.0 * to) as u32;
            let covered = inside(area.left, area.right)
                .filter(|x| inside(area.top, area.bottom).any(|y| dark(*x, y)))
                .count() as f64;
            assert!(covered > 0.5 * (area.right - area.left), "{name}: \"{}\" is not where it should be", text.text);
        }
    }
}
