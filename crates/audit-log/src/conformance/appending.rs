//! How events get in.

use super::{Fixture, append, event};
use crate::{AuditError, BATCH_EVENTS_MAX, LEAF_BYTES_MAX, leaf_hash};

/// Single appends and batches share one count.
pub async fn indices_run_from_zero_without_gaps(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    let mut found = vec![log.append(event(fixture, 0)).await.expect("appended")];
    found.extend(log.append_batch((1..5).map(|n| event(fixture, n)).collect()).await.expect("appended"));
    found.push(log.append(event(fixture, 5)).await.expect("appended"));
    for (n, receipt) in (0..).zip(&found) {
        assert_eq!(receipt.index, n);
        let data = event(fixture, n).encode().expect("encodes");
        assert_eq!(receipt.leaf_hash, leaf_hash(&data), "the receipt is of other bytes");
    }
    assert_eq!(found.len(), 6);
    assert_eq!(log.head().await.expect("head").size, 6);
}

/// Repeating an append, alone or in a batch with new events, adds nothing.
pub async fn the_same_event_again_is_the_same_place(fixture: &mut dyn Fixture) {
    append(fixture, 0..3).await;
    let log = fixture.log();
    let head = log.head().await.expect("head");
    let again = log.append(event(fixture, 1)).await.expect("appended before");
    assert_eq!(again.index, 1);
    assert_eq!(log.head().await.expect("head"), head);
    let mixed =
        log.append_batch(vec![event(fixture, 3), event(fixture, 0), event(fixture, 4)]).await.expect("appended");
    assert_eq!(mixed.iter().map(|r| r.index).collect::<Vec<_>>(), [3, 0, 4]);
}

/// A used id stays with its body.
pub async fn another_body_under_a_used_id_is_a_conflict(fixture: &mut dyn Fixture) {
    append(fixture, 0..3).await;
    let log = fixture.log();
    let head = log.head().await.expect("head");
    let mut other = event(fixture, 1);
    other.action = "cancel".into();
    match log.append(other).await {
        Err(AuditError::Conflict { id, index: 1 }) => assert_eq!(id, event(fixture, 1).id),
        answer => panic!("not a conflict with index 1: {answer:?}"),
    }
    assert_eq!(log.head().await.expect("head"), head, "a conflict changed the log");
}

/// One refused event keeps the whole batch out.
pub async fn a_batch_is_all_or_nothing(fixture: &mut dyn Fixture) {
    append(fixture, 0..2).await;
    let log = fixture.log();
    let head = log.head().await.expect("head");
    let mut other = event(fixture, 1);
    other.resource = "order/other".into();
    let answer = log.append_batch(vec![event(fixture, 2), event(fixture, 3), other, event(fixture, 4)]).await;
    assert!(matches!(answer, Err(AuditError::Conflict { .. })), "{answer:?}");
    assert_eq!(log.head().await.expect("head"), head, "a part of the batch was appended");
    assert_eq!(log.append(event(fixture, 4)).await.expect("appended").index, 2);
}

/// The rule for ids holds inside a batch too.
pub async fn a_batch_may_repeat_an_event_but_not_an_id(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    let receipts =
        log.append_batch(vec![event(fixture, 0), event(fixture, 1), event(fixture, 0)]).await.expect("appended");
    assert_eq!(receipts.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 1, 0]);
    let mut other = event(fixture, 2);
    other.action = "cancel".into();
    let answer = log.append_batch(vec![event(fixture, 2), other]).await;
    assert!(matches!(answer, Err(AuditError::Conflict { index: 2, .. })), "{answer:?}");
    assert_eq!(log.head().await.expect("head").size, 2);
}

/// Nothing to append is no error.
pub async fn an_empty_batch_does_nothing(fixture: &mut dyn Fixture) {
    assert_eq!(fixture.log().append_batch(Vec::new()).await.expect("fine"), []);
    assert_eq!(fixture.log().head().await.expect("head").size, 0);
}

/// The largest event and batch fit; one more does not, and leaves nothing behind.
pub async fn what_is_too_large_is_refused_whole(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    let mut large = event(fixture, 0);
    let room = LEAF_BYTES_MAX - large.encode().expect("encodes").len();
    large.action.push_str(&"x".repeat(room + 1));
    let answer = log.append_batch(vec![event(fixture, 1), large.clone()]).await;
    assert!(matches!(answer, Err(AuditError::TooLarge { .. })), "{answer:?}");
    let max = BATCH_EVENTS_MAX as u64;
    let answer = log.append_batch((0..=max).map(|n| event(fixture, n)).collect()).await;
    assert!(matches!(answer, Err(AuditError::TooLarge { .. })), "{answer:?}");
    assert_eq!(log.head().await.expect("head").size, 0);
    large.action.pop();
    log.append(large).await.expect("the largest event fits");
    append(fixture, 1..max + 1).await;
    assert_eq!(log.head().await.expect("head").size, max + 1);
}

/// Tasks that append at the same time get different places, without a gap, and the tree is sound.
pub async fn many_writers_make_one_chain(fixture: &mut dyn Fixture) {
    let tasks: Vec<_> = (0..8u64)
        .map(|writer| {
            let (log, events) = (fixture.log(), (0..25).map(|n| event(fixture, writer * 25 + n)).collect::<Vec<_>>());
            tokio::spawn(async move {
                let mut indices = Vec::new();
                for event in events {
                    indices.push(log.append(event).await.expect("appended").index);
                    tokio::task::yield_now().await;
                }
                assert!(indices.is_sorted(), "one writer's events changed places");
                indices
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a writer failed"));
    }
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..200), "{all:?}");
    fixture.log().checkpoint(None).await.expect("the tree is sound");
}
