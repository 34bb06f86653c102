//! One file: what a restart keeps, and what two bots share.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::path::Path;

use infra_factory::{
    FactoryError, Infrastructure, Preset,
    audit_log::Verdict,
    config::{Config, ConfigBuilder},
    emergency::{EmergencyState, Stance},
    gate::{NotAtVenue, Placed},
    risk_engine::{LimitValue, Quote, RiskLimits},
    types::{
        Clock, Decimal, ErrorKind, Execution, ExecutionKind, Fill, InstrumentSpec, ManualClock, Money, Order,
        OrderStatus, Side,
    },
};
use infra_testkit::TestDir;

#[path = "common/paper.rs"]
mod paper;

use paper::Paper;

fn config(dir: &Path, bot: &str) -> Config {
    ConfigBuilder::new(Preset::Standalone)
        .set("data_dir", dir.display().to_string())
        .set("bot_id", bot)
        .build()
        .unwrap()
}

fn limits() -> RiskLimits {
    let amount = |n: i64| Some(LimitValue::Amount(Decimal::from(n)));
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(std::time::Duration::from_secs(60)),
        order_qty_max: Some(Decimal::from(100)),
        order_notional_max: Some(Decimal::from(5_000)),
        exposure_account_max: amount(10_000),
        exposure_firm_max: amount(1_000),
        position_notional_max: amount(10_000),
        open_positions_max: Some(10),
        daily_loss_max: amount(5_000),
        drawdown_max: amount(5_000),
        ..RiskLimits::default()
    }
}

async fn start(dir: &Path, bot: &str) -> Infrastructure {
    let clock = ManualClock::default();
    let builder = Infrastructure::builder(config(dir, bot)).decision_clock(std::sync::Arc::new(clock.clone()));
    let infra = builder.risk_limits(limits()).build().await.unwrap();
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
    let account = format!("account-{bot}").parse().unwrap();
    infra.risk().open_account(account, "USDT".parse().unwrap(), Decimal::from(10_000)).await.unwrap();
    let quote = Quote { bid: "99.99".parse().unwrap(), ask: "100.01".parse().unwrap(), at: clock.wall() };
    infra.risk().update_market(&spec.id, quote).unwrap();
    infra
}

fn order(bot: &str, id: &str, qty: &str) -> Order {
    Order::limit(
        id.parse().unwrap(),
        format!("account-{bot}").parse().unwrap(),
        "test".parse().unwrap(),
        "sim/BTCUSDT".parse().unwrap(),
        Side::Buy,
        qty.parse().unwrap(),
        "100".parse().unwrap(),
    )
}

fn fill(id: &str, order: &str, qty: &str) -> Execution {
    let fee = Money::new(Decimal::ZERO, "USDT".parse().unwrap());
    let fill = Fill { qty: qty.parse().unwrap(), price: "100".parse().unwrap(), fee, is_maker: false };
    let at = ManualClock::default().wall();
    Execution { id: id.parse().unwrap(), order: order.parse().unwrap(), at, kind: ExecutionKind::Filled(fill) }
}

async fn buy(infra: &Infrastructure, bot: &str, id: &str, qty: &str) {
    let approved = infra.gate().approve(order(bot, id, qty)).await.unwrap();
    assert!(matches!(infra.gate().place(approved, &Paper).await.unwrap(), Placed::AtVenue(_)));
}

#[tokio::test]
async fn a_restart_keeps_halt_positions_orders_and_the_proof() {
    let dir = TestDir::new();
    let infra = start(dir.path(), "one").await;
    buy(&infra, "one", "o-1", "2").await;
    infra.gate().report(fill("f-1", "o-1", "2")).await.unwrap();
    buy(&infra, "one", "o-2", "3").await;
    infra.gate().report(fill("f-2", "o-2", "1")).await.unwrap();
    infra.emergency().halt("anna", "lunch").await.unwrap();
    let used = infra.risk().used().await.unwrap();
    assert!(infra.close().await.unfinished.is_empty());

    // The handle still lives; its bot may run again all the same.
    let again = start(dir.path(), "one").await;
    let snapshot = again.emergency().snapshot();
    assert_eq!(
        (snapshot.state, snapshot.reason.as_str(), again.emergency().stance()),
        (EmergencyState::Halt, "lunch", Stance::ReduceOnly)
    );
    let position = again.risk().position(&"account-one".parse().unwrap(), &"sim/BTCUSDT".parse().unwrap()).unwrap();
    assert_eq!(position.qty, Decimal::from(3));
    assert_eq!(again.risk().used().await.unwrap(), used);
    let open = again.gate().open_orders().await.unwrap();
    assert_eq!((open.len(), open[0].order.id.as_str(), open[0].status), (1, "o-2", OrderStatus::PartiallyFilled));
    assert_eq!(again.gate().done_orders().await.unwrap().len(), 1);
    let e = again.gate().approve(order("one", "o-1", "1")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let before = again.audit().statistics().await.unwrap().total;
    assert!(matches!(again.verify_audit().await.unwrap(), Verdict::Ok { .. }));
    again.anchor_audit().await.unwrap();
    let Verdict::Ok { anchored_to, head, .. } = again.verify_audit().await.unwrap() else { panic!() };
    assert_eq!((anchored_to.size, head.size), (before + 1, before + 1), "the refusal came on top");
    assert!(again.close().await.unfinished.is_empty());
    drop(infra);
}

#[tokio::test]
async fn what_was_not_closed_is_carried_on_by_the_next_start() {
    let dir = TestDir::new();
    let infra = start(dir.path(), "one").await;
    let _lost = infra.gate().approve(order("one", "o-1", "1")).await.unwrap();
    drop(infra);
    let again = start(dir.path(), "one").await;
    let found = again.gate().reconcile(&Paper, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.sent), (1, 1));
    assert!(again.close().await.unfinished.is_empty());
    let last = start(dir.path(), "one").await;
    assert_eq!(last.audit().statistics().await.unwrap().total, 3, "limits, approved and acknowledged");
    assert!(matches!(last.verify_audit().await.unwrap(), Verdict::Ok { .. }));
    last.close().await;
}

#[tokio::test]
async fn two_bots_on_one_directory_share_exposure_and_halt_and_not_their_orders() {
    let dir = TestDir::new();
    let (one, two) = (start(dir.path(), "one").await, start(dir.path(), "two").await);
    buy(&one, "one", "o-1", "6").await;
    let e = two.gate().approve(order("two", "o-1", "5")).await.unwrap_err();
    assert_eq!(e.code(), "exposure_firm", "{e}");
    // The same client order id is another bot's own.
    buy(&two, "two", "o-1", "4").await;
    assert_eq!(two.gate().open_orders().await.unwrap().len(), 1);
    let found = two.gate().reconcile(&Paper, NotAtVenue::Discard).await.unwrap();
    assert_eq!(found.asked, 1);
    one.gate().report(fill("f-1", "o-1", "6")).await.unwrap();
    two.gate().report(fill("f-1", "o-1", "4")).await.unwrap();

    one.emergency().halt("anna", "both").await.unwrap();
    two.emergency().refresh().await.unwrap();
    assert_eq!(two.emergency().state(), EmergencyState::Halt);
    let (a, b) = tokio::join!(one.close(), two.close());
    assert_eq!((a.unfinished, b.unfinished), (vec![], vec![]));
    let one = start(dir.path(), "one").await;
    assert!(one.refused_rows().await.unwrap().is_empty());
    assert!(matches!(one.verify_audit().await.unwrap(), Verdict::Ok { .. }));
    // The first limits; each: approved, acknowledged, opened, filled; one refusal; one halt.
    assert_eq!(one.audit().statistics().await.unwrap().total, 11);
    one.close().await;
}

#[tokio::test]
async fn the_same_bot_runs_once() {
    let dir = TestDir::new();
    let one = start(dir.path(), "one").await;
    let e = Infrastructure::builder(config(dir.path(), "one")).build().await.unwrap_err();
    assert!(matches!(e, FactoryError::AlreadyRunning { .. }), "{e}");
    assert_eq!(e.kind(), ErrorKind::Conflict);
    one.close().await;
    let e = Infrastructure::builder(config(dir.path(), "one")).build().await;
    e.unwrap().close().await;
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_named() {
    let dir = TestDir::new();
    let file = dir.file("taken");
    std::fs::write(&file, b"not a directory").unwrap();
    let e = Infrastructure::builder(config(&file, "one")).build().await.unwrap_err();
    assert!(matches!(e, FactoryError::DataDir { .. }), "{e}");
    assert!(e.to_string().contains("taken") && e.kind() == ErrorKind::Permanent, "{e}");
}

/// How long a push may take at most; the poll of these bots comes after four seconds.
const PUSH_MAX: std::time::Duration = std::time::Duration::from_secs(2);

async fn until_refused(infra: &Infrastructure) -> std::time::Duration {
    let clock = infra_factory::types::SystemClock;
    let began = clock.now();
    while infra.emergency().stance() == Stance::Open {
        assert!(clock.now().since(began) < PUSH_MAX, "it was heard with the poll at best");
        clock.sleep(std::time::Duration::from_millis(1)).await;
    }
    clock.now().since(began)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_is_heard_before_the_next_poll_from_another_bot_and_from_a_console() {
    let dir = TestDir::new();
    let slow = |bot: &str| {
        let config = ConfigBuilder::new(Preset::Standalone)
            .set("data_dir", dir.path().display().to_string())
            .set("bot_id", bot)
            .set("emergency.poll_interval", "4s");
        Infrastructure::builder(config.build().unwrap()).build()
    };
    let (one, other) = (slow("one").await.unwrap(), slow("other").await.unwrap());
    let halt = one.emergency().halt("one", "prices look wrong").await.unwrap();
    until_refused(&other).await;
    other.emergency().rearm(&"anna".parse().unwrap(), "a test", halt.version).await.unwrap();
    one.emergency().refresh().await.unwrap();

    let console = infra_factory::Console::open(other.config()).await.unwrap();
    console.emergency().halt("anna", "again").await.unwrap();
    assert!(console.tell().await.is_empty());
    until_refused(&one).await;
    until_refused(&other).await;
    console.close().await.unwrap();
    for infra in [one, other] {
        assert!(infra.close().await.unfinished.is_empty());
    }
}
