//! The suite on the SQLite backend, and what only a file can show.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{path::Path, sync::Arc, time::Duration};

use infra_audit_log::{AuditEvent, AuditKind, AuditLog, SqliteAuditLog, Verdict, conformance::Fixture};
use infra_backends::{Sqlite, SqliteConfig, Synchronous};
use infra_types::{Clock, EventId, ManualClock, Timestamp};

struct File {
    clock: ManualClock,
    dir: tempfile::TempDir,
    log: Arc<SqliteAuditLog>,
}

fn open(dir: &Path, clock: &ManualClock) -> Arc<SqliteAuditLog> {
    let db = Sqlite::new(SqliteConfig::new(dir.join("audit.db")));
    Arc::new(SqliteAuditLog::new(db, Arc::new(clock.clone())))
}

impl File {
    fn new() -> Self {
        let (clock, dir) = (ManualClock::default(), tempfile::tempdir().unwrap());
        Self { log: open(dir.path(), &clock), clock, dir }
    }
}

#[async_trait::async_trait]
impl Fixture for File {
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
        self.log = open(self.dir.path(), &self.clock);
    }
}

infra_audit_log::audit_log_conformance!(File::new());

fn event(n: u64) -> AuditEvent {
    let id = EventId::new(format!("event-{n}")).unwrap();
    AuditEvent::new(id, AuditKind::SystemEvent, Timestamp::EPOCH, "bot", "start")
}

/// Two handles on one file, as two processes have them.
#[tokio::test(flavor = "multi_thread")]
async fn several_handles_append_to_one_chain() {
    let file = File::new();
    let tasks: Vec<_> = (0..4u64)
        .map(|writer| {
            let log = open(file.dir.path(), &file.clock);
            tokio::spawn(async move {
                let mut indices = Vec::new();
                for n in 0..25 {
                    indices.push(log.append(event(writer * 100 + n)).await.unwrap().index);
                }
                indices
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..100), "{all:?}");
    assert!(matches!(file.log.verify(None).await.unwrap(), Verdict::Unanchored { head, .. } if head.size == 100));
}

#[tokio::test]
async fn a_power_cut_is_survived_as_the_handle_was_opened() {
    for (level, survives) in [(Synchronous::Full, true), (Synchronous::Normal, false)] {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::new(SqliteConfig::new(dir.path().join("audit.db")).with_synchronous(level));
        let log = SqliteAuditLog::new(db, Arc::new(ManualClock::default()));
        assert!(!log.info().survives_power_cut, "nobody has looked yet");
        log.append(event(0)).await.unwrap();
        assert_eq!(log.info().survives_power_cut, survives);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_down_and_an_error() {
    let log = open(Path::new("/nowhere/at/all"), &ManualClock::default());
    assert_eq!(log.health().await.status, infra_types::HealthStatus::Down);
    assert!(log.append(event(0)).await.unwrap_err().kind().had_no_effect());
    assert!(log.verify(None).await.is_err(), "no verdict is not a good one");
}
