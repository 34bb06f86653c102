//! What is in force, for readers that must not wait: one word for the common case, and a table behind a short lock for the rest.
//!
//! The promise: `look` answers from one publication, never from a mixture of two, and from one at least as new as the newest that
//! preceded the confirmation it returns. Two rules keep it: a writer publishes word and table before the confirmation, and a reader
//! takes the confirmation first; and the word alone is a whole answer, or it sends the reader to the table, which is whole too. (So
//! the order of word and table does not matter.) A loom model in the tests tries every order.

use std::sync::atomic::Ordering;

use super::sync::{AtomicU8, AtomicU64, RwLock};

#[derive(Debug)]
pub(crate) struct Gauge<T> {
    word: AtomicU8,
    valid_until: AtomicU64,
    table: RwLock<T>,
}

impl<T> Gauge<T> {
    /// Confirmed until 0, which is: not.
    pub(crate) fn new(word: u8, table: T) -> Self {
        Self { word: AtomicU8::new(word), valid_until: AtomicU64::new(0), table: RwLock::new(table) }
    }

    /// Replaces word and table. Calls must not overlap.
    pub(crate) fn publish(&self, word: u8, table: T) {
        // The old table is dropped after the lock is open again.
        let _old = std::mem::replace(&mut *self.table.write(), table);
        self.word.store(word, Ordering::Release);
    }

    /// Confirms what this thread published before, until `valid_until`; never takes back.
    pub(crate) fn confirm(&self, valid_until: u64) {
        self.valid_until.fetch_max(valid_until, Ordering::AcqRel);
    }

    pub(crate) fn valid_until(&self) -> u64 {
        self.valid_until.load(Ordering::Acquire)
    }

    pub(crate) fn word(&self) -> u8 {
        self.word.load(Ordering::Acquire)
    }

    /// The confirmation first, then the state: whoever sees a longer confirmation also sees the state that came with it.
    /// `whole` says what the word means, or nothing if only the table knows.
    pub(crate) fn look<R>(&self, whole: impl FnOnce(u8) -> Option<R>, table: impl FnOnce(&T) -> R) -> (u64, R) {
        let valid_until = self.valid_until();
        let answer = match whole(self.word()) {
            Some(answer) => answer,
            None => table(&self.table.read()),
        };
        (valid_until, answer)
    }
}
