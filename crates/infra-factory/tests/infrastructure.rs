//! Building, and ending, without a file.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::sync::Arc;

use infra_factory::{
    FactoryError, Infrastructure, Preset,
    config::{Config, ConfigBuilder},
    create_infrastructure,
    event_bus::{Delivery, Pattern, SubscribeOptions, handler_fn},
    gate::{GateError, Placed},
    risk_engine::Quote,
    state_store::{Batch, Key, Op, StoreError},
    types::{
        Clock, Decimal, Envelope, ErrorKind, Execution, ExecutionKind, Fill, HealthStatus, InstrumentSpec, ManualClock,
        Money, Order, Side, Timestamp, Topic,
    },
};

#[path = "common/paper.rs"]
mod paper;

use paper::Paper;

fn config(preset: Preset) -> ConfigBuilder {
    ConfigBuilder::new(preset)
}

fn development() -> Config {
    config(Preset::Development).build().unwrap()
}

fn order(id: &str) -> Order {
    Order::limit(
        id.parse().unwrap(),
        "main".parse().unwrap(),
        "test".parse().unwrap(),
        "sim/BTCUSDT".parse().unwrap(),
        Side::Buy,
        "1".parse().unwrap(),
        "100".parse().unwrap(),
    )
}

/// Ready to trade, with decisions on a clock that stands.
async fn trading() -> Infrastructure {
    let clock = ManualClock::default();
    let infra = Infrastructure::builder(development()).decision_clock(Arc::new(clock.clone())).build().await.unwrap();
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

#[tokio::test]
async fn a_misspelt_preset_is_named() {
    let e = create_infrastructure("prodution").await.unwrap_err();
    assert!(matches!(e, FactoryError::Config(_)), "{e}");
    assert_eq!(e.kind(), ErrorKind::Invalid);
    assert!(e.to_string().contains("production"), "{e}");
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn a_backend_that_this_build_lacks_is_named_with_its_part_and_a_way_out() {
    let mut fleet = vec![];
    for preset in [Preset::Staging, Preset::Production] {
        let tls = if preset == Preset::Production { "rediss" } else { "redis" };
        let built = config(preset)
            .set("postgres.url", "postgres://user:hunter2@db.example.com/infra")
            .set("redis.url", format!("{tls}://cache.example.com:6379"))
            .build();
        fleet.push(built.unwrap_or_else(|e| panic!("{preset}: {e}")));
    }
    for config in fleet {
        let preset = config.preset;
        let e = Infrastructure::builder(config).build().await.unwrap_err();
        let FactoryError::BackendMissing { part, backend, .. } = &e else { panic!("{preset}: {e}") };
        assert_eq!((*part, backend.as_str(), e.kind()), ("ledger", "postgres", ErrorKind::Unsupported));
        let text = e.to_string();
        assert!(
            text.contains("turn on the feature `postgres` of infra-factory") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn standalone_names_the_feature_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = config(Preset::Standalone).set("data_dir", data.display().to_string()).build().unwrap();
    let e = Infrastructure::builder(config).build().await.unwrap_err();
    assert!(e.to_string().contains("turn on the feature `sqlite` of infra-factory"), "{e}");
    assert!(!data.exists(), "nothing was made");
}

#[tokio::test]
async fn an_order_passes_through_and_is_audited_and_anchored() {
    let infra = trading().await;
    let approved = infra.gate().approve(order("o-1")).await.unwrap();
    assert!(matches!(infra.gate().place(approved, &Paper).await.unwrap(), Placed::AtVenue(_)));
    infra.anchor_audit().await.unwrap();
    assert!(matches!(infra.verify_audit().await.unwrap(), infra_factory::audit_log::Verdict::Ok { .. }));
    assert_eq!(infra.audit().statistics().await.unwrap().total, 3, "limits, approval, placement");
    assert!(infra.health().await.iter().all(|(_, h)| h.status == HealthStatus::Up));
    assert!(infra.refused_rows().await.unwrap().is_empty());
    assert!(infra.data_dir().is_none());
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test]
async fn every_fill_is_told_on_the_bus_at_once_and_once() {
    let infra = trading().await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = handler_fn(move |event| {
        told.send(serde_json::from_slice::<Execution>(&event.envelope.data).unwrap()).unwrap();
        async { Ok(()) }
    });
    let reports = Pattern::new("post_trade:*").unwrap();
    let hearing = infra.events().subscribe(SubscribeOptions::at_least_once(reports, "g", handler)).await.unwrap();
    let approved = infra.gate().approve(order("o-1")).await.unwrap();
    infra.gate().place(approved, &Paper).await.unwrap();
    let fee = Money::new(Decimal::ZERO, "USDT".parse().unwrap());
    let fill = Fill { qty: "1".parse().unwrap(), price: "100".parse().unwrap(), fee, is_maker: false };
    let at = Timestamp::EPOCH;
    let (id, order) = ("x-1".parse().unwrap(), "o-1".parse().unwrap());
    let fill = Execution { id, order, at, kind: ExecutionKind::Filled(fill) };
    infra.gate().report(fill.clone()).await.unwrap();
    infra.gate().report(fill.clone()).await.unwrap();
    infra.relay_events().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), fill);
    hearing.stop().await.unwrap();
    assert!(heard.try_recv().is_err(), "a repeated report is no second fill");
    infra.close().await;
}

#[tokio::test]
async fn close_carries_what_waits_and_everything_after_it_refuses() {
    let infra = trading().await;
    let before = infra.gate().approve(order("o-1")).await.unwrap();
    infra.emergency().halt("anna", "test").await.unwrap();
    let audit = Arc::clone(infra.audit());
    let (a, b) = tokio::join!(infra.close(), infra.close());
    assert_eq!((a.unfinished, b.unfinished), (vec![], vec![]));
    assert_eq!(infra.close().await.unfinished, Vec::<String>::new());

    let e = infra.gate().place(before, &Paper).await.unwrap_err();
    assert!(matches!(e, GateError::Store(StoreError::Closed)), "{e}");
    let e = infra.gate().approve(order("o-2")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    let event = Envelope::new(Topic::new("t:x").unwrap(), "t.v1", Timestamp::EPOCH, Vec::new());
    assert!(infra.events().publish(event, Delivery::AtLeastOnce).await.is_err());
    for store in [infra.ledger(), infra.state(), infra.market_data()] {
        let batch = Batch::new(infra.state_namespace()).set(Key::record("k").unwrap(), "v".to_owned());
        assert!(matches!(store.apply(batch).await, Err(StoreError::Closed)));
    }
    assert!(audit.statistics().await.is_err());
    assert!(infra.health().await.iter().all(|(_, h)| h.status == HealthStatus::Down));
}

#[tokio::test]
async fn close_says_what_it_could_not_finish() {
    let infra = trading().await;
    let event = Envelope::new(Topic::new("t:x").unwrap(), "t.v1", Timestamp::EPOCH, Vec::new());
    infra.events().close().await.unwrap();
    let batch = Batch::new(infra.ledger_namespace()).with(infra.outbox().event(&event));
    infra.ledger().apply(batch).await.unwrap();
    let report = infra.close().await;
    assert_eq!(report.unfinished.len(), 1, "{report:?}");
    assert!(report.unfinished[0].starts_with("events: outbox/events/"), "{report:?}");
    assert!(infra.close().await.unfinished.is_empty(), "it was said");
}

#[tokio::test]
async fn a_close_that_was_dropped_goes_on_where_it_was() {
    let infra = trading().await;
    let _ = infra.gate().approve(order("o-1")).await.unwrap();
    let mut closing = Box::pin(infra.close());
    // Polled once and dropped, somewhere inside.
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(closing.as_mut().poll(cx).is_pending())).await);
    drop(closing);
    assert!(infra.close().await.unfinished.is_empty());
    assert!(matches!(
        infra.ledger().get(&infra.ledger_namespace(), &Key::record("k").unwrap()).await,
        Err(StoreError::Closed)
    ));
}

#[tokio::test]
async fn relays_end_with_the_infrastructure_that_nobody_closed() {
    let infra = trading().await;
    let (ledger, namespace, outbox) = (Arc::clone(infra.ledger()), infra.ledger_namespace(), infra.outbox().clone());
    drop(infra);
    tokio::task::yield_now().await;
    let event = Envelope::new(Topic::new("t:x").unwrap(), "t.v1", Timestamp::EPOCH, Vec::new());
    ledger.apply(Batch::new(namespace.clone()).with(outbox.event(&event))).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let left = Arc::strong_count(&ledger);
    assert_eq!(left, 1, "somebody still holds the store");
}

#[tokio::test]
async fn a_wrong_setting_is_an_error_before_anything_runs() {
    let limits = infra_factory::risk_engine::RiskLimits { time_zone: "Mars/Olympus".into(), ..Default::default() };
    let e = Infrastructure::builder(development()).risk_limits(limits).build().await.unwrap_err();
    assert!(matches!(e, FactoryError::Risk(_)), "{e}");
    assert_eq!(e.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_callers_own_rows_travel_with_the_callers_batch() {
    let infra = trading().await;
    let row = infra_factory::AuditRow {
        id: "my-1".into(),
        kind: "SYSTEM_EVENT".into(),
        at: Timestamp::EPOCH,
        user: None,
        correlation: None,
        source: "test".into(),
        resource: "thing".into(),
        action: "happen".into(),
        symbol: None,
        details: Default::default(),
    };
    infra.anchor_audit().await.unwrap();
    let before = infra.audit().statistics().await.unwrap().total;
    let refused = Op::Check { key: Key::record("absent").unwrap(), when: infra_factory::state_store::When::Exists };
    let batch = Batch::new(infra.ledger_namespace()).with(infra.outbox().audit(&row)).with(refused);
    infra.ledger().apply(batch).await.unwrap_err();
    infra.anchor_audit().await.unwrap();
    assert_eq!(infra.audit().statistics().await.unwrap().total, before);
    let batch = Batch::new(infra.ledger_namespace()).with(infra.outbox().audit(&row));
    infra.ledger().apply(batch).await.unwrap();
    infra.anchor_audit().await.unwrap();
    assert_eq!(infra.audit().statistics().await.unwrap().total, before + 1);
}
