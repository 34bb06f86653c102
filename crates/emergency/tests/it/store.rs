//! A store that fails on demand, gives way between its steps, and remembers every record it took.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use infra_emergency::{
    CompanionOps, EmergencyBuilder, EmergencyController, EmergencyState, Transition, TransitionKind,
};
use infra_state_store::{
    Applied, Batch, ChangePosition, Changes, Entry, Key, ListPage, ListRange, MemoryStateStore, Op, OutboxPosition,
    OutboxRow, Page, Scan, StateStore, StoreError, StoreInfo,
};
use infra_types::{BotId, Clock, ErrorKind, EventId, Health, ManualClock, Namespace, Scope};
use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Refused before anything happened.
    Down,
    /// The batch never arrived, and nobody can tell.
    LostRequest,
    /// The batch was applied, and nobody can tell.
    LostReply,
    /// No answer, ever.
    Hang,
}

/// A record that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub scope: Scope,
    pub kind: TransitionKind,
    pub state: EmergencyState,
    pub version: u64,
    pub by: String,
}

#[derive(Debug)]
struct Plan {
    standing: Fault,
    next: VecDeque<Fault>,
    gives_way: bool,
    written: Vec<Written>,
}

#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    inner: MemoryStateStore,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyStore {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        let plan = Plan { standing: Fault::None, next: VecDeque::new(), gives_way: false, written: Vec::new() };
        Self { inner: MemoryStateStore::new(Arc::new(clock.clone())), plan: Arc::new(Mutex::new(plan)) }
    }

    /// Every operation from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.plan.lock().standing = fault;
    }

    /// The next operations, one each.
    pub(crate) fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan.lock().next.extend(faults);
    }

    pub(crate) fn heal(&self) {
        let mut plan = self.plan.lock();
        plan.next.clear();
        plan.standing = Fault::None;
    }

    /// Whether each operation waits once before and once after it happens.
    pub(crate) fn give_way(&self, gives_way: bool) {
        self.plan.lock().gives_way = gives_way;
    }

    pub(crate) fn written(&self) -> Vec<Written> {
        self.plan.lock().written.clone()
    }

    /// The firm's state.
    pub(crate) fn state(&self) -> EmergencyState {
        self.state_in(&Scope::Firm)
    }

    pub(crate) fn state_in(&self, scope: &Scope) -> EmergencyState {
        self.plan.lock().written.iter().rfind(|w| w.scope == *scope).map_or(EmergencyState::Normal, |w| w.state)
    }

    async fn begin(&self) -> Fault {
        let (fault, gives_way) = {
            let mut plan = self.plan.lock();
            (plan.next.pop_front().unwrap_or(plan.standing), plan.gives_way)
        };
        self.step(gives_way).await;
        if fault == Fault::Hang {
            std::future::pending::<()>().await;
        }
        fault
    }

    async fn end(&self) {
        let gives_way = self.plan.lock().gives_way;
        self.step(gives_way).await;
    }

    async fn step(&self, gives_way: bool) {
        if gives_way {
            tokio::task::yield_now().await;
        }
    }

    /// Remembers the transitions of a batch. What is no record (the tests write damage too) is not noted.
    fn note(&self, ops: &[Op]) {
        let Some(Op::Set { key, value, .. }) = ops.first() else { return };
        if key.name() != "emergency/firm" {
            return;
        }
        let json = value.as_bytes().map_or(serde_json::Value::Null, |b| serde_json::from_slice(b).unwrap_or_default());
        for op in ops {
            let Op::Push { value, .. } = op else { continue };
            let t: Transition = serde_json::from_slice(value).unwrap();
            let name = t.scope.to_string();
            let held = if t.scope == Scope::Firm { &json["firm"] } else { &json["scopes"][&name] };
            let stored = serde_json::from_value(held["state"].clone()).unwrap_or(EmergencyState::Normal);
            assert_eq!(stored, t.to, "the record holds what the history says: {json}");
            let written = Written { scope: t.scope, kind: t.kind, state: t.to, version: t.version, by: t.by };
            self.plan.lock().written.push(written);
        }
    }
}

fn down() -> StoreError {
    StoreError::Backend { message: "the database does not answer".into(), kind: ErrorKind::Unavailable }
}

fn lost() -> StoreError {
    StoreError::Ambiguous { reason: "the connection broke".into() }
}

#[async_trait]
impl StateStore for FaultyStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let fault = self.begin().await;
        if fault != Fault::None {
            return Err(down());
        }
        let read = self.inner.get_many(namespace, keys).await;
        self.end().await;
        read
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let fault = self.begin().await;
        match fault {
            Fault::Down => return Err(down()),
            Fault::LostRequest => return Err(lost()),
            _ => {}
        }
        let ops = batch.ops.clone();
        let applied = self.inner.apply(batch).await;
        if applied.is_ok() {
            self.note(&ops);
        }
        self.end().await;
        if fault == Fault::LostReply { Err(lost()) } else { applied }
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.inner.scan(namespace, scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.inner.list_range(namespace, list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.inner.changes_read(namespace, after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
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

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new("ledger").unwrap()
}

pub(crate) fn record_key() -> Key {
    Key::record("emergency/firm").unwrap()
}

pub(crate) fn outbox_key() -> Key {
    Key::record("outbox/audit").unwrap()
}

/// One message for each transition: `version:from:to:by`.
pub(crate) fn companions() -> CompanionOps {
    Arc::new(|t| {
        let text = format!("{}:{}:{}:{}", t.version, t.from, t.to, t.by);
        let id = EventId::new(format!("emergency.{}", t.version)).unwrap();
        vec![Op::Enqueue { outbox: outbox_key(), order_key: "firm".into(), id, payload: text.into() }]
    })
}

pub(crate) async fn outbox(store: &FaultyStore) -> Vec<String> {
    let rows = store.outbox_read(&namespace(), &outbox_key(), None, 1_000).await.unwrap();
    rows.iter().map(|row| String::from_utf8(row.payload.to_vec()).unwrap()).collect()
}

pub(crate) fn builder(id: &str, store: &FaultyStore, clock: &ManualClock) -> EmergencyBuilder {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    EmergencyController::builder(BotId::new(id).unwrap(), Arc::new(store.clone()), namespace(), clock)
        .companion_ops(companions())
}

/// A process on the store, which has read it.
pub(crate) async fn process(id: &str, store: &FaultyStore, clock: &ManualClock) -> EmergencyController {
    let controller = builder(id, store, clock).build().unwrap();
    controller.refresh().await.unwrap();
    controller
}
