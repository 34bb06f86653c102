use std::time::Duration;

use infra_state_store::{
    StoreError,
    cache::{FinancialSnapshot, MetricsCache, Position, PositionTotals},
};
use infra_types::{Decimal, InstrumentId, Timestamp, Venue};

use crate::{World, account, currency, dec, everywhere, home, price, symbol};

fn cache(world: &World) -> MetricsCache {
    MetricsCache::new(world.store.clone(), home(), world.clock())
}

fn snapshot(equity: &str, time: Timestamp) -> FinancialSnapshot {
    FinancialSnapshot {
        account: account("main"),
        currency: currency("USDT"),
        equity: dec(equity),
        cash: dec("1000.10"),
        margin_used: dec("250"),
        realized_pnl: dec("-12.5"),
        unrealized_pnl: dec("0.00000001"),
        time,
    }
}

fn position(name: &str, of: &str, qty: &str, money: &str, time: Timestamp) -> Position {
    Position {
        account: account(of),
        instrument: InstrumentId::new(Venue::new("binance_spot").unwrap(), symbol(name)),
        qty: dec(qty),
        entry_price: price("100"),
        mark_price: price("110"),
        currency: currency(money),
        time,
    }
}

#[tokio::test]
async fn a_snapshot_has_an_age_and_an_older_one_never_wins() {
    everywhere(async |mut world: World| {
        let (metrics, main) = (cache(&world), account("main"));
        assert_eq!(metrics.financial().age(&main).await.unwrap(), None);
        let earlier = world.now().saturating_sub(Duration::from_secs(5));
        assert!(metrics.financial().put(&snapshot("1500", world.now())).await.unwrap());
        assert!(!metrics.financial().put(&snapshot("1400", earlier)).await.unwrap());
        assert!(metrics.financial().put(&snapshot("1501", world.now())).await.unwrap(), "as new is new enough");
        world.pass(20);
        world.restart().await;
        let metrics = cache(&world);
        let found = metrics.financial().get(&main).await.unwrap().unwrap();
        assert_eq!((found.value.equity, found.age), (dec("1501"), Duration::from_secs(20)));
        assert_eq!(found.value.unrealized_pnl, dec("0.00000001"), "every digit stays");
        world.pass(280);
        assert_eq!(metrics.financial().get(&main).await.unwrap(), None, "five minutes are over");
    })
    .await;
}

#[tokio::test]
async fn open_positions_are_listed_and_added_up_by_currency() {
    everywhere(async |world: World| {
        let (metrics, main) = (cache(&world), account("main"));
        let before = world.now().saturating_sub(Duration::from_secs(3));
        let all = [
            position("BTCUSDT", "main", "2", "USDT", world.now()),
            position("ETHUSDT", "main", "-3", "USDT", before),
            position("BTCEUR", "main", "1", "EUR", world.now()),
            position("CLOSED", "main", "0", "USDT", world.now()),
            position("BTCUSDT", "main2", "50", "USDT", world.now()),
        ];
        for position in &all {
            assert!(metrics.positions().put(position).await.unwrap());
        }
        let page = metrics.active_positions(&main, None, 100).await.unwrap();
        let names: Vec<_> = page.values.iter().map(|found| found.value.instrument.symbol.to_string()).collect();
        assert_eq!(names, ["BTCEUR", "BTCUSDT", "ETHUSDT"]);

        let totals = metrics.position_totals(&main).await.unwrap();
        let usdt = PositionTotals {
            count: 2,
            long: dec("220"),
            short: dec("330"),
            unrealized: dec("-10"),
            age_max: Duration::from_secs(3),
        };
        assert_eq!(totals[&currency("USDT")], usdt);
        assert_eq!((usdt.gross().unwrap(), usdt.net().unwrap()), (dec("550"), dec("-110")));
        assert_eq!(totals[&currency("EUR")].long, dec("110"));
        assert!(metrics.position_totals(&account("nobody")).await.unwrap().is_empty());

        // Closed by a newer word; the older one that comes late does not open it again.
        let closed = position("BTCUSDT", "main", "0", "USDT", world.now());
        assert!(metrics.positions().put(&closed).await.unwrap());
        let stale = position("BTCUSDT", "main", "2", "USDT", before);
        assert!(!metrics.positions().put(&stale).await.unwrap());
        assert_eq!(metrics.position_totals(&main).await.unwrap()[&currency("USDT")].count, 1);

        let huge = position("ETHUSDT", "main", &Decimal::MAX.to_string(), "USDT", world.now());
        metrics.positions().put(&huge).await.unwrap();
        assert!(matches!(metrics.position_totals(&main).await, Err(StoreError::Invalid { .. })), "never wrapped");
    })
    .await;
}

#[tokio::test]
async fn more_positions_than_a_page_are_all_added_up() {
    let world = World::memory();
    let metrics = cache(&world);
    for n in 0..450 {
        metrics.positions().put(&position(&format!("S{n}"), "main", "1", "USDT", world.now())).await.unwrap();
    }
    let totals = metrics.position_totals(&account("main")).await.unwrap();
    assert_eq!((totals[&currency("USDT")].count, totals[&currency("USDT")].long), (450, dec("49500")));
}

#[tokio::test]
async fn custom_metrics_are_latest_and_aggregate() {
    everywhere(async |mut world: World| {
        let metrics = cache(&world);
        let start = world.now();
        assert_eq!(metrics.aggregate("latency_ms", Duration::from_secs(60)).await.unwrap(), None);
        for (n, value) in ["5", "1.5", "8.5", "3"].into_iter().enumerate() {
            metrics.record("latency_ms", dec(value)).await.unwrap();
            world.pass(if n == 3 { 0 } else { 10 });
        }
        metrics.record("load", dec("-1")).await.unwrap();
        world.restart().await;
        let metrics = cache(&world);
        let latest = metrics.metric("latency_ms").await.unwrap().unwrap();
        assert_eq!((latest.value.value, latest.age), (dec("3"), Duration::ZERO));

        let at = |secs| start.saturating_add(Duration::from_secs(secs));
        let all = metrics.aggregate("latency_ms", Duration::from_secs(60)).await.unwrap().unwrap();
        assert_eq!((all.count, all.sum, all.mean), (4, dec("18"), dec("4.5")));
        assert_eq!((all.min, all.max, all.first, all.last), (dec("1.5"), dec("8.5"), at(0), at(30)));
        let recent = metrics.aggregate("latency_ms", Duration::from_secs(10)).await.unwrap().unwrap();
        assert_eq!((recent.count, recent.mean), (2, dec("5.75")));

        let page = metrics.metrics("l", None, 10).await.unwrap();
        let names: Vec<_> = page.values.iter().map(|found| found.value.name.as_str()).collect();
        assert_eq!(names, ["latency_ms", "load"]);

        metrics.record("big", Decimal::MAX).await.unwrap();
        metrics.record("big", Decimal::MAX).await.unwrap();
        let e = metrics.aggregate("big", Duration::from_secs(60)).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");

        assert!(metrics.remove_metric("latency_ms").await.unwrap());
        assert_eq!(metrics.metric("latency_ms").await.unwrap(), None);
        assert!(matches!(metrics.record("", dec("1")).await, Err(StoreError::InvalidKey { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_metric_keeps_as_many_numbers_as_it_was_told() {
    let world = World::memory();
    let metrics = cache(&world).with_history_max(4);
    for n in 0..10 {
        metrics.record("n", Decimal::from(n)).await.unwrap();
    }
    let all = metrics.aggregate("n", Duration::from_secs(60)).await.unwrap().unwrap();
    assert_eq!((all.count, all.min, all.max), (4, dec("6"), dec("9")));
}
