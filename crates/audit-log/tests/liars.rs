//! The suite is only worth something if it catches logs that do not do what they say.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_audit_log::{
    AuditError, AuditEvent, AuditInfo, AuditLog, AuditPage, AuditQuery, Checkpoint, MemoryAuditLog, MemoryConfig,
    Receipt, Statistics, Tampering, TreeHead, Unanchored, Verdict,
    conformance::{Fixture, failures},
};
use infra_types::{Clock, EventId, Health, ManualClock, Timestamp};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    OkWithoutWitness,
    EmptyWitnessCounts,
    RootsAreNotCompared,
    TruncationIsFine,
    EveryAppendIsNew,
    ConflictsAreSwallowed,
    TornBatches,
    FirstOfBatchOnly,
    SymbolIsIgnored,
    EndIsIncluded,
    PagesSkipOne,
    LastPageHasNext,
    StatisticsLag,
    HeadLags,
    StaysOpen,
    ForgetsOnCrashButPromises,
}

const LIES: [Lie; 16] = [
    Lie::OkWithoutWitness,
    Lie::EmptyWitnessCounts,
    Lie::RootsAreNotCompared,
    Lie::TruncationIsFine,
    Lie::EveryAppendIsNew,
    Lie::ConflictsAreSwallowed,
    Lie::TornBatches,
    Lie::FirstOfBatchOnly,
    Lie::SymbolIsIgnored,
    Lie::EndIsIncluded,
    Lie::PagesSkipOne,
    Lie::LastPageHasNext,
    Lie::StatisticsLag,
    Lie::HeadLags,
    Lie::StaysOpen,
    Lie::ForgetsOnCrashButPromises,
];

#[derive(Debug)]
struct Liar {
    inner: MemoryAuditLog,
    lie: Lie,
    appends: AtomicU64,
    old_head: parking_lot::Mutex<Option<TreeHead>>,
}

impl Liar {
    fn renamed(&self, mut event: AuditEvent) -> AuditEvent {
        let n = self.appends.fetch_add(1, Ordering::Relaxed);
        event.id = EventId::new(format!("{}-{n}", event.id)).unwrap();
        event
    }
}

#[async_trait]
impl AuditLog for Liar {
    async fn append_batch(&self, mut events: Vec<AuditEvent>) -> Result<Vec<Receipt>, AuditError> {
        *self.old_head.lock() = self.inner.head().await.ok();
        match self.lie {
            Lie::EveryAppendIsNew => events = events.into_iter().map(|event| self.renamed(event)).collect(),
            Lie::TornBatches => {
                let mut receipts = Vec::new();
                for event in events {
                    receipts.push(self.inner.append(event).await?);
                }
                return Ok(receipts);
            }
            Lie::FirstOfBatchOnly if events.len() > 1 => {
                let first = self.inner.append(events[0].clone()).await?;
                return Ok(events.iter().map(|_| first).collect());
            }
            _ => {}
        }
        match self.inner.append_batch(events).await {
            Err(AuditError::Conflict { index, .. }) if self.lie == Lie::ConflictsAreSwallowed => {
                let leaf_hash = infra_audit_log::leaf_hash(b"whatever");
                Ok(vec![Receipt { index, leaf_hash }])
            }
            answer => answer,
        }
    }

    async fn query(&self, mut query: AuditQuery) -> Result<AuditPage, AuditError> {
        match self.lie {
            Lie::SymbolIsIgnored => query.symbol = None,
            Lie::EndIsIncluded => query.to = query.to.map(|to| to.saturating_add(Duration::from_nanos(1))),
            _ => {}
        }
        let mut page = self.inner.query(query).await?;
        match self.lie {
            Lie::PagesSkipOne => page.next = page.next.map(|next| next + 1),
            Lie::LastPageHasNext => page.next = page.next.or(page.events.last().map(|last| last.index)),
            _ => {}
        }
        Ok(page)
    }

    async fn statistics(&self) -> Result<Statistics, AuditError> {
        let mut counts = self.inner.statistics().await?;
        if self.lie == Lie::StatisticsLag {
            counts.total = counts.total.saturating_sub(1);
        }
        Ok(counts)
    }

    async fn head(&self) -> Result<TreeHead, AuditError> {
        let head = self.inner.head().await?;
        Ok(if self.lie == Lie::HeadLags { self.old_head.lock().unwrap_or(head) } else { head })
    }

    async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verdict, AuditError> {
        let verdict = self.inner.verify(checkpoint).await?;
        let head = self.inner.head().await?;
        let ok = Verdict::Ok { anchored_to: head, head, first_index: 0 };
        Ok(match (self.lie, verdict) {
            (Lie::OkWithoutWitness, Verdict::Unanchored { reason: Unanchored::NoCheckpoint, .. })
            | (Lie::EmptyWitnessCounts, Verdict::Unanchored { reason: Unanchored::EmptyCheckpoint, .. })
            | (Lie::RootsAreNotCompared, Verdict::Tampered { kind: Tampering::History, .. })
            | (Lie::TruncationIsFine, Verdict::Tampered { kind: Tampering::Truncated, .. }) => ok,
            (_, honest) => honest,
        })
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn info(&self) -> AuditInfo {
        AuditInfo { survives_process: self.lie == Lie::ForgetsOnCrashButPromises, ..self.inner.info() }
    }

    async fn close(&self) -> Result<(), AuditError> {
        if self.lie == Lie::StaysOpen { Ok(()) } else { self.inner.close().await }
    }
}

struct LyingFixture {
    lie: Lie,
    clock: ManualClock,
    log: Arc<Liar>,
}

fn open(lie: Lie, clock: &ManualClock) -> Arc<Liar> {
    let inner = MemoryAuditLog::new(MemoryConfig::default(), Arc::new(clock.clone()));
    Arc::new(Liar { inner, lie, appends: AtomicU64::new(0), old_head: parking_lot::Mutex::default() })
}

#[async_trait]
impl Fixture for LyingFixture {
    fn log(&self) -> Arc<dyn AuditLog> {
        self.log.clone()
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn reopen(&mut self) {
        self.log = open(self.lie, &self.clock);
    }
}

async fn caught_by(lie: Lie) -> Vec<&'static str> {
    failures(|| async move {
        let clock = ManualClock::default();
        let fixture: Box<dyn Fixture> = Box::new(LyingFixture { lie, log: open(lie, &clock), clock });
        fixture
    })
    .await
}

#[tokio::test]
async fn every_liar_is_caught_and_the_honest_log_is_not() {
    assert_eq!(caught_by(Lie::None).await, [""; 0]);
    for lie in LIES {
        let cases = caught_by(lie).await;
        assert!(!cases.is_empty(), "no case caught {lie:?}");
        // One lie is not the whole contract: a suite that failed as a whole would prove nothing.
        assert!(cases.len() < infra_audit_log::conformance::CASES.len(), "{lie:?} failed everything");
    }
}
