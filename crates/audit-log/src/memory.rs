//! The log in memory: what the trait means, in the fewest lines.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use infra_types::{Clock, EventId, Health};
use parking_lot::Mutex;

use crate::{
    codec::Prepared,
    error::AuditError,
    event::AuditEvent,
    log::{AuditInfo, AuditLog, AuditPage, AuditQuery, Receipt, Statistics, StoredEvent},
    note::Checkpoint,
    tree::{Frontier, Hash32, TreeHead, leaf_hash},
    verify::{Verdict, Verifier},
};

/// What a log does that may not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Refuses with `Full`: nothing that was acknowledged is lost.
    #[default]
    Refuse,
    /// Forgets the oldest events and counts them. Size and root go on including them; verification says from where it could
    /// read, and never `Ok` for a checkpoint older than that. An id is recognised as long as its event is kept.
    EvictOldest,
}

/// How much a log in memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Events at most; at least 1. Default 10,000.
    pub capacity: usize,
    /// What happens then. Default `Refuse`.
    pub when_full: WhenFull,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { capacity: 10_000, when_full: WhenFull::Refuse }
    }
}

impl MemoryConfig {
    /// Chooses how many events are held; 0 counts as 1.
    #[must_use]
    pub fn with_capacity(mut self, events: usize) -> Self {
        self.capacity = events.max(1);
        self
    }

    /// Chooses what happens then.
    #[must_use]
    pub fn with_when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }
}

#[derive(Debug)]
struct Row {
    data: Vec<u8>,
    leaf: Hash32,
}

#[derive(Debug, Default)]
struct Inner {
    /// What is left of forgotten events; its size is the index of the first row.
    forgotten: Frontier,
    rows: VecDeque<Row>,
    frontier: Frontier,
    by_id: HashMap<EventId, Receipt>,
    closed: bool,
}

/// A log that lives and dies with the process.
#[derive(Debug)]
pub struct MemoryAuditLog {
    config: MemoryConfig,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl MemoryAuditLog {
    /// An empty log; `clock` times the health probe.
    #[must_use]
    pub fn new(config: MemoryConfig, clock: Arc<dyn Clock>) -> Self {
        let config = config.with_capacity(config.capacity);
        Self { config, clock, inner: Mutex::default() }
    }

    fn open<T>(&self, work: impl FnOnce(&mut Inner) -> Result<T, AuditError>) -> Result<T, AuditError> {
        let mut inner = self.inner.lock();
        if inner.closed { Err(AuditError::Closed) } else { work(&mut inner) }
    }
}

impl Inner {
    /// Receipts for all events, and those that are new; nothing is changed.
    fn plan(&self, batch: Vec<Prepared>) -> Result<(Vec<Receipt>, Vec<Prepared>), AuditError> {
        let mut seen: HashMap<EventId, Receipt> = HashMap::new();
        let (mut receipts, mut new) = (Vec::with_capacity(batch.len()), Vec::new());
        for prepared in batch {
            let id = &prepared.event.id;
            match self.by_id.get(id).or_else(|| seen.get(id)).copied() {
                Some(receipt) if receipt.leaf_hash == prepared.leaf => receipts.push(receipt),
                Some(Receipt { index, .. }) => return Err(AuditError::Conflict { id: id.clone(), index }),
                None => {
                    let index = self.frontier.size() + new.len() as u64;
                    let receipt = Receipt { index, leaf_hash: prepared.leaf };
                    seen.insert(id.clone(), receipt);
                    receipts.push(receipt);
                    new.push(prepared);
                }
            }
        }
        Ok((receipts, new))
    }

    fn push(&mut self, prepared: Prepared) {
        let receipt = Receipt { index: self.frontier.size(), leaf_hash: prepared.leaf };
        self.frontier.push(prepared.leaf);
        self.by_id.insert(prepared.event.id, receipt);
        self.rows.push_back(Row { data: prepared.data, leaf: prepared.leaf });
    }

    fn forget_oldest(&mut self) {
        let index = self.forgotten.size();
        if let Some(row) = self.rows.pop_front() {
            self.forgotten.push(row.leaf);
            if let Ok(event) = AuditEvent::decode(&row.data)
                && self.by_id.get(&event.id).is_some_and(|receipt| receipt.index == index)
            {
                self.by_id.remove(&event.id);
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = (u64, &Row)> {
        (self.forgotten.size()..).zip(&self.rows)
    }

    fn read(&self, index: u64, row: &Row) -> Result<StoredEvent, AuditError> {
        if leaf_hash(&row.data) != row.leaf {
            return Err(AuditError::Corrupt { index: Some(index), reason: "its bytes do not fit their hash".into() });
        }
        Ok(StoredEvent { index, leaf_hash: row.leaf, event: AuditEvent::decode(&row.data)? })
    }
}

#[async_trait]
impl AuditLog for MemoryAuditLog {
    async fn append_batch(&self, events: Vec<AuditEvent>) -> Result<Vec<Receipt>, AuditError> {
        let batch = Prepared::all(events)?;
        self.open(|inner| {
            let (receipts, new) = inner.plan(batch)?;
            let room = self.config.capacity - inner.rows.len();
            if new.len() > room && self.config.when_full == WhenFull::Refuse {
                return Err(AuditError::Full { capacity: self.config.capacity as u64 });
            }
            for prepared in new {
                if inner.rows.len() == self.config.capacity {
                    inner.forget_oldest();
                }
                inner.push(prepared);
            }
            Ok(receipts)
        })
    }

    async fn query(&self, query: AuditQuery) -> Result<AuditPage, AuditError> {
        query.validate()?;
        self.open(|inner| {
            let mut page = AuditPage::default();
            for (index, row) in inner.rows().filter(|(index, _)| query.after_index.is_none_or(|after| *index > after)) {
                let stored = inner.read(index, row)?;
                if !query.matches(&stored.event) {
                    continue;
                }
                if page.events.len() == query.limit {
                    page.next = page.events.last().map(|last| last.index);
                    break;
                }
                page.events.push(stored);
            }
            Ok(page)
        })
    }

    async fn statistics(&self) -> Result<Statistics, AuditError> {
        self.open(|inner| {
            let mut counts = Statistics { evicted: inner.forgotten.size(), ..Statistics::default() };
            for (index, row) in inner.rows() {
                counts.total += 1;
                *counts.by_kind.entry(inner.read(index, row)?.event.kind).or_default() += 1;
            }
            Ok(counts)
        })
    }

    async fn head(&self) -> Result<TreeHead, AuditError> {
        self.open(|inner| Ok(inner.frontier.head()))
    }

    async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verdict, AuditError> {
        self.open(|inner| {
            let mut verifier = Verifier::starting_at(inner.forgotten.clone(), checkpoint);
            for (index, row) in inner.rows() {
                if let Err(verdict) = verifier.take(index, &row.data, row.leaf) {
                    return Ok(verdict);
                }
            }
            Ok(verifier.finish(inner.frontier.head()))
        })
    }

    async fn health(&self) -> Health {
        let start = self.clock.now();
        match self.statistics().await {
            Ok(counts) => Health::up(format!("{} events in memory, {} forgotten", counts.total, counts.evicted)),
            Err(e) => Health::down(e.to_string()),
        }
        .with_probe(self.clock.now().since(start))
    }

    fn info(&self) -> AuditInfo {
        AuditInfo {
            backend: "memory",
            survives_process: false,
            survives_power_cut: false,
            shared_between_processes: false,
            shared_between_hosts: false,
            capacity: Some(self.config.capacity as u64),
        }
    }

    async fn close(&self) -> Result<(), AuditError> {
        self.inner.lock().closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
