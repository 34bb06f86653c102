//! All places where a batch leaves a trace.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        batches::{LIST_MAX, Name, space_of},
        found::{Found, OfWriter},
        journal::Journal,
    },
    Verdict,
};

/// How much of a batch there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Absent,
    Whole,
    Torn,
    Doubled,
}

/// What can be told of a single batch; the rest is sums.
pub(super) struct Sides<'a> {
    found: &'a Found,
    outbox: HashMap<Name, u32>,
    list: HashMap<Name, u32>,
}

impl<'a> Sides<'a> {
    /// Collects, and complains about order and about what nobody wrote.
    pub(super) fn new(journal: &Journal, found: &'a Found, verdict: &mut Verdict) -> Self {
        let begun: HashSet<Name> = journal.attempts().map(|(name, _)| name).collect();
        let (mut outbox, mut list) = (HashMap::new(), HashMap::new());
        for (index, space) in (0..).zip(&found.spaces) {
            let mut newest = HashMap::<u8, u32>::new();
            for name in &space.outbox {
                *outbox.entry(*name).or_default() += 1;
                if !begun.contains(name) || space_of(name.writer) != index {
                    verdict.blame(|v| &mut v.torn, format_args!("the outbox of {index} holds {name}"));
                }
                let newest = newest.entry(name.writer).or_default();
                if name.n < *newest {
                    verdict.blame(|v| &mut v.disordered, format_args!("{name} stands behind {newest}"));
                }
                *newest = name.n.max(*newest);
            }
            if !space.outbox.starts_with(&space.relayed) {
                let words = format_args!("who followed the outbox of {index} read something else than what is there");
                verdict.blame(|v| &mut v.disordered, words);
            }
        }
        for (writer, of) in (0..).zip(&found.writers) {
            for n in &of.list {
                let name = Name { writer, n: *n };
                *list.entry(name).or_default() += 1;
                if !begun.contains(&name) {
                    verdict.blame(|v| &mut v.torn, format_args!("the list of {writer} holds {name}"));
                }
            }
            if !of.list.is_sorted() {
                verdict.blame(|v| &mut v.disordered, format_args!("the list of {writer} is out of order"));
            }
        }
        Self { found, outbox, list }
    }

    pub(super) fn of(&self, name: Name) -> Side {
        let count = |of: &HashMap<Name, u32>| of.get(&name).copied().unwrap_or(0);
        let (outbox, mut list) = (count(&self.outbox), count(&self.list));
        let kept = self.found.writers.get(usize::from(name.writer)).map_or(&[][..], |of| &of.list[..]);
        if list == 0 && kept.len() == LIST_MAX as usize && kept.first().is_some_and(|oldest| name.n < *oldest) {
            // It fell off the end: as much of it is there as should be.
            list = outbox.min(1);
        }
        match (outbox, list, self.found.marks.contains(&name)) {
            (0, 0, false) => Side::Absent,
            (1, 1, true) => Side::Whole,
            (outbox, list, _) if outbox > 1 || list > 1 => Side::Doubled,
            _ => Side::Torn,
        }
    }

    /// Counters, records and windows say as much as the single traces.
    pub(super) fn totals(&self, journal: &Journal, found: &Found, verdict: &mut Verdict) {
        let mut sums = vec![(0_i64, 0_i64); found.spaces.len()];
        for (writer, of) in (0..).zip(&found.writers) {
            let attempts = 1..=u32::try_from(journal.writers[usize::from(writer)].len()).unwrap_or(u32::MAX);
            let there = attempts.map(|n| Name { writer, n }).filter(|name| self.of(*name) != Side::Absent);
            let (mut count, mut newest) = (0, None);
            let sum = &mut sums[usize::from(space_of(writer))];
            for name in there {
                count += 1;
                newest = Some(name);
                *sum = (sum.0 + name.amount(), sum.1 + 1);
            }
            of_writer(writer, of, count, newest, verdict);
        }
        for ((index, space), (amount, count)) in found.spaces.iter().enumerate().zip(sums) {
            if (space.plus, space.minus) != (amount, -amount) {
                let words = format_args!("space {index}: {} and {} instead of ±{amount}", space.plus, space.minus);
                verdict.blame(if space.plus > amount { |v| &mut v.doubled } else { |v| &mut v.torn }, words);
            }
            if space.window != count {
                let words = format_args!("space {index}: its window counts {} instead of {count}", space.window);
                verdict.blame(if space.window > count { |v| &mut v.doubled } else { |v| &mut v.torn }, words);
            }
        }
    }
}

fn of_writer(writer: u8, of: &OfWriter, count: i64, newest: Option<Name>, verdict: &mut Verdict) {
    if of.count != count {
        let words = format_args!("writer {writer} counts {} instead of {count}", of.count);
        verdict.blame(if of.count > count { |v| &mut v.doubled } else { |v| &mut v.torn }, words);
    }
    let expected = newest.map(|name| i64::from(name.n));
    if (of.last, of.cached, of.number) != (expected, expected, newest.map_or(0, Name::number)) {
        let words =
            format_args!("writer {writer} is at {:?}, {:?} and {}, not {newest:?}", of.last, of.cached, of.number);
        verdict.blame(|v| &mut v.torn, words);
    }
}
