//! What verification says.

use super::{Fixture, append, event, sign};
use crate::{Frontier, Hash32, Tampering, TreeHead, Unanchored, Verdict, leaf_hash};

fn expected_head(fixture: &dyn Fixture, events: u64) -> TreeHead {
    let mut frontier = Frontier::default();
    for n in 0..events {
        frontier.push(leaf_hash(&event(fixture, n).encode().expect("encodes")));
    }
    frontier.head()
}

/// Size 0 and SHA-256 of nothing.
pub async fn an_empty_log_is_the_hash_of_nothing(fixture: &mut dyn Fixture) {
    assert_eq!(fixture.log().head().await.expect("head"), Frontier::default().head());
    assert!(matches!(fixture.log().verify(None).await, Ok(Verdict::Unanchored { .. })));
}

/// At every size the head is the RFC 6962 root over the encoded events.
pub async fn the_head_is_the_tree_over_the_stored_bytes(fixture: &mut dyn Fixture) {
    for size in 1..=33 {
        append(fixture, size - 1..size).await;
        assert_eq!(fixture.log().head().await.expect("head"), expected_head(fixture, size));
    }
}

/// A log that fits itself proves nothing.
pub async fn never_ok_without_a_checkpoint(fixture: &mut dyn Fixture) {
    append(fixture, 0..5).await;
    let head = expected_head(fixture, 5);
    let verdict = fixture.log().verify(None).await.expect("a verdict");
    assert_eq!(verdict, Verdict::Unanchored { head, reason: Unanchored::NoCheckpoint });
    assert_eq!(fixture.log().checkpoint(None).await.expect("worth signing"), head);
}

/// Any earlier size may be the witness, and the verdict names it.
pub async fn ok_reaches_as_far_as_the_checkpoint(fixture: &mut dyn Fixture) {
    append(fixture, 0..20).await;
    let head = expected_head(fixture, 20);
    for size in 1..=20 {
        let anchored_to = expected_head(fixture, size);
        let verdict = fixture.log().verify(Some(&sign(anchored_to))).await.expect("a verdict");
        assert_eq!(verdict, Verdict::Ok { anchored_to, head, first_index: 0 });
        assert_eq!(fixture.log().checkpoint(Some(&sign(anchored_to))).await.expect("worth signing"), head);
    }
}

/// Every log extends the empty one.
pub async fn an_empty_checkpoint_anchors_nothing(fixture: &mut dyn Fixture) {
    let empty = sign(Frontier::default().head());
    for size in [0, 3] {
        append(fixture, 0..size).await;
        let head = expected_head(fixture, size);
        let verdict = fixture.log().verify(Some(&empty)).await.expect("a verdict");
        assert_eq!(verdict, Verdict::Unanchored { head, reason: Unanchored::EmptyCheckpoint });
    }
}

/// A root that differs at any size is another history, and is never signed over.
pub async fn a_checkpoint_of_another_history_is_tampering(fixture: &mut dyn Fixture) {
    append(fixture, 0..9).await;
    for size in 0..=9 {
        let other = sign(TreeHead { size, root: Hash32::from_bytes([9; 32]) });
        let verdict = fixture.log().verify(Some(&other)).await.expect("a verdict");
        assert_eq!(verdict, Verdict::Tampered { first_bad_index: None, kind: Tampering::History }, "size {size}");
        assert!(fixture.log().checkpoint(Some(&other)).await.is_err(), "size {size}");
    }
}

/// A log that is shorter than its witness lost its end.
pub async fn a_checkpoint_beyond_the_end_is_truncation(fixture: &mut dyn Fixture) {
    for size in [0, 4] {
        append(fixture, 0..size).await;
        for longer in [size + 1, size + 100] {
            let witness = sign(expected_head(fixture, longer));
            let verdict = fixture.log().verify(Some(&witness)).await.expect("a verdict");
            let want = Verdict::Tampered { first_bad_index: Some(size), kind: Tampering::Truncated };
            assert_eq!(verdict, want, "{size} of {longer}");
        }
    }
}

/// A log of several internal pages verifies, also while others append.
pub async fn a_long_log_verifies_while_it_grows(fixture: &mut dyn Fixture) {
    append(fixture, 0..1_000).await;
    append(fixture, 1_000..1_100).await;
    let (log, events) = (fixture.log(), (1_100..1_140).map(|n| event(fixture, n)).collect::<Vec<_>>());
    let witness = sign(expected_head(fixture, 1_100));
    let writer = tokio::spawn(async move {
        for event in events {
            log.append(event).await.expect("appended");
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        let verdict = fixture.log().verify(Some(&witness)).await.expect("a verdict");
        assert!(matches!(verdict, Verdict::Ok { head, .. } if head.size >= 1_100), "{verdict:?}");
    }
    writer.await.expect("the writer failed");
    assert_eq!(fixture.log().checkpoint(Some(&witness)).await.expect("worth signing"), expected_head(fixture, 1_140));
}
