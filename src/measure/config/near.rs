//! The nearest of several words to one that is misspelt.
//!
//! Invariant: a word is suggested only if fewer than a third of its letters, or two, are wrong.

/// The word of `among` with the fewest letters to change, if those are few.
pub(super) fn nearest<'a>(word: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let few = |candidate: &str| (candidate.chars().count() / 3).max(2);
    let scored = among.map(|candidate| (distance(word, candidate), candidate));
    scored.filter(|(wrong, candidate)| *wrong <= few(candidate)).min_by_key(|(wrong, _)| *wrong).map(|(_, near)| near)
}

/// Letters to insert, drop or change (Levenshtein), whatever their case.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, wanted) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *wanted);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_suggested_and_what_is_not_is_not() {
        let words = || ["malloc", "mimalloc", "purge_delay"].into_iter();
        assert_eq!(nearest("maloc", words()), Some("malloc"));
        assert_eq!(nearest("PURGE_DELAYS", words()), Some("purge_delay"));
        assert_eq!(nearest("tcache", words()), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }
}
