//! The ledger on PostgreSQL and general state on Redis, on real servers.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{sync::Arc, time::Duration};

use infra_factory::{
    FactoryError, Infrastructure, Preset,
    audit_log::Verdict,
    config::{Config, ConfigBuilder},
    gate::Placed,
    risk_engine::Quote,
    state_store::{Key, StateStoreExt, Ttl},
    types::{Clock, Decimal, ErrorKind, HealthStatus, InstrumentSpec, ManualClock, Order, Side},
};
use infra_testkit::{PostgresServer, RedisServer, TestDir, unique_name};

#[path = "common/paper.rs"]
mod paper;

use paper::Paper;

/// `staging` on the shared servers, in a schema and under a prefix of its own.
fn staging(dir: &TestDir, name: &str) -> ConfigBuilder {
    ConfigBuilder::new(Preset::Staging)
        .set("data_dir", dir.path().display().to_string())
        .set("postgres.url", PostgresServer::shared().url())
        .set("postgres.schema", name)
        .set("redis.url", RedisServer::shared().url())
        .set("redis.key_prefix", format!("{name}:"))
}

async fn start(config: Config, clock: &ManualClock) -> Infrastructure {
    let infra = Infrastructure::builder(config).decision_clock(Arc::new(clock.clone())).build().await.unwrap();
    let spec = InstrumentSpec {
        id: "sim/BTCUSDT".parse().unwrap(),
        base: "BTC".parse().unwrap(),
        quote: "USDT".parse().unwrap(),
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 3),
        qty_min: "0.001".parse().unwrap(),
        qty_max: "100".parse().unwrap(),
        notional_min: Decimal::ONE,
        maker_fee_rate: Decimal::ZERO,
        taker_fee_rate: Decimal::ZERO,
    };
    infra.risk().register_instrument(spec.clone()).unwrap();
    infra.risk().open_account("main".parse().unwrap(), "USDT".parse().unwrap(), Decimal::from(10_000)).await.unwrap();
    let quote = Quote { bid: "99".parse().unwrap(), ask: "101".parse().unwrap(), at: clock.wall() };
    infra.risk().update_market(&spec.id, quote).unwrap();
    infra
}

fn order(id: &str) -> Order {
    let [account, strategy] = ["main", "test"];
    Order::limit(
        id.parse().unwrap(),
        account.parse().unwrap(),
        strategy.parse().unwrap(),
        "sim/BTCUSDT".parse().unwrap(),
        Side::Buy,
        "1".parse().unwrap(),
        "100".parse().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_state_and_halts_are_there_after_a_restart() {
    let (dir, name, clock) = (TestDir::new(), unique_name(), ManualClock::default());
    let config = || staging(&dir, &name).build().unwrap();
    let infra = start(config(), &clock).await;
    assert_eq!((infra.ledger().info().backend, infra.state().info().backend), ("postgres", "redis"));
    let health = infra.health().await;
    assert!(health.iter().all(|(_, h)| h.status == HealthStatus::Up), "{health:?}");
    let approved = infra.gate().approve(order("o-1")).await.unwrap();
    assert!(matches!(infra.gate().place(approved, &Paper).await.unwrap(), Placed::AtVenue(_)));
    let (ns, key) = (infra.state_namespace(), Key::cache("price:BTC").unwrap());
    infra.state().set(&ns, &key, "100", Ttl::After(Duration::from_secs(60))).await.unwrap();
    let second = Infrastructure::builder(config()).build().await;
    assert!(matches!(second, Err(FactoryError::AlreadyRunning { .. })), "{second:?}");
    assert!(infra.close().await.unfinished.is_empty());

    let infra = start(config(), &clock).await;
    let e = infra.gate().approve(order("o-1")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "the order is known: {e}");
    assert!(infra.state().exists(&ns, &key).await.unwrap());
    assert_eq!(infra.audit().statistics().await.unwrap().total, 3, "limits, approved and placed, before the restart");
    assert!(matches!(infra.verify_audit().await.unwrap(), Verdict::Ok { .. }));
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_runs_over_tls_on_servers_that_keep_their_word() {
    let (dir, name, clock) = (TestDir::new(), unique_name(), ManualClock::default());
    let (postgres, redis) = (PostgresServer::builder().durable().tls().start(), RedisServer::shared_tls());
    let config = ConfigBuilder::new(Preset::Production)
        .set("data_dir", dir.path().display().to_string())
        .set("postgres.url", postgres.url())
        .set("redis.url", redis.url())
        .set("redis.ca_file", redis.certificates().ca_file().display().to_string())
        .set("redis.key_prefix", format!("{name}:"))
        .build()
        .unwrap();
    let infra = start(config, &clock).await;
    assert!(infra.ledger().info().survives_power_cut && infra.audit().info().survives_power_cut);
    let approved = infra.gate().approve(order("o-1")).await.unwrap();
    assert!(matches!(infra.gate().place(approved, &Paper).await.unwrap(), Placed::AtVenue(_)));
    infra.relay_events().await.unwrap();
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_told_in_seconds() {
    let dir = TestDir::new();
    let server = PostgresServer::shared();
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (path, url, words) in [
        ("postgres.url", format!("postgres://infra:x@{refused}/infra?sslmode=disable"), refused.to_string()),
        ("postgres.url", server.url_with_password("hunter2"), "password".to_owned()),
        ("postgres.url", server.url().replace("/infra", "/nowhere"), "nowhere".to_owned()),
        ("redis.url", format!("redis://{refused}"), refused.to_string()),
        ("redis.url", format!("redis://infra:hunter2@{}", RedisServer::shared().addr()), "password".to_owned()),
    ] {
        let config = staging(&dir, &unique_name()).set(path, url.clone()).build().unwrap();
        let building = Infrastructure::builder(config).build();
        let e = tokio::time::timeout(Duration::from_secs(20), building).await.expect("bounded").unwrap_err();
        let text = e.to_string();
        assert!(text.contains(&words), "{url}: {text}");
        assert!(!text.contains("hunter2"), "no secret: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_approved_while_the_ledger_is_gone_and_all_is_well_when_it_is_back() {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    let mut server = PostgresServer::start();
    let config = staging(&dir, &unique_name()).set("postgres.url", server.url()).build().unwrap();
    let infra = start(config, &clock).await;
    server.kill();
    let e = infra.gate().approve(order("o-1")).await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Transient | ErrorKind::Ambiguous), "{e}");
    server.restart();
    let mut answer = infra.gate().approve(order("o-2")).await;
    for _ in 0..100 {
        if answer.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = infra.gate().approve(order("o-2")).await;
    }
    let placed = infra.gate().place(answer.unwrap(), &Paper).await.unwrap();
    assert!(matches!(placed, Placed::AtVenue(_)));
    assert!(infra.close().await.unfinished.is_empty());
}

/// The bus is Redis and the ledger PostgreSQL: the push goes over the one, the truth stands in the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_is_heard_before_the_next_poll() {
    let (dir, name) = (TestDir::new(), unique_name());
    let slow = |bot: &str| {
        let config = staging(&dir, &name).set("bot_id", bot).set("emergency.poll_interval", "4s");
        Infrastructure::builder(config.build().unwrap()).build()
    };
    let (one, other) = (slow("one").await.unwrap(), slow("other").await.unwrap());
    let clock = infra_factory::types::SystemClock;
    // Who begins to listen on Redis hears what comes a moment later; until then the poll is what there is.
    let begun = clock.now();
    for n in 0.. {
        if other.emergency().push_counts().received > 0 {
            break;
        }
        assert!(clock.now().since(begun) < Duration::from_secs(30), "it never hears anything");
        let scope = format!("strategy:warm-{n}").parse().unwrap();
        one.emergency().alert_in(&scope, "one", "is anybody there").await.unwrap();
        clock.sleep(Duration::from_millis(50)).await;
    }
    one.emergency().halt("one", "prices look wrong").await.unwrap();
    let began = clock.now();
    while other.emergency().can_trade() {
        assert!(clock.now().since(began) < Duration::from_secs(2), "it was heard with the poll at best");
        clock.sleep(Duration::from_millis(1)).await;
    }
    for infra in [one, other] {
        assert!(infra.close().await.unfinished.is_empty());
    }
}
