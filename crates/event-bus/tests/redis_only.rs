//! What only a Redis server can show.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::{sync::Arc, time::Duration};

use infra_backends::{Redis, RedisConfig};
use infra_event_bus::{
    BusError, Delivered, Delivery, EventBus, Gap, Handler, HandlerError, Limits, Pattern, RedisBroker, RedisEventBus,
    StartFrom, SubscribeOptions,
    broker::{Append, Broker, Claim, Claims, GroupSpec, Outcome, Settle, Shards},
    handler_fn,
};
use infra_testkit::{FaultProxy, RedisServer, unique_name};
use infra_types::{Clock, Envelope, ErrorKind, HealthStatus, SystemClock, Timestamp, Topic};
use proptest::prelude::*;

const LEASE: Duration = Duration::from_millis(60);

fn config(url: &str) -> RedisConfig {
    RedisConfig::from_url(url).unwrap().with_key_prefix(format!("{}:", unique_name()))
}

fn broker(config: &RedisConfig) -> RedisBroker {
    RedisBroker::new(Redis::new(config.clone()).unwrap(), Limits::default()).unwrap()
}

fn shared() -> RedisBroker {
    broker(&config(&RedisServer::shared().url()))
}

fn event(key: &str, data: &str) -> Append {
    let envelope = Envelope::new(Topic::new("t").unwrap(), "k", Timestamp::EPOCH, data.to_owned()).with_key(key);
    Append { envelope: Arc::new(envelope), is_priority: false }
}

async fn open(broker: &RedisBroker) {
    let spec = GroupSpec { name: "g".into(), pattern: Pattern::new("*").unwrap(), from: StartFrom::New };
    broker.open_group(spec).await.unwrap();
}

fn request(who: &str, now: Timestamp) -> Claim {
    Claim {
        group: "g".into(),
        consumer: who.into(),
        incarnation: who.into(),
        now,
        lease: LEASE,
        horizon: Duration::from_secs(60),
        max: 10,
        crashes_max: 3,
        shards: Shards { count: 1, open: 1 },
    }
}

fn lines(claims: &Claims) -> Vec<String> {
    claims.events.iter().map(|e| format!("{}#{}", String::from_utf8_lossy(&e.envelope.data), e.attempt)).collect()
}

/// The server's clock ends leases and waits: a host whose clock is a day ahead, or behind, takes nobody's claims, and waits as long.
#[tokio::test]
async fn hosts_whose_clocks_differ_agree() {
    let broker = shared();
    open(&broker).await;
    let (here, ahead) = (SystemClock.wall(), SystemClock.wall().saturating_add(Duration::from_secs(86_400)));
    for data in ["1", "2"] {
        broker.append(vec![event(data, data)]).await.pop().unwrap().unwrap();
    }
    assert_eq!(lines(&broker.claim(request("here", here)).await.unwrap()), ["1#1", "2#1"]);
    for host in [ahead, Timestamp::EPOCH] {
        let nothing = broker.claim(request("there", host)).await.unwrap();
        assert_eq!(lines(&nothing), [""; 0]);
        // When to look again is told in the asker's own time.
        let wait = nothing.next_due.expect("the lease ends some time").since(host);
        assert!(wait <= LEASE, "{wait:?}");
    }
    let until = here.saturating_add(LEASE);
    broker.extend("g", "here", until, vec![(1, 1), (2, 1)]).await.unwrap();
    let retry = Outcome::Retry { at: here.saturating_add(LEASE), error: "later".into(), steps_aside: false };
    broker.settle("g", "here", here, vec![Settle { seq: 1, attempt: 1, outcome: retry }]).await.unwrap();
    tokio::time::sleep(LEASE + Duration::from_millis(20)).await;
    // The second's consumer is dead as far as the server knows, so it comes alone, after the first.
    let first = broker.claim(request("there", ahead)).await.unwrap();
    assert_eq!((lines(&first), first.alone), (vec!["1#2".to_owned()], false));
    let second = broker.claim(request("there", ahead)).await.unwrap();
    assert_eq!((lines(&second), second.alone), (vec!["2#2".to_owned()], true));
}

/// A claim whose answer was lost is given back when the same consumer asks again: it neither waits for its lease nor costs an attempt.
#[tokio::test]
async fn a_claim_whose_answer_is_lost_comes_again_at_once() {
    let server = RedisServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    let config = config(&format!("redis://{}", proxy.addr())).with_operation_timeout(Duration::from_secs(1));
    let broker = broker(&config);
    open(&broker).await;
    let long = Claim { lease: Duration::from_secs(3_600), ..request("me", SystemClock.wall()) };
    // So that the server knows the script: else the lost answer is only that it does not.
    assert_eq!(lines(&broker.claim(long.clone()).await.unwrap()), [""; 0]);
    broker.append(vec![event("k", "1"), event("k", "2")]).await.pop().unwrap().unwrap();
    proxy.swallow_next_reply();
    let lost = broker.claim(long.clone()).await.expect_err("the answer is lost");
    assert_eq!(lost.kind(), ErrorKind::Ambiguous);
    let other = Claim { consumer: "other".into(), incarnation: "other".into(), ..long.clone() };
    assert_eq!(lines(&broker.claim(other).await.unwrap()), [""; 0], "it was claimed all the same");
    assert_eq!(lines(&broker.claim(long.clone()).await.unwrap()), ["1#1", "2#1"]);
    assert_eq!(lines(&broker.claim(long).await.unwrap()), [""; 0], "it is given back once");
}

/// What somebody removed or damaged becomes a dead letter that says so, and what stands behind it goes on: a gap is never silent.
#[tokio::test]
async fn a_trimmed_log_is_told() {
    let config = config(&RedisServer::shared().url());
    let bus = RedisEventBus::new(Redis::new(config.clone()).unwrap(), SystemClock::shared()).unwrap();
    let options = SubscribeOptions::at_least_once(Pattern::new("*").unwrap(), "g", handler_fn(|_| async { Ok(()) }));
    bus.subscribe(options.clone()).await.unwrap().stop().await.unwrap();
    for n in 0..4 {
        bus.broker().append(vec![event("k", &n.to_string())]).await.pop().unwrap().unwrap();
    }
    let log = format!("{}bus:{{events}}:log", config.key_prefix);
    assert_eq!(RedisServer::shared().cli(&["XTRIM", &log, "MAXLEN", "=", "2"]).text(), "2");
    let sub = bus.subscribe(options).await.unwrap();
    sub.drained().await.unwrap();
    while sub.metrics().processed < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!((sub.metrics().processed, sub.metrics().dead_lettered), (2, 2));
    let dead = bus.dead_letters("g", 0, 10).await.unwrap();
    assert_eq!(dead.iter().map(|d| d.seq).collect::<Vec<_>>(), [1, 2]);
    assert!(dead.iter().all(|d| d.envelope.is_none() && d.error.contains("XTRIM")), "{dead:?}");
    bus.close().await.unwrap();
}

/// Dead letters are read page by page, in order.
#[tokio::test]
async fn many_dead_letters_are_read_in_order() {
    let broker = shared();
    open(&broker).await;
    let now = SystemClock.wall();
    let events = (0..100).map(|n| event("k", &n.to_string())).collect();
    assert!(broker.append(events).await.iter().all(Result::is_ok));
    let claims = broker.claim(Claim { max: 100, lease: LEASE * 100, ..request("me", now) }).await.unwrap();
    let bad = |e: &infra_event_bus::broker::Claimed| Settle {
        seq: e.seq,
        attempt: 1,
        outcome: Outcome::Dead { error: "bad".into() },
    };
    broker.settle("g", "me", now, claims.events.iter().map(bad).collect()).await.unwrap();
    for limit in [0, 1, 31, 32, 33, 64, 99, 100, 1_000] {
        let seqs: Vec<_> = broker.dead_letters("g", 0, limit).await.unwrap().into_iter().map(|d| d.seq).collect();
        assert_eq!(seqs, (1..=limit.min(100) as u64).collect::<Vec<_>>());
    }
    assert_eq!(broker.status("g").await.unwrap().pending, 0);
}

/// Large payloads come in answers of a few MiB, none of them lost.
#[tokio::test]
async fn large_payloads_come_in_several_claims() {
    let broker = shared();
    open(&broker).await;
    let events = (0..12).map(|_| event("k", &"x".repeat(1 << 20))).collect();
    assert!(broker.append(events).await.iter().all(Result::is_ok));
    let (now, mut seen, mut claims) = (SystemClock.wall(), Vec::new(), 0);
    while seen.len() < 12 {
        let got = broker.claim(Claim { max: 64, lease: LEASE * 1_000, ..request("me", now) }).await.unwrap();
        assert!((1..=5).contains(&got.events.len()), "{}", got.events.len());
        let ack = |e: &infra_event_bus::broker::Claimed| Settle { seq: e.seq, attempt: 1, outcome: Outcome::Ack };
        broker.settle("g", "me", now, got.events.iter().map(ack).collect()).await.unwrap();
        seen.extend(got.events.iter().map(|e| e.seq));
        claims += 1;
    }
    assert_eq!((seen, claims > 2), ((1..=12).collect::<Vec<_>>(), true));
}

/// A finished event leaves itself for replays, its id, and nothing else.
#[tokio::test]
async fn what_is_done_is_gone() {
    let config = config(&RedisServer::shared().url());
    let broker = broker(&config);
    open(&broker).await;
    let now = SystemClock.wall();
    broker.append(vec![event("a", "1"), event("b", "2")]).await.pop().unwrap().unwrap();
    let claims = broker.claim(request("me", now)).await.unwrap();
    let ack = |e: &infra_event_bus::broker::Claimed| Settle { seq: e.seq, attempt: 1, outcome: Outcome::Ack };
    broker.settle("g", "me", now, claims.events.iter().map(ack).collect()).await.unwrap();
    let base = format!("{}bus:{{events}}:", config.key_prefix);
    let cli = |args: &[&str]| RedisServer::shared().cli(args).text();
    let mut left: Vec<_> = cli(&["KEYS", &format!("{}*", base.replace(['{', '}'], "?"))])
        .lines()
        .map(|key| key[base.len()..].to_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["groups", "ids", "log", "meta", "queue"]);
    assert_eq!(
        (cli(&["XLEN", &format!("{base}log")]), cli(&["HLEN", &format!("{base}ids")])),
        ("1".into(), "2".into()),
        "one row of two"
    );
}

/// A user who may not do it all is told before anything is done by halves; a durable store refuses a server that forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_lacks_is_told() {
    let server = tokio::task::block_in_place(|| {
        RedisServer::builder()
            .config("appendfsync", "everysec")
            .config("user", "bot on nopass ~* &* +@all -ltrim")
            .start()
    });
    let mut config = config(&format!("redis://{}", server.addr()));
    let open_broker = broker(&config);
    assert_eq!(open_broker.health().await.status, HealthStatus::NeverConnected);
    open_broker.append(vec![event("k", "1")]).await.pop().unwrap().unwrap();
    assert_eq!(open_broker.health().await.status, HealthStatus::Up);
    assert!(!open_broker.info().survives_power_cut);
    let refused = broker(&config).durable().append(vec![event("k", "2")]).await.pop().unwrap().unwrap_err();
    assert!(refused.to_string().contains("appendfsync always"), "{refused}");
    config = config.with_username("bot").with_password(infra_types::Secret::new("any".to_owned()));
    let refused = broker(&config).append(vec![event("k", "3")]).await.pop().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permanent);
    assert!(refused.to_string().contains("LTRIM"), "{refused}");
}

/// A server that comes back without what it had acknowledged is told, also when it has grown past it.
#[tokio::test]
async fn a_server_that_forgot_is_told() {
    let config = config(&RedisServer::shared().url());
    let broker = broker(&config);
    open(&broker).await;
    let events = |n: usize| (0..n).map(|n| event("k", &n.to_string())).collect();
    assert!(broker.append(events(3)).await.iter().all(Result::is_ok));
    assert_eq!(broker.health().await.status, HealthStatus::Up);
    let base = format!("{}bus:{{events}}:", config.key_prefix);
    for key in ["meta", "log", "ids", "queue", "groups", "g1:claims"] {
        RedisServer::shared().cli(&["DEL", &format!("{base}{key}")]);
    }
    assert!(broker.append(events(1)).await.iter().all(Result::is_ok));
    for _ in 0..2 {
        assert_eq!(broker.health().await.status, HealthStatus::Degraded);
        assert!(broker.append(events(9)).await.iter().all(Result::is_ok));
    }
}

/// A name is a bus of its own; a bad one is refused.
#[tokio::test]
async fn names_are_apart() {
    let config = config(&RedisServer::shared().url());
    let (a, b) = (broker(&config).with_name("a").unwrap(), broker(&config).with_name("b").unwrap());
    open(&a).await;
    a.append(vec![event("k", "1")]).await.pop().unwrap().unwrap();
    assert_eq!(a.status("g").await.unwrap().pending, 1);
    assert!(matches!(b.status("g").await, Err(BusError::NoGroup { .. })));
    assert!(matches!(broker(&config).with_name("a{b}"), Err(BusError::Invalid { .. })));
}

/// Hears live events and gaps.
#[derive(Default)]
struct Ear {
    heard: parking_lot::Mutex<Vec<String>>,
    gaps: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl Handler for Ear {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        self.heard.lock().push(String::from_utf8_lossy(&event.envelope.data).into_owned());
        Ok(())
    }

    fn gap(&self, gap: &Gap) {
        assert!(!gap.reason.is_empty());
        self.gaps.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Ear {
    fn has(&self, data: &str) -> bool {
        self.heard.lock().iter().any(|heard| heard == data)
    }

    fn gaps(&self) -> usize {
        self.gaps.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let give_up = SystemClock.now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(SystemClock.now() < give_up, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Live events reach the subscriptions of another process, each once and in order; a server that dies in between is a gap that is told, and
/// afterwards they come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_events_reach_another_process_and_gaps_are_told() {
    let mut server = tokio::task::block_in_place(|| RedisServer::builder().config("appendonly", "yes").start());
    let open = || {
        let config = RedisConfig::from_url(&server.url()).unwrap().with_operation_timeout(Duration::from_secs(1));
        RedisEventBus::new(Redis::new(config).unwrap(), SystemClock::shared()).unwrap()
    };
    let (here, there, ears) = (open(), open(), [Arc::new(Ear::default()), Arc::new(Ear::default())]);
    let all = || Pattern::new("*").unwrap();
    for (bus, ear) in [(&here, &ears[0]), (&there, &ears[1])] {
        bus.subscribe(SubscribeOptions::at_most_once(all(), ear.clone())).await.unwrap();
    }
    let say = async |topic: &str, data: String, how: Delivery| {
        let event = Envelope::new(Topic::new(topic).unwrap(), "k", SystemClock.wall(), data).with_key("k");
        here.publish(event, how).await
    };
    for topic in ["prices:a", "risk:a"] {
        let mut n = 0;
        until("the other process hears", async || {
            n += 1;
            say(topic, format!("{topic} first {n}"), Delivery::AtMostOnce).await.unwrap();
            ears[1].heard.lock().iter().any(|heard| heard.starts_with(&format!("{topic} first")))
        })
        .await;
    }
    for n in 0..500 {
        say("prices:a", format!("live {n}"), Delivery::AtMostOnce).await.unwrap();
    }
    say("orders:a", "stored".into(), Delivery::AtLeastOnce).await.unwrap();
    until("all arrive", async || ears[1].has("stored")).await;
    let want: Vec<_> = (0..500).map(|n| format!("live {n}")).collect();
    for ear in &ears {
        let heard: Vec<_> = ear.heard.lock().iter().filter(|heard| heard.starts_with("live")).cloned().collect();
        assert_eq!(heard, want, "each once, in order, here and there");
    }
    assert_eq!((ears[0].gaps(), ears[1].gaps()), (0, 0));
    tokio::task::block_in_place(|| {
        server.kill();
        server.restart();
    });
    // Both channels were interrupted.
    until("the gaps are told", async || ears[1].gaps() >= 2).await;
    let mut n = 0;
    until("it goes on", async || {
        n += 1;
        say("prices:a", format!("again {n}"), Delivery::AtMostOnce).await.unwrap();
        ears[1].heard.lock().iter().any(|heard| heard.starts_with("again"))
    })
    .await;
    here.close().await.unwrap();
    there.close().await.unwrap();
}

/// A message that is none of ours is a gap, not silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_is_a_gap() {
    let config = config(&RedisServer::shared().url());
    let bus = RedisEventBus::new(Redis::new(config.clone()).unwrap(), SystemClock::shared()).unwrap();
    let ear = Arc::new(Ear::default());
    bus.subscribe(SubscribeOptions::at_most_once(Pattern::new("*").unwrap(), ear.clone())).await.unwrap();
    for (channel, message) in [("live", "short"), ("urgent", "12345678 and then what is no event")] {
        let channel = format!("{}bus:{{events}}:{channel}", config.key_prefix);
        let before = ear.gaps();
        until("it is told", async || {
            RedisServer::shared().cli(&["PUBLISH", &channel, message]);
            ear.gaps() > before
        })
        .await;
    }
    assert!(ear.heard.lock().is_empty());
    bus.close().await.unwrap();
}

/// The layout of another release is refused with what to do.
#[tokio::test]
async fn another_layout_is_refused() {
    for fields in [&["newest", "7"][..], &["layout", "2", "newest", "7"], &["layout", "9", "numbers", "7"]] {
        let config = config(&RedisServer::shared().url());
        let meta = format!("{}bus:{{events}}:meta", config.key_prefix);
        RedisServer::shared().cli(&[&["HSET", meta.as_str()][..], fields].concat());
        let refused = broker(&config).append(vec![event("k", "1")]).await.pop().unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert!(refused.to_string().contains("remove these keys"), "{refused}");
    }
}

/// Single events that are published at once share calls, and each gets its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_published_at_once_get_their_own_answers() {
    let broker = Arc::new(shared());
    open(&broker).await;
    let tasks = (0..200).map(|n| {
        let broker = broker.clone();
        tokio::spawn(async move {
            let one = event(&n.to_string(), &n.to_string());
            let first = broker.append(vec![one.clone()]).await.pop().unwrap().unwrap();
            let second = broker.append(vec![one]).await.pop().unwrap().unwrap();
            assert_eq!((first.duplicate, second.duplicate, first.seq), (false, true, second.seq));
            first.seq.unwrap()
        })
    });
    let mut seqs = futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert_eq!(broker.status("g").await.unwrap().pending, 200);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    /// The script that lays out what is already stored matches as the crate does.
    #[test]
    fn the_script_matches_as_the_crate_does(
        patterns in proptest::collection::vec(r"([ab:%.^$*?-]|\\[ab:*?\\%]){1,8}", 8),
        topics in proptest::collection::vec("[ab:%.^$-]{1,8}", 20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = shared();
            let topics: Vec<_> = topics.iter().map(|t| Topic::new(t).unwrap()).collect();
            let of = |t: &Topic| Append { envelope: Arc::new(Envelope::new(t.clone(), "k", Timestamp::EPOCH, "")), is_priority: false };
            prop_assert!(broker.append(topics.iter().map(of).collect()).await.iter().all(Result::is_ok));
            for (n, pattern) in patterns.iter().enumerate() {
                let pattern = Pattern::new(pattern).unwrap();
                let spec = GroupSpec { name: format!("g{n}").into(), pattern: pattern.clone(), from: StartFrom::Earliest };
                broker.open_group(spec).await.unwrap();
                let want = topics.iter().filter(|t| pattern.matches(t)).count() as u64;
                prop_assert_eq!(broker.status(&format!("g{n}")).await.unwrap().pending, want, "{}", pattern);
            }
            Ok(())
        })?;
    }
}
