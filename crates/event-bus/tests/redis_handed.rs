//! A consumer that waits is handed what comes, by the append itself.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::{sync::Arc, time::Duration};

use infra_backends::{Redis, RedisConfig};
use infra_event_bus::{
    Limits, Pattern, RedisBroker, StartFrom,
    broker::{Append, Broker, Claim, Claims, GroupSpec, HandOver, Outcome, Settle, Shards, Turn, Turned, Waits},
};
use infra_testkit::{RedisServer, unique_name};
use infra_types::{Clock, Envelope, SystemClock, Timestamp, Topic};
use tokio::{sync::mpsc::UnboundedReceiver, task::AbortHandle};

const PATIENCE: Duration = Duration::from_secs(5);

fn config() -> RedisConfig {
    RedisConfig::from_url(&RedisServer::shared().url()).unwrap().with_key_prefix(format!("{}:", unique_name()))
}

/// On connections of its own, as another process would have it.
async fn broker(config: &RedisConfig) -> Arc<RedisBroker> {
    let broker = RedisBroker::new(Redis::new(config.clone()).unwrap(), Limits::default()).unwrap();
    let spec = GroupSpec { name: "g".into(), pattern: Pattern::new("*").unwrap(), from: StartFrom::New };
    broker.open_group(spec).await.unwrap();
    Arc::new(broker)
}

fn request(who: &str) -> Claim {
    Claim {
        group: "g".into(),
        consumer: who.into(),
        incarnation: who.into(),
        now: SystemClock.wall(),
        lease: Duration::from_secs(3_600),
        horizon: Duration::from_secs(60),
        max: 10,
        crashes_max: 3,
        shards: Shards { count: 1, open: u64::MAX },
    }
}

async fn turn(broker: &RedisBroker, who: &str, ends: &[u64], to: Option<&HandOver>) -> Turned {
    let end = |seq: &u64| Settle { seq: *seq, attempt: 1, outcome: Outcome::Ack };
    let waits = to.map(|to| Waits { patience: PATIENCE, to: to.clone() });
    broker.turn(Turn { ends: ends.iter().map(end).collect(), claim: request(who), waits }).await.unwrap()
}

async fn append(broker: &RedisBroker, data: &[&str]) {
    let event = |data: &&str| {
        let envelope =
            Envelope::new(Topic::new("t").unwrap(), "k", Timestamp::EPOCH, data.to_string()).with_key(data.to_string());
        Append { envelope: Arc::new(envelope), is_priority: false }
    };
    assert!(broker.append(data.iter().map(event).collect()).await.iter().all(Result::is_ok));
}

fn lines(claims: &Claims) -> Vec<String> {
    claims.events.iter().map(|e| format!("{}#{}", String::from_utf8_lossy(&e.envelope.data), e.attempt)).collect()
}

async fn handed(take: &mut UnboundedReceiver<Claims>) -> Vec<String> {
    lines(&tokio::time::timeout(PATIENCE, take.recv()).await.expect("in time").expect("open"))
}

/// Hears what others hand over, from when this answers on.
async fn hear(broker: &Arc<RedisBroker>, others: &RedisBroker, server: &RedisServer) -> AbortHandle {
    let before = server.cli(&["PUBSUB", "CHANNELS"]).text().lines().count();
    let this = broker.clone();
    let task = tokio::spawn(async move { this.listen(Arc::new(|_| Box::pin(async {}))).await }).abort_handle();
    let (to, mut take) = HandOver::new();
    // Until one comes that way: the word says whether the program hears.
    loop {
        assert!(turn(broker, "probe", &[], Some(&to)).await.is_waiting, "{before} channels");
        append(others, &["probe"]).await;
        let got = match tokio::time::timeout(Duration::from_millis(50), take.recv()).await {
            Ok(got) => return ack(broker, got.expect("open"), task).await,
            Err(_) => turn(broker, "probe", &[], None).await.claims.unwrap(),
        };
        let seqs: Vec<_> = got.events.iter().map(|e| e.seq).collect();
        assert!(turn(broker, "probe", &seqs, None).await.claims.unwrap().events.is_empty());
    }
}

async fn ack(broker: &RedisBroker, got: Claims, task: AbortHandle) -> AbortHandle {
    let seqs: Vec<_> = got.events.iter().map(|e| e.seq).collect();
    assert_eq!(turn(broker, "probe", &seqs, None).await.settled.lost, 0);
    task
}

/// Once for each word, and it counts as a claim: nobody else gets it, and its end is an end.
#[tokio::test]
async fn the_next_append_of_the_same_process_lends_it() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    append(&broker, &["1", "2"]).await;
    append(&broker, &["3"]).await;
    assert_eq!(handed(&mut take).await, ["1#1", "2#1"]);
    assert!(take.try_recv().is_err(), "the word was for once");
    // What was not handed over is lent as ever; what was, is not.
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["3#1"]);
    let next = turn(&broker, "me", &[1, 2], Some(&to)).await;
    assert_eq!((next.settled.lost, next.claims.unwrap().events.len()), (0, 0));
    assert_eq!(turn(&broker, "other", &[3], None).await.settled.lost, 0);
    assert_eq!(broker.status("g").await.unwrap().pending, 0);
    assert_eq!(turn(&broker, "me", &[1, 2], None).await.settled.lost, 2, "they ended before");
}

/// More than the consumer takes at once: the rest waits for its next step.
#[tokio::test]
async fn no_more_is_handed_over_than_a_claim_may_hold() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    let data: Vec<String> = (1..=25).map(|n| n.to_string()).collect();
    append(&broker, &data.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(handed(&mut take).await, (1..=10).map(|n| format!("{n}#1")).collect::<Vec<_>>());
    let next = turn(&broker, "me", &(1..=10).collect::<Vec<_>>(), Some(&to)).await;
    assert_eq!((next.settled.lost, next.is_waiting), (0, false));
    assert_eq!(lines(&next.claims.unwrap()), (11..=20).map(|n| format!("{n}#1")).collect::<Vec<_>>());
}

/// By another process it comes on the channel of the consumer's.
#[tokio::test]
async fn an_append_of_another_process_lends_it() {
    let config = config();
    let (here, there) = (broker(&config).await, broker(&config).await);
    let hears = hear(&here, &there, RedisServer::shared()).await;
    let (to, mut take) = HandOver::new();
    assert!(turn(&here, "me", &[], Some(&to)).await.is_waiting);
    append(&there, &["a", "b"]).await;
    assert_eq!(handed(&mut take).await, ["a#1", "b#1"]);
    assert_eq!(lines(&turn(&there, "other", &[], None).await.claims.unwrap()), [""; 0]);
    hears.abort();
}

/// What was lent on a word that was taken back comes with the next step, at its first attempt; and to nobody twice.
#[tokio::test]
async fn what_is_not_taken_comes_with_the_next_step() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    broker.recall("me");
    append(&broker, &["1"]).await;
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), [""; 0], "it was lent all the same");
    assert_eq!(lines(&turn(&broker, "me", &[], Some(&to)).await.claims.unwrap()), ["1#1"]);
    assert!(take.try_recv().is_err());
}

/// A consumer that withdraws, or is gone, keeps nothing from the others.
#[tokio::test]
async fn who_does_not_wait_any_more_holds_nothing() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    broker.withdraw("g", "me").await.unwrap();
    append(&broker, &["1"]).await;
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["1#1"]);
    assert!(take.try_recv().is_err());
    assert_eq!(turn(&broker, "other", &[1], None).await.settled.lost, 0);
    // Lent before it withdraws, and on its way.
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    broker.recall("me");
    append(&broker, &["2"]).await;
    broker.withdraw("g", "me").await.unwrap();
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["2#1"]);
    assert_eq!(turn(&broker, "other", &[2], None).await.settled.lost, 0);
    // Its task ended without a word.
    assert!(turn(&broker, "me", &[], Some(&to)).await.is_waiting);
    drop(take);
    append(&broker, &["3"]).await;
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["3#1"]);
}

/// A word holds as long as it says, and no longer.
#[tokio::test]
async fn a_word_runs_out() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    let waits = Waits { patience: Duration::from_millis(5), to };
    let turned = broker.turn(Turn { ends: Vec::new(), claim: request("me"), waits: Some(waits) }).await.unwrap();
    assert!(turned.is_waiting);
    tokio::time::sleep(Duration::from_millis(10)).await;
    append(&broker, &["1"]).await;
    assert!(take.try_recv().is_err());
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["1#1"]);
}

/// The run that takes over a name takes the word of the one before with it.
#[tokio::test]
async fn a_name_that_is_taken_over_waits_no_more() {
    let broker = broker(&config()).await;
    let (to, mut take) = HandOver::new();
    let claim = Claim { consumer: "bot".into(), ..request("first") };
    let waits = Some(Waits { patience: PATIENCE, to });
    assert!(broker.turn(Turn { ends: Vec::new(), claim, waits }).await.unwrap().is_waiting);
    broker.take_over("g", "bot", "second").await.unwrap();
    append(&broker, &["1"]).await;
    assert!(take.try_recv().is_err());
    assert_eq!(lines(&turn(&broker, "other", &[], None).await.claims.unwrap()), ["1#1"]);
}

/// One id of a batch that is known: the answer names its own place, whatever else was stored with it.
#[tokio::test]
async fn a_repeated_id_of_a_batch_names_its_place() {
    let broker = broker(&config()).await;
    let event = |n: u64| {
        let envelope = Envelope::new(Topic::new("t").unwrap(), "k", Timestamp::EPOCH, "x")
            .with_id(infra_types::EventId::new(format!("id-{n}")).unwrap());
        Append { envelope: Arc::new(envelope), is_priority: false }
    };
    for first in [1, 41, 81] {
        let stored = broker.append((first..first + 40).map(event).collect()).await;
        let places: Vec<_> = stored.into_iter().map(|one| one.unwrap().seq.unwrap()).collect();
        assert_eq!(places, (first..first + 40).collect::<Vec<_>>());
    }
    for n in [1, 7, 40, 41, 59, 80, 81, 120] {
        let again = broker.append(vec![event(n)]).await.pop().unwrap().unwrap();
        assert_eq!((again.seq, again.duplicate), (Some(n), true));
    }
}
