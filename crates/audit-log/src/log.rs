//! The promise.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use infra_types::{Health, Symbol, Timestamp, UserId};

use crate::{
    error::AuditError,
    event::AuditEvent,
    kind::AuditKind,
    note::Checkpoint,
    tree::{Hash32, TreeHead},
    verify::{Unanchored, Verdict},
};

/// Events of one batch at most.
pub const BATCH_EVENTS_MAX: usize = 1_024;

/// Proof of posting: keep it, and the event can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The event's place, from 0, without gaps.
    pub index: u64,
    /// The hash of its stored bytes.
    pub leaf_hash: Hash32,
}

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoredEvent {
    /// Its place.
    pub index: u64,
    /// The hash of its stored bytes.
    pub leaf_hash: Hash32,
    /// The event.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// Which events to read, in the order of their indices; what is not named does not restrict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only this kind.
    pub kind: Option<AuditKind>,
    /// Only this instrument.
    pub symbol: Option<Symbol>,
    /// Only what this person did.
    pub user: Option<UserId>,
    /// Only at this time or later.
    pub from: Option<Timestamp>,
    /// Only before this time.
    pub to: Option<Timestamp>,
    /// Only beyond this index: `AuditPage::next` of the page before.
    pub after_index: Option<u64>,
    /// How many at most: 1 to 1,000.
    pub limit: usize,
}

impl Default for AuditQuery {
    /// The first 100 events.
    fn default() -> Self {
        Self { kind: None, symbol: None, user: None, from: None, to: None, after_index: None, limit: 100 }
    }
}

impl AuditQuery {
    /// Whether an event is asked for, by everything but its index.
    #[must_use]
    pub fn matches(&self, event: &AuditEvent) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.symbol.as_ref().is_none_or(|symbol| event.symbol.as_ref() == Some(symbol))
            && self.user.as_ref().is_none_or(|user| event.context.user.as_ref() == Some(user))
            && self.from.is_none_or(|from| event.at >= from)
            && self.to.is_none_or(|to| event.at < to)
    }

    pub(crate) fn validate(&self) -> Result<(), AuditError> {
        if (1..=1_000).contains(&self.limit) {
            Ok(())
        } else {
            Err(AuditError::Invalid { rule: format!("a page has 1 to 1,000 events, not {}", self.limit) })
        }
    }
}

/// Some of the events that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditPage {
    /// In the order of their indices.
    pub events: Vec<StoredEvent>,
    /// `after_index` of the next page; none on the last.
    pub next: Option<u64>,
}

/// Counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Statistics {
    /// Events that can be read.
    pub total: u64,
    /// The same by kind; kinds without an event are left out.
    pub by_kind: BTreeMap<AuditKind, u64>,
    /// Events that a bounded log has forgotten; they still count in its size and root.
    pub evicted: u64,
}

/// What a log is and may be relied on for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditInfo {
    /// `memory`, `sqlite`, `postgres`, …
    pub backend: &'static str,
    /// Whether an acknowledged event survives the death of this process.
    pub survives_process: bool,
    /// Whether it survives a power cut as well; where only the database can tell, false until the log was used.
    pub survives_power_cut: bool,
    /// Whether several processes may append to the same log.
    pub shared_between_processes: bool,
    /// Whether processes on several hosts may.
    pub shared_between_hosts: bool,
    /// How many events it holds at most, if it is bounded.
    pub capacity: Option<u64>,
}

/// A trail that can only grow, and shows it when somebody did otherwise.
///
/// Promises, on every backend alike:
/// * **One chain.** Whoever appends, indices run from 0 without gaps, and the root commits to every stored byte.
/// * **Acknowledged is stored**, as durably as `info` says.
/// * **Appending again is harmless.** The same id with the same body answers the same receipt; with another body it is a
///   `Conflict`.
/// * **`verify` never says `Ok` without an outside checkpoint**, since whoever can rewrite the store can rewrite every
///   hash in it.
///
/// Not promised: that `at` rises with the index; writers' clocks differ.
#[async_trait]
pub trait AuditLog: Send + Sync + fmt::Debug {
    /// Appends one event and answers once it is stored.
    ///
    /// # Errors
    /// As `append_batch`.
    ///
    /// # Cancel safety
    /// As `append_batch`.
    async fn append(&self, event: AuditEvent) -> Result<Receipt, AuditError> {
        let receipts = self.append_batch(vec![event]).await?;
        receipts.first().copied().ok_or_else(|| AuditError::Corrupt { index: None, reason: "no receipt".into() })
    }

    /// Appends up to [`BATCH_EVENTS_MAX`] events in one commit, all or none; receipts stand in the order of the events. An
    /// empty batch is fine and does nothing.
    ///
    /// # Errors
    /// `TooLarge`, `Invalid`, `Conflict`, `Full` and `Closed` append nothing. After `Ambiguous`, further appends are
    /// `Unsettled` until `head` was read; then append the same events again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch appended, never a part of it; appending it again is harmless.
    async fn append_batch(&self, events: Vec<AuditEvent>) -> Result<Vec<Receipt>, AuditError>;

    /// Reads one page.
    ///
    /// # Errors
    /// `Invalid` for a limit outside 1 to 1,000; `Corrupt` for an event whose stored bytes do not hash to its leaf hash: a
    /// damaged event is never shown as if it were sound.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn query(&self, query: AuditQuery) -> Result<AuditPage, AuditError>;

    /// Counts events.
    ///
    /// # Errors
    /// `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn statistics(&self) -> Result<Statistics, AuditError>;

    /// Size and root as the log itself states them; `verify` checks them.
    ///
    /// # Errors
    /// `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn head(&self) -> Result<TreeHead, AuditError>;

    /// Reads every stored byte, recomputes the tree and compares it with the head and with `checkpoint`. Reads and hashes the
    /// whole log, in pages, while appends go on.
    ///
    /// # Errors
    /// `Closed`, `Backend`: no verdict, which is not a good one.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verdict, AuditError>;

    /// A head that is worth signing: recomputed from the stored bytes, and an extension of `since` where that is given.
    ///
    /// # Errors
    /// `Tampered`; `Evicted` if a bounded log has forgotten events beyond `since`; those of `verify`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn checkpoint(&self, since: Option<&Checkpoint>) -> Result<TreeHead, AuditError> {
        match self.verify(since).await? {
            // It may extend `since` or not: nobody can tell any more, so it is not worth a signature.
            Verdict::Unanchored { reason: Unanchored::Evicted { first_kept }, .. } => {
                Err(AuditError::Evicted { first_kept })
            }
            Verdict::Ok { head, .. } | Verdict::Unanchored { head, .. } => Ok(head),
            Verdict::Tampered { first_bad_index, kind } => Err(AuditError::Tampered { first_bad_index, kind }),
        }
    }

    /// How the log feels. Never an error: a log that cannot be reached is `Down`.
    async fn health(&self) -> Health;

    /// What the log is.
    fn info(&self) -> AuditInfo;

    /// Finishes what was begun and refuses everything after with `Closed`. Idempotent. A database handle that the log was
    /// given stays open, since others share it.
    ///
    /// # Errors
    /// What could not be finished.
    async fn close(&self) -> Result<(), AuditError>;
}
