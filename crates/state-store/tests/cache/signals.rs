use std::time::Duration;

use infra_state_store::{
    Key, StateStoreExt, StoreError, Ttl,
    cache::{Signal, SignalAction, SignalCache},
};
use infra_types::{StrategyId, Timestamp};

use crate::{World, dec, everywhere, home, price, symbol};

fn signal(name: &str, action: SignalAction, confidence: &str, time: Timestamp) -> Signal {
    Signal {
        symbol: symbol(name),
        strategy: StrategyId::new("trend").unwrap(),
        action,
        confidence: dec(confidence),
        price: Some(price("87232.01")),
        time,
    }
}

fn cache(world: &World) -> SignalCache {
    SignalCache::new(world.store.clone(), home(), world.clock())
}

#[tokio::test]
async fn the_latest_signal_is_the_latest_in_time() {
    everywhere(async |mut world: World| {
        let signals = cache(&world);
        let btc = symbol("BTCUSDT");
        assert_eq!(signals.latest(&btc).await.unwrap(), None);
        let now = world.now();
        let first = signal("BTCUSDT", SignalAction::Buy, "0.75", now);
        let late = signal("BTCUSDT", SignalAction::Sell, "0.5", now.saturating_sub(Duration::from_secs(1)));
        assert!(signals.put(&first).await.unwrap());
        assert!(!signals.put(&late).await.unwrap(), "a signal that comes late is no news");
        world.pass(30);
        world.restart().await;
        let signals = cache(&world);
        let found = signals.latest(&btc).await.unwrap().unwrap();
        assert_eq!((found.value.clone(), found.age), (first.clone(), Duration::from_secs(30)));
        assert!(found.is_fresh(Duration::from_secs(30)) && !found.is_fresh(Duration::from_secs(29)));
        assert_eq!(signals.history(&btc, 10).await.unwrap(), [late, first], "as they came, the newest first");

        world.pass(86_400);
        assert_eq!(signals.latest(&btc).await.unwrap(), None, "a day is over");
        assert_eq!(signals.history(&btc, 10).await.unwrap().len(), 2);
        world.pass(6 * 86_400);
        assert_eq!(signals.history(&btc, 10).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn history_is_capped_and_adds_up() {
    everywhere(async |world: World| {
        let (signals, btc) = (cache(&world), symbol("BTCUSDT"));
        assert_eq!(signals.statistics(&btc).await.unwrap().mean_confidence, None);
        let start = world.now();
        for n in 0..120_u64 {
            let action =
                [SignalAction::Buy, SignalAction::Sell, SignalAction::Hold, SignalAction::Hold][n as usize % 4];
            let confidence = if n % 2 == 0 { "0.2" } else { "0.9" };
            assert!(signals.put(&signal("BTCUSDT", action, confidence, world.now())).await.unwrap());
            world.pass(1);
        }
        let told = signals.statistics(&btc).await.unwrap();
        assert_eq!((told.count, told.buys, told.sells, told.holds), (100, 25, 25, 50));
        assert_eq!(told.mean_confidence, Some(dec("0.55")));
        let at = |secs| start.saturating_add(Duration::from_secs(secs));
        assert_eq!(told.span, Some((at(20), at(119))));

        let between = signals.between(&btc, at(50), at(60)).await.unwrap();
        let times: Vec<_> = between.iter().map(|signal| signal.time).collect();
        assert_eq!(times, (50..60).map(at).collect::<Vec<_>>(), "from on, to before, by time");
        assert_eq!(signals.between(&btc, at(0), at(20)).await.unwrap(), [], "what fell off is gone");
        assert_eq!(signals.history(&btc, 3).await.unwrap().len(), 3);

        let few = cache(&world).with_history_max(5);
        few.put(&signal("BTCUSDT", SignalAction::Hold, "0", world.now())).await.unwrap();
        assert_eq!(few.statistics(&btc).await.unwrap().count, 5);
    })
    .await;
}

#[tokio::test]
async fn many_symbols_are_read_at_once() {
    everywhere(async |world: World| {
        let signals = cache(&world);
        for (name, action) in
            [("ETHUSDT", SignalAction::Buy), ("BTCUSDT", SignalAction::Sell), ("SOL", SignalAction::Hold)]
        {
            signals.put(&signal(name, action, "1", world.now())).await.unwrap();
        }
        let (btc, none, sol) = (symbol("BTCUSDT"), symbol("NONE"), symbol("SOL"));
        let many = signals.latest_many(&[&sol, &none, &btc]).await.unwrap();
        let actions: Vec<_> = many.into_iter().map(|found| found.map(|found| found.value.action)).collect();
        assert_eq!(actions, [Some(SignalAction::Hold), None, Some(SignalAction::Sell)]);

        let page = signals.latest_page(None, 2).await.unwrap();
        let names = |values: &[infra_state_store::cache::Aged<Signal>]| {
            values.iter().map(|found| found.value.symbol.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&page.values), ["BTCUSDT", "ETHUSDT"]);
        let rest = signals.latest_page(page.next.as_deref(), 2).await.unwrap();
        assert_eq!((names(&rest.values), rest.next), (vec!["SOL".to_owned()], None));

        assert!(signals.remove(&btc).await.unwrap());
        assert!(!signals.remove(&btc).await.unwrap());
        assert_eq!((signals.latest(&btc).await.unwrap(), signals.history(&btc, 5).await.unwrap()), (None, vec![]));
    })
    .await;
}

#[tokio::test]
async fn nonsense_is_refused_and_foreign_values_are_not_guessed_at() {
    everywhere(async |world: World| {
        let (signals, btc) = (cache(&world), symbol("BTCUSDT"));
        for confidence in ["-0.01", "1.01"] {
            let e = signals.put(&signal("BTCUSDT", SignalAction::Buy, confidence, world.now())).await;
            assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
        }
        assert_eq!(signals.history(&btc, 5).await.unwrap(), []);
        let key = Key::record("signal:BTCUSDT").unwrap();
        world.store.set(&home(), &key, "{}", Ttl::Never).await.unwrap();
        assert!(matches!(signals.latest(&btc).await, Err(StoreError::WrongCodec { .. })));
    })
    .await;
}

/// Whatever the order of many writers: the latest is the latest, and nothing of the history is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_agree() {
    everywhere(async |world: World| {
        let start = world.now();
        let tasks: Vec<_> = (0..8_u64)
            .map(|task| {
                let signals = cache(&world);
                tokio::spawn(async move {
                    for n in 0..10 {
                        let time = start.saturating_add(Duration::from_millis(n * 8 + task));
                        signals.put(&signal("BTCUSDT", SignalAction::Buy, "1", time)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let (signals, btc) = (cache(&world), symbol("BTCUSDT"));
        let latest = signals.latest(&btc).await.unwrap().unwrap();
        assert_eq!(latest.value.time, start.saturating_add(Duration::from_millis(79)));
        assert_eq!(signals.statistics(&btc).await.unwrap().count, 80);
    })
    .await;
}
