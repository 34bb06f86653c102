//! How it ends and begins again.

use infra_types::HealthStatus;

use super::{Fixture, append, event, sign};
use crate::{AuditError, AuditQuery, Frontier, Statistics, Verdict};

/// A backend that says it survives the process has every acknowledged event and goes on counting; another starts empty.
pub async fn a_crash_keeps_what_was_promised(fixture: &mut dyn Fixture) {
    append(fixture, 0..5).await;
    let head = fixture.log().head().await.expect("head");
    fixture.reopen().await;
    let log = fixture.log();
    let info = log.info();
    assert!(info.survives_process || !info.survives_power_cut, "{info:?}");
    assert!(info.shared_between_processes || !info.shared_between_hosts, "{info:?}");
    if !info.survives_process {
        assert_eq!(log.head().await.expect("head"), Frontier::default().head());
        assert_eq!(log.statistics().await.expect("counts"), Statistics::default());
        return;
    }
    assert_eq!(log.head().await.expect("head"), head);
    let verdict = log.verify(Some(&sign(head))).await.expect("a verdict");
    assert!(matches!(verdict, Verdict::Ok { .. }), "{verdict:?}");
    assert_eq!(log.append(event(fixture, 4)).await.expect("appended before").index, 4);
    assert_eq!(log.append(event(fixture, 5)).await.expect("appended").index, 5);
}

/// Twice is once, and nothing works afterwards.
pub async fn closing_refuses_everything_after(fixture: &mut dyn Fixture) {
    append(fixture, 0..2).await;
    let log = fixture.log();
    log.close().await.expect("closed");
    log.close().await.expect("closed again");
    assert!(matches!(log.append(event(fixture, 2)).await, Err(AuditError::Closed)));
    assert!(matches!(log.query(AuditQuery::default()).await, Err(AuditError::Closed)));
    assert!(matches!(log.statistics().await, Err(AuditError::Closed)));
    assert!(matches!(log.head().await, Err(AuditError::Closed)));
    assert!(matches!(log.verify(None).await, Err(AuditError::Closed)));
    assert_eq!(log.health().await.status, HealthStatus::Down);
}

/// Health answers, and says for how long it was asked.
pub async fn a_log_in_use_is_up(fixture: &mut dyn Fixture) {
    append(fixture, 0..1).await;
    let health = fixture.log().health().await;
    assert_eq!(health.status, HealthStatus::Up, "{}", health.detail);
    assert!(health.probe.is_some());
    assert!(!fixture.log().info().backend.is_empty());
}
