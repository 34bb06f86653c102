//! Two buses on the same data, as two processes have them. Where a backend shares nothing, each case asserts that there is no second one.

use std::sync::Arc;

use async_trait::async_trait;
use infra_types::{Clock, HealthStatus};
use parking_lot::Mutex;

use super::{
    AGES, Fixture, Gate, Log, SECOND, config, drain, event, every, id, in_time, moving, pattern, pending, replayed,
    start, store, until, worked_off,
};
use crate::{
    BusError, DeadLetters, Delivered, Delivery, EventBus, Gap, Handler, HandlerError, ReplayFrom, SubscribeOptions,
};

/// The second bus; none only where the backend says that there can be none.
async fn second(f: &impl Fixture) -> Option<Arc<dyn EventBus>> {
    let other = f.other().await;
    assert_eq!(other.is_some(), f.bus().info().shared_between_processes, "shared means that there is a second bus");
    other
}

/// A group's options for a clock that moves while the buses look.
fn patient(handler: Arc<dyn Handler>) -> SubscribeOptions {
    SubscribeOptions::at_least_once(pattern("t"), "g", handler).with_lease(AGES).with_timeout(AGES)
}

/// Hands on to a log, and keeps what it hears of gaps.
struct Hears {
    log: Arc<dyn Handler>,
    gaps: Mutex<Vec<Gap>>,
}

#[async_trait]
impl Handler for Hears {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        self.log.handle(event).await
    }

    fn gap(&self, gap: &Gap) {
        self.gaps.lock().push(gap.clone());
    }
}

/// Hands on to a log, and keeps what it hears of its end.
struct Ends {
    log: Arc<dyn Handler>,
    ends: Mutex<Vec<BusError>>,
}

#[async_trait]
impl Handler for Ends {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        self.log.handle(event).await
    }

    fn ended(&self, why: &BusError) {
        self.ends.lock().push(why.clone());
    }
}

/// Consumers of two processes share a group: each event goes to one of them, and the order of a key holds across both.
pub async fn two_processes_share_a_group(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    let (a, b) = (start(&here, patient(log.handler())).await, start(&there, patient(log.handler())).await);
    for n in 0..100 {
        let bus = if n % 2 == 0 { &here } else { &there };
        store(bus, event("t", &format!("k{}", n % 5), n.to_string())).await;
    }
    worked_off(&f, "g").await;
    let lines = log.lines();
    assert_eq!(lines.len(), 100);
    for key in 0..5 {
        let want: Vec<_> = (0..100).filter(|n| n % 5 == key).map(|n| format!("{n}#1")).collect();
        let of_key: Vec<_> = lines.iter().filter(|line| want.contains(line)).cloned().collect();
        assert_eq!(of_key, want, "order of key {key}");
    }
    until("all are counted", || a.metrics().processed + b.metrics().processed == 100).await;
    assert_eq!(a.metrics().leases_lost + b.metrics().leases_lost, 0);
}

/// While one process is busy with a key, the other does the rest and waits with that key.
pub async fn a_key_waits_for_the_other_process(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let (gate, held, log) = (Gate::new(), Log::new(), Log::new());
    start(&here, patient(gate.handler(&held, |_| true))).await;
    store(&here, event("t", "a", "a1")).await;
    gate.wait().await;
    start(&there, patient(log.handler())).await;
    for (bus, key, data) in [(&there, "a", "a2"), (&here, "b", "b1"), (&here, "a", "a3"), (&there, "c", "c1")] {
        store(bus, event("t", key, data)).await;
    }
    moving(&f, "the other keys go on", || log.len() == 2).await;
    assert_eq!(log.lines(), ["b1#1", "c1#1"]);
    gate.open(100);
    worked_off(&f, "g").await;
    let mut all = [held.data(), log.data()].concat();
    all.retain(|data| data.starts_with('a'));
    all.sort();
    assert_eq!(all, ["a1", "a2", "a3"]);
    let a2_here = held.data().contains(&"a2".to_owned());
    let of_a: Vec<_> =
        if a2_here { held.data() } else { log.data() }.into_iter().filter(|data| data.starts_with('a')).collect();
    assert!(of_a.is_sorted(), "{of_a:?}");
}

/// The retry of one process holds up its key in the other.
pub async fn a_retry_holds_up_its_key_in_every_process(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    let options = || {
        let handler = log.answering(|d| match (d.envelope.data.as_ref(), d.attempt) {
            (b"a1", 1) => Err(HandlerError::Retry("no".into())),
            _ => Ok(()),
        });
        patient(handler).with_retry(3, every(1_000))
    };
    let a = start(&here, options()).await;
    store(&here, event("t", "a", "a1")).await;
    until("it failed", || a.metrics().failed == 1).await;
    start(&there, options()).await;
    for (key, data) in [("a", "a2"), ("b", "b1")] {
        store(&there, event("t", key, data)).await;
    }
    assert_eq!(log.wait(2).await, ["a1#1", "b1#1"]);
    f.advance(SECOND * 1_000).await;
    worked_off(&f, "g").await;
    assert_eq!(log.lines(), ["a1#1", "b1#1", "a1#2", "a2#1"]);
}

/// A consumer with nothing to do finds what another process stored, whichever of the two it is.
pub async fn an_idle_consumer_hears_of_other_processes(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    for (publisher, consumer, group) in [(&here, &there, "a"), (&there, &here, "b")] {
        let log = Log::new();
        let options =
            SubscribeOptions::at_least_once(pattern("t"), group, log.handler()).with_lease(AGES).with_timeout(AGES);
        let sub = start(consumer, options).await;
        drain(&sub).await;
        for n in 1..=5 {
            store(publisher, event("t", "k", n.to_string())).await;
            moving(&f, "the idle consumer finds it", || log.len() == n).await;
        }
        assert_eq!(log.lines(), ["1#1", "2#1", "3#1", "4#1", "5#1"]);
        sub.stop().await.expect("it stops");
    }
}

/// An id is known in every process, in whatever way it was published.
pub async fn an_id_is_known_in_every_process(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    start(&here, patient(log.handler())).await;
    let (one, two) = (event("t", "k", "one").with_id(id("one")), event("t", "k", "two").with_id(id("two")));
    let at = f.clock().wall().saturating_add(SECOND);
    assert!(!store(&here, one.clone()).await.duplicate);
    assert!(store(&there, one.clone()).await.duplicate);
    assert!(there.publish_at(one, at).await.expect("answered").duplicate);
    assert!(!there.publish_at(two.clone(), at).await.expect("kept").duplicate);
    assert!(store(&here, two).await.duplicate);
    moving(&f, "both are handled", || log.len() == 2).await;
    assert_eq!(
        (log.lines(), here.metrics().duplicates, there.metrics().duplicates),
        (vec!["one#1".into(), "two#1".into()], 1, 2)
    );
}

/// A run of the same consumer in another process takes over at once; what the first says afterwards comes too late and is counted.
pub async fn a_late_answer_of_a_predecessor_changes_nothing(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let (gate, old, new) = (Gate::new(), Log::new(), Log::new());
    let first = start(&here, patient(gate.handler(&old, |_| true)).with_consumer("bot")).await;
    store(&here, event("t", "k", "a")).await;
    gate.wait().await;
    let failing = new.answering(|d| if d.attempt == 2 { Err(HandlerError::Retry("no".into())) } else { Ok(()) });
    let second = start(&there, patient(failing).with_consumer("bot").with_retry(5, every(1_000))).await;
    moving(&f, "it is taken over", || second.metrics().failed == 1).await;
    first.pause();
    gate.open(1);
    until("the late answer is refused", || first.metrics().leases_lost == 1).await;
    assert_eq!(pending(&there, "g").await, Some(1), "a late acknowledgement is none");
    f.advance(SECOND * 1_000).await;
    worked_off(&f, "g").await;
    assert_eq!((old.lines(), new.lines()), (vec!["a#1".into()], vec!["a#2".into(), "a#3".into()]));
}

/// Of two processes that run a consumer of one name the earlier one is told, and ends; the later one goes on alone.
pub async fn a_second_run_of_a_name_displaces_the_first(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let (old, new) = (Log::new(), Log::new());
    let hears = Arc::new(Ends { log: old.handler(), ends: Mutex::default() });
    let first = start(&here, patient(hears.clone()).with_consumer("bot")).await;
    let beside = start(&here, patient(old.handler()).with_consumer("another")).await;
    store(&here, event("t", "k", "a")).await;
    worked_off(&f, "g").await;
    let second = start(&there, patient(new.handler()).with_consumer("bot")).await;
    moving(&f, "the first is told", || first.failure().is_some()).await;
    let is_displaced = |e: &BusError| matches!(e, BusError::Displaced { group, consumer } if (group.as_str(), consumer.as_str()) == ("g", "bot"));
    assert!(first.failure().is_some_and(|e| is_displaced(&e)), "{:?}", first.failure());
    assert!(hears.ends.lock().iter().all(is_displaced) && hears.ends.lock().len() == 1);
    assert_eq!((here.metrics().displaced, there.metrics().displaced), (1, 0));
    let health = here.health().await;
    assert_eq!(health.status, HealthStatus::Degraded, "{health:?}");
    assert!(second.failure().is_none() && beside.failure().is_none(), "nobody else is");
    beside.stop().await.expect("it stops");
    for n in 0..10 {
        store(&here, event("t", &format!("k{n}"), n.to_string())).await;
    }
    worked_off(&f, "g").await;
    assert_eq!((old.lines().len(), new.lines().len()), (1, 10));
    // A name that was lost can be taken back.
    first.stop().await.expect("it has ended");
    start(&here, patient(old.handler()).with_consumer("bot")).await;
    moving(&f, "the second is told", || second.failure().is_some()).await;
}

/// Live events of one process reach the live subscriptions of the other where the bus says so, each once and in order, and no gap is
/// told without a cause. Where it does not say so, they never do.
pub async fn live_events_reach_other_processes_or_never_do(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else {
        assert!(!here.info().live_between_processes);
        return;
    };
    let (log, mine, stored) = (Log::new(), Log::new(), Log::new());
    let hears = Arc::new(Hears { log: log.handler(), gaps: Mutex::default() });
    let tap = start(&there, SubscribeOptions::at_most_once(pattern("p:*"), hears.clone())).await;
    let own = start(&here, SubscribeOptions::at_most_once(pattern("p:*"), mine.handler())).await;
    let send = async |data: String| {
        let sent = here.publish(event("p:x", "k", data), Delivery::AtMostOnce).await;
        sent.expect("a live publish succeeds");
    };
    if !here.info().live_between_processes {
        for n in 0..10 {
            send(n.to_string()).await;
        }
        store(&here, event("p:x", "k", "stored")).await;
        // What is stored afterwards arrives there, and shows that the others had their time.
        let options =
            SubscribeOptions::at_least_once(pattern("t"), "g", stored.handler()).with_lease(AGES).with_timeout(AGES);
        start(&there, options).await;
        store(&here, event("t", "k", "probe")).await;
        moving(&f, "the probe arrives", || stored.len() == 1).await;
        drain(&tap).await;
        drain(&own).await;
        assert_eq!((log.len(), mine.len(), tap.metrics().published), (0, 11, 0));
        return;
    }
    // Whoever subscribes is heard of a moment later: until then nothing was promised.
    let begun = in_time(async {
        while log.len() == 0 {
            send("first".into()).await;
            // A round trip, so that it does not send faster than anybody could hear.
            let _ = here.status("nobody").await;
            tokio::task::yield_now().await;
        }
    });
    assert!(begun.await.is_some(), "no live event arrives at the other process");
    for n in 0..100 {
        send(n.to_string()).await;
    }
    store(&here, event("p:y", "k", "100")).await;
    let arrives = in_time(async {
        while log.data().last().is_none_or(|data| data != "100") {
            tokio::task::yield_now().await;
        }
    });
    if arrives.await.is_none() {
        let (sent, heard) = (here.metrics(), there.metrics());
        panic!("the last does not arrive: unsent {}, gaps {}, saw {:?}", sent.unsent, heard.gaps, log.data());
    }
    let rest: Vec<_> = log.data().into_iter().skip_while(|data| data == "first").collect();
    assert_eq!(rest, (0..=100).map(|n| n.to_string()).collect::<Vec<_>>());
    drain(&own).await;
    let of_me: Vec<_> = mine.data().into_iter().filter(|data| data != "first").collect();
    assert_eq!(of_me, rest, "nobody hears an echo of its own");
    assert_eq!((hears.gaps.lock().len(), tap.metrics().gaps, there.metrics().gaps), (0, 0, 0));
    assert_eq!(here.metrics().unsent, 0);
    assert!(log.seen.lock().iter().all(|d| d.attempt == 1 && !d.is_replay));
}

/// Dead letters, status, history and the end of a group are the same from everywhere.
pub async fn what_one_process_does_the_other_sees(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    let handler = log.answering(|d| match d.envelope.data.as_ref() {
        b"bad1" | b"bad2" => Err(HandlerError::Poison("bad".into())),
        _ => Ok(()),
    });
    let sub = start(&here, patient(handler)).await;
    for data in ["bad1", "good", "bad2"] {
        store(&here, event("t", "k", data)).await;
    }
    drain(&sub).await;
    let status = there.status("g").await.expect("the group is there");
    assert_eq!((status.pending, status.dead_letters), (0, 2));
    let dead = there.dead_letters("g", 0, 10).await.expect("readable");
    assert_eq!(dead, here.dead_letters("g", 0, 10).await.expect("readable"));
    assert_eq!(replayed(&there, "t", ReplayFrom::Earliest).await, replayed(&here, "t", ReplayFrom::Earliest).await);
    assert_eq!(there.redrive("g", DeadLetters::At(vec![dead[0].seq])).await.ok(), Some(1));
    moving(&f, "the consumer finds what was put back", || log.len() == 4).await;
    assert_eq!(log.lines()[3], "bad1#1");
    worked_off(&f, "g").await;
    assert_eq!(there.purge("g", DeadLetters::All).await.ok(), Some(2));
    assert_eq!(here.status("g").await.expect("the group is there").dead_letters, 0);
    assert_eq!(there.remove_group("g").await.ok(), Some(true));
    assert_eq!(pending(&here, "g").await, None);
}

/// A delayed event is brought to its group by whichever process looks, once.
pub async fn any_process_releases_what_was_delayed(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    let (a, b) = (start(&here, patient(log.handler())).await, start(&there, patient(log.handler())).await);
    let at = f.clock().wall().saturating_add(SECOND * 100);
    for n in 0..20 {
        let bus = if n % 2 == 0 { &here } else { &there };
        bus.publish_at(event("t", "k", n.to_string()), at).await.expect("kept");
    }
    f.advance(SECOND * 100).await;
    moving(&f, "all come", || log.len() >= 20).await;
    worked_off(&f, "g").await;
    assert_eq!(log.lines(), (0..20).map(|n| format!("{n}#1")).collect::<Vec<_>>(), "in order, across both");
    until("all are counted", || a.metrics().processed + b.metrics().processed == 20).await;
}

/// What a process gives back when it closes or pauses is the other's, and the other goes on without it.
pub async fn the_other_process_goes_on_alone(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let (gate, held, log) = (Gate::new(), Log::new(), Log::new());
    start(&here, patient(log.handler())).await.stop().await.expect("it stops");
    for n in 0..6 {
        store(&here, event("t", &format!("k{n}"), n.to_string())).await;
    }
    let first = start(&there, patient(gate.handler(&held, |_| true))).await;
    gate.wait().await;
    start(&here, patient(log.handler())).await;
    assert_eq!(first.waiting(), 6);
    let mut closing = there.close();
    assert!(futures::poll!(&mut closing).is_pending(), "a handler runs");
    gate.open(1);
    in_time(closing).await.expect("the close ends").expect("all ended in time");
    worked_off(&f, "g").await;
    assert_eq!((held.lines(), log.lines()), (vec!["0#1".to_owned()], (1..6).map(|n| format!("{n}#1")).collect()));
    store(&here, event("t", "k", "more")).await;
    assert_eq!(log.wait(6).await[5], "more#1");
}

/// Removing what one bus holds from the other is no reason for either to stop; the backlog is one.
pub async fn the_backlog_of_two_processes_is_one(f: impl Fixture) {
    let here = f.bus();
    let Some(there) = second(&f).await else { return };
    let log = Log::new();
    start(&here, patient(log.handler())).await.stop().await.expect("it stops");
    let max = config().limits.backlog_max;
    for n in 0..2 {
        let bus = if n == 0 { &here } else { &there };
        let half = (0..max / 2).map(|i| event("t", "k", format!("{n}/{i}"))).collect();
        assert!(bus.publish_batch(half).await.iter().all(Result::is_ok));
    }
    for bus in [&here, &there] {
        let refused = bus.publish(event("t", "k", "more"), Delivery::AtLeastOnce).await;
        assert!(matches!(refused, Err(crate::BusError::BacklogFull { pending, .. }) if pending == max), "{refused:?}");
    }
    drain(&start(&there, patient(log.handler())).await).await;
    assert_eq!(log.len() as u64, max);
    store(&here, event("t", "k", "more")).await;
}
