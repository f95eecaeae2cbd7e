//! What becomes of memory after the work and over cycles, in words and as a table, and who owns the bytes.
//!
//! Invariant: a class never stands without the readings that it is of; a share is of what is resident at its moment.

use super::table::Table;
use super::words::{self, UNKNOWN};
use crate::analysis::owners::OwnersAnalysis;
use crate::analysis::shape::{CyclesClass, CyclesShape, RestClass, RestShape};
use crate::analysis::{Analysis, ConfigAnalysis, MemoryAnalysis, WorkloadAnalysis};
use crate::run::{Moment, Owned, Owners, SMALL_BYTES_MAX};
use crate::units;

fn mib(bytes: u64) -> String {
    units::mib(bytes as f64)
}

/// `decays 52.1 to 31.0 in 1 s, to 12.3 with a release`, MiB.
#[must_use]
pub fn rest(shape: &RestShape) -> String {
    let [idle, trickle, release] = shape.steps;
    let first = mib(shape.first_bytes);
    let settled = units::delay(shape.settled_ms);
    let all = [
        (idle, format!("to {} in {settled}", mib(shape.idle_bytes))),
        (trickle, format!("to {} with a trickle of calls", mib(shape.trickle_bytes))),
        (release, format!("to {} with a release", mib(shape.released_bytes))),
    ];
    let steps: Vec<String> = all.into_iter().filter(|(counts, _)| *counts).map(|(_, text)| text).collect();
    let is_one = steps.len() == 1;
    let steps = steps.join(", ");
    match shape.class {
        RestClass::Flat => format!("flat at {first}"),
        RestClass::Held => format!("holds {first}, live {}", mib(shape.live_bytes)),
        RestClass::Decays => format!("decays {first} {steps}"),
        // The class has said what the one step takes.
        RestClass::Trickle if is_one => format!("needs calls: {first} to {}", mib(shape.trickle_bytes)),
        RestClass::Release if is_one => format!("needs a release: {first} to {}", mib(shape.released_bytes)),
        RestClass::Trickle => format!("needs calls: {first} {steps}"),
        RestClass::Release => format!("needs a release: {first} {steps}"),
    }
}

/// `slope +0.31 [0.22 0.40] per cycle, at 52.1`, MiB.
#[must_use]
pub fn cycles(shape: &CyclesShape) -> String {
    let level = units::mib(shape.level_bytes);
    let [median, low, high] = shape.slope_bytes.map(|bytes| units::significant(bytes / units::MIB));
    match shape.class {
        CyclesClass::Plateau => format!("plateau at {level} ({median} [{low} {high}] per cycle)"),
        CyclesClass::Slope => format!("slope {median} [{low} {high}] per cycle, at {level}"),
        CyclesClass::Unknown => format!("at {level}, too few cycles to tell"),
    }
}

fn with_memory(workload: &WorkloadAnalysis) -> impl Iterator<Item = (&ConfigAnalysis, &MemoryAnalysis)> {
    workload.configs.iter().filter_map(|config| Some((config, config.memory.as_ref()?)))
}

fn with_owners(workload: &WorkloadAnalysis) -> impl Iterator<Item = (&ConfigAnalysis, &OwnersAnalysis)> {
    with_memory(workload).filter_map(|(config, memory)| Some((config, memory.owners.as_ref()?)))
}

fn name(analysis: &Analysis, config: &ConfigAnalysis) -> String {
    words::allocator(&analysis.environment.configs[config.config])
}

/// Lines below the overview: the shape of each configuration, what knobs reach in the baseline, and figures with two
/// modes.
#[must_use]
pub fn lines(analysis: &Analysis, workload: &WorkloadAnalysis) -> Vec<String> {
    let each = |text: &dyn Fn(&MemoryAnalysis) -> Option<String>| {
        let all = with_memory(workload).filter_map(|(config, m)| Some(format!("{} {}", config.name, text(m)?)));
        let all: Vec<String> = all.collect();
        (!all.is_empty()).then(|| all.join("; "))
    };
    let mut lines = Vec::new();
    lines.extend(each(&|m| m.rest_shape.as_ref().map(rest)).map(|text| format!("after the work, MiB: {text}")));
    let repeated = words::facts(analysis, workload).image.cycles.as_ref();
    let over = repeated.map_or(String::new(), |r| format!("{} cycles of {} to {}, MiB: ", r.times, r.from, r.to));
    lines.extend(each(&|m| m.cycles_shape.as_ref().map(cycles)).map(|text| format!("{over}{text}")));
    let baseline = with_owners(workload).find(|(config, _)| Some(config.config) == workload.baseline);
    lines.extend(baseline.and_then(|(config, owners)| {
        let (at, last) = (owners.moments.len() - 1, owners.moments.last()?);
        let known = owners.reach.iter().filter_map(|(knob, reach)| Some((knob, *reach.as_ref()?.get(at)?)));
        let all: Vec<String> = known.map(|(knob, bytes)| format!("{knob} {}", share(bytes, last))).collect();
        let moment = moment(last.moment);
        (!all.is_empty()).then(|| format!("of {} {moment}, at most in reach of: {}", config.name, all.join(", ")))
    }));
    lines.extend(words::bimodal_lines(workload));
    lines
}

fn share(bytes: u64, of: &Owners) -> String {
    let resident = of.memory.resident_bytes;
    if resident == 0 { UNKNOWN.to_owned() } else { words::percent(bytes as f64 / resident as f64) }
}

/// MiB, and the share of what is resident.
fn with_share(bytes: u64, of: &Owners) -> String {
    format!("{} · {}", mib(bytes), share(bytes, of))
}

const fn moment(moment: Moment) -> &'static str {
    match moment {
        Moment::Peak => "at peak",
        Moment::Drained => "at drained",
        Moment::End => "at end",
        Moment::Rest => "at rest",
    }
}

/// The shapes, with every reading that they are of.
#[must_use]
pub fn table(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings = ["allocator", "after the work", "over cycles", ">cycles read", ">live at their end"];
    let caption = format!(
        "{}: the shape of resident memory, MiB; after the work by medians over processes, cycles {}; slopes per cycle \
         with their interval of 95 %",
        workload.name,
        words::shown_runs(&workload.configs)
    );
    let mut table = Table::new(caption, &headings);
    for (config, m) in with_memory(workload).filter(|(_, m)| m.rest_shape.is_some() || m.cycles_shape.is_some()) {
        let over = m.cycles_shape.as_ref();
        table.row([
            name(analysis, config),
            m.rest_shape.as_ref().map_or_else(|| UNKNOWN.to_owned(), rest),
            over.map_or_else(|| UNKNOWN.to_owned(), cycles),
            over.map_or_else(|| UNKNOWN.to_owned(), |c| format!("last {} of {}", c.used, c.cycles)),
            over.map_or_else(|| UNKNOWN.to_owned(), |c| mib(c.live_bytes)),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Who owns the bytes: live blocks by domain and size, what no block owns, and what each allocator holds.
#[must_use]
pub fn owners(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings =
        ["allocator", "moment", "bytes of", "served by", ">requested", ">usable", ">touched", ">of resident"];
    let caption = format!(
        "{}: who owns the bytes, MiB, {}; what blocks have touched is resident, the rest is free, rounding, or the \
         allocator's own",
        workload.name,
        words::shown_runs(&workload.configs)
    );
    let mut table = Table::new(caption, &headings);
    for (config, owners) in with_owners(workload) {
        for at in &owners.moments {
            let head = || [name(analysis, config), moment(at.moment).to_owned()];
            for owned in at.owned.iter().filter(|owned| owned.blocks > 0) {
                let bytes = [owned.requested_bytes, owned.usable_bytes, owned.touched_bytes].map(mib);
                let who = [blocks(owned), owned.allocator.clone()];
                let of_resident = share(owned.touched_bytes, at);
                table.row(head().into_iter().chain(who).chain(bytes).chain([of_resident]));
            }
            let touched: u64 = at.owned.iter().map(|owned| owned.touched_bytes).sum();
            let left = at.memory.resident_bytes.saturating_sub(touched);
            let nobody = ["no live block", UNKNOWN, UNKNOWN, UNKNOWN].map(str::to_owned);
            table.row(head().into_iter().chain(nobody).chain([mib(left), share(left, at)]));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// `obj over 512 B`.
fn blocks(owned: &Owned) -> String {
    let sizes = if owned.small { "to" } else { "over" };
    format!("{} {sizes} {SMALL_BYTES_MAX} B", owned.domain)
}

/// What each allocator says that it holds.
#[must_use]
pub fn held(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings = ["allocator", "moment", "held by", ">mapped", ">resident at most", ">usable of live blocks"];
    let caption = format!("{}: what each allocator says that it holds, MiB", workload.name);
    let mut table = Table::new(caption, &headings);
    for (config, owners) in with_owners(workload) {
        for at in &owners.moments {
            for (key, held) in &at.held {
                let live = at.owned.iter().filter(|owned| owned.allocator == *key).map(|owned| owned.usable_bytes);
                let live: u64 = live.sum();
                if live == 0 && held.mapped_bytes.is_none_or(|bytes| bytes < 64 << 10) {
                    continue; // it serves nothing here
                }
                let known = |bytes: Option<u64>| bytes.map_or_else(|| UNKNOWN.to_owned(), mib);
                let cells = [known(held.mapped_bytes), known(held.resident_bytes_max), mib(live)];
                let head = [name(analysis, config), moment(at.moment).to_owned(), key.clone()];
                table.row(head.into_iter().chain(cells));
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// How much of peak and rest each knob reaches at most.
#[must_use]
pub fn reach(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let (_, first) = with_owners(workload).next()?;
    let knobs: Vec<String> = first.reach.iter().map(|(knob, _)| format!(">{knob}")).collect();
    let headings: Vec<&str> = ["allocator", "moment"].into_iter().chain(knobs.iter().map(String::as_str)).collect();
    let caption = format!(
        "{}: how much of what is resident each knob can reach at most, MiB and share; an upper bound, never a promise",
        workload.name
    );
    let mut table = Table::new(caption, &headings);
    for (config, owners) in with_owners(workload) {
        for (index, at) in owners.moments.iter().enumerate() {
            let cells = owners.reach.iter().map(|(_, reach)| {
                let bytes = reach.as_ref().and_then(|reach| reach.get(index));
                bytes.map_or_else(|| UNKNOWN.to_owned(), |bytes| with_share(*bytes, at))
            });
            table.row([name(analysis, config), moment(at.moment).to_owned()].into_iter().chain(cells));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_shape_in_words_has_its_readings() {
        let shape = RestShape {
            class: RestClass::Decays,
            live_bytes: 10 * MIB,
            first_bytes: 52 * MIB,
            idle_bytes: 31 * MIB,
            trickle_bytes: 31 * MIB,
            released_bytes: 12 * MIB,
            settled_ms: 1_000,
            steps: [true, false, true],
        };
        assert_eq!(rest(&shape), "decays 52.0 to 31.0 in 1 s, to 12.0 with a release");
        assert_eq!(rest(&RestShape { class: RestClass::Held, ..shape }), "holds 52.0, live 10.0");
        let slope = CyclesShape {
            class: CyclesClass::Slope,
            cycles: 20,
            used: 10,
            level_bytes: 52.0 * units::MIB,
            live_bytes: 10 * MIB,
            slope_bytes: [0.31, 0.22, 0.4].map(|mib| mib * units::MIB),
        };
        assert_eq!(cycles(&slope), "slope 0.31 [0.22 0.40] per cycle, at 52.0");
        let few = CyclesShape { class: CyclesClass::Unknown, slope_bytes: [f64::NAN; 3], ..slope };
        assert_eq!(cycles(&few), "at 52.0, too few cycles to tell");
    }
}
