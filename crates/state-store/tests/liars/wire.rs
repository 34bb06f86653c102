//! A store behind a wire that exists in this process only, so that the cases about faults can be tested without a server: an honest
//! one, and some that lie when the wire fails.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, ChangePosition, Changes, Entry, Key, ListPage, ListRange, MemoryStateStore, OutboxPosition,
    OutboxRow, Page, Scan, StateStore, StoreError, StoreInfo,
    conformance::{FaultControl, Outage, Way},
};
use infra_types::{ErrorKind, Health, Namespace};
use parking_lot::Mutex;

use super::lie::pause;

/// How long the store waits for a reply.
const DEADLINE: Duration = Duration::from_millis(60);
/// Bytes of every request and of every reply.
const BYTES: u64 = 40;

/// What the store gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireLie {
    None,
    SendsAgain,
    CallsDoubtFailure,
    CallsDoubtSuccess,
    DoubtsReads,
    WaitsForEver,
    StaysBroken,
    AppliesHalf,
    ForgetsWhatItPromised,
    TakesLateReplies,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    delay: Duration,
    cut_requests: Option<u64>,
    cut_replies: Option<u64>,
    /// Grows with every cut: what was on its way is lost.
    generation: u64,
    is_broken: bool,
}

#[derive(Debug)]
pub(crate) struct Wire {
    server: MemoryStateStore,
    state: Arc<Mutex<State>>,
    lie: WireLie,
    /// What was read last, for a store that mistakes it for another answer.
    late: Mutex<Option<Vec<Option<Entry>>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Lost {
    Request,
    Reply,
}

fn away(message: &str) -> StoreError {
    StoreError::Backend { message: message.into(), kind: ErrorKind::Unavailable }
}

fn spend(left: &mut Option<u64>) -> bool {
    match left {
        Some(bytes) if *bytes < BYTES => {
            *left = None;
            true
        }
        Some(bytes) => {
            *bytes -= BYTES;
            false
        }
        None => false,
    }
}

impl Wire {
    pub(crate) fn new(server: MemoryStateStore, lie: WireLie) -> Self {
        Self { server, state: Arc::default(), lie, late: Mutex::default() }
    }

    fn again(&self) -> Self {
        Self { server: self.server.clone(), state: self.state.clone(), lie: self.lie, late: Mutex::default() }
    }

    /// Sends a request and waits for what the server makes of it. The outer error is told before anything was sent.
    async fn call<T>(&self, work: impl Future<Output = T>) -> Result<Result<T, Lost>, StoreError> {
        let (outage, generation, is_lost) = {
            let mut state = self.state.lock();
            (state.outage, state.generation, spend(&mut state.cut_requests))
        };
        match outage {
            Some(Outage::Refused) => return Err(away("the server refuses connections")),
            Some(Outage::Silent) if self.lie == WireLie::WaitsForEver => std::future::pending().await,
            Some(Outage::Silent) => {
                tokio::time::sleep(DEADLINE).await;
                return Ok(Err(Lost::Request));
            }
            None if self.lie == WireLie::StaysBroken && self.state.lock().is_broken => {
                return Err(away("the connection has ended"));
            }
            None => {}
        }
        if is_lost {
            self.state.lock().is_broken = true;
            return Ok(Err(Lost::Request));
        }
        pause().await;
        if self.state.lock().generation != generation {
            return Ok(Err(Lost::Request));
        }
        let reply = work.await;
        let (delay, is_lost) = {
            let mut state = self.state.lock();
            (state.delay, spend(&mut state.cut_replies))
        };
        tokio::time::sleep(delay.min(DEADLINE)).await;
        if is_lost || delay >= DEADLINE || self.state.lock().generation != generation {
            self.state.lock().is_broken = true;
            return Ok(Err(Lost::Reply));
        }
        Ok(Ok(reply))
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self.call(work).await? {
            Ok(answer) => answer,
            Err(_) if self.lie == WireLie::DoubtsReads => Err(StoreError::Ambiguous { reason: "no reply".into() }),
            Err(_) => Err(away("no reply came")),
        }
    }
}

#[async_trait]
impl StateStore for Wire {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        if self.lie == WireLie::TakesLateReplies {
            let found = self.server.get_many(namespace, keys).await?;
            let late = self.late.lock().replace(found.clone());
            let answer = self.read(async { Ok(late.filter(|late| late.len() == keys.len()).unwrap_or(found)) }).await;
            // A read that was given up leaves its reply for the next one.
            *self.late.lock() = None;
            return answer;
        }
        self.read(self.server.get_many(namespace, keys)).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let half = Batch { namespace: batch.namespace.clone(), ops: batch.ops[..batch.ops.len() / 2].to_vec() };
        match self.call(self.server.apply(batch.clone())).await? {
            Ok(answer) => answer,
            Err(lost) => match self.lie {
                WireLie::SendsAgain => self.server.apply(batch).await,
                WireLie::CallsDoubtFailure => Err(away("no reply came")),
                WireLie::CallsDoubtSuccess => Ok(vec![Applied::Done; batch.ops.len()]),
                WireLie::AppliesHalf => {
                    if lost == Lost::Request {
                        self.server.apply(half).await?;
                    }
                    Err(StoreError::Ambiguous { reason: "no reply came".into() })
                }
                _ => Err(StoreError::Ambiguous { reason: "no reply came".into() }),
            },
        }
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.read(self.server.scan(namespace, scan)).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        self.read(self.server.list_range(namespace, list, range)).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        self.read(self.server.changes_read(namespace, after, limit)).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.read(self.server.outbox_read(namespace, outbox, after, limit)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.read(self.server.clear(namespace)).await
    }

    async fn health(&self) -> Health {
        match self.call(self.server.health()).await {
            Ok(Ok(health)) => health,
            Ok(Err(_)) => Health::down("no reply came"),
            Err(e) => Health::down(e.to_string()),
        }
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            survives_process: true,
            survives_power_cut: true,
            shared_between_processes: true,
            shared_between_hosts: true,
            ..self.server.info()
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.server.close().await
    }
}

#[async_trait]
impl FaultControl for Wire {
    fn store(&self) -> Arc<dyn StateStore> {
        Arc::new(self.again())
    }

    fn direct(&self) -> Arc<dyn StateStore> {
        Arc::new(self.server.clone())
    }

    async fn cut(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.is_broken = true;
    }

    async fn cut_after(&self, way: Way, bytes: u64) {
        let mut state = self.state.lock();
        match way {
            Way::Requests => state.cut_requests = Some(bytes),
            Way::Replies => state.cut_replies = Some(bytes),
        }
    }

    async fn outage(&self, how: Outage) {
        let mut state = self.state.lock();
        state.outage = Some(how);
        state.generation += 1;
    }

    async fn delay(&self, by: Duration) {
        self.state.lock().delay = by;
    }

    async fn heal(&self) {
        let mut state = self.state.lock();
        *state = State { generation: state.generation, is_broken: state.is_broken, ..State::default() };
    }

    async fn restart(&self) {
        self.cut().await;
        if self.lie == WireLie::ForgetsWhatItPromised {
            let home = Namespace::new("conformance").expect("a valid namespace");
            self.server.clear(&home).await.expect("memory clears");
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }
}
