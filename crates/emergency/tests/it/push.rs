//! What the bus makes faster, and what happens without it.

use std::{sync::Arc, time::Duration};

use infra_emergency::{EmergencyController, EmergencyState, PushCounts, TRANSITION_TOPIC, Transition};
use infra_event_bus::{Delivery, EventBus, MemoryEventBus, Overflow, Pattern, SubscribeOptions, handler_fn};
use infra_types::{Clock, Envelope, ManualClock, SystemClock, Topic, UserId};
use parking_lot::Mutex;

use crate::store::{Fault, FaultyStore, process, scope};

use EmergencyState::{Halt, Normal};

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

async fn pair(store: &FaultyStore, clock: &ManualClock) -> (Arc<EmergencyController>, Arc<EmergencyController>) {
    (Arc::new(process("a", store, clock).await), Arc::new(process("b", store, clock).await))
}

#[tokio::test]
async fn a_transition_reaches_the_others_at_once_by_their_own_reading() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    let (a, b) = pair(&store, &clock).await;
    let seen: Arc<Mutex<Vec<Transition>>> = Arc::default();
    let log = Arc::clone(&seen);
    let watcher = handler_fn(move |event| {
        log.lock().push(serde_json::from_slice(&event.envelope.data).unwrap());
        async { Ok(()) }
    });
    bus.subscribe(SubscribeOptions::at_most_once(Pattern::new(TRANSITION_TOPIC).unwrap(), watcher)).await.unwrap();
    let _guards = (a.listen(Arc::clone(&bus)).await.unwrap(), b.listen(Arc::clone(&bus)).await.unwrap());

    let halted = a.halt_in(&scope("venue:v"), "bob", "loss").await.unwrap();
    settle().await;
    assert_eq!(b.snapshot_of(&scope("venue:v")), halted);
    b.rearm_in(&scope("venue:v"), &UserId::new("anna").unwrap(), "fine", halted.version).await.unwrap();
    settle().await;
    assert_eq!(a.snapshot_of(&scope("venue:v")).state, Normal);
    let told: Vec<_> = seen.lock().iter().map(|t| (t.scope.to_string(), t.to)).collect();
    assert_eq!(told, [("venue:v".to_owned(), Halt), ("venue:v".to_owned(), Normal)]);
    let counts = PushCounts { sent: 1, failed: 0, dropped: 0, received: 1 };
    assert_eq!((a.push_counts(), b.push_counts()), (counts, counts), "nobody is woken by itself");
}

#[tokio::test]
async fn a_push_is_believed_in_nothing() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    let (a, _) = pair(&store, &clock).await;
    let guard = a.listen(Arc::clone(&bus)).await.unwrap();
    a.halt("bob", "loss").await.unwrap();
    // It claims that all is well, then that nothing is; and it is no transition at all.
    for data in [r#"{"to":"NORMAL"}"#, r#"{"to":"SHUTDOWN"}"#, "nonsense"] {
        let event = Envelope::new(Topic::new(TRANSITION_TOPIC).unwrap(), "x", clock.wall(), data);
        bus.publish(event, Delivery::AtMostOnce).await.unwrap();
        settle().await;
        assert_eq!(a.state(), Halt);
    }
    assert_eq!(a.push_counts().received, 3);

    // Without the guard nobody listens and nobody tells.
    guard.stop().await.unwrap();
    let until = a.valid_until();
    clock.advance(Duration::from_millis(10));
    let event = Envelope::new(Topic::new(TRANSITION_TOPIC).unwrap(), "x", clock.wall(), "{}");
    bus.publish(event, Delivery::AtMostOnce).await.unwrap();
    settle().await;
    assert_eq!(a.valid_until(), until, "nothing was read");
}

#[tokio::test]
async fn a_lost_bus_costs_a_poll_and_a_lost_store_the_lease() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    let (a, b) = pair(&store, &clock).await;
    let _guards = (a.listen(Arc::clone(&bus)).await.unwrap(), b.listen(Arc::clone(&bus)).await.unwrap());
    let _poller = b.spawn_poller();
    settle().await;
    bus.close().await.unwrap();
    a.halt("bob", "loss").await.unwrap();
    settle().await;
    assert_eq!((a.push_counts().failed, b.state()), (1, Normal));
    clock.advance(Duration::from_millis(250));
    settle().await;
    assert_eq!(b.state(), Halt);

    // A push that comes while the store does not answer changes nothing, and extends nothing.
    let other: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    let _guard = b.listen(Arc::clone(&other)).await.unwrap();
    store.fail(Fault::Down);
    let (until, failed) = (b.valid_until(), b.refreshes_failed());
    clock.advance(Duration::from_millis(1));
    let event = Envelope::new(Topic::new(TRANSITION_TOPIC).unwrap(), "x", clock.wall(), "{}");
    other.publish(event, Delivery::AtMostOnce).await.unwrap();
    settle().await;
    assert_eq!((b.valid_until(), b.state()), (until, Halt));
    assert!(b.refreshes_failed() > failed);
}

#[tokio::test]
async fn a_bus_that_hangs_delays_no_halt_and_its_queue_is_bounded() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new(SystemClock::shared()));
    // Somebody else's subscription, which never ends and makes publishers wait.
    let stuck = handler_fn(|_| std::future::pending());
    let stuck = SubscribeOptions::at_most_once(Pattern::new("*").unwrap(), stuck).with_queue(1, Overflow::Block);
    bus.subscribe(stuck).await.unwrap();
    let a = Arc::new(process("a", &store, &clock).await);
    let _guard = a.listen(bus).await.unwrap();
    for n in 0..100 {
        a.halt_in(&scope(&format!("account:{n}")), "bob", "loss").await.unwrap();
        settle().await;
    }
    let PushCounts { sent, dropped, .. } = a.push_counts();
    assert!(sent <= 3 && (100 - 64 - 4..=100 - 64).contains(&dropped), "{sent} {dropped}");
}
