use infra_backends::SqliteConfig;
use infra_types::{EventId, ManualClock, Timestamp};

use super::*;
use crate::AuditKind;

#[tokio::test]
async fn after_a_lost_answer_nothing_is_appended_until_the_head_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::new(SqliteConfig::new(dir.path().join("t.db")));
    let log = SqliteAuditLog::new(db, Arc::new(ManualClock::default()));
    let event = |n: u32| {
        let id = EventId::new(n.to_string()).unwrap();
        AuditEvent::new(id, AuditKind::SystemEvent, Timestamp::EPOCH, "bot", "start")
    };
    log.append(event(1)).await.unwrap();
    // What `append_batch` does when the database answers `Ambiguous`.
    log.lost.fetch_add(1, Ordering::AcqRel);
    assert!(matches!(log.append(event(2)).await, Err(AuditError::Unsettled)));
    assert_eq!(log.health().await.status, infra_types::HealthStatus::Degraded);
    assert_eq!(log.head().await.unwrap().size, 1);
    assert_eq!(log.append(event(1)).await.unwrap().index, 0);
    assert_eq!(log.append(event(2)).await.unwrap().index, 1);
    assert_eq!(log.health().await.status, infra_types::HealthStatus::Up);
}

#[test]
fn a_lost_commit_is_ambiguous_and_nothing_else_is() {
    let reason = String::new;
    let of = |e: BackendError| AuditError::from(e).kind();
    assert_eq!(of(BackendError::Ambiguous { reason: reason() }), infra_types::ErrorKind::Ambiguous);
    for known in [BackendError::Busy, BackendError::Full, BackendError::ReadOnly, BackendError::Closed] {
        assert!(of(known).had_no_effect());
    }
}
