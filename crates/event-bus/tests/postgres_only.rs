//! What only a PostgreSQL server can show.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use infra_backends::{Postgres, PostgresConfig};
use infra_event_bus::{
    BusConfig, BusError, EventBus, Limits, Pattern, PostgresBroker, PostgresEventBus, StartFrom, SubscribeOptions,
    broker::{Append, Broker, Claim, Claims, GroupSpec, Outcome, Seq, Settle, Shards},
    handler_fn,
};
use infra_testkit::{FaultProxy, PostgresServer, unique_name};
use infra_types::{Clock, Envelope, ErrorKind, HealthStatus, SystemClock, Timestamp, Topic};
use parking_lot::Mutex;
use proptest::prelude::*;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::Notify;

const LEASE: Duration = Duration::from_millis(60);

/// A schema that no other test has; a busy machine may take its time.
fn apart(url: &str) -> PostgresConfig {
    let patience = Duration::from_secs(30);
    let config = PostgresConfig::from_url(url).unwrap().with_schema(unique_name());
    config.with_connect_timeout(patience).with_operation_timeout(patience)
}

fn config() -> PostgresConfig {
    apart(&PostgresServer::shared().url())
}

/// Connections of its own, as another process would have them.
fn broker(config: &PostgresConfig) -> PostgresBroker {
    PostgresBroker::new(Postgres::new(config.clone()).unwrap(), Limits::default())
}

fn event(key: &str, data: impl Into<String>) -> Append {
    let envelope = Envelope::new(Topic::new("t").unwrap(), "k", Timestamp::EPOCH, data.into()).with_key(key);
    Append { envelope: Arc::new(envelope), is_priority: false }
}

async fn open(broker: &PostgresBroker) {
    let spec = GroupSpec { name: "g".into(), pattern: Pattern::new("*").unwrap(), from: StartFrom::New };
    broker.open_group(spec).await.unwrap();
}

async fn store(broker: &PostgresBroker, events: Vec<Append>) -> Vec<Seq> {
    broker.append(events).await.into_iter().map(|answer| answer.unwrap().seq.unwrap()).collect()
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
        shards: Shards { count: 1, open: u64::MAX },
    }
}

fn patient(who: &str) -> Claim {
    Claim { lease: Duration::from_secs(3_600), ..request(who, SystemClock.wall()) }
}

fn lines(claims: &Claims) -> Vec<String> {
    claims.events.iter().map(|e| format!("{}#{}", String::from_utf8_lossy(&e.envelope.data), e.attempt)).collect()
}

fn acks(claims: &Claims) -> Vec<Settle> {
    claims.events.iter().map(|e| Settle { seq: e.seq, attempt: e.attempt, outcome: Outcome::Ack }).collect()
}

/// A session of somebody who is slow between the statement and the commit.
async fn raw(config: &PostgresConfig) -> PgConnection {
    let mut conn = PgConnection::connect(&PostgresServer::shared().url()).await.unwrap();
    run(&mut conn, &format!("SET search_path = {}, pg_temp", config.schema)).await;
    conn
}

async fn run(conn: &mut PgConnection, sql: &str) {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

/// `bus_append` of one event by hand.
fn append(id: &str) -> String {
    format!(
        "SELECT * FROM bus_append('c', 1000, 1000, 1000, '{{{id}}}', '{{t}}', '{{k}}', '{{\"\"}}', '{{k}}', '{{0}}', '{{\"\"}}', \
         '{{00000000000000000000000000000001}}', '{{NULL}}', '{{slow}}', '{{f}}', '{{0}}')"
    )
}

/// Whoever reads on from the last place that it saw misses nothing, however many processes append, and however long one of them
/// takes to commit or to give up: places appear in order, without a hole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_skips_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    const SLOW: usize = 6;
    let config = config();
    let reader = broker(&config);
    open(&reader).await;
    let writer = |w: usize| {
        let broker = broker(&config);
        tokio::spawn(async move {
            for n in 0..EACH {
                store(&broker, vec![event(&format!("{w}"), format!("{w}-{n}"))]).await;
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let slow = {
        let config = config.clone();
        tokio::spawn(async move {
            let mut conn = raw(&config).await;
            for n in 0..SLOW {
                run(&mut conn, "BEGIN").await;
                run(&mut conn, &append(&format!("slow-{n}"))).await;
                // The others wait or come before; they never take a place behind it that can be seen before it.
                tokio::time::sleep(Duration::from_millis(60)).await;
                run(&mut conn, if n % 2 == 0 { "COMMIT" } else { "ROLLBACK" }).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let total = (WRITERS * EACH + SLOW / 2) as u64;
    let (mut after, mut claimed) = (0, Vec::new());
    while after < total || claimed.len() < total as usize {
        let page = reader.history(after, 64).await.unwrap();
        for record in &page.records {
            assert_eq!(record.seq, after + 1, "a place was passed by");
            after = record.seq;
        }
        assert!(page.newest >= after);
        let claims = reader.claim(Claim { max: 64, ..patient("reader") }).await.unwrap();
        claimed.extend(claims.events.iter().map(|e| e.seq));
        let settled = reader.settle("g", "reader", SystemClock.wall(), acks(&claims)).await.unwrap();
        assert_eq!(settled.lost, 0);
    }
    for task in writers {
        task.await.unwrap();
    }
    slow.await.unwrap();
    assert_eq!(claimed.iter().copied().collect::<HashSet<_>>(), (1..=total).collect());
    assert_eq!(claimed.len() as u64, total, "an event was lent twice");
    assert_eq!(reader.history(after, 64).await.unwrap().records, []);
    assert_eq!(reader.status("g").await.unwrap().pending, 0);
}

/// An append that is not committed holds up other appends, and neither readers nor consumers.
#[tokio::test]
async fn an_open_transaction_holds_up_appends_only() {
    let config = config().with_operation_timeout(Duration::from_millis(500));
    let (mine, other) = (broker(&config), broker(&config));
    open(&mine).await;
    assert_eq!(store(&mine, vec![event("k", "1")]).await, [1]);
    let mut conn = raw(&config).await;
    run(&mut conn, "BEGIN").await;
    run(&mut conn, &append("slow")).await;
    let refused = other.append(vec![event("k", "3")]).await.pop().unwrap().expect_err("the head is locked");
    assert_eq!(refused.kind(), ErrorKind::Transient, "{refused}");
    let claims = other.claim(patient("other")).await.unwrap();
    assert_eq!(lines(&claims), ["1#1"]);
    assert_eq!(other.settle("g", "other", SystemClock.wall(), acks(&claims)).await.unwrap().lost, 0);
    let page = other.history(0, 64).await.unwrap();
    assert_eq!((page.records.len(), page.newest), (1, 1));
    run(&mut conn, "COMMIT").await;
    assert_eq!(store(&mine, vec![event("k", "4")]).await, [3]);
    assert_eq!(lines(&other.claim(patient("other")).await.unwrap()), ["slow#1", "4#1"]);
}

/// Many that claim and settle at once get each event once, and each key in order: nobody gets an event of a key while an earlier one is not
/// settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_at_once_share_no_event_and_keep_the_order() {
    const EVENTS: usize = 600;
    const KEYS: usize = 7;
    let config = config();
    let writer = broker(&config);
    open(&writer).await;
    let seen: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let consumer = |c: usize| {
        let (broker, seen) = (broker(&config), seen.clone());
        tokio::spawn(async move {
            let (who, mut round) = (format!("c{c}"), 0u64);
            while seen.lock().values().map(Vec::len).sum::<usize>() < EVENTS {
                let claims = broker.claim(Claim { max: 9, ..patient(&who) }).await.unwrap();
                let mut ends = Vec::new();
                for lent in &claims.events {
                    round += 1;
                    // Some are given back, together with what follows in their lanes.
                    let outcome = if round.is_multiple_of(7) { Outcome::Release } else { Outcome::Ack };
                    ends.push(Settle { seq: lent.seq, attempt: lent.attempt, outcome });
                }
                let mut left = HashSet::new();
                for (lent, end) in claims.events.iter().zip(&mut ends) {
                    let key = lent.envelope.key.clone();
                    if left.contains(&key) || end.outcome == Outcome::Release {
                        end.outcome = Outcome::Release;
                        left.insert(key);
                    } else {
                        let number = String::from_utf8_lossy(&lent.envelope.data).parse().unwrap();
                        seen.lock().entry(key).or_default().push(number);
                    }
                }
                let settled = broker.settle("g", &who, SystemClock.wall(), ends).await.unwrap();
                assert_eq!(settled.lost, 0);
            }
        })
    };
    let consumers: Vec<_> = (0..4).map(consumer).collect();
    for n in (0..EVENTS).step_by(6) {
        store(&writer, (n..n + 6).map(|n| event(&format!("k{}", n % KEYS), n.to_string())).collect()).await;
    }
    for task in consumers {
        task.await.unwrap();
    }
    for (key, numbers) in seen.lock().iter() {
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{key}: {numbers:?}");
    }
    assert_eq!(writer.status("g").await.unwrap().pending, 0);
}

/// The server's clock ends leases and waits: a host whose clock is a day ahead, or behind, takes nobody's claims, and waits as long.
#[tokio::test]
async fn hosts_whose_clocks_differ_agree() {
    let broker = broker(&config());
    open(&broker).await;
    // Wide enough for a busy machine.
    let lease = Duration::from_millis(400);
    let (here, ahead) = (SystemClock.wall(), SystemClock.wall().saturating_add(Duration::from_secs(86_400)));
    let ask = |who: &str, now| Claim { lease, ..request(who, now) };
    store(&broker, vec![event("1", "1"), event("2", "2")]).await;
    assert_eq!(lines(&broker.claim(ask("here", here)).await.unwrap()), ["1#1", "2#1"]);
    for host in [ahead, Timestamp::EPOCH] {
        let nothing = broker.claim(ask("there", host)).await.unwrap();
        assert_eq!(lines(&nothing), [""; 0]);
        // When to look again is told in the asker's own time.
        let wait = nothing.next_due.expect("the lease ends some time").since(host);
        assert!(wait > Duration::ZERO && wait <= lease, "{wait:?}");
    }
    broker.extend("g", "here", here.saturating_add(lease), vec![(1, 1), (2, 1)]).await.unwrap();
    let retry = Outcome::Retry { at: here.saturating_add(lease), error: "later".into(), steps_aside: false };
    broker.settle("g", "here", here, vec![Settle { seq: 1, attempt: 1, outcome: retry }]).await.unwrap();
    tokio::time::sleep(lease + Duration::from_millis(50)).await;
    // The second's consumer is dead as far as the server knows, so it comes alone, after the first.
    let first = broker.claim(ask("there", ahead)).await.unwrap();
    assert_eq!((lines(&first), first.alone), (vec!["1#2".to_owned()], false));
    let second = broker.claim(ask("there", ahead)).await.unwrap();
    assert_eq!((lines(&second), second.alone), (vec!["2#2".to_owned()], true));
    // So does a delay.
    broker.delay(event("3", "3"), ahead.saturating_add(lease), ahead).await.unwrap();
    assert_eq!(broker.claim(ask("there", here)).await.unwrap().released, 0);
    tokio::time::sleep(lease + Duration::from_millis(50)).await;
    assert_eq!(broker.claim(ask("there", here)).await.unwrap().released, 1);
}

/// A claim whose answer was lost is given back when the same consumer asks again: it neither waits for its lease nor costs an attempt.
#[tokio::test]
async fn a_claim_whose_answer_is_lost_comes_again_at_once() {
    let server = PostgresServer::shared();
    let proxy = FaultProxy::start(server.addr()).await;
    let url = format!("postgres://{}:{}@{}/{}", server.user(), server.password(), proxy.addr(), server.user());
    let config = apart(&url).with_operation_timeout(Duration::from_secs(1));
    let broker = broker(&config);
    open(&broker).await;
    // So that the statement is prepared: else the lost answer is only to that.
    assert_eq!(lines(&broker.claim(patient("me")).await.unwrap()), [""; 0]);
    store(&broker, vec![event("k", "1"), event("k", "2")]).await;
    proxy.swallow_next_reply();
    let lost = broker.claim(patient("me")).await.expect_err("the answer is lost");
    assert_eq!(lost.kind(), ErrorKind::Ambiguous, "{lost}");
    assert_eq!(lines(&broker.claim(patient("other")).await.unwrap()), [""; 0], "it was claimed all the same");
    assert_eq!(lines(&broker.claim(patient("me")).await.unwrap()), ["1#1", "2#1"]);
    assert_eq!(lines(&broker.claim(patient("me")).await.unwrap()), [""; 0], "it is given back once");
}

/// What somebody removed or damaged becomes a dead letter that says so, and what stands behind it goes on; it cannot be put back to work.
#[tokio::test]
async fn a_damaged_event_is_a_dead_letter() {
    let config = config();
    let broker = broker(&config);
    open(&broker).await;
    store(&broker, (1..=3).map(|n| event("k", n.to_string())).collect()).await;
    run(&mut raw(&config).await, "UPDATE bus_event SET topic = 'a topic' WHERE seq = 1").await;
    let claims = broker.claim(patient("c")).await.unwrap();
    assert_eq!((lines(&claims), claims.dead_lettered), (vec!["2#1".to_owned(), "3#1".to_owned()], 1));
    let dead = broker.dead_letters("g", 0, 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].seq, dead[0].envelope.is_none()), (1, 1, true));
    assert!(dead[0].error.contains("cannot be read"), "{}", dead[0].error);
    assert_eq!(broker.redrive("g", &[1]).await.unwrap(), 0);
    assert_eq!(broker.purge("g", &[1]).await.unwrap(), 1);
}

/// Text that the server's own text type refuses arrives as it was sent.
#[tokio::test]
async fn a_zero_byte_is_kept() {
    let broker = broker(&config());
    open(&broker).await;
    let mut envelope = Envelope::new(Topic::new("t").unwrap(), "k\0", Timestamp::EPOCH, "\0").with_key("a\0b\u{1F600}");
    (envelope.source, envelope.traceparent) = ("\0".into(), Some("\0".into()));
    store(&broker, vec![Append { envelope: Arc::new(envelope.clone()), is_priority: true }]).await;
    let claims = broker.claim(patient("c")).await.unwrap();
    assert_eq!(*claims.events[0].envelope, envelope);
    let outcome = Outcome::Dead { error: "why\0".into() };
    broker.settle("g", "c", SystemClock.wall(), vec![Settle { seq: 1, attempt: 1, outcome }]).await.unwrap();
    assert_eq!(broker.dead_letters("g", 0, 1).await.unwrap()[0].error, "why\0");
}

/// A group with more to do than one statement takes away is gone at once, and leaves nothing; what a process that died on the way
/// left is taken away by the next.
#[tokio::test]
async fn a_removed_group_leaves_nothing() {
    let config = config();
    let broker = broker(&config);
    open(&broker).await;
    let second = GroupSpec { name: "h".into(), pattern: Pattern::new("*").unwrap(), from: StartFrom::New };
    broker.open_group(second.clone()).await.unwrap();
    for _ in 0..9 {
        store(&broker, (0..500).map(|n| event(&format!("{}", n % 5), n.to_string())).collect()).await;
    }
    let mut conn = raw(&config).await;
    let mut rows = async || -> (i64, i64, i64) {
        let sql = "SELECT (SELECT count(*) FROM bus_delivery), (SELECT count(*) FROM bus_use), (SELECT count(*) FROM bus_history)";
        sqlx::query_as(sql).fetch_one(&mut conn).await.unwrap()
    };
    assert!(broker.remove_group("g").await.unwrap());
    assert!(!broker.remove_group("g").await.unwrap());
    assert!(matches!(broker.status("g").await, Err(BusError::NoGroup { .. })));
    assert_eq!(rows().await, (4_500, 4_500, 0));
    run(&mut raw(&config).await, "SELECT bus_remove('h')").await;
    assert!(matches!(broker.claim(Claim { group: "h".into(), ..patient("c") }).await, Err(BusError::NoGroup { .. })));
    // It does not get what comes afterwards either.
    store(&broker, vec![event("k", "1")]).await;
    broker.open_group(second).await.unwrap();
    assert_eq!(rows().await, (0, 0, 4_501));
    assert_eq!(broker.status("h").await.unwrap().pending, 0);
}

/// A consumer that polls once an hour hears at once what another process stores, also after its connection was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_wakes_a_consumer() {
    let config = config();
    let heard = Arc::new(Notify::new());
    let handler = {
        let heard = heard.clone();
        handler_fn(move |_| {
            heard.notify_one();
            async { Ok(()) }
        })
    };
    let rarely = BusConfig { poll_interval: Duration::from_secs(3_600), ..BusConfig::default() };
    let bus = PostgresEventBus::with_config(Postgres::new(config.clone()).unwrap(), SystemClock::shared(), rarely);
    let options = SubscribeOptions::at_least_once(Pattern::new("*").unwrap(), "g", handler);
    bus.subscribe(options).await.unwrap();
    let writer = broker(&config);
    let publish = async || {
        store(&writer, vec![event("k", "1")]).await;
        tokio::time::timeout(Duration::from_secs(20), heard.notified()).await.expect("the consumer is woken");
    };
    publish().await;
    // Whoever listens is cut off: it listens anew, and looks at once.
    let channel = format!("infra_bus:{}", config.schema);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND query LIKE '%' || $1 || '%'";
    let mut conn = raw(&config).await;
    let cut = sqlx::query(cut).bind(&channel).execute(&mut conn).await.unwrap();
    assert_eq!(cut.rows_affected(), 1, "one connection listens");
    publish().await;
    bus.close().await.unwrap();
}

/// `info` promises only what the server was asked about, and a durable broker refuses one that does not wait for its disk.
#[tokio::test]
async fn what_a_commit_is_worth_is_asked() {
    let quick = broker(&config());
    assert!(!quick.info().survives_power_cut);
    open(&quick).await;
    assert!(!quick.info().survives_power_cut, "the shared server leaves syncing to the system");
    let strict = broker(&config()).durable();
    let refused = strict.append(vec![event("k", "1")]).await.pop().unwrap().expect_err("it is not durable");
    assert_eq!(refused.kind(), ErrorKind::Permanent, "{refused}");
    let server = tokio::task::spawn_blocking(|| PostgresServer::builder().durable().start()).await.unwrap();
    let safe = broker(&apart(&server.url())).durable();
    assert_eq!(safe.health().await.status, HealthStatus::NeverConnected);
    assert!(!safe.info().survives_power_cut);
    store(&safe, vec![event("k", "1")]).await;
    assert!(safe.info().survives_power_cut);
    assert_eq!(safe.health().await.status, HealthStatus::Up);
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    assert_eq!(safe.health().await.status, HealthStatus::Down);
}

/// A server that comes back without what it had acknowledged is told, also when it has grown past it.
#[tokio::test]
async fn a_server_that_forgot_is_told() {
    let config = config();
    let broker = broker(&config);
    store(&broker, (0..3).map(|n| event("k", n.to_string())).collect()).await;
    assert_eq!(broker.health().await.status, HealthStatus::Up);
    let forget = "UPDATE bus_head SET newest = 0; TRUNCATE bus_event, bus_id, bus_history";
    run(&mut raw(&config).await, forget).await;
    store(&broker, vec![event("k", "new")]).await;
    for _ in 0..2 {
        assert_eq!(broker.health().await.status, HealthStatus::Degraded);
        store(&broker, (0..9).map(|n| event("k", n.to_string())).collect()).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]
    /// What lays events out matches as the crate does, both ways.
    #[test]
    fn the_server_matches_as_the_crate_does(
        patterns in proptest::collection::vec(r"([ab:%_.^$*?-]|\\[ab:*?\\%_]){1,8}", 8),
        topics in proptest::collection::hash_set("[ab:%_.^$-]{1,8}", 20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = broker(&config());
            let topics: Vec<_> = topics.iter().map(|t| Topic::new(t).unwrap()).collect();
            let of = |t: &Topic| {
                Append { envelope: Arc::new(Envelope::new(t.clone(), "k", Timestamp::EPOCH, "")), is_priority: false }
            };
            for (from, name) in [(StartFrom::New, "new"), (StartFrom::Earliest, "old")] {
                for (n, pattern) in patterns.iter().enumerate() {
                    let pattern = Pattern::new(pattern).unwrap();
                    broker.open_group(GroupSpec { name: format!("{name}{n}").into(), pattern, from }).await.unwrap();
                }
                if from == StartFrom::New {
                    store(&broker, topics.iter().map(of).collect()).await;
                }
            }
            for (n, pattern) in patterns.iter().enumerate() {
                let matcher = Pattern::new(pattern).unwrap();
                let want = topics.iter().filter(|t| matcher.matches(t)).count() as u64;
                for name in ["new", "old"] {
                    let found: Result<_, BusError> = broker.status(&format!("{name}{n}")).await;
                    prop_assert_eq!(found.unwrap().pending, want, "{}", pattern);
                }
            }
            Ok(())
        })?;
    }
}
