//! When a server fails, its store is asked again where that is safe, and left alone for a while when it keeps failing.
//!
//! The port has the time limit; here are the retries and the breaker, and nothing else. Reads that fail soon are tried again. A batch is tried again
//! only if the store said that nothing was written: after a lost reply its caller finds out first.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_resilience::{
    AtMostOnce, CallError, CircuitBreaker, Classify, Idempotent, Policy, PolicyError, ReadOnly, Retry, presets,
};
use infra_state_store::{
    Applied, Batch, ChangePosition, Changes, Entry, Key, ListPage, ListRange, OutboxPosition, OutboxRow, Page, Scan,
    StateStore, StoreError, StoreInfo,
};
use infra_types::{Backoff, Clock, ErrorKind, Health, Namespace};

use crate::error::FactoryError;

/// A call that took longer than this is not repeated: whoever waits for it has waited enough.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the layers of a call need to know of a store's error.
#[derive(Debug)]
struct Failed {
    error: StoreError,
    took: Duration,
}

impl Classify for Failed {
    fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// Longer than any wait that the policies accept, so that they stop.
    fn retry_after(&self) -> Option<Duration> {
        (self.took > PATIENCE).then_some(Duration::MAX)
    }

    /// A closed store is closed for good: asking again would not help, and says nothing about the server.
    fn is_local_rejection(&self) -> bool {
        matches!(self.error, StoreError::Closed)
    }
}

/// A store on a server, with breaker and retry.
pub(crate) struct GuardedStore {
    inner: Arc<dyn StateStore>,
    reads: Policy,
    writes: Policy,
    clock: Arc<dyn Clock>,
    /// What the server's last failure said: the refusals of an open breaker repeat it.
    last_failure: parking_lot::Mutex<String>,
}

impl GuardedStore {
    /// Guards `inner`; `name` stands in the breaker's errors.
    pub(crate) fn new(name: &str, inner: Arc<dyn StateStore>, clock: Arc<dyn Clock>) -> Result<Self, FactoryError> {
        // While the breaker is open a call fails at once: whoever decides about money waits for nothing.
        let retry = || Retry::attempts(3).backoff(Backoff::default()).retry_after_max(Duration::ZERO);
        let reads = presets::database(name).retry(retry()).clock(Arc::clone(&clock)).build()?;
        let writes = Policy::builder(name).retry(retry().stop_on_unknown()).clock(Arc::clone(&clock));
        let writes = match reads.breaker() {
            Some(breaker) => writes.breaker(CircuitBreaker::clone(breaker)),
            None => writes,
        };
        Ok(Self { inner, reads, writes: writes.build()?, clock, last_failure: parking_lot::Mutex::default() })
    }

    async fn read<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let call = |_| self.timed(call());
        self.reads.call(ReadOnly, call).await.map_err(|e| self.plain(e))
    }

    /// `Idempotent`, because nothing was written when it is tried again.
    async fn write<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let call = |_| self.timed(call());
        self.writes.call(Idempotent, call).await.map_err(|e| self.plain(e))
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, Failed> {
        let start = self.clock.now();
        call.await.map_err(|error| Failed { error, took: self.clock.now().since(start) })
    }

    fn plain(&self, e: PolicyError<Failed>) -> StoreError {
        match e.error {
            CallError::Inner(Failed { error: e, .. }) => {
                if e.index().is_none() {
                    *self.last_failure.lock() = e.to_string();
                }
                e
            }
            // Without time limits of its own only the breaker is left, and it refuses before the store sees anything.
            refused => StoreError::Backend { message: self.words(&refused), kind: refused.kind() },
        }
    }

    fn words(&self, refused: &CallError<Failed>) -> String {
        match refused {
            CallError::BreakerOpen { name, retry_after } => {
                let wait = retry_after.map_or_else(String::new, |time| format!(" for {} ms", time.as_millis()));
                let last = self.last_failure.lock();
                format!("the {name} store failed several times and is left alone{wait}; its last failure: {last}")
            }
            other => format!("the call was given up as {:?}", other.kind()),
        }
    }
}

#[async_trait]
impl StateStore for GuardedStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.read(|| self.inner.get_many(namespace, keys)).await
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.read(|| self.inner.get(namespace, key)).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.write(|| self.inner.apply(batch.clone())).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.read(|| self.inner.scan(namespace, scan.clone())).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.read(|| self.inner.list_range(namespace, list, range)).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.read(|| self.inner.changes_read(namespace, after, limit)).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.read(|| self.inner.outbox_read(namespace, outbox, after, limit)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        // Once: what a first try removed would be missing in the count of a second.
        let call = |_| self.timed(self.inner.clear(namespace));
        self.writes.call_once(AtMostOnce, call).await.map_err(|e| self.plain(e))
    }

    /// Past the breaker: whoever asks wants to know how the server is now.
    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

impl std::fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardedStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
