//! What goes on beside the trading: a halt cancels, a silent bot is missed, the ledger is compared with the venue.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use infra_factory::{
    FactoryError, Infrastructure, Preset, SuperviseConfig, Venues,
    config::ConfigBuilder,
    emergency::{DeadManConfig, HeartbeatConfig},
    gate::{Approved, OrderSink, Placed, Placement, SinkError, VenueOrder},
    risk_engine::Quote,
    types::{Clock, Decimal, Execution, ExecutionKind, InstrumentSpec, Order, OrderId, OrderStatus, Side, SystemClock},
};
use infra_testkit::TestDir;
use parking_lot::Mutex;

/// A venue with a book that cancels when asked, and can be out of reach.
#[derive(Default)]
struct Book {
    orders: Mutex<BTreeMap<OrderId, Vec<Execution>>>,
    is_away: AtomicBool,
}

impl Book {
    fn happens(&self, order: &OrderId, kind: ExecutionKind) {
        let mut orders = self.orders.lock();
        let of = orders.entry(order.clone()).or_default();
        let id = format!("{order}.{}", of.len()).parse().unwrap();
        of.push(Execution { id, order: order.clone(), at: SystemClock.wall(), kind });
    }

    fn answer(&self) -> Result<(), SinkError> {
        if self.is_away.load(Relaxed) { Err(SinkError { reason: "away".into() }) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl OrderSink for Book {
    async fn place(&self, order: Approved<Order>) -> Placement {
        let venue_order_id = format!("x-{}", order.order().id);
        self.happens(&order.order().id, ExecutionKind::Acknowledged { venue_order_id: venue_order_id.clone() });
        Placement::Acknowledged { venue_order_id }
    }

    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError> {
        self.answer()?;
        let is_open = self.orders.lock().get(order).is_some_and(|of| of.len() == 1);
        if is_open {
            self.happens(order, ExecutionKind::Cancelled);
        }
        Ok(())
    }

    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError> {
        self.answer()?;
        let executions = self.orders.lock().get(order).cloned();
        Ok(executions.map_or(VenueOrder::NotFound, |executions| VenueOrder::Found { executions }))
    }
}

async fn start(dir: &Path, bot: &str) -> Infrastructure {
    let config = ConfigBuilder::new(Preset::Standalone)
        .set("data_dir", dir.display().to_string())
        .set("bot_id", bot)
        .set("emergency.poll_interval", "50ms");
    let infra = Infrastructure::builder(config.build().unwrap()).build().await.unwrap();
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
    let quote = Quote { bid: "99".parse().unwrap(), ask: "101".parse().unwrap(), at: SystemClock.wall() };
    infra.risk().update_market(&spec.id, quote).unwrap();
    infra
}

async fn buy(infra: &Infrastructure, venue: &Book, id: &str) {
    let [account, strategy] = ["main", "breakout"];
    let order = Order::limit(
        id.parse().unwrap(),
        account.parse().unwrap(),
        strategy.parse().unwrap(),
        "sim/BTCUSDT".parse().unwrap(),
        Side::Buy,
        "1".parse().unwrap(),
        "100".parse().unwrap(),
    );
    let approved = infra.gate().approve(order).await.unwrap();
    assert!(matches!(infra.gate().place(approved, venue).await.unwrap(), Placed::AtVenue(_)));
}

fn venues(book: &Arc<Book>) -> Venues {
    [("sim".parse().unwrap(), Arc::clone(book) as Arc<dyn OrderSink>)].into()
}

fn quick() -> SuperviseConfig {
    let ms = Duration::from_millis;
    let heartbeat = HeartbeatConfig { interval: ms(50), ttl: ms(300), ..HeartbeatConfig::default() };
    let dead_man = DeadManConfig { interval: ms(50), ..DeadManConfig::default() };
    SuperviseConfig { heartbeat, dead_man: Some(dead_man), ..SuperviseConfig::default() }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = SystemClock.now();
    while !holds().await {
        assert!(SystemClock.now().since(begun) < Duration::from_secs(20), "{what}");
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

async fn nothing_is_held(infra: &Infrastructure) -> bool {
    infra.risk().used().await.unwrap().iter().all(|(_, used)| used.is_zero())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_cancels_what_works_in_its_scope_and_frees_what_the_venue_confirms() {
    let (dir, book) = (TestDir::new(), Arc::new(Book::default()));
    let infra = start(dir.path(), "one").await;
    let supervision = infra.supervise(venues(&book), quick()).await.unwrap();
    buy(&infra, &book, "o-1").await;
    let switch = infra.emergency();
    switch.halt_in(&"strategy:other".parse().unwrap(), "anna", "not ours").await.unwrap();
    // A venue that is away keeps its orders, and what they hold.
    book.is_away.store(true, Relaxed);
    let mut progress = supervision.on_halt().progress();
    switch.halt_in(&"strategy:breakout".parse().unwrap(), "anna", "a test").await.unwrap();
    let is_ours = |r: &infra_factory::emergency::HaltReport| r.scope == "strategy:breakout".parse().unwrap();
    progress.wait_for(|news| news.as_ref().is_some_and(is_ours)).await.unwrap();
    assert!(!nothing_is_held(&infra).await, "a halt frees nothing by itself");
    book.is_away.store(false, Relaxed);
    until("the venue cancels and the ledger hears it", async || nothing_is_held(&infra).await).await;
    let done = infra.gate().done_orders().await.unwrap();
    assert_eq!(done.iter().map(|r| r.status).collect::<Vec<_>>(), [OrderStatus::Cancelled]);
    until("the report is written", async || {
        supervision.on_halt().reports(10).await.unwrap().iter().any(|r| is_ours(r) && r.is_clean())
    })
    .await;
    supervision.stop().await.unwrap();
    assert!(infra.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orders_of_a_bot_that_falls_silent_are_cancelled_by_another() {
    let (dir, book) = (TestDir::new(), Arc::new(Book::default()));
    let (one, other) = (start(dir.path(), "one").await, start(dir.path(), "other").await);
    let watching = other.supervise(venues(&book), quick()).await.unwrap();
    let alone = SuperviseConfig { dead_man: None, ..quick() };
    let beating = one.supervise(venues(&book), alone).await.unwrap();
    buy(&one, &book, "o-1").await;
    SystemClock.sleep(Duration::from_millis(600)).await;
    assert!(!nothing_is_held(&other).await, "a bot that beats is left alone");
    // Dropped without a goodbye, as a process that dies would.
    drop(beating);
    drop(one);
    until("the dead bot's order is cancelled", async || nothing_is_held(&other).await).await;
    let deaths: Vec<_> = other.emergency().bots().await.unwrap().into_iter().filter_map(|bot| bot.death).collect();
    assert_eq!(deaths.iter().map(|d| (d.bot.as_str(), d.watcher.as_str())).collect::<Vec<_>>(), [("one", "other")]);
    watching.stop().await.unwrap();
    assert!(other.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_bot_leaves_is_marked_and_counts_until_the_venue_ends_it() {
    let (dir, book) = (TestDir::new(), Arc::new(Book::default()));
    let (one, other) = (start(dir.path(), "one").await, start(dir.path(), "other").await);
    let watching = other.supervise(venues(&book), quick()).await.unwrap();
    let beating = one.supervise(venues(&book), SuperviseConfig { dead_man: None, ..quick() }).await.unwrap();
    buy(&one, &book, "o-1").await;
    assert!(other.gate().orphans().await.unwrap().is_empty());
    book.is_away.store(true, Relaxed);
    drop(beating);
    drop(one);
    until("it is marked", async || !other.gate().orphans().await.unwrap().is_empty()).await;
    let orphans = other.gate().orphans().await.unwrap();
    let mark = orphans[0].record.orphaned.as_ref().unwrap();
    assert_eq!(
        (orphans[0].bot.as_str(), orphans[0].record.order.id.as_str(), mark.by.as_str()),
        ("one", "o-1", "other")
    );
    assert!(!nothing_is_held(&other).await, "it counts");
    book.is_away.store(false, Relaxed);
    until("the venue ends it", async || nothing_is_held(&other).await).await;
    assert!(other.gate().orphans().await.unwrap().is_empty());
    watching.stop().await.unwrap();
    assert!(other.close().await.unfinished.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_way_to_a_venue_with_open_orders_is_refused() {
    let (dir, book) = (TestDir::new(), Arc::new(Book::default()));
    let infra = start(dir.path(), "one").await;
    buy(&infra, &book, "o-1").await;
    let e = infra.supervise(Venues::new(), quick()).await.unwrap_err();
    assert!(
        matches!(&e, FactoryError::NoVenue { venue, order } if (venue.as_str(), order.as_str()) == ("sim", "o-1")),
        "{e}"
    );
    // With it, what happened meanwhile is found out before anything else goes on.
    book.happens(&"o-1".parse().unwrap(), ExecutionKind::Expired);
    let supervision = infra.supervise(venues(&book), quick()).await.unwrap();
    assert!(nothing_is_held(&infra).await);
    supervision.stop().await.unwrap();
    infra.close().await;
}
