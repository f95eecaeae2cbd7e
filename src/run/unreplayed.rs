//! Sentences about calls by which the program steered its allocator and that a replay left out.
//!
//! Invariant: a call that every configuration replayed is in no sentence.

use std::collections::BTreeMap;
use trace::Directive;

/// A sentence for each function, given what each configuration left out ([`super::Footprint::unreplayed`]).
#[must_use]
pub fn unreplayed_notes<'a>(configs: impl Iterator<Item = (&'a str, &'a BTreeMap<String, u64>)>) -> Vec<String> {
    let mut by_name: BTreeMap<&str, (u64, Vec<&str>)> = BTreeMap::new();
    for (config, unreplayed) in configs {
        for (name, calls) in unreplayed {
            let (most, under) = by_name.entry(name).or_default();
            *most = (*most).max(*calls);
            under.push(config);
        }
    }
    by_name.iter().map(|(name, (calls, under))| sentence(name, *calls, under)).collect()
}

fn sentence(name: &str, calls: u64, under: &[&str]) -> String {
    let times = if calls == 1 { "1 time".to_owned() } else { format!("{calls} times") };
    let why = if name == Directive::MiOptionSet.name() {
        "where no library with the same option numbers is known"
    } else if under.len() == 1 {
        "which has no such function"
    } else {
        "which have no such function"
    };
    format!("the program calls {name} {times}: not replayed under {}, {why}", under.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_has_one_sentence_with_the_configurations_that_lack_it() {
        let of = |name: &str, calls| BTreeMap::from([(name.to_owned(), calls)]);
        let configs = [("today", BTreeMap::new()), ("jemalloc", of("mallopt", 3)), ("mimalloc", of("mallopt", 3))];
        assert_eq!(
            unreplayed_notes(configs.iter().map(|(name, calls)| (*name, calls))),
            ["the program calls mallopt 3 times: not replayed under jemalloc, mimalloc, which have no such function"]
        );
        let one = of("malloc_trim", 1);
        assert_eq!(
            unreplayed_notes([("jemalloc", &one)].into_iter()),
            ["the program calls malloc_trim 1 time: not replayed under jemalloc, which has no such function"]
        );
    }
}
