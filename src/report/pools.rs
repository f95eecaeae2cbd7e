//! Tables of what pools hold: where every byte is, and the size classes, as `sys._debugmallocstats()` counts them.
//!
//! Invariant: the parts of a row add up to its arenas; a share is of the bytes of these arenas.

use super::table::Table;
use super::words;
use crate::analysis::pools::PoolsAnalysis;
use crate::analysis::{Analysis, ConfigAnalysis, WorkloadAnalysis};
use crate::run::PoolStatistics;
use crate::units;

/// Configurations whose allocator told what its pools hold.
fn with_pools(workload: &WorkloadAnalysis) -> impl Iterator<Item = (&ConfigAnalysis, &PoolsAnalysis)> {
    workload.configs.iter().filter_map(|config| Some((config, config.memory.as_ref()?.pools.as_ref()?)))
}

fn name(analysis: &Analysis, config: &ConfigAnalysis) -> String {
    words::allocator(&analysis.environment.configs[config.config])
}

/// Where every byte of the arenas is, at each moment that was read.
#[must_use]
pub fn budget(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let parts = PoolStatistics::default().budget().map(|(part, _)| format!(">{part}"));
    let headings: Vec<&str> = ["allocator", "moment", ">arenas", ">mapped in all", ">released", ">MiB of arenas"]
        .into_iter()
        .chain(parts.iter().map(String::as_str))
        .collect();
    let caption = format!(
        "{}: where the pool's bytes are, MiB and share of its arenas, {}",
        workload.name,
        words::shown_runs(with_pools(workload).map(|(config, _)| config))
    );
    let mut table = Table::new(caption, &headings);
    for (config, pools) in with_pools(workload) {
        for moment in &pools.moments {
            let at = &moment.statistics;
            let counts = [at.arenas_mapped, at.arenas_mapped_total, at.arenas_mapped_total - at.arenas_mapped];
            let mapped = at.mapped_bytes();
            let part = |(_, bytes): (&str, u64)| {
                let bytes = bytes as f64;
                let mib = units::mib(bytes);
                if mapped == 0 { mib } else { format!("{mib} · {}", words::percent(bytes / mapped as f64)) }
            };
            table.row(
                [name(analysis, config), moment.name.to_owned()]
                    .into_iter()
                    .chain(counts.map(|count| count.to_string()))
                    .chain([units::mib(mapped as f64)])
                    .chain(at.budget().map(part)),
            );
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The size classes of one configuration that hold anything at the end.
#[must_use]
pub fn classes(analysis: &Analysis, workload: &WorkloadAnalysis, config: &ConfigAnalysis) -> Option<Table> {
    let end = &config.memory.as_ref()?.pools.as_ref()?.moments.last()?.statistics;
    let headings = [">class", ">size", ">num pools", ">blocks in use", ">avail blocks"];
    let caption = format!("{}: {}, size classes at the end", workload.name, name(analysis, config));
    let mut table = Table::new(caption, &headings);
    for (index, class) in end.classes.iter().enumerate().filter(|(_, class)| class.pools > 0) {
        let numbers = [index as u64, class.block_bytes, class.pools, class.blocks_in_use, class.blocks_available];
        table.row(numbers.map(|number| number.to_string()));
    }
    (!table.rows.is_empty()).then_some(table)
}
