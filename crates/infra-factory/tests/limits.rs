//! Limits in the ledger, and losses that pass them while nobody sends an order.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{path::Path, time::Duration};

use infra_factory::{
    Infrastructure, Preset,
    config::{ConfigBuilder, Environment},
    emergency::EmergencyState,
    event_bus::{Pattern, SubscribeOptions, handler_fn},
    gate::{Approved, OrderSink, Placement, SinkError, VenueOrder},
    risk_engine::{AccountState, Quote, RiskEngine},
    types::{
        Clock, Decimal, Execution, ExecutionKind, Fill, InstrumentSpec, Money, Order, OrderId, Scope, Side, SystemClock,
    },
};
use infra_testkit::TestDir;

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

async fn start(dir: &Path, bot: &str, settings: &[(&str, &str)]) -> Infrastructure {
    let mut config = ConfigBuilder::new(Preset::Standalone)
        .environment(Environment::empty())
        .set("data_dir", dir.display().to_string())
        .set("bot_id", bot);
    for &(path, value) in settings {
        config = config.set(path, value);
    }
    Infrastructure::builder(config.build().unwrap()).build().await.unwrap()
}

#[tokio::test]
async fn the_first_limits_are_stored_and_who_wins_after_that_is_configured() {
    let dir = TestDir::new();
    let infra = start(dir.path(), "one", &[]).await;
    let first = infra.risk().limits();
    assert_eq!((first.version, first.author.as_str()), (1, "config"));
    assert_eq!(first.limits.order_qty_max, Some(dec("1000000")));
    infra.close().await;

    // The same again is no change; another configuration is the next version, for every bot.
    let again = start(dir.path(), "one", &[]).await;
    assert_eq!(again.risk().limits(), first);
    let stricter = start(dir.path(), "two", &[("risk.max_order_qty", "5")]).await;
    assert_eq!(stricter.risk().limits().version, 2);
    assert!(again.risk().reload_limits().await.unwrap());
    assert_eq!(again.risk().limits().limits.order_qty_max, Some(dec("5")));

    // Where the stored ones win, what a person set stands, whatever the configuration says.
    let mut by_hand = stricter.risk().limits().limits;
    by_hand.order_qty_max = Some(dec("3"));
    stricter.risk().set_limits(2, by_hand.clone(), "anna".parse().unwrap(), "less", &|_| Vec::new()).await.unwrap();
    let stored = start(dir.path(), "three", &[("risk.limits", "stored"), ("risk.max_order_qty", "7")]).await;
    assert_eq!((stored.risk().limits().version, stored.risk().limits().limits), (3, by_hand));
    // Where the configuration wins, it is put back, and the history says so.
    let back = start(dir.path(), "four", &[("risk.max_order_qty", "7")]).await;
    let history = back.risk().limit_history(10).await.unwrap();
    let authors: Vec<_> = history.iter().map(|set| (set.version, set.author.as_str())).collect();
    assert_eq!(authors, [(4, "config"), (3, "anna"), (2, "config"), (1, "config")]);
    back.anchor_audit().await.unwrap();
    for infra in [again, stricter, stored, back] {
        assert!(infra.close().await.unfinished.is_empty());
    }
}

/// Fills nothing by itself.
struct Paper;

#[async_trait::async_trait]
impl OrderSink for Paper {
    async fn place(&self, order: Approved<Order>) -> Placement {
        Placement::Acknowledged { venue_order_id: format!("x-{}", order.order().id) }
    }

    async fn cancel(&self, _: &OrderId) -> Result<(), SinkError> {
        Ok(())
    }

    async fn query(&self, _: &OrderId) -> Result<VenueOrder, SinkError> {
        Ok(VenueOrder::NotFound)
    }
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
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
    }
}

fn quote(infra: &Infrastructure, at: &str) {
    let price: infra_factory::types::Price = at.parse().unwrap();
    let quote = Quote { bid: price, ask: price, at: SystemClock.wall() };
    infra.risk().update_market(&spec().id, quote).unwrap();
}

async fn buy(infra: &Infrastructure, qty: &str) {
    infra.risk().register_instrument(spec()).unwrap();
    infra.risk().open_account("main".parse().unwrap(), "USDT".parse().unwrap(), Decimal::from(10_000)).await.unwrap();
    quote(infra, "100");
    let (account, strategy) = ("main".parse().unwrap(), "breakout".parse().unwrap());
    let (qty, price): (infra_factory::types::Qty, _) = (qty.parse().unwrap(), "100".parse().unwrap());
    let order = Order::limit("o-1".parse().unwrap(), account, strategy, spec().id, Side::Buy, qty, price);
    let approved = infra.gate().approve(order).await.unwrap();
    infra.gate().place(approved, &Paper).await.unwrap();
    let fill = Fill { qty, price, fee: Money::new(Decimal::ZERO, "USDT".parse().unwrap()), is_maker: false };
    let (id, order) = ("f-1".parse().unwrap(), "o-1".parse().unwrap());
    let filled = Execution { id, order, at: SystemClock.wall(), kind: ExecutionKind::Filled(fill) };
    infra.gate().report(filled).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_without_an_order_halts_its_account_within_the_interval_and_the_bus_hears_of_it() {
    let dir = TestDir::new();
    let infra = start(dir.path(), "one", &[("risk.look_every", "200ms")]).await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = handler_fn(move |event| {
        let told = told.clone();
        async move {
            let _ = told.send(event.envelope.topic.to_string());
            Ok(())
        }
    });
    let pattern = Pattern::new("risk:*").unwrap();
    infra.events().subscribe(SubscribeOptions::at_least_once(pattern, "alerts", handler)).await.unwrap();
    buy(&infra, "50").await;
    let account: Scope = "account:main".parse().unwrap();
    assert_eq!(infra.emergency().snapshot_of(&account).state, EmergencyState::Normal);
    let begun = SystemClock.now();
    quote(&infra, "85");
    while infra.emergency().snapshot_of(&account).state == EmergencyState::Normal {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(5), "750 of 500 are lost");
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
    // RTS 6 art. 16(5): an alert within 5 s of the event.
    let mut topics = std::collections::BTreeSet::new();
    while !(topics.contains("risk:emergency") && topics.contains("risk:limits")) {
        let left = Duration::from_secs(5).saturating_sub(SystemClock.now().since(begun));
        topics.insert(tokio::time::timeout(left, heard.recv()).await.unwrap().unwrap());
    }
    assert_eq!(infra.emergency().state(), EmergencyState::Normal, "the firm goes on");
    quote(&infra, "100");
    SystemClock.sleep(Duration::from_millis(500)).await;
    assert_eq!(infra.emergency().snapshot_of(&account).state, EmergencyState::Halt, "a recovery re-arms nothing");
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test]
async fn a_loss_in_a_process_alone_is_found_as_well() {
    let config = ConfigBuilder::new(Preset::Development).environment(Environment::empty());
    let infra = Infrastructure::builder(config.build().unwrap()).build().await.unwrap();
    assert_eq!(infra.risk().limits().version, 1);
    buy(&infra, "50").await;
    quote(&infra, "85");
    let begun = SystemClock.now();
    let account: Scope = "account:main".parse().unwrap();
    while infra.emergency().snapshot_of(&account).state == EmergencyState::Normal {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(5));
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
    infra.close().await;
}

/// What a process that starts now would know of the account.
async fn stored(infra: &Infrastructure) -> AccountState {
    let (ledger, limits) = (infra.ledger().clone(), infra.risk().limits().limits);
    let engine = RiskEngine::new(ledger, infra.ledger_namespace(), SystemClock::shared(), limits).unwrap();
    engine.restore().await.unwrap();
    engine.account(&"main".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_best_that_no_fill_followed_is_there_after_a_stop_and_soon_after_a_crash() {
    let dir = TestDir::new();
    let infra = start(dir.path(), "one", &[]).await;
    buy(&infra, "1").await;
    quote(&infra, "200");
    assert_eq!(stored(&infra).await.high_water_mark, dec("0"), "a quote by itself writes nothing");
    assert!(infra.close().await.unfinished.is_empty());

    let again = start(dir.path(), "one", &[]).await;
    again.risk().register_instrument(spec()).unwrap();
    quote(&again, "110");
    let state = again.risk().account(&"main".parse().unwrap()).unwrap();
    assert_eq!((state.high_water_mark, state.drawdown(state.last_pnl)), (dec("100"), dec("90")));
    // Nobody closes this one: a crash may come whenever it likes.
    quote(&again, "300");
    let begun = SystemClock.now();
    while stored(&again).await.high_water_mark != dec("200") {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(20), "every ten seconds it is kept");
        SystemClock.sleep(Duration::from_millis(250)).await;
    }
    assert!(again.close().await.unfinished.is_empty());
}
