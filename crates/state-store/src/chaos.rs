//! A store that fails on purpose, so that the layers above can be tested. Feature `conformance`.
//!
//! ```
//! use std::sync::Arc;
//! use infra_state_store::{Key, MemoryStateStore, StateStoreExt, StoreError, Ttl, chaos::{ChaosStateStore, Fault}};
//! use infra_types::{ManualClock, Namespace};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let clock = Arc::new(ManualClock::default());
//! let store = ChaosStateStore::new(Arc::new(MemoryStateStore::new(clock.clone())), clock);
//! store.script([Fault::None, Fault::LostReply]);
//! let (ns, key) = (Namespace::new("ledger")?, Key::record("n")?);
//! store.increment(&ns, &key, 1).await?;
//! let lost = store.increment(&ns, &key, 1).await;
//! assert!(matches!(lost, Err(StoreError::Ambiguous { .. })));
//! assert_eq!(store.get_counter(&ns, &key).await?, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod plan;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use infra_types::{Clock, ErrorKind, Health, Namespace};
use parking_lot::Mutex;

use self::plan::{Calls, State};
pub use self::plan::{ChaosCounts, ChaosPlan, Fault};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    store::{Entry, Page, Scan, StateStore, StoreInfo},
};

/// Decorates a store and makes some of its calls fail: by a script first, then by a standing fault, then by the dice of a plan.
/// The same seed and the same order of calls give the same faults.
pub struct ChaosStateStore {
    inner: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl ChaosStateStore {
    /// Decorates `inner`; nothing fails until it is told to. Delays pass on `clock`.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, clock: Arc<dyn Clock>) -> Self {
        Self::with_plan(inner, clock, ChaosPlan::default())
    }

    /// Decorates `inner` with faults by chance.
    #[must_use]
    pub fn with_plan(inner: Arc<dyn StateStore>, clock: Arc<dyn Clock>, plan: ChaosPlan) -> Self {
        Self { inner, clock, state: Mutex::new(State::new(plan)) }
    }

    /// What it decorates: what another process would see.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    /// The next calls meet these faults, one each, writes only unless [`script_reads_too`](Self::script_reads_too) says otherwise.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().script.extend(faults);
    }

    /// Whether reads take their turn in the script as well.
    pub fn script_reads_too(&self, does: bool) {
        self.state.lock().scripts_reads = does;
    }

    /// The `nth` write from now on, counted from 1, meets this fault; what was scripted before is forgotten.
    pub fn nth_write(&self, nth: usize, fault: Fault) {
        let mut state = self.state.lock();
        state.script.clear();
        state.script.extend(std::iter::repeat_n(Fault::None, nth.saturating_sub(1)).chain([fault]));
    }

    /// How many faults of the script are still to come.
    #[must_use]
    pub fn script_left(&self) -> usize {
        self.state.lock().script.len()
    }

    /// Every call from now on meets this fault, once the script has ended.
    pub fn always(&self, fault: Fault) {
        let mut state = self.state.lock();
        (state.standing_reads, state.standing_writes) = (Some(fault), Some(fault));
    }

    /// Every read from now on meets this fault.
    pub fn always_reads(&self, fault: Fault) {
        self.state.lock().standing_reads = Some(fault);
    }

    /// Whether each call lets other tasks run once before and once after it happens: for tests of every order of steps.
    pub fn give_way(&self, does: bool) {
        self.state.lock().gives_way = does;
    }

    /// Ends the script, the standing faults and the plan; the dead live again.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.script.clear();
        (state.standing_reads, state.standing_writes) = (None, None);
        state.plan = ChaosPlan { seed: state.plan.seed, ..ChaosPlan::default() };
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> ChaosCounts {
        self.state.lock().counts
    }

    async fn draw(&self, call: Calls) -> Fault {
        self.step().await;
        let (fault, delay) = self.state.lock().draw(call);
        if let Some(delay) = delay {
            self.clock.sleep(delay).await;
        }
        if fault == Fault::Hang {
            std::future::pending::<()>().await;
        }
        fault
    }

    async fn step(&self) {
        let gives_way = self.state.lock().gives_way;
        if gives_way {
            tokio::task::yield_now().await;
        }
    }

    /// A read has no effect: whatever is lost of it, it can be asked again.
    async fn read<T>(&self, run: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        match self.draw(Calls::Read).await {
            Fault::None | Fault::Delay(_) => {
                let answer = run.await;
                self.step().await;
                answer
            }
            _ => Err(unavailable()),
        }
    }

    async fn write<T>(&self, run: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let fault = self.draw(Calls::Write).await;
        match fault {
            Fault::Unavailable | Fault::Hang => return Err(unavailable()),
            Fault::LostRequest | Fault::DieBefore => return Err(lost()),
            Fault::None | Fault::Delay(_) | Fault::LostReply | Fault::DieAfter => {}
        }
        let answer = run.await;
        self.step().await;
        // A reply is lost whatever it says, a refusal too.
        if matches!(fault, Fault::LostReply | Fault::DieAfter) { Err(lost()) } else { answer }
    }
}

fn unavailable() -> StoreError {
    StoreError::Backend { message: "the store does not answer (chaos)".into(), kind: ErrorKind::Unavailable }
}

fn lost() -> StoreError {
    StoreError::Ambiguous { reason: "the connection broke (chaos)".into() }
}

#[async_trait]
impl StateStore for ChaosStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.read(self.inner.get_many(namespace, keys)).await
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.read(self.inner.get(namespace, key)).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.write(self.inner.apply(batch)).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.read(self.inner.scan(namespace, scan)).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.read(self.inner.list_range(namespace, list, range)).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.read(self.inner.changes_read(namespace, after, limit)).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.read(self.inner.outbox_read(namespace, outbox, after, limit)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.write(self.inner.clear(namespace)).await
    }

    async fn health(&self) -> Health {
        let standing = self.state.lock().standing_writes;
        match standing {
            None | Some(Fault::None | Fault::Delay(_)) => self.inner.health().await,
            Some(_) => Health::down(unavailable().to_string()),
        }
    }

    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

impl fmt::Debug for ChaosStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChaosStateStore")
            .field("inner", &self.inner)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
