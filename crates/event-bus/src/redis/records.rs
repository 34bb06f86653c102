//! What each consumer of this process took with its last claim, so that it can say in one word that all of it is done with.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::broker::{Claims, Outcome, Seq, Settle};

/// Consumers remembered at most; with more, nothing of them is forgotten but the short word.
const RECORDS_MAX: usize = 4_096;

/// A claim straight off the log, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) events: usize,
    pub(super) low: Seq,
}

#[derive(Debug, Default)]
pub(super) struct Records(Mutex<HashMap<Arc<str>, (Record, Arc<[Seq]>)>>);

impl Records {
    /// All of these events, and no others, are in this record. Without a number, it is not known which.
    pub(super) fn note(&self, incarnation: &Arc<str>, number: u64, claims: &Claims) {
        let mut all = self.0.lock();
        let Some(first) = claims.events.first() else {
            all.remove(incarnation);
            return;
        };
        if number == 0 || all.len() >= RECORDS_MAX && !all.contains_key(incarnation) {
            all.remove(incarnation);
            return;
        }
        let record = Record { number, events: claims.events.len(), low: first.seq };
        all.insert(incarnation.clone(), (record, claims.events.iter().map(|event| event.seq).collect()));
    }

    /// The record that these ends are all of, if there is one: each of them handled at its first attempt.
    pub(super) fn ended_by(&self, incarnation: &str, ends: &[Settle]) -> Option<Record> {
        let (record, places) = self.0.lock().get(incarnation)?.clone();
        if ends.len() != record.events || ends.iter().any(|end| end.attempt != 1 || end.outcome != Outcome::Ack) {
            return None;
        }
        let mut seqs: Vec<_> = ends.iter().map(|end| end.seq).collect();
        if !seqs.is_sorted() {
            seqs.sort_unstable();
        }
        (*seqs == *places).then_some(record)
    }
}
