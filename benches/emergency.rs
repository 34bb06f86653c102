//! The kill switch: what asking it costs beside one atomic load and a reading of the clock, and how long a halt takes over Redis until every
//! holder refuses, beside a bare store commit and an equal bare fan-out on the same server in turns.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use criterion::Criterion;
use futures::StreamExt;
use infra_backends::{Redis, RedisConfig};
use infra_benches::criterion;
use infra_emergency::{EmergencyController, EmergencyState, ListenGuard, OrderScopes};
use infra_event_bus::{EventBus, RedisEventBus};
use infra_state_store::{RedisStateStore, StateStore};
use infra_testkit::RedisServer;
use infra_types::{BotId, Clock, Namespace, SystemClock, UserId};
use tokio::{runtime::Runtime, sync::Semaphore};

/// Holders that must refuse, each with connections of its own.
const HOLDERS: usize = 8;
/// Halts that are timed, in turns with the floor.
const ROUNDS: usize = 400;

/// One holder of the switch, as a process would have it.
struct Holder {
    switch: Arc<EmergencyController>,
    _listening: ListenGuard,
}

struct Ours {
    operator: Holder,
    holders: Vec<Holder>,
    refused: Arc<Semaphore>,
    person: UserId,
}

fn redis(server: &RedisServer) -> Redis {
    let config = RedisConfig::from_url(&server.url()).expect("an address").with_key_prefix("bench:");
    Redis::new(config).expect("settings that make sense")
}

async fn holder(server: &RedisServer, name: &str) -> Holder {
    let clock: Arc<dyn Clock> = SystemClock::shared();
    let store: Arc<dyn StateStore> =
        Arc::new(RedisStateStore::new(redis(server), clock.clone()).expect("a valid prefix"));
    let bus: Arc<dyn EventBus> = Arc::new(RedisEventBus::new(redis(server), clock.clone()).expect("a valid prefix"));
    let namespace = Namespace::new("ledger").expect("a name");
    let bot = BotId::new(name).expect("an id");
    let switch = EmergencyController::builder(bot, store, namespace, clock)
        // What is timed is the push; a poll in between would only make it look faster.
        .lease(Duration::from_secs(600))
        .poll_interval(Duration::from_secs(300));
    let switch = Arc::new(switch.build().expect("settings that make sense"));
    switch.refresh().await.expect("read");
    let listening = switch.listen(bus).await.expect("listening");
    Holder { switch, _listening: listening }
}

impl Ours {
    async fn new(server: &RedisServer) -> Self {
        let operator = holder(server, "operator").await;
        let refused = Arc::new(Semaphore::new(0));
        let mut holders = Vec::new();
        for number in 0..HOLDERS {
            let holder = holder(server, &format!("bot_{number}")).await;
            let refused = refused.clone();
            holder.switch.subscribe(move |change| {
                if change.to == EmergencyState::Halt {
                    refused.add_permits(1);
                }
            });
            holders.push(holder);
        }
        Self { operator, holders, refused, person: UserId::new("anna").expect("a name") }
    }

    /// From the operator's call until the last holder refuses.
    async fn halt(&self) -> Duration {
        let begun = SystemClock.now();
        let halted = self.operator.switch.halt("anna", "a bench").await.expect("halted");
        self.refused.acquire_many(HOLDERS as u32).await.expect("open").forget();
        let took = SystemClock.now().since(begun);
        assert!(self.holders.iter().all(|h| !h.switch.can_trade()));
        self.operator.switch.rearm(&self.person, "a bench", halted.version).await.expect("re-armed");
        while !self.holders.iter().all(|h| h.switch.can_trade()) {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        took
    }
}

/// A value of the same size set, then published to as many subscribers.
struct Floor {
    connection: redis::aio::MultiplexedConnection,
    heard: Arc<Semaphore>,
}

impl Floor {
    async fn new(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("an address");
        let heard = Arc::new(Semaphore::new(0));
        for _ in 0..HOLDERS {
            let mut pubsub = client.get_async_pubsub().await.expect("connected");
            pubsub.subscribe("floor").await.expect("subscribed");
            let heard = heard.clone();
            tokio::spawn(async move {
                let mut messages = pubsub.on_message();
                while messages.next().await.is_some() {
                    heard.add_permits(1);
                }
            });
        }
        let connection = client.get_multiplexed_async_connection().await.expect("connected");
        Self { connection, heard }
    }

    async fn halt(&self) -> Duration {
        let mut connection = self.connection.clone();
        let value = vec![7_u8; 400];
        let begun = SystemClock.now();
        let _: () = redis::cmd("SET").arg("floor").arg(&value).query_async(&mut connection).await.expect("set");
        let _: i64 = redis::cmd("PUBLISH").arg("floor").arg(&value).query_async(&mut connection).await.expect("sent");
        self.heard.acquire_many(HOLDERS as u32).await.expect("open").forget();
        SystemClock.now().since(begun)
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted[((last as f64) * share).round() as usize]
}

/// In turns, so that both meet the same machine.
fn propagation(runtime: &Runtime) {
    let server = RedisServer::start();
    let (ours, floor) = runtime.block_on(async { (Ours::new(&server).await, Floor::new(&server).await) });
    let (mut halts, mut floors) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS + 20 {
        let (halt, bare) = runtime.block_on(async { (ours.halt().await, floor.halt().await) });
        // The first ones open connections and warm caches.
        if round >= 20 {
            halts.push(halt);
            floors.push(bare);
        }
    }
    halts.sort_unstable();
    floors.sort_unstable();
    println!("halt until all {HOLDERS} holders refuse, {ROUNDS} rounds in turns, µs");
    println!("{:<28}{:>10}{:>10}{:>10}", "", "p50", "p99", "max");
    for (name, sorted) in [("ours", &halts), ("SET + PUBLISH of redis-rs", &floors)] {
        let us = |share| at(sorted, share).as_secs_f64() * 1e6;
        println!("{name:<28}{:>10.0}{:>10.0}{:>10.0}", us(0.5), us(0.99), us(1.0));
    }
    let ratio = |share| at(&halts, share).as_secs_f64() / at(&floors, share).as_secs_f64();
    println!("{:<28}{:>10.2}{:>10.2}{:>10.2}\n", "ours / floor", ratio(0.5), ratio(0.99), ratio(1.0));
}

fn asking(c: &mut Criterion) {
    let switch = EmergencyController::new("bench");
    let order = infra_benches::buy("o-1");
    let scopes = OrderScopes::of(&order);
    let mut group = c.benchmark_group("emergency/can_trade");
    let load = AtomicU8::new(0);
    group.bench_function("floor/atomic_load", |b| b.iter(|| black_box(&load).load(Relaxed) == 0));
    group.bench_function("ours", |b| b.iter(|| black_box(&switch).can_trade()));
    group.finish();
    let mut group = c.benchmark_group("emergency/stance");
    let until = AtomicU64::new(u64::MAX);
    let floor = |until: &AtomicU64| {
        let now = SystemClock.now().since_origin();
        now.as_nanos() < u128::from(until.load(Relaxed)) && load.load(Relaxed) == 0
    };
    group.bench_function("floor/load_and_clock", |b| b.iter(|| floor(black_box(&until))));
    group.bench_function("ours/firm", |b| b.iter(|| black_box(&switch).stance()));
    group.bench_function("ours/all_scopes", |b| b.iter(|| black_box(&switch).stance_of(black_box(&scopes))));
    group.finish();
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    propagation(&runtime);
    let mut c = criterion();
    asking(&mut c);
    c.final_summary();
}
