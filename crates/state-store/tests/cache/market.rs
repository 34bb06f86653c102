use std::time::Duration;

use infra_state_store::{
    StoreError,
    cache::{Candle, MarketDataCache, Timeframe},
};
use infra_types::{Qty, Timestamp};

use crate::{World, dec, everywhere, home, price, symbol};

fn candle(name: &str, opened_at: Timestamp, close: &str, is_closed: bool) -> Candle {
    Candle {
        symbol: symbol(name),
        timeframe: Timeframe::Minute1,
        opened_at,
        open: price("100"),
        high: price("110"),
        low: price("90"),
        close: price(close),
        volume: Qty::new(dec("1.5")).unwrap(),
        is_closed,
    }
}

fn cache(world: &World) -> MarketDataCache {
    MarketDataCache::new(world.store.clone(), home(), world.clock())
}

#[tokio::test]
async fn candles_grow_close_and_follow_each_other() {
    everywhere(async |mut world: World| {
        let (market, btc) = (cache(&world), symbol("BTCUSDT"));
        let start = world.now();
        let next = start.saturating_add(Duration::from_secs(60));
        assert!(market.put(&candle("BTCUSDT", start, "101", false)).await.unwrap());
        assert!(market.put(&candle("BTCUSDT", start, "102", false)).await.unwrap());
        assert!(market.put(&candle("BTCUSDT", start, "103", true)).await.unwrap());
        assert!(!market.put(&candle("BTCUSDT", start, "104", false)).await.unwrap(), "closed is closed");
        assert!(!market.put(&candle("BTCUSDT", start, "103", true)).await.unwrap(), "and counted once");
        world.pass(60);
        assert!(market.put(&candle("BTCUSDT", next, "105", false)).await.unwrap());
        assert!(!market.put(&candle("BTCUSDT", start, "103", true)).await.unwrap(), "the past stays");

        world.pass(7);
        world.restart().await;
        let market = cache(&world);
        let latest = market.latest(&btc, Timeframe::Minute1).await.unwrap().unwrap();
        assert_eq!((latest.value.close, latest.age), (price("105"), Duration::from_secs(7)));
        assert_eq!(market.latest(&btc, Timeframe::Hour1).await.unwrap(), None);
        let history = market.history(&btc, Timeframe::Minute1, 10).await.unwrap();
        assert_eq!(history, [candle("BTCUSDT", start, "103", true)]);

        world.pass(113);
        assert_eq!(market.latest(&btc, Timeframe::Minute1).await.unwrap(), None, "twice its timeframe is over");
        assert!(market.remove(&btc, Timeframe::Minute1).await.unwrap());
        assert_eq!(market.history(&btc, Timeframe::Minute1, 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn history_is_capped_and_many_are_read_at_once() {
    everywhere(async |world: World| {
        let market = cache(&world).with_history_max(3);
        let (btc, eth, none) = (symbol("BTCUSDT"), symbol("ETHUSDT"), symbol("NONE"));
        for _ in 0..5 {
            market.put(&candle("BTCUSDT", world.now(), "101", true)).await.unwrap();
            market.put(&candle("ETHUSDT", world.now(), "99", false)).await.unwrap();
            world.pass(60);
        }
        assert_eq!(market.history(&btc, Timeframe::Minute1, 10).await.unwrap().len(), 3);
        assert_eq!(market.history(&eth, Timeframe::Minute1, 10).await.unwrap().len(), 0);
        let many = market.latest_many(&[&eth, &none, &btc], Timeframe::Minute1).await.unwrap();
        let closes: Vec<_> = many.into_iter().map(|found| found.map(|found| found.value.close)).collect();
        assert_eq!(closes, [Some(price("99")), None, Some(price("101"))]);
    })
    .await;
}

#[tokio::test]
async fn candles_that_make_no_sense_are_refused() {
    let world = World::memory();
    let market = cache(&world);
    let good = candle("BTCUSDT", world.now(), "100", false);
    let bad = [
        Candle { low: price("100.1"), ..good.clone() },
        Candle { high: price("99"), ..good.clone() },
        Candle { close: price("111"), ..good.clone() },
        Candle { opened_at: world.now().saturating_add(Duration::from_millis(1)), ..good.clone() },
    ];
    for candle in bad {
        assert!(matches!(market.put(&candle).await, Err(StoreError::Invalid { .. })), "{candle:?}");
    }
    assert!(market.put(&good).await.unwrap());
}

#[test]
fn timeframes_have_names_and_a_grid() {
    for timeframe in Timeframe::ALL {
        assert_eq!(timeframe.as_str().parse::<Timeframe>().unwrap(), timeframe);
        let json = serde_json::to_string(&timeframe).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str(&json).ok()), (&*format!("\"{timeframe}\""), Some(timeframe)));
    }
    assert!("2m".parse::<Timeframe>().unwrap_err().to_string().contains("15m"));
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert!(Timeframe::Week1.opens_at(at("2026-01-05T00:00:00Z")), "a Monday");
    assert!(!Timeframe::Week1.opens_at(at("2026-01-08T00:00:00Z")), "a Thursday");
    assert!(Timeframe::Hour4.opens_at(at("2026-01-08T20:00:00Z")));
    assert!(!Timeframe::Hour4.opens_at(at("2026-01-08T21:00:00Z")));
    assert!(Timeframe::Day1.opens_at(at("1969-12-31T00:00:00Z")), "before the epoch as well");
}
