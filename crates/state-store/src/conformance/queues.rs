//! The outbox and the inbox: messages that exist if and only if the rest of their batch does.

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, OutboxPosition, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    op::Op,
    store::{StateStore, Value},
};

fn acknowledge(outbox: &str, up_to: OutboxPosition) -> Op {
    Op::Acknowledge { outbox: record(outbox), up_to }
}

async fn fill(store: &dyn StateStore, outbox: &str, events: &[&str]) {
    let mut all = batch();
    all.extend(events.iter().map(|event| enqueue(outbox, event)));
    good(store.apply(all).await);
}

/// In the order in which they were enqueued, with everything that was given.
pub async fn messages_keep_their_order(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "out", &["e1", "e2"]).await;
    fill(&*f.second(), "out", &["e3"]).await;
    let load: Vec<u8> = (0..=255).collect();
    let op =
        Op::Enqueue { outbox: record("out"), order_key: String::new(), id: id("e0"), payload: load.clone().into() };
    assert_eq!(one(&*store, op).await, Applied::Done);
    let rows = messages(&*store, "out").await;
    assert_eq!(ids(&rows), ["e1", "e2", "e3", "e0"]);
    assert!(rows.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!((rows[0].order_key.as_str(), &rows[0].payload[..]), ("order", &b"e1"[..]));
    assert_eq!((rows[3].order_key.as_str(), &rows[3].payload[..]), ("", &load[..]));
    assert_eq!(messages(&*f.second(), "out").await, rows);
}

/// What was published goes, what was not stays; twice is fine.
pub async fn acknowledging_removes_up_to_and_with(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "out", &["e1", "e2", "e3"]).await;
    let rows = messages(&*store, "out").await;
    for _ in 0..2 {
        assert_eq!(one(&*store, acknowledge("out", rows[1].position)).await, Applied::Done);
        assert_eq!(messages(&*store, "out").await, rows[2..]);
    }
    one(&*store, acknowledge("out", rows[0].position)).await;
    assert_eq!(messages(&*store, "out").await, rows[2..]);
    one(&*store, acknowledge("out", rows[2].position)).await;
    assert_eq!(messages(&*store, "out").await, []);
    one(&*store, acknowledge("never", rows[2].position)).await;
}

/// A message that comes later never stands where a relay has read already.
pub async fn positions_never_return(f: &dyn Fixture) {
    let store = f.store();
    let mut last = OutboxPosition::default();
    for round in 0..4 {
        fill(&*store, "out", &["e"]).await;
        let rows = good(store.outbox_read(&home(), &record("out"), Some(last), 10).await);
        assert_eq!(rows.len(), 1, "round {round}: a new message lies after everything that was read");
        last = rows[0].position;
        if round % 2 == 0 {
            one(&*store, acknowledge("out", last)).await;
        } else {
            good(store.clear(&home()).await);
        }
    }
}

/// Neither by name nor by namespace.
pub async fn outboxes_do_not_mix(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "a", &["e1"]).await;
    fill(&*store, "b", &["e2"]).await;
    good(store.apply_one(&ns("other"), enqueue("a", "e3")).await);
    let last = messages(&*store, "b").await[0].position;
    one(&*store, acknowledge("b", last)).await;
    assert_eq!(ids(&messages(&*store, "a").await), ["e1"]);
    assert_eq!(messages(&*store, "b").await, []);
    assert_eq!(ids(&good(store.outbox_read(&ns("other"), &record("a"), None, 10).await)), ["e3"]);
    // A record of the same name is another thing.
    one(&*store, put(&record("a"), "v")).await;
    good(store.delete(&home(), &record("a")).await);
    assert_eq!(ids(&messages(&*store, "a").await), ["e1"]);
}

/// A message of a batch that was refused was never there; one that was to be acknowledged still is.
pub async fn a_refused_batch_enqueues_and_acknowledges_nothing(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "out", &["e1", "e2"]).await;
    let rows = messages(&*store, "out").await;
    let doomed = batch()
        .with(acknowledge("out", rows[0].position))
        .with(enqueue("out", "e3"))
        .with(acknowledge("out", rows[1].position))
        .check(record("missing"), When::Exists);
    assert!(store.apply(doomed).await.is_err());
    assert_eq!(messages(&*store, "out").await, rows);
    fill(&*store, "out", &["e4"]).await;
    assert_eq!(ids(&messages(&*store, "out").await), ["e1", "e2", "e4"]);
}

/// 1 to 1,000, and the next page starts after the last position.
pub async fn a_page_of_messages_has_its_limit(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "out", &["e1", "e2", "e3", "e4", "e5"]).await;
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = good(store.outbox_read(&home(), &record("out"), after, 2).await);
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.position);
        seen.extend(page.iter().map(|row| row.id.as_str().to_owned()));
    }
    assert_eq!(seen, ["e1", "e2", "e3", "e4", "e5"]);
    for limit in [0, 1_001] {
        let e = store.outbox_read(&home(), &record("out"), None, limit).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    }
}

/// The second delivery's effect does not happen.
pub async fn a_processed_message_is_refused_with_its_batch(f: &dyn Fixture) {
    let store = f.store();
    let effect = |n| batch().set(record("balance"), Value::Counter(n)).with(mark("bot", "e1", Ttl::Never));
    good(store.apply(effect(1)).await);
    let again = f.second().apply(effect(2)).await;
    assert!(matches!(again, Err(StoreError::AlreadyProcessed { index: 1 })), "{again:?}");
    assert_eq!(number(&*store, &record("balance")).await, Some(1));
    let twice = batch().with(mark("bot", "e2", Ttl::Never)).with(mark("bot", "e2", Ttl::Never));
    assert!(matches!(store.apply(twice).await, Err(StoreError::AlreadyProcessed { index: 1 })));
    one(&*store, mark("bot", "e2", Ttl::Keep)).await;
}

/// A mark lives as long as it was told, and not longer.
pub async fn marks_are_forgotten_in_time(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, mark("bot", "short", Ttl::After(SOON))).await;
    one(&*store, mark("bot", "long", Ttl::After(LONG))).await;
    one(&*store, mark("bot", "ever", Ttl::Never)).await;
    refused(&*store, mark("bot", "short", Ttl::Never)).await;
    f.advance(SOON).await;
    one(&*store, mark("bot", "short", Ttl::After(LONG))).await;
    for event in ["short", "long", "ever"] {
        let e = refused(&*store, mark("bot", event, Ttl::Never)).await;
        assert!(matches!(e, StoreError::AlreadyProcessed { index: 0 }), "{event}: {e:?}");
    }
    good(store.clear(&home()).await);
    one(&*store, mark("bot", "ever", Ttl::Never)).await;
}

/// Every consumer processes a message once.
pub async fn inboxes_do_not_mix(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, mark("a", "e", Ttl::Never)).await;
    one(&*store, mark("b", "e", Ttl::Never)).await;
    one(&*store, mark("a", "f", Ttl::Never)).await;
    good(store.apply_one(&ns("other"), mark("a", "e", Ttl::Never)).await);
}

/// A message that reaches many at once has its effect once.
pub async fn one_of_many_processes_a_message(f: &dyn Fixture) {
    let done = together(f, |task, store| async move {
        let effect = batch()
            .with(Op::Add { key: record("effects"), delta: crate::batch::Delta::unbounded(1), ttl: Ttl::Keep })
            .with(mark("bot", "e", Ttl::Never))
            .with(enqueue("out", &format!("by-{task}")));
        match store.apply(effect).await {
            Ok(_) => true,
            Err(StoreError::AlreadyProcessed { index: 1 }) => false,
            Err(e) => panic!("{e:?}"),
        }
    })
    .await;
    assert_eq!(done.into_iter().filter(|done| *done).count(), 1);
    assert_eq!(number(&*f.store(), &record("effects")).await, Some(1));
    assert_eq!(messages(&*f.store(), "out").await.len(), 1);
}
