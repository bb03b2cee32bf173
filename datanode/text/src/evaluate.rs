//! The best rows of one part.
//!
//! Rows are taken in windows.  Lists that can still lift a row to the floor on their own
//! are poured into the window ("leading"); the others are only asked about rows that the
//! leading ones brought up ("following").  As the floor rises, more lists follow.  When a
//! filter leaves few rows of a window, those rows are looked up instead.

use tantivy::TERMINATED;

use crate::bm25::Weight;
use crate::cursor::Cursor;
use crate::search::{Allowed, TextRow};
use crate::top::{Scored, Top};

/// Units for a window stay in the first-level cache.
const WINDOW: usize = 4_096;
const WORDS: usize = WINDOW / u64::BITS as usize;
/// A row looked up in all lists costs as much as this many rows poured.
const LOOKUP: u64 = 6;
/// Below it a table of units costs more than it saves.
const TABLE_FROM: usize = 256;

pub(crate) struct List<'p> {
    cursor: Cursor,
    weight: Weight<'p>,
    /// Units for frequency 1 by norm.
    table: Option<Box<[u32; 256]>>,
    norms: &'p [u8],
    /// The most it gives to any row.
    bound: u32,
    rows: u64,
}

impl<'p> List<'p> {
    /// Without a `bound` the list has one block, which is looked through.
    pub(crate) fn new(
        cursor: Cursor,
        weight: Weight<'p>,
        norms: &'p [u8],
        rows: usize,
        bound: Option<u32>,
    ) -> Self {
        let look = || {
            let (docs, frequencies) = cursor.block();
            let units = |(&row, &frequency): (&u32, &u32)| weight.units(frequency, norms[row as usize]);
            docs.iter().zip(frequencies).map(units).max().unwrap_or(0)
        };
        let bound = bound.unwrap_or_else(look);
        Self {
            table: (rows >= TABLE_FROM).then(|| Box::new(weight.table())),
            cursor,
            weight,
            norms,
            bound,
            rows: rows as u64,
        }
    }

    #[inline]
    fn units(&self, row: u32, frequency: u32) -> u32 {
        units(&self.weight, self.table.as_deref(), self.norms, row, frequency)
    }

    pub(crate) fn each_row(&mut self, mut visit: impl FnMut(u32)) {
        self.cursor.drain(TERMINATED, |row, _| visit(row));
    }

    #[inline]
    fn seek(&mut self, row: u32) -> Option<u32> {
        let frequency = self.cursor.seek(row)?;
        Some(self.units(row, frequency))
    }

    #[inline]
    fn drain(&mut self, end: u32, mut visit: impl FnMut(u32, u32)) {
        let Self {
            cursor,
            weight,
            table,
            norms,
            ..
        } = self;
        let table = table.as_deref();
        cursor.drain(end, |row, frequency| {
            visit(row, units(weight, table, norms, row, frequency))
        });
    }
}

#[inline]
fn units(weight: &Weight<'_>, table: Option<&[u32; 256]>, norms: &[u8], row: u32, frequency: u32) -> u32 {
    let norm = norms[row as usize];
    match table {
        Some(table) if frequency == 1 => table[norm as usize],
        _ => weight.units(frequency, norm),
    }
}

/// Lists of which a row needs one, and what they and all later groups can give.
pub(crate) struct Group<'p> {
    pub(crate) lists: Vec<List<'p>>,
    rest: u32,
}

impl<'p> Group<'p> {
    pub(crate) fn new(lists: Vec<List<'p>>) -> Self {
        Self { lists, rest: 0 }
    }

    fn bound(&self) -> u32 {
        self.lists
            .iter()
            .fold(0, |sum, list| sum.saturating_add(list.bound))
    }

    fn rows(&self) -> u64 {
        self.lists.iter().map(|list| list.rows).sum()
    }

    /// What the group gives to a row; `None` when it is in no list.
    #[inline]
    fn seek(&mut self, row: u32) -> Option<u32> {
        let mut found = None;
        for list in &mut self.lists {
            if let Some(units) = list.seek(row) {
                found = Some(found.unwrap_or(0) + units);
            }
        }
        found
    }
}

pub(crate) struct Window {
    units: Box<[u32; WINDOW]>,
    seen: [u64; WORDS],
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            units: Box::new([0; WINDOW]),
            seen: [0; WORDS],
        }
    }
}

/// Where found rows go.
pub(crate) struct Sink<'s, 't> {
    pub(crate) part: u32,
    pub(crate) rows: u32,
    pub(crate) allowed: &'s Allowed<'s>,
    pub(crate) top: &'s mut Top<'t>,
    pub(crate) window: &'s mut Window,
}

impl Sink<'_, '_> {
    #[inline]
    fn offer(&mut self, row: u32, units: u32) {
        let row = TextRow {
            part: self.part,
            ordinal: row,
        };
        self.top.offer(Scored { units, row });
    }
}

/// Rows in any of the lists.
pub(crate) fn any(lists: Vec<List<'_>>, sink: &mut Sink<'_, '_>) {
    let mut groups: Vec<Group<'_>> = lists.into_iter().map(|list| Group::new(vec![list])).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.bound()));
    sum_up(&mut groups);
    // Only the first ones lead: the rest cannot make a hit without them.
    let mut leading = groups.len();
    loop {
        let floor = sink.top.floor();
        while leading > 0 && groups[leading - 1].rest < floor {
            leading -= 1;
        }
        let (lead, follow) = groups.split_at_mut(leading);
        let Some(base) = first_row(lead) else {
            return;
        };
        let rest = follow.first().map_or(0, |group| group.rest);
        match kind(lead, base, sink) {
            Kind::Nothing => skip(lead, base),
            Kind::Rows(rows) => {
                for row in rows {
                    let floor = sink.top.floor();
                    let mut found = None;
                    for group in lead.iter_mut().chain(follow.iter_mut()) {
                        if found.unwrap_or(0) + group.rest < floor {
                            found = None;
                            break;
                        }
                        if let Some(units) = group.seek(row) {
                            found = Some(found.unwrap_or(0) + units);
                        }
                    }
                    if let Some(units) = found.filter(|&units| units >= floor) {
                        sink.offer(row, units);
                    }
                }
                skip(lead, base);
            }
            Kind::All => pour(lead, base, rest, sink, |row, mut units, floor| {
                for group in follow.iter_mut() {
                    if units + group.rest < floor {
                        return None;
                    }
                    units += group.seek(row).unwrap_or(0);
                }
                Some(units)
            }),
        }
    }
}

/// Rows in each of the groups.
pub(crate) fn all(mut groups: Vec<Group<'_>>, sink: &mut Sink<'_, '_>) {
    groups.sort_by_key(Group::rows);
    sum_up(&mut groups);
    let Some((lead, follow)) = groups.split_first_mut() else {
        return;
    };
    let lead = std::slice::from_mut(lead);
    let rest = follow.first().map_or(0, |group| group.rest);
    loop {
        if lead[0].rest < sink.top.floor() {
            return;
        }
        let Some(base) = first_row(lead) else {
            return;
        };
        let mut complete = |row: u32, mut units: u32, floor: u32| {
            for group in follow.iter_mut() {
                if units + group.rest < floor {
                    return None;
                }
                units += group.seek(row)?;
            }
            Some(units)
        };
        match kind(lead, base, sink) {
            Kind::Nothing => skip(lead, base),
            Kind::Rows(rows) => {
                for row in rows {
                    let floor = sink.top.floor();
                    let found = lead[0].seek(row).and_then(|units| complete(row, units, floor));
                    if let Some(units) = found.filter(|&units| units >= floor) {
                        sink.offer(row, units);
                    }
                }
                skip(lead, base);
            }
            Kind::All => pour(lead, base, rest, sink, complete),
        }
    }
}

fn sum_up(groups: &mut [Group<'_>]) {
    let mut rest = 0u32;
    for group in groups.iter_mut().rev() {
        rest = rest.saturating_add(group.bound());
        group.rest = rest;
    }
}

/// Where the next window begins: at a whole word.
fn first_row(lead: &[Group<'_>]) -> Option<u32> {
    let lists = lead.iter().flat_map(|group| &group.lists);
    let first = lists.map(|list| list.cursor.row()).min()?;
    (first != TERMINATED).then_some(first & !(u64::BITS - 1))
}

/// What to do with a window.
enum Kind {
    All,
    /// The filter leaves these few, ascending.
    Rows(Vec<u32>),
    Nothing,
}

fn kind(lead: &[Group<'_>], base: u32, sink: &Sink<'_, '_>) -> Kind {
    if matches!(sink.allowed, Allowed::All) {
        return Kind::All;
    }
    let words: [u64; WORDS] = std::array::from_fn(|at| sink.allowed.word(base as usize / 64 + at));
    let allowed: u64 = words.iter().map(|word| u64::from(word.count_ones())).sum();
    let poured = lead.iter().map(Group::rows).sum::<u64>() * WINDOW as u64 / u64::from(sink.rows.max(1));
    match allowed {
        0 => Kind::Nothing,
        few if few * LOOKUP < poured => Kind::Rows(rows_of(&words, base).collect()),
        _ => Kind::All,
    }
}

fn rows_of(words: &[u64; WORDS], base: u32) -> impl Iterator<Item = u32> + '_ {
    let word_rows = move |(at, &word): (usize, &u64)| ones(word).map(move |bit| base + at as u32 * 64 + bit);
    words.iter().enumerate().flat_map(word_rows)
}

fn ones(mut word: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(bit)
    })
}

fn skip(lead: &mut [Group<'_>], base: u32) {
    let end = base.saturating_add(WINDOW as u32).min(TERMINATED);
    for list in lead.iter_mut().flat_map(|group| &mut group.lists) {
        list.cursor.seek(end);
    }
}

/// Adds up the leading lists, then completes those rows that may still reach the floor.
/// `complete` gets row, units so far and the floor; `None` drops the row.
fn pour(
    lead: &mut [Group<'_>],
    base: u32,
    rest: u32,
    sink: &mut Sink<'_, '_>,
    mut complete: impl FnMut(u32, u32, u32) -> Option<u32>,
) {
    let end = base.saturating_add(WINDOW as u32).min(TERMINATED);
    if let [group] = lead
        && let [list] = &mut group.lists[..]
    {
        let mut floor = sink.top.floor();
        list.drain(end, |row, units| {
            if units + rest < floor || !sink.allowed.has(row) {
                return;
            }
            if let Some(units) = complete(row, units, floor).filter(|&units| units >= floor) {
                sink.offer(row, units);
                floor = sink.top.floor();
            }
        });
        return;
    }
    let Window { units, seen } = &mut *sink.window;
    for list in lead.iter_mut().flat_map(|group| &mut group.lists) {
        list.drain(end, |row, more| {
            let at = (row - base) as usize % WINDOW;
            units[at] += more;
            seen[at / 64] |= 1 << (at % 64);
        });
    }
    for at in 0..WORDS {
        let word = std::mem::take(&mut sink.window.seen[at]);
        if word == 0 {
            continue;
        }
        let allowed = sink.allowed.word(base as usize / 64 + at);
        let mut floor = sink.top.floor();
        for bit in ones(word) {
            let sum = std::mem::take(&mut sink.window.units[at * 64 + bit as usize]);
            if sum + rest < floor || allowed >> bit & 1 == 0 {
                continue;
            }
            let row = base + at as u32 * 64 + bit;
            if let Some(units) = complete(row, sum, floor).filter(|&units| units >= floor) {
                sink.offer(row, units);
                floor = sink.top.floor();
            }
        }
    }
}
