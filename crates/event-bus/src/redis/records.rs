//! What each consumer of this process took with its last claim, so that it can say in one word that all of it is done with.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::broker::{Claims, Outcome, Seq, Settle};

/// Consumers remembered at most; with more, nothing of them is forgotten but the short word.
const RECORDS_MAX: usize = 4_096;

/// A claim straight off the log, as the store has it.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) number: u64,
    /// All places that are in it.
    pub(super) places: Arc<[Seq]>,
}

impl Record {
    pub(super) fn low(&self) -> Seq {
        self.places.first().copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Records(Mutex<HashMap<Arc<str>, Record>>);

impl Records {
    /// All of these events, and no others, are in this record. Without a number, it is not known which.
    pub(super) fn note(&self, incarnation: &Arc<str>, number: u64, claims: &Claims) {
        let mut all = self.0.lock();
        let has_room = all.len() < RECORDS_MAX || all.contains_key(incarnation);
        if number == 0 || claims.events.is_empty() || !has_room {
            all.remove(incarnation);
            return;
        }
        let places = claims.events.iter().map(|event| event.seq).collect();
        all.insert(incarnation.clone(), Record { number, places });
    }

    /// The record that these ends are all of, if there is one: each of them handled at its first attempt.
    pub(super) fn ended_by(&self, incarnation: &str, ends: &[Settle]) -> Option<Record> {
        let record = self.0.lock().get(incarnation)?.clone();
        if ends.len() != record.places.len() || ends.iter().any(|end| end.attempt != 1 || end.outcome != Outcome::Ack) {
            return None;
        }
        let mut seqs: Vec<_> = ends.iter().map(|end| end.seq).collect();
        if !seqs.is_sorted() {
            seqs.sort_unstable();
        }
        (*seqs == *record.places).then_some(record)
    }
}
