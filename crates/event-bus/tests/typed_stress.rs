//! Many threads on one topic: nothing is lost, doubled or reordered.

use std::num::NonZeroUsize;

use infra_event_bus::{TypedReceiver, TypedTopic, WhenFull};

const EVENTS: u64 = 20_000;

/// Publisher and number.
type Event = (usize, u64);

async fn publish(topic: TypedTopic<Event>, publisher: usize) {
    for n in 0..EVENTS {
        topic.publish((publisher, n)).await.expect("open");
        // Some of them also give up now and then, which must change nothing.
        if publisher % 2 == 1 && n % 97 == 0 {
            drop(topic.publish((publisher, u64::MAX)));
        }
    }
}

/// Reads to the end; a slow one lets others run at every few events.
async fn check(mut receiver: TypedReceiver<Event>, publishers: usize, slow: bool, many: bool) {
    let mut next = vec![0; publishers];
    let mut batch = Vec::new();
    loop {
        if many {
            receiver.recv_many(&mut batch, 100).await;
        } else if let Some(event) = receiver.recv().await {
            batch.push(*event);
        }
        if batch.is_empty() {
            break;
        }
        for (publisher, n) in batch.drain(..) {
            assert_eq!(n, next[publisher], "of publisher {publisher}");
            next[publisher] += 1;
            if slow && n % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    assert_eq!(next, vec![EVENTS; publishers]);
}

async fn nothing_is_lost(publishers: usize, receivers: usize, capacity: usize) {
    let topic = TypedTopic::new(NonZeroUsize::new(capacity).expect("above zero"), WhenFull::Block);
    let readers: Vec<_> =
        (0..receivers).map(|n| tokio::spawn(check(topic.subscribe(), publishers, n == 1, n % 4 == 2))).collect();
    let writers: Vec<_> = (0..publishers).map(|n| tokio::spawn(publish(topic.clone(), n))).collect();
    drop(topic);
    for task in writers.into_iter().chain(readers) {
        task.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_one_to_four() {
    for capacity in [1, 3, 64, 1_000] {
        nothing_is_lost(1, 4, capacity).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_four_to_four() {
    for capacity in [1, 3, 64, 1_000] {
        nothing_is_lost(4, 4, capacity).await;
    }
}

/// Receivers come and go while a publisher waits for them; what a receiver sees has no hole, and what it loses by policy it is
/// told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn receivers_come_and_go() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest, WhenFull::DropNewest] {
        let topic = TypedTopic::new(NonZeroUsize::new(16).expect("above zero"), when_full);
        let writer = tokio::spawn({
            let topic = topic.clone();
            async move {
                for n in 0..EVENTS {
                    topic.publish(n).await.expect("open");
                    if n % 100 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        let visitors: Vec<_> = (0..4u64)
            .map(|visitor| {
                let topic = topic.clone();
                tokio::spawn(async move {
                    for visit in 0..100 {
                        let mut receiver = topic.subscribe();
                        let mut before: Option<u64> = None;
                        for _ in 0..(visitor * 7 + visit) % 60 {
                            let got = receiver.try_recv().map(|got| (*got, got.missed));
                            let Ok((event, missed)) = got else {
                                tokio::task::yield_now().await;
                                continue;
                            };
                            assert_eq!(before.map_or(event, |before| before + 1 + missed), event, "{when_full:?}");
                            before = Some(event);
                        }
                    }
                })
            })
            .collect();
        for task in visitors {
            task.await.expect("no panic");
        }
        writer.await.expect("it is not stuck behind a receiver that is gone");
    }
}
