//! State in this process's memory: for tests, development and backtests. It is the specification.

mod space;
mod spaces;
mod transaction;

use std::{
    fmt,
    num::NonZeroUsize,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use infra_types::{Clock, Health, Namespace};

use self::{spaces::Spaces, transaction::Transaction};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    rules::{self, number_at},
    store::{Entry, Limits, Page, Scan, StateStore, StoreInfo},
    validate::{self, changes_not_kept},
};

/// Several times faster than the standard one on short names; its seed is the process's own, so that names cannot be chosen to
/// collide.
type Hasher = foldhash::fast::RandomState;

struct Inner {
    clock: Arc<dyn Clock>,
    limits: Limits,
    cache_entries_max: usize,
    cache_evictions: AtomicU64,
    is_closed: AtomicBool,
    spaces: Spaces,
}

/// A store in memory. Clones share the data. Cache keys beyond the bound push out the oldest ones; records, outboxes and marks
/// grow with what the caller writes. A lease's row and a namespace's last number stay as long as the store, also after `clear`, so that no
/// fence and no version returns: name leases after what is few, such as accounts.
#[derive(Clone)]
pub struct MemoryStateStore(Arc<Inner>);

impl MemoryStateStore {
    /// Cache keys of one namespace, unless chosen otherwise.
    pub const CACHE_ENTRIES_MAX: usize = 100_000;

    /// An empty store that judges expiry by `clock.wall()`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::build(clock, Self::CACHE_ENTRIES_MAX)
    }

    /// An empty store that keeps at most `max` cache keys a namespace.
    #[must_use]
    pub fn with_cache_entries_max(clock: Arc<dyn Clock>, max: NonZeroUsize) -> Self {
        Self::build(clock, max.get())
    }

    fn build(clock: Arc<dyn Clock>, cache_entries_max: usize) -> Self {
        Self(Arc::new(Inner {
            clock,
            limits: Limits::default(),
            cache_entries_max,
            cache_evictions: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            spaces: Spaces::default(),
        }))
    }

    /// How many cache keys were pushed out before their time.
    #[must_use]
    pub fn cache_evictions(&self) -> u64 {
        self.0.cache_evictions.load(Ordering::Relaxed)
    }

    fn open(&self) -> Result<&Inner, StoreError> {
        if self.0.is_closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(&self.0) }
    }
}

impl Inner {
    fn now_ms(&self) -> i64 {
        self.clock.wall().as_millis()
    }
}

#[async_trait]
impl StateStore for MemoryStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let inner = self.open()?;
        validate::keys(keys, &inner.limits)?;
        let Some(space) = inner.spaces.get(namespace) else { return Ok(vec![None; keys.len()]) };
        let space = space.read();
        let now_ms = inner.now_ms();
        Ok(keys.iter().map(|key| space.get(key, || now_ms)).collect())
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        let inner = self.open()?;
        validate::readable(key)?;
        Ok(inner.spaces.get(namespace).and_then(|space| space.read().get(key, || inner.now_ms())))
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let inner = self.open()?;
        validate::batch(&batch, &inner.limits)?;
        let mut space = inner.spaces.get_or_new(&batch.namespace).write();
        let now_ms = inner.now_ms();
        let mut transaction = Transaction::new(&mut space);
        let applied = rules::apply(&mut transaction, batch.ops, now_ms);
        if applied.is_err() {
            transaction.roll_back();
        }
        let evicted = space.tidy(now_ms, inner.cache_entries_max);
        inner.cache_evictions.fetch_add(evicted, Ordering::Relaxed);
        applied
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        let inner = self.open()?;
        validate::scan(&scan)?;
        let Some(space) = inner.spaces.get(namespace) else { return Ok(Page::default()) };
        let space = space.read();
        let from = match scan.after.as_deref() {
            Some(after) if after >= scan.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(scan.prefix.as_str()),
        };
        let mut entries = Vec::new();
        for (name, entry) in space.records_from(from, inner.now_ms()) {
            if !name.starts_with(&scan.prefix) {
                break;
            }
            if entries.len() == scan.limit {
                let next = entries.last().map(|(key, _): &(Key, Entry)| key.name().to_owned());
                return Ok(Page { entries, next });
            }
            entries.push((Key::record(name)?, entry));
        }
        Ok(Page { entries, next: None })
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        let inner = self.open()?;
        validate::list(list, &range)?;
        let Some(space) = inner.spaces.get(namespace) else { return Ok(ListPage::default()) };
        let space = space.read();
        Ok(space.list_page(list, range, inner.now_ms()))
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        let inner = self.open()?;
        validate::page(limit)?;
        let space = inner.spaces.get(namespace).ok_or_else(changes_not_kept)?;
        let space = space.read();
        space.changes_after(after, limit).ok_or_else(changes_not_kept)
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let inner = self.open()?;
        validate::outbox(outbox, limit)?;
        let Some(space) = inner.spaces.get(namespace) else { return Ok(Vec::new()) };
        Ok(space.read().outbox_after(outbox, after.map_or(0, number_at), limit))
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        let inner = self.open()?;
        Ok(inner.spaces.get(namespace).map_or(0, |space| space.write().clear(inner.now_ms())))
    }

    async fn health(&self) -> Health {
        match self.open() {
            Ok(inner) => Health::up(format!("memory holds {} namespaces", inner.spaces.len())),
            Err(e) => Health::down(e.to_string()),
        }
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            backend: "memory",
            survives_process: false,
            survives_power_cut: false,
            shared_between_processes: false,
            shared_between_hosts: false,
            uses_given_clock: true,
            limits: self.0.limits,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.is_closed.store(true, Ordering::Release);
        Ok(())
    }
}

impl fmt::Debug for MemoryStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the values: they may be secrets.
        f.debug_struct("MemoryStateStore").field("namespaces", &self.0.spaces.len()).finish_non_exhaustive()
    }
}
