//! Keeping texts off each other: pushed apart in a column, stacked above a panel, wrapped into lines.
//!
//! Invariant: no placed box overlaps another placed here, or reaches out of the space it was given.

use super::font;

/// Centres for boxes of one height that stay in order, do not overlap, lie between `low` and `high`, and are moved as
/// little as possible. `None` when they do not fit.
#[must_use]
pub(super) fn spread(wanted: &[f64], height: f64, low: f64, high: f64) -> Option<Vec<f64>> {
    if wanted.len() as f64 * height > high - low {
        return None;
    }
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]).then(a.cmp(b)));
    // Clusters of touching boxes: (sum of wanted first centres, boxes). Merging neighbours that collide is the
    // least-squares answer.
    let mut clusters: Vec<(f64, usize)> = Vec::new();
    let first = |cluster: &(f64, usize)| {
        let n = cluster.1 as f64;
        (cluster.0 / n).clamp(low + height / 2.0, high - height * (n - 0.5))
    };
    for index in &order {
        clusters.push((wanted[*index], 1));
        while let [.., a, b] = clusters[..] {
            if first(&a) + a.1 as f64 * height <= first(&b) + 1e-9 {
                break;
            }
            let shifted = b.0 - (a.1 * b.1) as f64 * height;
            clusters.truncate(clusters.len() - 2);
            clusters.push((a.0 + shifted, a.1 + b.1));
        }
    }
    let centres = clusters.iter().flat_map(|cluster| (0..cluster.1).map(move |i| first(cluster) + i as f64 * height));
    let mut placed = vec![0.0; wanted.len()];
    for (index, centre) in order.into_iter().zip(centres) {
        placed[index] = centre;
    }
    Some(placed)
}

/// For texts centred above a panel at `(x, text)`: the row of each (0 is nearest the panel) and its centre, held
/// between `low` and `high`.
#[must_use]
pub(super) fn stack(labels: &[(f64, &str)], size: f64, low: f64, high: f64) -> Vec<(usize, f64)> {
    const GAP: f64 = 10.0;
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    labels
        .iter()
        .map(|(x, text)| {
            let half = font::width(text, size) / 2.0;
            let centre = x.min(high - half).max(low + half);
            let (from, to) = (centre - half - GAP, centre + half + GAP);
            let free = |row: &Vec<(f64, f64)>| row.iter().all(|(l, r)| *r <= from + GAP || *l >= to - GAP);
            let row = taken.iter().position(free).unwrap_or(taken.len());
            if row == taken.len() {
                taken.push(Vec::new());
            }
            taken[row].push((from, to));
            (row, centre)
        })
        .collect()
}

/// Pieces joined by `separator` into lines no wider than `width`; a piece that is wider alone is cut at words.
#[must_use]
pub(super) fn wrap(pieces: &[String], separator: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        match lines.last_mut() {
            Some(line) if font::width(&format!("{line}{separator}{piece}"), size) <= width => {
                line.push_str(separator);
                line.push_str(piece);
            }
            _ if separator != " " && font::width(piece, size) > width => {
                let words: Vec<String> = piece.split(' ').map(String::from).collect();
                lines.extend(wrap(&words, " ", size, width));
            }
            _ => lines.push(shorten(piece, size, width)),
        }
    }
    lines
}

/// Words in as few lines as fit a width, the lines about equally long: no line of one word.
#[must_use]
pub(super) fn balanced(words: &[String], size: f64, width: f64) -> Vec<String> {
    let lines = wrap(words, " ", size, width);
    let (mut narrow, mut wide) = (width / lines.len().max(1) as f64, width);
    for _ in 0..12 {
        let middle = (narrow + wide) / 2.0;
        if wrap(words, " ", size, middle).len() > lines.len() { narrow = middle } else { wide = middle }
    }
    wrap(words, " ", size, wide)
}

/// A text cut to a width, with an ellipsis if it was cut.
#[must_use]
pub(super) fn shorten(text: &str, size: f64, width: f64) -> String {
    if font::width(text, size) <= width {
        return text.to_string();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let cut = kept.iter().collect::<String>() + "…";
        if font::width(&cut, size) <= width {
            return cut;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn boxes_that_do_not_collide_stay() {
        assert_eq!(spread(&[50.0, 10.0], 16.0, 0.0, 100.0), Some(vec![50.0, 10.0]));
    }

    #[test]
    fn equal_wishes_are_centred() {
        assert_eq!(spread(&[50.0, 50.0], 10.0, 0.0, 100.0), Some(vec![45.0, 55.0]));
        assert_eq!(spread(&[0.0, 0.0], 10.0, 0.0, 100.0), Some(vec![5.0, 15.0]));
        assert_eq!(spread(&[0.0, 0.0], 60.0, 0.0, 100.0), None);
    }

    proptest! {
        #[test]
        fn spread_boxes_never_overlap_or_leave(wanted in proptest::collection::vec(-50.0f64..150.0, 0..10)) {
            let placed = spread(&wanted, 10.0, 0.0, 100.0).expect("ten fit");
            let mut sorted = placed.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 10.0 - 1e-6));
            prop_assert!(sorted.iter().all(|centre| *centre >= 5.0 - 1e-6 && *centre <= 95.0 + 1e-6));
            for (a, b) in (0..wanted.len()).flat_map(|a| (0..wanted.len()).map(move |b| (a, b))) {
                prop_assert!(wanted[a] >= wanted[b] || placed[a] < placed[b]);
            }
        }
    }

    #[test]
    fn labels_above_a_panel_take_a_second_row_only_when_they_must() {
        let rows = stack(&[(100.0, "steady"), (300.0, "drained"), (310.0, "finalising")], 12.0, 0.0, 600.0);
        assert_eq!(rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 0, 1]);
        let at_the_edge = stack(&[(599.0, "finalising")], 12.0, 0.0, 600.0);
        assert!(at_the_edge[0].1 + font::width("finalising", 12.0) / 2.0 <= 600.0 + 1e-9);
    }

    #[test]
    fn long_lines_wrap_and_nothing_is_lost() {
        let pieces: Vec<String> = (0..30).map(|i| format!("piece {i}")).collect();
        let lines = wrap(&pieces, " · ", 10.0, 300.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| font::width(line, 10.0) <= 300.0));
        assert_eq!(lines.join(" · "), pieces.join(" · "));
    }
}
