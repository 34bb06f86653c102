//! The sugar over the batch, and what to do after a lost reply.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use infra_state_store::{
    Applied, Batch, Delta, Key, MemoryStateStore, Once, StateStore, StateStoreExt, StoreError, Ttl, Version, When,
    WindowLimit,
    chaos::{ChaosPlan, ChaosStateStore, Fault},
};
use infra_types::{EventId, ManualClock, Namespace};

const DAY: Ttl = Ttl::After(Duration::from_secs(86_400));
const TRIES: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

fn home() -> Namespace {
    Namespace::new("home").unwrap()
}

fn record(name: &str) -> Key {
    Key::record(name).unwrap()
}

fn id(text: &str) -> EventId {
    EventId::new(text).unwrap()
}

fn chaos(plan: ChaosPlan) -> ChaosStateStore {
    let clock = Arc::new(ManualClock::default());
    ChaosStateStore::with_plan(Arc::new(MemoryStateStore::new(clock.clone())), clock, plan)
}

#[tokio::test]
async fn bytes_and_counters_are_read_as_what_they_are() {
    let store = chaos(ChaosPlan::default());
    let (text, number) = (record("text"), record("number"));
    assert_eq!(store.get_bytes(&home(), &text).await.unwrap(), None);
    assert_eq!(store.get_counter(&home(), &number).await.unwrap(), 0);
    store.set(&home(), &text, "hello", Ttl::Never).await.unwrap();
    store.increment(&home(), &number, 7).await.unwrap();
    assert_eq!(store.get_bytes(&home(), &text).await.unwrap().unwrap(), "hello");
    assert_eq!(store.get_counter(&home(), &number).await.unwrap(), 7);
    assert!(matches!(store.get_bytes(&home(), &number).await, Err(StoreError::WrongType { .. })));
    assert!(matches!(store.get_counter(&home(), &text).await, Err(StoreError::WrongType { .. })));
    let e = store.add_within(&home(), &number, Delta::at_most(1, 7)).await;
    assert!(matches!(e, Err(StoreError::OutOfBounds { current: 7, .. })));
    assert_eq!(store.add_within(&home(), &number, Delta::at_most(1, 8)).await.unwrap(), 8);
}

#[tokio::test]
async fn a_record_is_replaced_only_as_it_was_read() {
    let store = chaos(ChaosPlan::default());
    let key = record("k");
    let first = store.set_json(&home(), &key, &1, Ttl::Never).await.unwrap().unwrap();
    let second = store.set_json_if_version(&home(), &key, first, &2, Ttl::Never).await.unwrap();
    assert!(second > first);
    let stale = store.set_json_if_version(&home(), &key, first, &3, Ttl::Never).await;
    assert!(matches!(stale, Err(StoreError::Mismatch { found: Some(v), .. }) if v == second), "{stale:?}");
    let never = store.compare_and_set(&home(), &record("none"), Version(1), "v", Ttl::Never).await;
    assert!(matches!(never, Err(StoreError::Mismatch { found: None, .. })));
    assert_eq!(store.get_json::<u8>(&home(), &key).await.unwrap(), Some(2));
    let cache = store.compare_and_set(&home(), &Key::cache("c").unwrap(), first, "v", Ttl::Never).await;
    assert!(matches!(cache, Err(StoreError::Invalid { .. })));
}

#[tokio::test]
async fn lists_windows_and_changes_have_their_words() {
    let store = chaos(ChaosPlan::default());
    let (list, window) = (Key::list("l").unwrap(), Key::window("w").unwrap());
    for (n, length) in [(1, 1), (2, 2), (3, 2)] {
        assert_eq!(store.push(&home(), &list, format!("{n}"), 2, Ttl::Never).await.unwrap(), length);
    }
    let page = store.list_latest(&home(), &list, 10).await.unwrap();
    assert_eq!((page.values, page.length), (vec!["3".into(), "2".into()], 2));

    let limit = WindowLimit::new(5, Duration::from_secs(1));
    assert_eq!(store.peek(&home(), &window).await.unwrap(), 0);
    assert_eq!(store.admit(&home(), &window, 4, limit).await.unwrap(), 4);
    let full = store.admit(&home(), &window, 2, limit).await;
    assert!(matches!(full, Err(StoreError::WindowFull { used: 4, .. })), "{full:?}");
    assert_eq!(store.peek(&home(), &window).await.unwrap(), 4);

    assert!(store.changes_read(&home(), None, 10).await.is_err());
    store.keep_changes(&home(), 10).await.unwrap();
    let start = store.changes_read(&home(), None, 10).await.unwrap().next;
    store.set(&home(), &record("k"), "v", Ttl::Never).await.unwrap();
    assert_eq!(store.changes_read(&home(), Some(start), 10).await.unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_message_takes_effect_once() {
    let store = chaos(ChaosPlan::default());
    let (bot, n) = (record("bot"), record("n"));
    let work = Batch::new(home()).add(n.clone(), Delta::unbounded(1)).check(record("gate"), When::Absent);
    let done = store.once(&bot, &id("e1"), DAY, work.clone()).await.unwrap();
    assert_eq!(done, Once::Done(vec![Applied::Counter(1), Applied::Done]));
    assert_eq!(store.once(&bot, &id("e1"), DAY, work.clone()).await.unwrap(), Once::Already);
    assert_eq!(store.once(&record("other"), &id("e1"), DAY, work.clone()).await.unwrap().done().unwrap().len(), 2);
    assert_eq!(store.get_counter(&home(), &n).await.unwrap(), 2);

    // A refusal is named by the caller's own count, and leaves no mark.
    store.set(&home(), &record("gate"), "shut", Ttl::Never).await.unwrap();
    let refused = store.once(&bot, &id("e2"), DAY, work.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Mismatch { index: 1, .. }), "{refused:?}");
    assert_eq!(store.once(&bot, &id("e1"), DAY, work.clone()).await.unwrap(), Once::Already, "known before refused");
    store.delete(&home(), &record("gate")).await.unwrap();
    assert!(store.once(&bot, &id("e2"), DAY, work).await.unwrap().done().is_some());
}

/// Every message is offered until its fate is known, over a store that loses requests and replies: each counts once.
#[tokio::test]
async fn repeating_after_a_lost_reply_changes_nothing_twice() {
    for seed in 0..20 {
        let store = chaos(ChaosPlan::network(seed, 150));
        let (bot, n, sum) = (record("bot"), record("n"), record("sum"));
        let mut repeated = 0;
        for message in 0..100 {
            let message = id(&format!("e{message}"));
            let work = Batch::new(home()).add(n.clone(), Delta::unbounded(1));
            while let Err(e) = store.once(&bot, &message, DAY, work.clone()).await {
                assert!(e.kind().is_retryable() || matches!(e, StoreError::Ambiguous { .. }), "{e:?}");
                repeated += 1;
            }
            let named = (&record("adder"), &message, DAY);
            while store.update_once(&home(), &sum, TRIES, named, |sum: Option<u64>| sum.unwrap_or(0) + 1).await.is_err()
            {
            }
        }
        let counts = store.counts();
        assert!(repeated > 0 && counts.lost_replies > 0 && counts.lost_requests > 0, "{counts:?}");
        store.heal();
        assert_eq!(store.get_counter(&home(), &n).await.unwrap(), 100);
        assert_eq!(store.get_json(&home(), &sum).await.unwrap(), Some(100_u64));
    }
}

#[tokio::test]
async fn an_update_that_was_lost_says_so_and_is_not_repeated_in_here() {
    let store = chaos(ChaosPlan::default());
    let add = |n: Option<u64>| n.unwrap_or(0) + 1;
    store.update(&home(), &record("n"), TRIES, add).await.unwrap();
    for (fault, found) in [(Fault::LostReply, 2), (Fault::LostRequest, 2)] {
        store.script([fault]);
        let e = store.update(&home(), &record("n"), TRIES, add).await;
        assert!(matches!(e, Err(StoreError::Ambiguous { .. })), "{e:?}");
        assert_eq!(store.get_json(&home(), &record("n")).await.unwrap(), Some(found));
    }
    let named = (&record("bot"), &id("e"), DAY);
    store.script([Fault::LostReply]);
    assert!(store.update_once(&home(), &record("n"), TRIES, named, add).await.is_err());
    assert_eq!(store.update_once(&home(), &record("n"), TRIES, named, add).await.unwrap(), Once::Already);
    assert_eq!(store.get_json(&home(), &record("n")).await.unwrap(), Some(3));
}
