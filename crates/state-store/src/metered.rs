//! How a store is used, and how fast it answers.

mod histogram;
mod statistics;

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use infra_types::{Clock, Health, Namespace};

use self::statistics::Meters;
pub use self::statistics::{CallStatistics, StoreStatistics};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    store::{Entry, Page, Scan, StateStore, StoreInfo},
};

/// Counts and times the calls of a store, in about 16 KiB, without a lock.
///
/// ```
/// use std::sync::Arc;
/// use infra_state_store::{Key, MemoryStateStore, MeteredStateStore, StateStoreExt, Ttl};
/// use infra_types::{Namespace, SystemClock};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let clock = SystemClock::shared();
/// let store = MeteredStateStore::new(Arc::new(MemoryStateStore::new(clock.clone())), clock);
/// store.set(&Namespace::new("bot")?, &Key::record("k")?, "value", Ttl::Never).await?;
/// let statistics = store.statistics();
/// assert_eq!((statistics.call("apply").calls, statistics.bytes_written, statistics.ops["set"]), (1, 5, 1));
/// println!("{statistics}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MeteredStateStore {
    inner: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    meters: Meters,
}

impl MeteredStateStore {
    /// Counts the calls of `inner` from now on, timed by `clock`.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, meters: Meters::default() }
    }

    /// What was counted so far. Calls that run meanwhile may be in one number and not yet in another.
    #[must_use]
    pub fn statistics(&self) -> StoreStatistics {
        self.meters.snapshot(self.inner.info().backend)
    }

    /// A call that is dropped before it answered is not counted.
    async fn timed<T>(
        &self,
        call: Call,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let start = self.clock.now();
        let answer = run.await;
        let error = answer.as_ref().err().map(StoreError::kind);
        self.meters.note(call, self.clock.now().since(start), error);
        answer
    }

    fn read(&self, bytes: usize) {
        self.meters.note_read(bytes);
    }
}

/// Which method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    GetMany,
    Apply,
    Scan,
    ListRange,
    ChangesRead,
    OutboxRead,
    Clear,
    Health,
}

impl Call {
    const ALL: [Self; 9] = [
        Self::Get,
        Self::GetMany,
        Self::Apply,
        Self::Scan,
        Self::ListRange,
        Self::ChangesRead,
        Self::OutboxRead,
        Self::Clear,
        Self::Health,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Apply => "apply",
            Self::Scan => "scan",
            Self::ListRange => "list_range",
            Self::ChangesRead => "changes_read",
            Self::OutboxRead => "outbox_read",
            Self::Clear => "clear",
            Self::Health => "health",
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.value.as_bytes().map_or(0, bytes::Bytes::len)
}

#[async_trait]
impl StateStore for MeteredStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let found = self.timed(Call::GetMany, self.inner.get_many(namespace, keys)).await?;
        self.read(found.iter().flatten().map(size).sum());
        Ok(found)
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.timed(Call::Get, self.inner.get(namespace, key)).await?;
        self.read(found.as_ref().map_or(0, size));
        Ok(found)
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.meters.note_batch(&batch);
        self.timed(Call::Apply, self.inner.apply(batch)).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        let page = self.timed(Call::Scan, self.inner.scan(namespace, scan)).await?;
        self.read(page.entries.iter().map(|(_, entry)| size(entry)).sum());
        Ok(page)
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        let page = self.timed(Call::ListRange, self.inner.list_range(namespace, list, range)).await?;
        self.read(page.values.iter().map(bytes::Bytes::len).sum());
        Ok(page)
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.timed(Call::ChangesRead, self.inner.changes_read(namespace, after, limit)).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = self.timed(Call::OutboxRead, self.inner.outbox_read(namespace, outbox, after, limit)).await?;
        self.read(rows.iter().map(|row| row.payload.len()).sum());
        Ok(rows)
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.timed(Call::Clear, self.inner.clear(namespace)).await
    }

    async fn health(&self) -> Health {
        let health = self.timed(Call::Health, async { Ok(self.inner.health().await) }).await;
        health.unwrap_or_else(|e| Health::down(e.to_string()))
    }

    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

impl fmt::Debug for MeteredStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredStateStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}
