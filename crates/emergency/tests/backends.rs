//! The whole contract once more on each backend that processes share, with a handle of its own for each process.
#![cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_emergency::{
    BotDeath, BotLife, CancelFailed, CancelOrders, CancelProgress, DeadMan, DeadManConfig, DeathOutcome,
    EmergencyController, EmergencyError, EmergencyState, HaltProcedure, Heartbeat, HeartbeatConfig, OnDeath,
    OrderScopes, ProcedureConfig, RearmPolicy, Stance,
};
use infra_event_bus::EventBus;
use infra_state_store::StateStore;
use infra_types::{BotId, Clock, EventId, Namespace, Scope, SystemClock, UserId, Venue};

use EmergencyState::{Halt, Normal};

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A namespace that no other test has.
fn fresh() -> Namespace {
    Namespace::new(format!("e-{}", EventId::generate().as_str())).unwrap()
}

async fn process(
    id: &str,
    store: Arc<dyn StateStore>,
    namespace: &Namespace,
    policy: RearmPolicy,
) -> Arc<EmergencyController> {
    let id = BotId::new(id).unwrap();
    let builder = EmergencyController::builder(id, store, namespace.clone(), SystemClock::shared());
    let switch = Arc::new(builder.rearm_policy(policy).build().unwrap());
    switch.refresh().await.unwrap();
    switch
}

struct Counter(tokio::sync::Mutex<u32>);

#[async_trait]
impl OnDeath for Counter {
    async fn dead(&self, _: &BotDeath) -> Result<String, String> {
        *self.0.lock().await += 1;
        Ok("done".into())
    }
}

#[async_trait]
impl CancelOrders for Counter {
    fn venues(&self) -> Vec<Venue> {
        vec!["v".parse().unwrap(), "w".parse().unwrap()]
    }
    async fn cancel_all(&self, _: &Venue, _: &Scope) -> Result<CancelProgress, CancelFailed> {
        Ok(CancelProgress { canceled: 1, open: Vec::new() })
    }
}

/// Everything, over two handles.
async fn whole_contract(open: impl Fn() -> Arc<dyn StateStore>) {
    let namespace = fresh();
    let two = RearmPolicy::new().two_person(Duration::from_secs(60));
    let a = process("a", open(), &namespace, two.clone()).await;
    let b = process("b", open(), &namespace, two).await;
    let venue: Venue = "v".parse().unwrap();
    let order = OrderScopes { venue: Some(&venue), ..OrderScopes::default() };

    // Scopes, seen by the other; a race of both for one scope is one transition.
    let at_v = scope("venue:v");
    let (x, y) = tokio::join!(a.halt_in(&at_v, "bob", "one"), b.halt_in(&at_v, "carl", "two"));
    assert_eq!((x.unwrap().state, y.unwrap().state), (Halt, Halt));
    a.refresh().await.unwrap();
    b.refresh().await.unwrap();
    assert_eq!(a.snapshots(), b.snapshots());
    assert_eq!(
        (a.history(99).await.unwrap().len(), b.stance_of(&order), b.stance()),
        (1, Stance::ReduceOnly, Stance::Open)
    );
    let mut halts = tokio::task::JoinSet::new();
    for n in 0..12 {
        let switch = Arc::clone(if n % 2 == 0 { &a } else { &b });
        halts.spawn(
            async move { switch.halt_in(&scope(&format!("account:{n}")), "bob", "many").await.map(|s| s.version) },
        );
    }
    let mut versions: Vec<u64> = halts.join_all().await.into_iter().map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=13).collect::<Vec<u64>>(), "each at a version of its own");
    let history = a.history(99).await.unwrap();
    assert!(history.windows(2).all(|pair| pair[0].version == pair[1].version + 1) && history.len() == 13);

    // Two persons, and a stop that makes their agreement void.
    b.refresh().await.unwrap();
    let seen = b.snapshot_of(&scope("venue:v")).version;
    let request = b.request_rearm(&scope("venue:v"), &user("anna"), "fine", seen).await.unwrap();
    a.halt_in(&scope("venue:v"), "bob", "not fine").await.unwrap();
    let void = a.confirm_rearm(&scope("venue:v"), &user("bert"), &request.id).await.unwrap_err();
    assert!(matches!(void, EmergencyError::NoRequest { .. }), "{void}");
    let seen = a.snapshot_of(&scope("venue:v")).version;
    let request = a.request_rearm(&scope("venue:v"), &user("anna"), "fine", seen).await.unwrap();
    assert!(matches!(
        b.confirm_rearm(&scope("venue:v"), &user("anna"), &request.id).await,
        Err(EmergencyError::SamePerson { .. })
    ));
    assert_eq!(b.confirm_rearm(&scope("venue:v"), &user("bert"), &request.id).await.unwrap().state, Normal);

    // A restart.
    let c = process("c", open(), &namespace, RearmPolicy::new()).await;
    assert_eq!((c.snapshots().len(), c.stance_of(&order)), (13, Stance::Open));

    bury(&a, &b, &open, &namespace).await;

    // What a procedure did is there for the next process of the bot.
    let counter = Arc::new(Counter(tokio::sync::Mutex::default()));
    let stop = c.halt("bob", "over").await.unwrap();
    let procedure = HaltProcedure::new(Arc::clone(&c), Arc::clone(&counter) as _, ProcedureConfig::default()).unwrap();
    let report = procedure.run(&stop).await;
    assert!(report.is_clean() && report.is_recorded && report.venues.len() == 2, "{report:?}");
    let c = process("c", open(), &namespace, RearmPolicy::new()).await;
    let procedure = Arc::new(HaltProcedure::new(c, counter, ProcedureConfig::default()).unwrap());
    assert_eq!(procedure.reports(1).await.unwrap(), [report]);
    let others = procedure.catch_up().await;
    assert!(others.len() == 12 && others.iter().all(|r| r.scope != Scope::Firm), "{others:?}");
}

/// A bot falls silent; one of two watchers deals with it.
async fn bury(
    a: &Arc<EmergencyController>,
    b: &Arc<EmergencyController>,
    open: &impl Fn() -> Arc<dyn StateStore>,
    namespace: &Namespace,
) {
    let bot = process("bot", open(), namespace, RearmPolicy::new()).await;
    let ms = Duration::from_millis;
    let config = HeartbeatConfig { interval: ms(40), ttl: ms(90), halts: vec![scope("strategy:s")] };
    let heart = Heartbeat::new(&bot, config).unwrap();
    let counter = Arc::new(Counter(tokio::sync::Mutex::default()));
    let watcher = |switch: &Arc<EmergencyController>| {
        Arc::new(DeadMan::new(Arc::clone(switch), Arc::clone(&counter) as _, DeadManConfig::default()).unwrap())
    };
    let (first, second) = (watcher(a), watcher(b));
    heart.beat().await.unwrap();
    SystemClock.sleep(ms(100)).await;
    let (x, y) = tokio::join!(first.check(), second.check());
    let deaths: Vec<_> = x.unwrap().into_iter().chain(y.unwrap()).collect();
    assert_eq!((deaths.len(), *counter.0.lock().await), (1, 1));
    assert!(matches!(deaths[0].outcome, DeathOutcome::Done(_)));
    assert!(matches!(heart.beat().await, Err(EmergencyError::DeclaredDead { .. })));
    heart.beat().await.unwrap();
    bot.refresh().await.unwrap();
    assert_eq!(bot.snapshot_of(&scope("strategy:s")).state, Halt);
    assert_eq!(bot.bots().await.unwrap()[0].life, BotLife::Alive);
    heart.stop().await.unwrap();
    SystemClock.sleep(ms(100)).await;
    assert!(first.check().await.unwrap().is_empty());
    let seen = bot.snapshot_of(&scope("strategy:s")).version;
    bot.rearm_in(&scope("strategy:s"), &user("anna"), "fine", seen).await.unwrap();
}

/// A halt reaches a process that would not poll for minutes.
async fn pushed(stores: [Arc<dyn StateStore>; 2], buses: [Arc<dyn EventBus>; 2]) {
    let namespace = fresh();
    let [store_a, store_b] = stores;
    let a = process("a", store_a, &namespace, RearmPolicy::new()).await;
    let b = process("b", store_b, &namespace, RearmPolicy::new()).await;
    let [bus_a, bus_b] = buses;
    let (on_a, on_b) = (a.listen(bus_a).await.unwrap(), b.listen(bus_b).await.unwrap());
    // A bus may pass over what is told in a listener's first moments (Redis: 100 ms); the poll is for that.
    SystemClock.sleep(Duration::from_millis(250)).await;
    for n in 0..3 {
        let halted = a.halt_in(&scope("venue:v"), "bob", "loss").await.unwrap();
        let mut waited = 0;
        while b.snapshot_of(&scope("venue:v")).state != Halt {
            waited += 1;
            assert!(waited < 500, "round {n}: no push in 5 s: {:?} {:?}", a.push_counts(), b.push_counts());
            SystemClock.sleep(Duration::from_millis(10)).await;
        }
        b.rearm_in(&scope("venue:v"), &user("anna"), "fine", halted.version).await.unwrap();
        let mut waited = 0;
        while a.snapshot_of(&scope("venue:v")).state != Normal {
            waited += 1;
            assert!(waited < 500, "round {n}: no push back");
            SystemClock.sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(b.push_counts().received >= 3 && a.push_counts().sent == 3);
    on_a.stop().await.unwrap();
    on_b.stop().await.unwrap();
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use infra_backends::{Sqlite, SqliteConfig};
    use infra_event_bus::SqliteEventBus;
    use infra_state_store::SqliteStateStore;
    use infra_testkit::TestDir;

    use super::*;

    fn store(dir: &TestDir) -> Arc<dyn StateStore> {
        Arc::new(SqliteStateStore::open(SqliteConfig::new(dir.file("state.db")), SystemClock::shared()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_keeps_the_whole_contract() {
        let dir = TestDir::new();
        whole_contract(|| store(&dir)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_pushes_through_a_group_of_each_bot() {
        let dir = TestDir::new();
        let bus = || -> Arc<dyn EventBus> {
            let file = Sqlite::new(SqliteConfig::new(dir.file("bus.db")));
            Arc::new(SqliteEventBus::new(file, SystemClock::shared()))
        };
        let (one, two) = (bus(), bus());
        pushed([store(&dir), store(&dir)], [Arc::clone(&one), Arc::clone(&two)]).await;
        assert!(one.status("emergency.a").await.is_err(), "a group that stopped is gone");
        one.close().await.unwrap();
        two.close().await.unwrap();
    }
}

#[cfg(feature = "redis")]
mod redis {
    use infra_backends::{Redis, RedisConfig};
    use infra_event_bus::RedisEventBus;
    use infra_state_store::RedisStateStore;
    use infra_testkit::RedisServer;

    use super::*;

    fn config(server: &RedisServer) -> RedisConfig {
        RedisConfig::from_url(&server.url()).unwrap()
    }

    fn store(server: &RedisServer) -> Arc<dyn StateStore> {
        Arc::new(RedisStateStore::open(config(server), SystemClock::shared()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_keeps_the_whole_contract() {
        whole_contract(|| store(RedisServer::shared())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn redis_pushes_live() {
        // Of its own: a bus has its whole server's topics.
        let server = tokio::task::block_in_place(RedisServer::start);
        let bus = || -> Arc<dyn EventBus> {
            Arc::new(RedisEventBus::new(Redis::new(config(&server)).unwrap(), SystemClock::shared()).unwrap())
        };
        pushed([store(&server), store(&server)], [bus(), bus()]).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use infra_backends::{Postgres, PostgresConfig};
    use infra_event_bus::PostgresEventBus;
    use infra_state_store::PostgresStateStore;
    use infra_testkit::PostgresServer;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_keeps_the_whole_contract() {
        whole_contract(store).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_pushes_through_a_group_of_each_bot() {
        // A bus has its whole schema's topics.
        let id = EventId::generate();
        let schema = format!("e{}", &id.as_str().replace('-', "")[12..]);
        let bus = || -> Arc<dyn EventBus> {
            let postgres = Postgres::new(config().with_schema(schema.clone())).unwrap();
            Arc::new(PostgresEventBus::new(postgres, SystemClock::shared()))
        };
        let (one, two) = (bus(), bus());
        pushed([store(), store()], [Arc::clone(&one), Arc::clone(&two)]).await;
        one.close().await.unwrap();
        two.close().await.unwrap();
    }

    fn config() -> PostgresConfig {
        PostgresConfig::from_url(&PostgresServer::shared().url()).unwrap()
    }

    fn store() -> Arc<dyn StateStore> {
        Arc::new(PostgresStateStore::open(config(), SystemClock::shared()).unwrap())
    }
}
