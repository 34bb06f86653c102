//! Orders that are approved count at once, whoever approved them.

use std::sync::Arc;

use crate::support::*;
use infra_risk_engine::{Outcome, RiskError, Stance};
use infra_types::Side;

#[tokio::test]
async fn of_ten_orders_of_4000_on_10000_exactly_two_pass() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let mut passed = 0;
    for n in 0..10 {
        let result = reserve(&engine, order(&format!("o-{n}"), &btc(), Side::Buy, "40", "100"), Stance::Open).await;
        match result {
            Ok(approval) => {
                passed += 1;
                let check = approval.decision.checks.iter().find(|c| c.code == "exposure_firm").unwrap();
                assert_eq!((check.value, check.passed), (dec("4000") * dec(&passed.to_string()), true));
            }
            refused => {
                let decision = refusal(refused);
                assert_eq!(decision.first_code(), Some("exposure_firm"));
                let check = decision.failures().next().unwrap();
                assert_eq!((check.value, check.limit, check.headroom), (dec("8000"), dec("10000"), dec("2000")));
            }
        }
    }
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn positions_that_are_being_opened_take_a_slot_and_orders_of_one_instrument_share_it() {
    let world = World::new();
    let engine = world.engine(infra_risk_engine::RiskLimits { open_positions_max: Some(1), ..limits() }).await;
    let mut first = reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let mut second = reserve(&engine, order("b", &btc(), Side::Buy, "1", "99"), Stance::Open).await.unwrap();
    let other = || order("c", &eth(), Side::Buy, "1", "100");
    assert_eq!(refusal(reserve(&engine, other(), Stance::Open).await).first_code(), Some("max_positions"));
    let traded = fill("1", "100", "0", "USDT");
    settle(&engine, &mut first, Outcome::Fill { fill: &traded, is_last: false }).await;
    settle(&engine, &mut second, Outcome::End).await;
    assert!(
        refusal(reserve(&engine, other(), Stance::Open).await).failed("max_positions"),
        "the position keeps the slot"
    );
    trade(&engine, order("d", &btc(), Side::Sell, "1", "100")).await;
    reserve(&engine, other(), Stance::Open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_engines_with_many_tasks_never_pass_a_limit_together() {
    let world = World::new();
    // The second learns of the account from the store.
    let engines = [Arc::new(world.engine(limits()).await), Arc::new(world.engine(limits()).await)];
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let engine = engines[task % 2].clone();
            tokio::spawn(async move {
                let mut admitted = 0u32;
                for n in 0..25 {
                    let instrument = if n % 2 == 0 { btc() } else { eth() };
                    let order = order(&format!("o-{task}-{n}"), &instrument, Side::Buy, "0.7", "100");
                    loop {
                        match reserve(&engine, order.clone(), Stance::Open).await {
                            Ok(_) => admitted += 1,
                            Err(RiskError::Contended { .. }) => continue,
                            refused => assert_eq!(refusal(refused).first_code(), Some("exposure_firm")),
                        }
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 10_000 / 70, "all that fits and nothing more");
    let used = engines[0].used().await.unwrap();
    let (_, firm) = used.iter().find(|(key, _)| key == "risk/used/exposure/firm").unwrap();
    assert_eq!(*firm, dec("70") * dec(&admitted.to_string()));
    assert!(used.contains(&("risk/used/positions/firm".into(), dec("2"))), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fills_that_come_at_once_on_two_engines_are_all_booked() {
    let world = World::new();
    let engines = [Arc::new(world.engine(limits()).await), Arc::new(world.engine(limits()).await)];
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let engine = engines[task % 2].clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    let order = order(&format!("o-{task}-{n}"), &btc(), Side::Buy, "1", "100");
                    let approval = loop {
                        match reserve(&engine, order.clone(), Stance::Open).await {
                            Err(RiskError::Contended { .. }) => tokio::task::yield_now().await,
                            other => break other.unwrap(),
                        }
                    };
                    let traded = fill("1", "100", "0.1", "USDT");
                    let outcome = Outcome::Fill { fill: &traded, is_last: true };
                    while let Err(error) =
                        engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![]).await
                    {
                        assert!(matches!(error, RiskError::Contended { .. }), "{error}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    engines[0].restore().await.unwrap();
    let position = engines[0].position(&account(), &btc()).unwrap();
    assert_eq!((position.qty, position.cost, position.fees), (dec("80"), dec("8000"), dec("8")));
    trade(&engines[0], order("close", &btc(), Side::Sell, "80", "100")).await;
    assert_nothing_used(&engines[0]).await;
}
