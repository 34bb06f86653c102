//! A store that tells the truth except where its `Lie` says otherwise.

use std::fmt::Debug;

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, ChangePosition, Changes, Entry, Key, ListPage, ListRange, MemoryStateStore, Op, OutboxPosition,
    OutboxRow, Page, Scan, StateStore, StoreError, StoreInfo, When,
};
use infra_types::{Health, Namespace};

#[async_trait]
pub(crate) trait Lie: Send + Sync + Debug {
    fn honest(&self) -> &MemoryStateStore;

    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.honest().get_many(namespace, keys).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.honest().apply(batch).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.honest().scan(namespace, scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.honest().list_range(namespace, list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.honest().changes_read(namespace, after, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.honest().clear(namespace).await
    }

    fn info(&self) -> StoreInfo {
        self.honest().info()
    }
}

#[derive(Debug)]
pub(crate) struct Liar<L>(pub(crate) L);

#[async_trait]
impl<L: Lie> StateStore for Liar<L> {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.0.get_many(namespace, keys).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.0.apply(batch).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.0.scan(namespace, scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.0.list_range(namespace, list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.0.changes_read(namespace, after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.0.honest().outbox_read(namespace, outbox, after, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.0.clear(namespace).await
    }

    async fn health(&self) -> Health {
        self.0.honest().health().await
    }

    fn info(&self) -> StoreInfo {
        self.0.info()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.honest().close().await
    }
}

/// Stands where an operation was dropped, so that the others keep their places.
pub(crate) fn nothing() -> Op {
    Op::Check { key: Key::record("nothing").expect("a valid key"), when: When::Always }
}

/// Time for others between a look and a deed.
pub(crate) async fn pause() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}
