//! What happened to the records of a namespace that keeps its changes.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use infra_types::{Clock, Namespace, Timestamp};

use crate::{batch::Version, error::StoreError, key::Key, store::StateStore};

/// Where a reader stands in a namespace's changes; ordered, and only meaningful in its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ChangePosition(pub u64);

/// One write of one record. That a record's time ran out is no change: `expires_at` tells when it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub position: ChangePosition,
    /// Which record.
    pub key: Key,
    /// The version that was written; none for a delete.
    pub version: Option<Version>,
    /// When the record will be gone by the store's clock, as of this write.
    pub expires_at: Option<Timestamp>,
}

/// A part of a namespace's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// In the order of their batches, and of the operations in them.
    pub changes: Vec<Change>,
    /// From where to read on.
    pub next: ChangePosition,
    /// Whether changes after the reader's position are gone (trimmed or cleared): read the records anew, then go on from `next`.
    /// `changes` is empty then.
    pub gap: bool,
}

/// What a [`Watch`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// A record was written or deleted.
    Change(Change),
    /// Changes were missed: read the records anew; what comes next is newer than this.
    Gap,
}

/// Follows the records under a prefix, without a gap that it does not tell. The namespace must keep changes
/// ([`Op::KeepChanges`](crate::Op::KeepChanges)).
pub struct Watch {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    namespace: Namespace,
    prefix: String,
    pause: Duration,
    position: Option<ChangePosition>,
    waiting: VecDeque<WatchEvent>,
}

impl Watch {
    /// Changes of one read.
    const LIMIT: usize = 256;
    /// How long to wait after a read that found nothing, unless chosen otherwise.
    pub const PAUSE: Duration = Duration::from_millis(50);

    /// Watches the records whose names start with `prefix` (empty: all). The first [`next`](Self::next) starts at `after`, or with what
    /// happens from then on.
    pub fn new(
        store: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        namespace: Namespace,
        prefix: impl Into<String>,
        after: Option<ChangePosition>,
    ) -> Self {
        let (pause, prefix) = (Self::PAUSE, prefix.into());
        Self { store, clock, namespace, prefix, pause, position: after, waiting: VecDeque::new() }
    }

    /// Chooses how long to wait after a read that found nothing: a change is seen at most that much later.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Takes its place in the changes now, so that whatever is written after this answered will be seen.
    ///
    /// # Errors
    /// As [`StateStore::changes_read`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn start(&mut self) -> Result<(), StoreError> {
        if self.position.is_none() {
            self.position = Some(self.store.changes_read(&self.namespace, None, Self::LIMIT).await?.next);
        }
        Ok(())
    }

    /// Waits for the next change. After an error it may be called again and misses nothing.
    ///
    /// # Errors
    /// As [`StateStore::changes_read`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        self.start().await?;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let read = self.store.changes_read(&self.namespace, self.position, Self::LIMIT).await?;
            let is_behind = read.gap || !read.changes.is_empty();
            self.position = Some(read.next);
            if read.gap {
                self.waiting.push_back(WatchEvent::Gap);
            }
            let wanted = read.changes.into_iter().filter(|change| change.key.name().starts_with(&self.prefix));
            self.waiting.extend(wanted.map(WatchEvent::Change));
            if !is_behind {
                self.clock.sleep(self.pause).await;
            }
        }
    }

    /// Up to where everything was told: keep it to go on from there in another life.
    #[must_use]
    pub fn position(&self) -> Option<ChangePosition> {
        match self.waiting.front() {
            Some(WatchEvent::Change(change)) => Some(ChangePosition(change.position.0 - 1)),
            // A gap that was not told yet must be found again.
            Some(WatchEvent::Gap) => Some(ChangePosition(0)),
            None => self.position,
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("namespace", &self.namespace)
            .field("prefix", &self.prefix)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
