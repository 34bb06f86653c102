//! A store that fails at its n-th write.

use std::sync::Arc;

use async_trait::async_trait;
use infra_factory::{
    state_store::{
        Applied, Batch, ChangePosition, Changes, Entry, Key, ListPage, ListRange, OutboxPosition, OutboxRow, Page,
        Scan, StateStore, StoreError, StoreInfo,
    },
    types::{ErrorKind, Health, Namespace},
};
use parking_lot::Mutex;

/// What happens at the chosen write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused and did not happen.
    Fails,
    /// Its reply is lost; it did not happen.
    LostAbsent,
    /// Its reply is lost; it happened.
    LostApplied,
    /// The process ends before it.
    DiesBefore,
    /// The process ends after it, before the reply.
    DiesAfter,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] =
        [Self::Fails, Self::LostAbsent, Self::LostApplied, Self::DiesBefore, Self::DiesAfter];

    pub(crate) fn is_death(self) -> bool {
        matches!(self, Self::DiesBefore | Self::DiesAfter)
    }
}

#[derive(Debug, Default)]
struct Plan {
    /// Writes since the plan was made.
    applies: u64,
    fault: Option<(u64, Fault)>,
    is_dead: bool,
    /// Reads fail too, until the plan is changed.
    reads_fail: bool,
}

/// Decorates a store; a dead one refuses everything.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn StateStore>,
    plan: Mutex<Plan>,
}

fn failed() -> StoreError {
    StoreError::Backend { message: "the store failed by request".into(), kind: ErrorKind::Unavailable }
}

fn lost() -> StoreError {
    StoreError::Ambiguous { reason: "the reply was lost by request".into() }
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self { inner, plan: Mutex::default() })
    }

    /// What it decorates: what another process would see.
    pub(crate) fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    /// The `nth` write from now on, counted from 1, meets `fault`.
    pub(crate) fn arm(&self, nth: u64, fault: Fault) {
        *self.plan.lock() = Plan { fault: Some((nth, fault)), ..Plan::default() };
    }

    /// Fails every read and write (or no longer).
    pub(crate) fn cut(&self, is_cut: bool) {
        let mut plan = self.plan.lock();
        (plan.is_dead, plan.reads_fail) = (is_cut, is_cut);
    }

    /// After the armed fault, reads fail until `cut(false)`.
    pub(crate) fn fail_reads(&self) {
        self.plan.lock().reads_fail = true;
    }

    /// Whether the armed fault happened.
    pub(crate) fn has_struck(&self) -> bool {
        let plan = self.plan.lock();
        plan.fault.is_none_or(|(nth, _)| plan.applies >= nth)
    }

    fn check_read(&self) -> Result<(), StoreError> {
        let plan = self.plan.lock();
        if plan.is_dead || plan.reads_fail { Err(failed()) } else { Ok(()) }
    }
}

#[async_trait]
impl StateStore for FaultyStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.check_read()?;
        self.inner.get_many(namespace, keys).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let fault = {
            let mut plan = self.plan.lock();
            if plan.is_dead {
                return Err(failed());
            }
            plan.applies += 1;
            let now = plan.applies;
            let fault = plan.fault.filter(|(nth, _)| *nth == now).map(|(_, fault)| fault);
            plan.is_dead = fault.is_some_and(Fault::is_death);
            fault
        };
        match fault {
            None => self.inner.apply(batch).await,
            Some(Fault::Fails) => Err(failed()),
            Some(Fault::LostAbsent | Fault::DiesBefore) => Err(lost()),
            // A refusal is a refusal, whether its reply is lost or not.
            Some(Fault::LostApplied | Fault::DiesAfter) => self.inner.apply(batch).await.and(Err(lost())),
        }
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.check_read()?;
        self.inner.scan(namespace, scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.check_read()?;
        self.inner.list_range(namespace, list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.check_read()?;
        self.inner.changes_read(namespace, after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.check_read()?;
        self.inner.outbox_read(namespace, outbox, after, limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.inner.clear(namespace).await
    }

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
