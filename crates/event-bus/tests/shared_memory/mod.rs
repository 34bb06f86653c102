//! A memory broker that several buses share, as processes share a server: the cases of crashes and of two processes run without one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures::FutureExt;
use infra_event_bus::{
    BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, MemoryBroker,
    broker::{
        Append, Appended, Broker, Claim, Claims, GroupNames, GroupSpec, Listener, Page, Progress, Seq, Settle, Settled,
        Signal,
    },
    conformance::config,
};
use infra_types::{EventId, Health, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

/// What stands for the server.
#[derive(Debug)]
struct Server {
    events: MemoryBroker,
    /// Who listens: its process, and how to reach it.
    listeners: Mutex<Vec<(u64, mpsc::UnboundedSender<Signal>)>>,
    next_process: AtomicU64,
}

/// One process's broker.
#[derive(Debug)]
pub(crate) struct SharedBroker {
    server: Arc<Server>,
    process: u64,
    is_dead: RwLock<bool>,
}

impl SharedBroker {
    pub(crate) fn new() -> Self {
        let events = MemoryBroker::new(config().limits);
        let server = Server { events, listeners: Mutex::default(), next_process: AtomicU64::new(1) };
        Self { server: Arc::new(server), process: 0, is_dead: RwLock::new(false) }
    }

    /// Another process's broker on the same events.
    pub(crate) fn another(&self) -> Self {
        let process = self.server.next_process.fetch_add(1, Ordering::Relaxed);
        Self { server: self.server.clone(), process, is_dead: RwLock::new(false) }
    }

    /// From now on its process claims and settles nothing, not even what a thread of it has begun.
    pub(crate) fn die(&self) {
        *self.is_dead.write() = true;
    }

    /// Does it while the process cannot die; memory never waits.
    fn alive<T>(&self, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        let is_dead = self.is_dead.read();
        if *is_dead {
            return Err(BusError::Closed);
        }
        work.now_or_never().expect("memory never waits")
    }

    fn tell_others(&self, signal: &Signal) {
        let process = self.process;
        let tell = |(of, listener): &(u64, mpsc::UnboundedSender<Signal>)| {
            *of == process || listener.send(signal.clone()).is_ok()
        };
        self.server.listeners.lock().retain(tell);
    }
}

#[async_trait]
impl Broker for SharedBroker {
    fn info(&self) -> BusInfo {
        BusInfo {
            survives_process: true,
            shared_between_processes: true,
            live_between_processes: true,
            ..self.server.events.info()
        }
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        let answers = self.server.events.append(events).await;
        self.tell_others(&Signal::Stored);
        answers
    }

    async fn delay(&self, event: Append, until: Timestamp, now: Timestamp) -> Result<Appended, BusError> {
        self.server.events.delay(event, until, now).await
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        self.server.events.open_group(spec).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.server.events.remove_group(group).await
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        self.server.events.take_over(group, consumer, incarnation).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        self.alive(self.server.events.claim(claim))
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        self.alive(self.server.events.settle(group, incarnation, now, ends))
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        self.server.events.extend(group, incarnation, until, claims).await
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        self.server.events.progress(group, through).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.server.events.status(group).await
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        self.server.events.groups(after, limit).await
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.server.events.delayed(after, limit).await
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.server.events.cancel_delayed(id).await
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.server.events.dead_letters(group, after, limit).await
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        self.server.events.redrive(group, letters).await
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        self.server.events.purge(group, letters).await
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        self.server.events.history(after, limit).await
    }

    async fn send_live(&self, event: &Append) -> Result<(), BusError> {
        self.tell_others(&Signal::Live(event.envelope.clone()));
        Ok(())
    }

    async fn listen(&self, listener: Listener) {
        let (sender, mut signals) = mpsc::unbounded_channel();
        self.server.listeners.lock().push((self.process, sender));
        while let Some(signal) = signals.recv().await {
            listener(signal).await;
        }
    }

    async fn health(&self) -> Health {
        self.server.events.health().await
    }
}
