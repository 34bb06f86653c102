//! Our bus on Redis beside bare redis-rs (streams with a consumer group, pub/sub), on one private server. Each comparison is first made in pairs, one
//! after the other in turns, and printed with its spread; then criterion measures each side alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use futures::StreamExt;
use infra_backends::{Redis, RedisConfig};
use infra_benches::criterion;
use infra_event_bus::{Delivery, EventBus, Pattern, RedisEventBus, SubscribeOptions, handler_fn};
use infra_testkit::RedisServer;
use infra_types::{Clock, Envelope, SystemClock, Topic};
use redis::{Value, aio::MultiplexedConnection};
use tokio::{runtime::Runtime, sync::Notify};

/// Events of one batch: one call of `publish_batch`, one pipeline of `XADD`.
const BATCH: u64 = 256;
/// What one read of a consumer group brings at most; the bus claims as many.
const READ: usize = 64;
/// Tasks that publish single events at once.
const TASKS: u64 = 64;
const PAIRS: usize = 9;

/// What arrived so far, and a way to wait for more.
#[derive(Default)]
struct Arrived {
    count: AtomicU64,
    more: Notify,
    /// Tell each one, not only the last one that somebody waits for.
    target: AtomicU64,
}

impl Arrived {
    fn add(&self, n: u64) {
        if self.count.fetch_add(n, Relaxed) + n >= self.target.load(Relaxed) {
            self.more.notify_one();
        }
    }

    /// From where on `reach` counts.
    fn aim(&self, more: u64) -> u64 {
        let target = self.count.load(Relaxed) + more;
        self.target.store(target, Relaxed);
        target
    }

    async fn reach(&self, target: u64) {
        while self.count.load(Relaxed) < target {
            self.more.notified().await;
        }
    }
}

struct Ours {
    bus: Arc<RedisEventBus>,
    /// Stands for another process.
    other: Arc<RedisEventBus>,
    stored: Arc<Arrived>,
    live: Arc<Arrived>,
    is_heard: AtomicBool,
    topic: Topic,
    payload: Vec<u8>,
}

impl Ours {
    async fn new(server: &RedisServer) -> Self {
        let open = || {
            let config = RedisConfig::from_url(&server.url()).expect("an address").with_key_prefix("bench:");
            let redis = Redis::new(config).expect("settings that make sense");
            Arc::new(RedisEventBus::new(redis, SystemClock::shared()).expect("a valid prefix"))
        };
        let (bus, other) = (open(), open());
        let (stored, live) = (Arc::new(Arrived::default()), Arc::new(Arrived::default()));
        let count = |arrived: &Arc<Arrived>| {
            let arrived = arrived.clone();
            handler_fn(move |_| {
                arrived.add(1);
                async { Ok(()) }
            })
        };
        let orders = Pattern::new("orders:*").expect("a pattern");
        bus.subscribe(SubscribeOptions::at_least_once(orders, "g", count(&stored))).await.expect("subscribed");
        let topic = Topic::new("orders:BTCUSDT").expect("a topic");
        Self { bus, other, stored, live, is_heard: AtomicBool::new(false), topic, payload: vec![7; 64] }
    }

    /// From here on the other process hears live events, and so every event is sent to it.
    async fn hear(&self) {
        if self.is_heard.swap(true, Relaxed) {
            return;
        }
        let arrived = self.live.clone();
        let handler = handler_fn(move |_| {
            arrived.add(1);
            async { Ok(()) }
        });
        let prices = Pattern::new("prices:*").expect("a pattern");
        self.other.subscribe(SubscribeOptions::at_most_once(prices, handler)).await.expect("subscribed");
        let target = self.live.aim(1);
        while self.live.count.load(Relaxed) < target {
            let event =
                Envelope::new(Topic::new("prices:BTCUSDT").expect("a topic"), "price.v1", SystemClock.wall(), "");
            self.bus.publish(event, Delivery::AtMostOnce).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    fn event(&self, n: u64) -> Envelope {
        Envelope::new(self.topic.clone(), "order.v1", SystemClock.wall(), self.payload.clone())
            .with_key(format!("K{}", n % 16))
    }

    async fn batches(&self, events: u64) -> Duration {
        self.batches_by(&self.bus, events).await
    }

    /// By the publisher that stands for another process.
    async fn batches_apart(&self, events: u64) -> Duration {
        self.batches_by(&self.other, events).await
    }

    async fn batches_by(&self, bus: &RedisEventBus, events: u64) -> Duration {
        // To make an event, with an id of its own, is not part of it.
        let one = |first: u64| (first..(first + BATCH).min(events)).map(|n| self.event(n)).collect::<Vec<_>>();
        let batches: Vec<_> = (0..events).step_by(BATCH as usize).map(one).collect();
        let start = SystemClock.now();
        let target = self.stored.aim(events);
        for batch in batches {
            for answer in bus.publish_batch(batch).await {
                answer.expect("stored");
            }
        }
        self.stored.reach(target).await;
        SystemClock.now().since(start)
    }

    async fn at_once(self: &Arc<Self>, events: u64) -> Duration {
        let start = SystemClock.now();
        let target = self.stored.aim(events);
        let tasks = (0..TASKS).map(|task| {
            let this = self.clone();
            tokio::spawn(async move {
                for n in (task..events).step_by(TASKS as usize) {
                    this.bus.publish(this.event(n), Delivery::AtLeastOnce).await.expect("stored");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        self.stored.reach(target).await;
        SystemClock.now().since(start)
    }

    /// Publish to handle, each on its own.
    async fn one_by_one(&self, events: u64, took: &mut Vec<Duration>) {
        self.one_by_one_by(&self.bus, events, took).await;
    }

    async fn one_by_one_by(&self, bus: &RedisEventBus, events: u64, took: &mut Vec<Duration>) {
        for n in 0..events {
            let target = self.stored.aim(1);
            let start = SystemClock.now();
            bus.publish(self.event(n), Delivery::AtLeastOnce).await.expect("stored");
            self.stored.reach(target).await;
            took.push(SystemClock.now().since(start));
        }
    }

    async fn live(&self, events: u64) -> Duration {
        let topic = Topic::new("prices:BTCUSDT").expect("a topic");
        let start = SystemClock.now();
        let target = self.live.aim(events);
        for _ in 0..events {
            let event = Envelope::new(topic.clone(), "price.v1", SystemClock.wall(), self.payload.clone());
            self.bus.publish(event, Delivery::AtMostOnce).await.expect("sent");
        }
        self.live.reach(target).await;
        SystemClock.now().since(start)
    }

    async fn live_one_by_one(&self, events: u64, took: &mut Vec<Duration>) {
        let topic = Topic::new("prices:BTCUSDT").expect("a topic");
        for _ in 0..events {
            let target = self.live.aim(1);
            let start = SystemClock.now();
            let event = Envelope::new(topic.clone(), "price.v1", SystemClock.wall(), self.payload.clone());
            self.bus.publish(event, Delivery::AtMostOnce).await.expect("sent");
            self.live.reach(target).await;
            took.push(SystemClock.now().since(start));
        }
    }
}

struct Bare {
    conn: MultiplexedConnection,
    stored: Arc<Arrived>,
    live: Arc<Arrived>,
    payload: Vec<u8>,
}

async fn connection(client: &redis::Client) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.expect("connected")
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// The ids of what a read brought.
fn ids(reply: Value) -> Vec<Value> {
    let streams = items(reply).into_iter().flat_map(|stream| items(stream).into_iter().nth(1));
    streams.flat_map(items).filter_map(|entry| items(entry).into_iter().next()).collect()
}

/// Reads and acknowledges for ever.
async fn consume(mut conn: MultiplexedConnection, arrived: Arc<Arrived>) {
    loop {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg("g")
            .arg("c")
            .arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(0)
            .arg("STREAMS")
            .arg("bare")
            .arg(">");
        let ids = ids(read.query_async(&mut conn).await.expect("read"));
        arrived.add(ids.len() as u64);
        let mut ack = redis::cmd("XACK");
        ack.arg("bare").arg("g");
        for id in ids {
            if let Value::BulkString(id) = id {
                ack.arg(id);
            }
        }
        let () = ack.query_async(&mut conn).await.expect("acknowledged");
    }
}

impl Bare {
    async fn new(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("an address");
        let mut conn = connection(&client).await;
        let mut group = redis::cmd("XGROUP");
        let () = group
            .arg("CREATE")
            .arg("bare")
            .arg("g")
            .arg("$")
            .arg("MKSTREAM")
            .query_async(&mut conn)
            .await
            .expect("created");
        let (stored, live) = (Arc::new(Arrived::default()), Arc::new(Arrived::default()));
        tokio::spawn(consume(connection(&client).await, stored.clone()));
        let mut ear = client.get_async_pubsub().await.expect("connected");
        ear.subscribe("bare-live").await.expect("subscribed");
        let heard = live.clone();
        tokio::spawn(async move {
            let mut messages = ear.into_on_message();
            while messages.next().await.is_some() {
                heard.add(1);
            }
        });
        Self { conn, stored, live, payload: vec![7; 64] }
    }

    fn add(&self) -> redis::Cmd {
        let mut add = redis::cmd("XADD");
        // The same bound as our history has.
        add.arg("bare").arg("MAXLEN").arg("~").arg(100_000).arg("*").arg("d").arg(&self.payload);
        add
    }

    async fn batches(&self, events: u64) -> Duration {
        let start = SystemClock.now();
        let target = self.stored.aim(events);
        for first in (0..events).step_by(BATCH as usize) {
            let mut pipe = redis::pipe();
            for _ in first..(first + BATCH).min(events) {
                pipe.add_command(self.add());
            }
            let _: Vec<String> = pipe.query_async(&mut self.conn.clone()).await.expect("stored");
        }
        self.stored.reach(target).await;
        SystemClock.now().since(start)
    }

    async fn at_once(self: &Arc<Self>, events: u64) -> Duration {
        let start = SystemClock.now();
        let target = self.stored.aim(events);
        let tasks = (0..TASKS).map(|task| {
            let this = self.clone();
            tokio::spawn(async move {
                for _ in (task..events).step_by(TASKS as usize) {
                    let _: String = this.add().query_async(&mut this.conn.clone()).await.expect("stored");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        self.stored.reach(target).await;
        SystemClock.now().since(start)
    }

    async fn one_by_one(&self, events: u64, took: &mut Vec<Duration>) {
        for _ in 0..events {
            let target = self.stored.aim(1);
            let start = SystemClock.now();
            let _: String = self.add().query_async(&mut self.conn.clone()).await.expect("stored");
            self.stored.reach(target).await;
            took.push(SystemClock.now().since(start));
        }
    }

    async fn live(&self, events: u64) -> Duration {
        let start = SystemClock.now();
        let target = self.live.aim(events);
        let mut conn = self.conn.clone();
        for first in (0..events).step_by(BATCH as usize) {
            let mut pipe = redis::pipe();
            for _ in first..(first + BATCH).min(events) {
                pipe.cmd("PUBLISH").arg("bare-live").arg(&self.payload);
            }
            let _: Vec<u64> = pipe.query_async(&mut conn).await.expect("sent");
        }
        self.live.reach(target).await;
        SystemClock.now().since(start)
    }

    async fn live_one_by_one(&self, events: u64, took: &mut Vec<Duration>) {
        for _ in 0..events {
            let target = self.live.aim(1);
            let start = SystemClock.now();
            let mut publish = redis::cmd("PUBLISH");
            let _: u64 =
                publish.arg("bare-live").arg(&self.payload).query_async(&mut self.conn.clone()).await.expect("sent");
            self.live.reach(target).await;
            took.push(SystemClock.now().since(start));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn p50(mut took: Vec<Duration>) -> f64 {
    took.sort();
    took[took.len() / 2].as_secs_f64() * 1e6
}

/// Prints what pairs say, ours against bare.
fn tell(what: &str, unit: &str, pairs: &[(f64, f64)]) {
    let ratios: Vec<_> = pairs.iter().map(|(ours, bare)| ours / bare).collect();
    let (low, high) = ratios.iter().fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
    let (ours, bare) = (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()));
    println!(
        "paired {what:<22} ours {ours:>10.1} {unit}, bare {bare:>10.1} {unit}, ratio {:.2} ({low:.2} to {high:.2}, {} pairs)",
        median(ratios),
        pairs.len()
    );
}

fn paired(rt: &Runtime, ours: &Arc<Ours>, bare: &Arc<Bare>) {
    const EVENTS: u64 = 25_600;
    let rate = |took: Duration| EVENTS as f64 / took.as_secs_f64() / 1e3;
    let run = |what: &str, pair: &dyn Fn() -> (f64, f64), unit: &str| {
        pair();
        let pairs: Vec<_> = (0..PAIRS).map(|_| pair()).collect();
        tell(what, unit, &pairs);
    };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let is_wanted = |what: &str| wanted.starts_with('-') || what.contains(&wanted);
    if is_wanted("batches") {
        run("batches", &|| (rate(rt.block_on(ours.batches(EVENTS))), rate(rt.block_on(bare.batches(EVENTS)))), "k/s");
    }
    if is_wanted("at-once") {
        run("at-once", &|| (rate(rt.block_on(ours.at_once(EVENTS))), rate(rt.block_on(bare.at_once(EVENTS)))), "k/s");
    }
    if is_wanted("latency") {
        run(
            "latency",
            &|| {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                rt.block_on(async {
                    for _ in 0..20 {
                        ours.one_by_one(50, &mut a).await;
                        bare.one_by_one(50, &mut b).await;
                    }
                });
                (p50(a), p50(b))
            },
            "us ",
        );
    }
    if is_wanted("batches-apart") {
        let apart = || (rate(rt.block_on(ours.batches_apart(EVENTS))), rate(rt.block_on(bare.batches(EVENTS))));
        run("batches-apart", &apart, "k/s");
    }
    if is_wanted("latency-apart") {
        run(
            "latency-apart",
            &|| {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                rt.block_on(async {
                    for _ in 0..20 {
                        ours.one_by_one_by(&ours.other, 50, &mut a).await;
                        bare.one_by_one(50, &mut b).await;
                    }
                });
                (p50(a), p50(b))
            },
            "us ",
        );
    }
    if is_wanted("live") || is_wanted("live-latency") {
        rt.block_on(ours.hear());
        if is_wanted("live") {
            run("live", &|| (rate(rt.block_on(ours.live(EVENTS))), rate(rt.block_on(bare.live(EVENTS)))), "k/s");
        }
        if is_wanted("live-latency") {
            run(
                "live-latency",
                &|| {
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    rt.block_on(async {
                        for _ in 0..20 {
                            ours.live_one_by_one(50, &mut a).await;
                            bare.live_one_by_one(50, &mut b).await;
                        }
                    });
                    (p50(a), p50(b))
                },
                "us ",
            );
        }
    }
}

fn side<W: Future<Output = Duration>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    rt: &Runtime,
    name: &str,
    run: impl Fn(u64) -> W,
) {
    group.bench_function(name, |b| b.iter_custom(|events| rt.block_on(run(events))));
}

fn groups(c: &mut Criterion, rt: &Runtime, ours: &Arc<Ours>, bare: &Arc<Bare>) {
    let mut group = c.benchmark_group("event-bus/redis-batches");
    group.throughput(Throughput::Elements(1));
    side(&mut group, rt, "ours", |n| ours.batches(n));
    side(&mut group, rt, "redis-streams", |n| bare.batches(n));
    group.finish();
    let mut group = c.benchmark_group("event-bus/redis-64-tasks");
    group.throughput(Throughput::Elements(1));
    side(&mut group, rt, "ours", |n| ours.at_once(n));
    side(&mut group, rt, "redis-streams", |n| bare.at_once(n));
    group.finish();
    let sum = |took: Vec<Duration>| took.into_iter().sum::<Duration>();
    let mut group = c.benchmark_group("event-bus/redis-publish-to-handle");
    side(&mut group, rt, "ours", |n| async move {
        let mut took = Vec::new();
        ours.one_by_one(n, &mut took).await;
        sum(took)
    });
    side(&mut group, rt, "redis-streams", |n| async move {
        let mut took = Vec::new();
        bare.one_by_one(n, &mut took).await;
        sum(took)
    });
    group.finish();
    {
        rt.block_on(ours.hear());
        let mut group = c.benchmark_group("event-bus/redis-live");
        group.throughput(Throughput::Elements(1));
        side(&mut group, rt, "ours", |n| ours.live(n));
        side(&mut group, rt, "pubsub", |n| bare.live(n));
        group.finish();
    }
}

fn main() {
    let server = RedisServer::builder().config("appendonly", "no").start();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (ours, bare) = rt.block_on(async { (Arc::new(Ours::new(&server).await), Arc::new(Bare::new(&server).await)) });
    paired(&rt, &ours, &bare);
    if std::env::args().any(|argument| argument == "--stats") {
        println!("{}", server.cli(&["INFO", "commandstats"]).text());
    }
    let mut c = criterion();
    groups(&mut c, &rt, &ours, &bare);
    c.final_summary();
    rt.block_on(async {
        drop(ours.bus.close().await);
        drop(ours.other.close().await);
    });
}
