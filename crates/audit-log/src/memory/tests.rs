use infra_types::{ManualClock, Timestamp};

use super::*;
use crate::{AuditKind, Fields, NoteSigner, Tampering, Unanchored};

fn event(n: usize) -> AuditEvent {
    let id = EventId::new(format!("e-{n}")).unwrap();
    AuditEvent::new(id, AuditKind::OrderPlaced, Timestamp::from_millis(n as i64), "order/1", "place")
        .with_details(Fields::new().with("n", n as u64))
}

async fn log_of(events: usize, config: MemoryConfig) -> MemoryAuditLog {
    let log = MemoryAuditLog::new(config, Arc::new(ManualClock::default()));
    for n in 0..events {
        log.append(event(n)).await.unwrap();
    }
    log
}

async fn signed(log: &MemoryAuditLog) -> Checkpoint {
    NoteSigner::from_seed("test", &[1; 32]).unwrap().sign(log.head().await.unwrap())
}

fn evicting(capacity: usize) -> MemoryConfig {
    MemoryConfig::default().with_capacity(capacity).with_when_full(WhenFull::EvictOldest)
}

#[tokio::test]
async fn every_flipped_bit_is_found_at_its_index() {
    let log = log_of(7, MemoryConfig::default()).await;
    let checkpoint = signed(&log).await;
    assert!(matches!(log.verify(Some(&checkpoint)).await.unwrap(), Verdict::Ok { first_index: 0, .. }));
    for row in 0..7 {
        let bytes = log.inner.lock().rows[row].data.len();
        for (byte, bit) in (0..bytes).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            log.inner.lock().rows[row].data[byte] ^= 1 << bit;
            let verdict = log.verify(Some(&checkpoint)).await.unwrap();
            let want = Verdict::Tampered { first_bad_index: Some(row as u64), kind: Tampering::LeafHash };
            assert_eq!(verdict, want, "row {row} byte {byte} bit {bit}");
            log.inner.lock().rows[row].data[byte] ^= 1 << bit;
        }
    }
    assert!(matches!(log.verify(Some(&checkpoint)).await.unwrap(), Verdict::Ok { .. }));
}

#[tokio::test]
async fn a_rewrite_that_fits_itself_is_caught_by_the_checkpoint_alone() {
    let honest = log_of(9, MemoryConfig::default()).await;
    let checkpoint = signed(&honest).await;
    for changed in 0..9 {
        let forged = log_of(0, MemoryConfig::default()).await;
        for n in 0..12 {
            let event = if n == changed { event(n).with_details(Fields::new()) } else { event(n) };
            forged.append(event).await.unwrap();
        }
        assert!(matches!(forged.verify(None).await.unwrap(), Verdict::Unanchored { .. }));
        let verdict = forged.verify(Some(&checkpoint)).await.unwrap();
        assert_eq!(verdict, Verdict::Tampered { first_bad_index: None, kind: Tampering::History });
    }
    for shorter in 0..9 {
        let verdict = log_of(shorter, MemoryConfig::default()).await.verify(Some(&checkpoint)).await.unwrap();
        let want = Verdict::Tampered { first_bad_index: Some(shorter as u64), kind: Tampering::Truncated };
        assert_eq!(verdict, want);
    }
}

#[tokio::test]
async fn full_refuses_and_keeps_what_it_acknowledged() {
    let log = log_of(3, MemoryConfig::default().with_capacity(3)).await;
    let before = log.head().await.unwrap();
    assert!(matches!(log.append(event(3)).await, Err(AuditError::Full { capacity: 3 })));
    assert_eq!(log.append(event(2)).await.unwrap().index, 2, "what is stored may be appended again");
    assert_eq!(log.head().await.unwrap(), before);
    assert_eq!(MemoryConfig::default().capacity, 10_000);
}

#[tokio::test]
async fn forgetting_is_counted_and_verification_says_how_far_it_sees() {
    let whole = log_of(7, MemoryConfig::default()).await;
    let log = log_of(7, evicting(3)).await;
    assert_eq!(log.head().await.unwrap(), whole.head().await.unwrap());
    let counts = log.statistics().await.unwrap();
    assert_eq!((counts.total, counts.evicted), (3, 4));
    let page = log.query(AuditQuery::default()).await.unwrap();
    assert_eq!(page.events.iter().map(|stored| stored.index).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(log.inner.lock().by_id.len(), 3);

    for size in 1..=7 {
        let checkpoint = signed(&log_of(size, MemoryConfig::default()).await).await;
        match log.verify(Some(&checkpoint)).await.unwrap() {
            Verdict::Ok { first_index: 4, .. } if size >= 4 => {}
            Verdict::Unanchored { reason: Unanchored::Evicted { first_kept: 4 }, .. } if size < 4 => {
                let e = log.checkpoint(Some(&checkpoint)).await.unwrap_err();
                assert!(matches!(e, AuditError::Evicted { first_kept: 4 }), "{e}");
            }
            other => panic!("checkpoint of {size}: {other:?}"),
        }
    }
    let forged = signed(&log_of(0, evicting(3)).await).await;
    assert_eq!(forged.head().size, 0);
    log.inner.lock().rows[0].data[0] ^= 1;
    let verdict = log.verify(None).await.unwrap();
    assert_eq!(verdict, Verdict::Tampered { first_bad_index: Some(4), kind: Tampering::LeafHash });
}
