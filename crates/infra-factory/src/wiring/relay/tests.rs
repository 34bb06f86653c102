use std::collections::BTreeSet;

use infra_audit_log::{AuditQuery, MemoryAuditLog, MemoryConfig};
use infra_event_bus::{
    BusConfig, Delivered, Delivery, MemoryEventBus, Pattern, SubscribeOptions, Subscription, handler_fn,
};
use infra_state_store::MemoryStateStore;
use infra_types::{BotId, EventId, ManualClock, SystemClock, Timestamp, Topic};
use parking_lot::Mutex as Lock;

use super::*;
use crate::wiring::outbox::Outbox;

/// Takes rows as the script says, and remembers everything that it was handed.
#[derive(Default)]
struct Scripted {
    handed: Lock<Vec<Vec<String>>>,
    /// Answers in turn; what follows is taken.
    fails: Lock<Vec<bool>>,
    poison: BTreeSet<String>,
}

struct Shared(Arc<Scripted>);

#[async_trait]
impl Carrier for Shared {
    async fn carry(&self, rows: &[OutboxRow]) -> Result<Carried, String> {
        self.0.handed.lock().push(rows.iter().map(|r| r.id.to_string()).collect());
        if self.0.fails.lock().pop().unwrap_or(false) {
            return Err("by script".into());
        }
        let refused = rows.iter().enumerate().filter(|(_, r)| self.0.poison.contains(r.id.as_str()));
        let refused = refused.map(|(index, _)| Refused { index, reason: "poison".into() }).collect();
        Ok(Carried { refused, later: Vec::new() })
    }
}

fn ledger() -> Namespace {
    Namespace::new("ledger").unwrap()
}

async fn enqueue(store: &dyn StateStore, queue: &Key, n: usize) {
    let op = |n: usize| Op::Enqueue {
        outbox: queue.clone(),
        order_key: "k".into(),
        id: EventId::new(format!("r-{n}")).unwrap(),
        payload: Default::default(),
    };
    for chunk in (0..n).collect::<Vec<_>>().chunks(100) {
        let mut batch = Batch::new(ledger());
        batch.extend(chunk.iter().map(|n| op(*n)));
        store.apply(batch).await.unwrap();
    }
}

fn relay(store: Arc<dyn StateStore>, carrier: Box<dyn Carrier>, queue: &Key) -> Arc<Relay> {
    let refused = Key::record("outbox/refused").unwrap();
    Relay::new(store, ledger(), queue.clone(), refused, carrier, SystemClock::shared())
}

fn parts() -> (Arc<dyn StateStore>, Outbox) {
    let clock = Arc::new(ManualClock::default());
    (Arc::new(MemoryStateStore::new(clock)), Outbox::of(&BotId::new("bot").unwrap()))
}

#[tokio::test]
async fn rows_are_handed_over_at_least_once_and_in_order() {
    let (store, outbox) = parts();
    enqueue(store.as_ref(), outbox.events_queue(), 600).await;
    // Taken, failed twice, taken: the queue goes on at the row that failed.
    let script = Arc::new(Scripted { fails: Lock::new(vec![true, true, false]), ..Scripted::default() });
    let relay = relay(store, Box::new(Shared(script.clone())), outbox.events_queue());
    for _ in 0..2 {
        assert!(matches!(relay.flush().await, Err(FactoryError::Relay { .. })));
    }
    assert_eq!(relay.flush().await.unwrap(), 344);
    assert_eq!(relay.flush().await.unwrap(), 0);
    let handed = script.handed.lock().clone();
    assert_eq!(handed.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 256, 256, 88]);
    assert_eq!((&handed[1], &handed[2]), (&handed[2], &handed[3]));
    let once: Vec<String> = [&handed[0], &handed[1], &handed[4]].into_iter().flatten().cloned().collect();
    assert_eq!(once, (0..600).map(|n| format!("r-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_row_that_nobody_takes_is_put_aside_and_holds_up_nothing() {
    let (store, outbox) = parts();
    enqueue(store.as_ref(), outbox.events_queue(), 5).await;
    let poison = ["r-1", "r-3"].map(str::to_owned).into();
    let script = Arc::new(Scripted { poison, ..Scripted::default() });
    let relay = relay(store, Box::new(Shared(script)), outbox.events_queue());
    assert_eq!(relay.flush().await.unwrap(), 5);
    assert_eq!(relay.flush().await.unwrap(), 0);
    let aside: Vec<_> = relay.refused().await.unwrap().into_iter().map(|r| r.id.to_string()).collect();
    assert_eq!(aside, ["r-1", "r-3"]);
}

fn row(id: &str, kind: &str, action: &str) -> AuditRow {
    AuditRow {
        id: id.into(),
        kind: kind.into(),
        at: Timestamp::EPOCH,
        user: None,
        correlation: None,
        source: "test".into(),
        resource: "r".into(),
        action: action.into(),
        symbol: None,
        details: Default::default(),
    }
}

#[tokio::test]
async fn the_audit_log_gets_each_row_once_and_keeps_the_first_of_an_id() {
    let (store, outbox) = parts();
    let log = Arc::new(MemoryAuditLog::new(MemoryConfig::default(), Arc::new(ManualClock::default())));
    let relay = relay(store.clone(), Box::new(ToAudit(log.clone())), outbox.audit_queue());
    let rows = [
        row("a", "SYSTEM_EVENT", "one"),
        row("b", "SYSTEM_EVENT", "one"),
        row("a", "SYSTEM_EVENT", "another"),
        row("c", "SYSTEM_EVENT", "one"),
        row("a", "SYSTEM_EVENT", "one"),
    ];
    let mut batch = Batch::new(ledger());
    batch.extend(rows.iter().map(|r| outbox.audit(r)));
    let torn = EventId::new("torn").unwrap();
    let torn =
        Op::Enqueue { outbox: outbox.audit_queue().clone(), order_key: "k".into(), id: torn, payload: "{".into() };
    store.apply(batch.with(torn)).await.unwrap();
    assert_eq!(relay.flush().await.unwrap(), 6);
    let events = log.query(AuditQuery::default()).await.unwrap().events;
    let ids: Vec<_> = events.iter().map(|e| (e.event.id.to_string(), e.event.action.clone())).collect();
    assert_eq!(ids, [("a", "one"), ("b", "one"), ("c", "one")].map(|(id, a)| (id.to_owned(), a.to_owned())));
    let aside: BTreeSet<_> = relay.refused().await.unwrap().into_iter().map(|r| r.id.to_string()).collect();
    assert_eq!(aside, ["a", "torn"].map(str::to_owned).into());
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_bus_lets_the_others_pass() {
    let (store, outbox) = parts();
    let bus = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    let relay = relay(store.clone(), Box::new(ToBus(bus.clone())), outbox.events_queue());
    let event = |id: &str, bytes: usize| {
        let topic = Topic::new("t:x").unwrap();
        Envelope::new(topic, "t".repeat(bytes), Timestamp::EPOCH, Vec::new()).with_id(EventId::new(id).unwrap())
    };
    let max = bus.info().limits.attribute_bytes_max;
    for (id, bytes) in [("e-1", 1), ("e-2", max + 1), ("e-3", 1)] {
        let op = outbox.event(&event(id, bytes));
        store.apply(Batch::new(ledger()).with(op)).await.unwrap();
    }
    assert_eq!(relay.flush().await.unwrap(), 3);
    let aside = relay.refused().await.unwrap();
    assert_eq!(aside.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["e-2"]);
    bus.close().await.unwrap();
    store.apply(Batch::new(ledger()).with(outbox.event(&event("e-4", 1)))).await.unwrap();
    assert!(matches!(relay.flush().await, Err(FactoryError::Relay { .. })), "a closed bus is no reason to give up");
    let key = outbox.events_queue().clone();
    assert_eq!(store.outbox_read(&ledger(), &key, None, 10).await.unwrap().len(), 1);
}

fn noted(topic: &str, key: &str, n: usize) -> Envelope {
    let id = EventId::new(format!("{topic}-{key}-{n}")).unwrap();
    Envelope::new(Topic::new(topic).unwrap(), "t.v1", Timestamp::EPOCH, n.to_string()).with_id(id).with_key(key)
}

struct Busy {
    bus: Arc<MemoryEventBus>,
    seen: Arc<Lock<Vec<String>>>,
}

impl Busy {
    /// A bus whose group for topic `full` has no room.
    async fn new(backlog_max: u64) -> Self {
        let mut config = BusConfig::default();
        config.limits.backlog_max = backlog_max;
        let bus = Arc::new(MemoryEventBus::with_config(SystemClock::shared(), config));
        let busy = Self { bus, seen: Arc::default() };
        busy.serve("full").await.stop().await.unwrap();
        for n in 0..backlog_max as usize {
            busy.bus.publish(noted("full", "before", n), Delivery::AtLeastOnce).await.unwrap();
        }
        busy
    }

    async fn serve(&self, topic: &str) -> Subscription {
        let seen = self.seen.clone();
        let handler = handler_fn(move |event: Delivered| {
            seen.lock().push(event.envelope.id.to_string());
            async { Ok(()) }
        });
        let options = SubscribeOptions::at_least_once(Pattern::new(topic).unwrap(), topic, handler);
        self.bus.subscribe(options).await.unwrap()
    }
}

#[tokio::test]
async fn a_full_group_holds_up_its_keys_and_no_others() {
    let (store, outbox) = parts();
    let busy = Busy::new(4).await;
    let free = busy.serve("free").await;
    let relay = relay(store.clone(), Box::new(ToBus(busy.bus.clone())), outbox.events_queue());
    let rows =
        [("full", "a", 0), ("free", "b", 0), ("free", "a", 1), ("full", "b", 1), ("free", "c", 0), ("free", "b", 2)];
    for (topic, key, n) in rows {
        store.apply(Batch::new(ledger()).with(outbox.event(&noted(topic, key, n)))).await.unwrap();
    }
    assert!(matches!(relay.flush().await, Err(FactoryError::Relay { .. })), "not all of it was told");
    free.drained().await.unwrap();
    assert_eq!(*busy.seen.lock(), ["free-b-0", "free-c-0"], "keys a and b wait from their first refused row on");
    assert_eq!(relay.held_back(), 4);
    assert!(store.outbox_read(&ledger(), outbox.events_queue(), None, 10).await.unwrap().is_empty());
    // What comes later waits behind them too, also after a restart; other keys do not.
    for (key, n) in [("a", 2), ("c", 1)] {
        store.apply(Batch::new(ledger()).with(outbox.event(&noted("free", key, n)))).await.unwrap();
    }
    let relay = self::relay(store.clone(), Box::new(ToBus(busy.bus.clone())), outbox.events_queue());
    assert!(relay.flush().await.is_err());
    free.drained().await.unwrap();
    assert_eq!(busy.seen.lock()[2..], ["free-c-1"]);
    busy.serve("full").await.drained().await.unwrap();
    assert_eq!(relay.flush().await.unwrap(), 5);
    assert_eq!(relay.flush().await.unwrap(), 0);
    free.drained().await.unwrap();
    let seen = busy.seen.lock().clone();
    let of = |part: &str| seen.iter().filter(|id| id.contains(part)).cloned().collect::<Vec<_>>();
    assert_eq!(of("free-a-"), ["free-a-1", "free-a-2"]);
    assert_eq!(of("free-b-"), ["free-b-0", "free-b-2"]);
    assert_eq!(of("free-").len(), 6, "each once: {seen:?}");
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let (store, outbox) = parts();
    let busy = Busy::new(4).await;
    let free = busy.serve("free").await;
    let relay = relay(store.clone(), Box::new(ToBus(busy.bus.clone())), outbox.events_queue());
    for n in 0..HELD_MAX + 10 {
        store.apply(Batch::new(ledger()).with(outbox.event(&noted("full", "k", n)))).await.unwrap();
    }
    store.apply(Batch::new(ledger()).with(outbox.event(&noted("free", "k2", 0)))).await.unwrap();
    assert!(relay.flush().await.is_err());
    assert!(relay.flush().await.is_err());
    assert_eq!(relay.held_back(), HELD_MAX as u64);
    let left = store.outbox_read(&ledger(), outbox.events_queue(), None, 100).await.unwrap();
    assert_eq!(left.len(), 11, "with more the queue waits as a whole");
    let full = busy.serve("full").await;
    while let Err(e) = relay.flush().await {
        assert!(matches!(e, FactoryError::Relay { .. }));
        full.drained().await.unwrap();
    }
    full.drained().await.unwrap();
    free.drained().await.unwrap();
    let want: Vec<_> = (0..HELD_MAX + 10).map(|n| format!("full-k-{n}")).collect();
    let seen = busy.seen.lock().clone();
    assert_eq!(seen.iter().filter(|id| id.starts_with("full-k-")).cloned().collect::<Vec<_>>(), want);
    assert!(seen.contains(&"free-k2-0".to_owned()));
}
