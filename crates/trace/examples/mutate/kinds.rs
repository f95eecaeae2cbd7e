//! The kinds of mutants: what is changed in a trace file before its checksums and totals are repaired.

use crate::file::{Column, Encoded, TraceFile};
use crate::random::Random;
use serde_json::Value;

/// What a kind changes.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    /// Parts, before they are put together.
    Parts(fn(&mut TraceFile, &mut Random)),
    /// The decompressed bytes of the column with this id, in one block.
    Column(u32),
    /// Bytes of the file; checksums are repaired afterwards.
    Bytes(fn(&mut Encoded, &mut Random)),
    /// Bytes of the file; nothing is repaired.
    Unrepaired(fn(&mut Vec<u8>, &mut Random)),
}

/// Every kind by name. Columns come first: most of what a reader does depends on them.
pub(crate) const KINDS: [(&str, Change); 25] = [
    ("column operations", Change::Column(0)),
    ("column references", Change::Column(1)),
    ("column sizes", Change::Column(2)),
    ("column size dictionary", Change::Column(3)),
    ("column size escapes", Change::Column(4)),
    ("column alignments", Change::Column(5)),
    ("column touched", Change::Column(6)),
    ("column arguments", Change::Column(7)),
    ("column times", Change::Column(8)),
    ("column sites", Change::Column(9)),
    ("column site dictionary", Change::Column(10)),
    ("column site escapes", Change::Column(11)),
    ("columns exchanged", Change::Parts(columns)),
    ("blocks moved", Change::Parts(blocks)),
    ("block head", Change::Parts(block_head)),
    ("header", Change::Parts(header)),
    ("metadata value", Change::Parts(metadata_value)),
    ("metadata values", Change::Parts(metadata_values)),
    ("metadata bytes", Change::Parts(|file, random| random.change(&mut file.metadata))),
    ("totals value", Change::Parts(totals_value)),
    ("totals bytes", Change::Parts(|file, random| random.change(&mut file.totals))),
    ("directory", Change::Bytes(|file, random| inside(&file.directories.clone(), file, random))),
    ("compressed bytes", Change::Bytes(|file, random| inside(&file.stored.clone(), file, random))),
    ("cut off or longer", Change::Unrepaired(length)),
    ("any byte", Change::Unrepaired(|bytes, random| random.overwrite(bytes))),
];

/// Makes a mutant; `None` where the file has nothing of this kind. `repair` gives the totals of what a file says now.
pub(crate) fn mutant(
    original: &TraceFile,
    change: Change,
    random: &mut Random,
    repair: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut file = original.clone();
    let mut is_repaired = random.below(8) > 0;
    match change {
        Change::Parts(change) => change(&mut file, random),
        Change::Column(id) => column(&mut file, id, random)?,
        Change::Bytes(_) | Change::Unrepaired(_) => is_repaired = false,
    }
    is_repaired &= file.totals == original.totals;
    let mut encoded = file.encode();
    match change {
        Change::Bytes(change) => {
            change(&mut encoded, random);
            encoded.seal();
        }
        Change::Unrepaired(change) => change(&mut encoded.bytes, random),
        _ => {}
    }
    if is_repaired && let Some(totals) = repair(&encoded.bytes) {
        file.totals = totals;
        encoded = file.encode();
    }
    Some(encoded.bytes)
}

fn column(file: &mut TraceFile, id: u32, random: &mut Random) -> Option<()> {
    let with_it: Vec<usize> =
        (0..file.blocks.len()).filter(|at| file.blocks[*at].columns.iter().any(|column| column.id == id)).collect();
    let block = *with_it.get(random.below(with_it.len()))?;
    let column = file.blocks[block].columns.iter_mut().find(|column| column.id == id)?;
    random.change(&mut column.bytes);
    Some(())
}

/// Takes a column out, puts one in twice, gives one to another id or block.
fn columns(file: &mut TraceFile, random: &mut Random) {
    let (at, other) = (random.below(file.blocks.len()), random.below(file.blocks.len()));
    let donor = file.blocks[other].columns.clone();
    let columns = &mut file.blocks[at].columns;
    let (first, second) = (random.below(columns.len()), random.below(columns.len()));
    match random.below(6) {
        0 => drop(columns.remove(first)),
        1 => columns.insert(first, columns[second].clone()),
        2 => columns[first].id = random.edge() as u32,
        3 => columns[first].bytes = columns[second].bytes.clone(),
        4 => columns[first].bytes = donor[random.below(donor.len())].bytes.clone(),
        _ => {
            let id = random.below(13) as u32;
            let place = columns.iter().position(|column| column.id >= id).unwrap_or(columns.len());
            columns.insert(place, Column { id, bytes: vec![random.next() as u8; 1 + random.below(300)] });
        }
    }
}

fn blocks(file: &mut TraceFile, random: &mut Random) {
    let (at, other) = (random.below(file.blocks.len()), random.below(file.blocks.len()));
    match random.below(4) {
        0 => drop(file.blocks.remove(at)),
        1 => file.blocks.swap(at, other),
        2 => file.blocks.insert(other, file.blocks[at].clone()),
        _ => {
            let copy = file.blocks[at].clone();
            file.blocks.resize(file.blocks.len() + random.below(40), copy);
        }
    }
}

fn block_head(file: &mut TraceFile, random: &mut Random) {
    let at = random.below(file.blocks.len());
    let head = &mut file.blocks[at].head;
    if random.below(2) == 0 {
        let events = random.edge() as u32;
        head[4..].copy_from_slice(&events.to_le_bytes());
    } else {
        random.overwrite(head);
    }
}

fn header(file: &mut TraceFile, random: &mut Random) {
    random.overwrite(&mut file.header);
}

fn metadata_value(file: &mut TraceFile, random: &mut Random) {
    change_json(&mut file.metadata, 1, random);
}

fn metadata_values(file: &mut TraceFile, random: &mut Random) {
    change_json(&mut file.metadata, 4, random);
}

fn totals_value(file: &mut TraceFile, random: &mut Random) {
    change_json(&mut file.totals, 1, random);
}

fn change_json(text: &mut Vec<u8>, times: usize, random: &mut Random) {
    let mut value: Value = serde_json::from_slice(text).unwrap_or_default();
    for _ in 0..times {
        random.change_json(&mut value);
    }
    *text = value.to_string().into_bytes();
}

fn inside(places: &[std::ops::Range<usize>], file: &mut Encoded, random: &mut Random) {
    let place = places[random.below(places.len())].clone();
    random.overwrite(&mut file.bytes[place]);
}

fn length(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(3) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => bytes.extend_from_within(bytes.len() - bytes.len().min(1 + random.below(64))..),
        _ => bytes.truncate(bytes.len() - bytes.len().min(1 + random.below(40))),
    }
}
