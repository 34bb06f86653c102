//! The promise.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use infra_types::{Health, Namespace, Timestamp};

use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow, Version},
    capability::Capability,
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Any bytes, up to `Limits::value_bytes_max`.
    Bytes(Bytes),
    /// A whole number, |v| ≤ 2⁵³−1 on every backend.
    Counter(i64),
}

impl Value {
    /// The largest absolute value of a counter: Redis reckons in doubles inside scripts.
    pub const COUNTER_MAX: i64 = (1 << 53) - 1;

    /// The bytes, if it is bytes.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Counter(_) => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_counter(&self) -> Option<i64> {
        match self {
            Self::Counter(n) => Some(*n),
            Self::Bytes(_) => None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Value {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// A value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// The record's version; a lease's fence; none for cache keys.
    pub version: Option<Version>,
    /// When it will be gone by the store's clock.
    pub expires_at: Option<Timestamp>,
}

/// Which records to list: by key, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// What the keys start with, literally; never empty (`clear` is the way to reach everything).
    pub prefix: String,
    /// Only keys after this one: the last key of the page before.
    pub after: Option<String>,
    /// How many at most: 1 to 1,000.
    pub limit: usize,
}

impl Scan {
    /// The first page of up to 100 records under `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), after: None, limit: 100 }
    }
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Records in the byte order of their keys.
    pub entries: Vec<(Key, Entry)>,
    /// Where the next page starts (as `Scan::after`); none on the last page.
    pub next: Option<String>,
}

/// Sizes that every backend enforces before it does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one value.
    pub value_bytes_max: usize,
    /// Operations of one batch.
    pub batch_ops_max: usize,
    /// Bytes of all values of one batch.
    pub batch_bytes_max: usize,
    /// Keys of one read.
    pub get_keys_max: usize,
}

impl Default for Limits {
    /// 1 MiB a value, 1,024 operations and 8 MiB a batch, 1,024 keys a read.
    fn default() -> Self {
        Self { value_bytes_max: 1 << 20, batch_ops_max: 1_024, batch_bytes_max: 8 << 20, get_keys_max: 1_024 }
    }
}

/// What a store is and may be relied on for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// `memory`, `sqlite`, …
    pub backend: &'static str,
    /// Whether an acknowledged write survives the death of this process.
    pub survives_process: bool,
    /// Whether an acknowledged write survives a power cut.
    pub survives_power_cut: bool,
    /// Whether other processes see it.
    pub shared_between_processes: bool,
    /// Whether other hosts see it.
    pub shared_between_hosts: bool,
    /// Whether expiry is judged by the clock that the store was given; else by the server's.
    pub uses_given_clock: bool,
    /// The sizes it enforces.
    pub limits: Limits,
}

impl StoreInfo {
    /// Whether the store can do this; the closed list of what some cannot.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::SurviveProcess => self.survives_process,
            Capability::SurvivePowerCut => self.survives_power_cut,
            Capability::ShareBetweenProcesses => self.shared_between_processes,
            Capability::ShareBetweenHosts => self.shared_between_hosts,
            Capability::UseGivenClock => self.uses_given_clock,
        }
    }

    /// Refuses a store that cannot do what its user needs.
    ///
    /// # Errors
    /// `Unsupported`, with what is missing.
    pub fn require(&self, capability: Capability) -> Result<(), StoreError> {
        if self.has(capability) {
            return Ok(());
        }
        Err(StoreError::Unsupported { backend: self.backend, what: capability.as_str() })
    }
}

/// State that bots share.
///
/// Promises, on every backend alike:
/// * **All or nothing.** `apply` does every operation of its batch or none; other readers see the state before or after.
/// * **Linearizable.** Once `apply` answered, every later read by anyone sees it.
/// * **Expired is absent**, on every path.
/// * **Versions never return**, not after delete or expiry either.
/// * **A lost reply is `Ambiguous`**, never called a failure and never retried in here.
///
/// Not promised: an order between batches of different namespaces; that cache keys stay until their time.
#[async_trait]
pub trait StateStore: Send + Sync + fmt::Debug {
    /// Reads keys in one consistent snapshot; the answers stand in the order of `keys`, absent (or expired) as `None`.
    ///
    /// # Errors
    /// `TooLarge` for over `Limits::get_keys_max` keys; `Invalid` for a list key ([`list_range`](Self::list_range) reads it) or a window
    /// key (admit 0 to read it); `Closed`, `Backend`, `Corrupt`. One key that is wrong refuses all.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError>;

    /// Reads one key.
    ///
    /// # Errors
    /// `Invalid` for a list or a window key, `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.get_many(namespace, std::slice::from_ref(key)).await?.pop().flatten())
    }

    /// Applies a batch, all or nothing; one result an operation. An empty batch is fine and does nothing.
    ///
    /// # Errors
    /// Unless it is `Ambiguous`, nothing changed.
    /// * Before anything happens: `TooLarge` for a value, a batch or its bytes beyond [`Limits`]; `Invalid` for an operation that does not
    ///   suit the kind of its key, or an amount, cap, length, name or time to live out of its range; `Closed`.
    /// * The first operation that refuses names itself by `index`: `Mismatch`, `OutOfBounds`, `Overflow`, `WrongType`, `LeaseHeld`,
    ///   `Fenced`, `WindowFull`, `AlreadyProcessed`.
    /// * `Backend` if the database failed, `Corrupt` if what it holds is not what a store writes.
    /// * `Ambiguous` if the reply was lost: the batch is wholly there or wholly absent.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError>;

    /// Lists records under a prefix, by key. A key that is present throughout a paged scan is seen exactly once.
    ///
    /// # Errors
    /// `Invalid` for an empty prefix, for a prefix or `after` that no key could have (over 512 bytes, control characters), or a limit
    /// outside 1 to 1,000; `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError>;

    /// Reads a part of a list. An absent or expired list is empty.
    ///
    /// # Errors
    /// `Invalid` for a key of another kind or a limit outside 1 to 1,000, `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError>;

    /// Changes of records after a position, at most `limit` (1 to 1,000), in order; without a position, only where the changes end
    /// now. A change that appears later never stands before one that was already read. A position that is not of this store's
    /// life (a backup was restored) is a gap too. [`Watch`](crate::Watch) follows them.
    ///
    /// # Errors
    /// `Invalid` for a namespace that keeps no changes, or a limit outside 1 to 1,000; `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError>;

    /// The oldest messages of an outbox, after a position, at most `limit` (1 to 1,000), in order. A message that appears
    /// later never stands before one that was already read.
    ///
    /// # Errors
    /// `Invalid` for an outbox that is not named by a record key or a limit outside 1 to 1,000; `Closed`, `Backend`, `Corrupt`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError>;

    /// Removes every key, list, message and mark of a namespace, in chunks; never touches another. Versions and fences go on
    /// counting. Answers how many keys were removed.
    ///
    /// # Errors
    /// `Closed`, `Backend`, `Corrupt`, `Ambiguous`. After any but `Closed` a part may be removed: clear again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a part removed.
    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError>;

    /// How the store feels, with a write probe. Never an error: a store that cannot be reached is `Down`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing that can be read.
    async fn health(&self) -> Health;

    /// What the store is.
    fn info(&self) -> StoreInfo;

    /// Finishes what was begun and refuses everything after with `Closed`. Idempotent.
    ///
    /// # Errors
    /// What could not be finished, as [`apply`](Self::apply) would tell it; the store is closed all the same.
    ///
    /// # Cancel safety
    /// Once it was polled, everything after is refused; who drops the future only does not wait for what was begun.
    async fn close(&self) -> Result<(), StoreError>;
}
