//! The runaway of 1 August 2012 in small: one event that keeps spawning orders (SEC order on Knight: compare what leaves with what came
//! in).

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Coverage, Limit, Message, Outcome, RiskLimits, Stance};
use infra_types::{EventId, Scope, Side};

#[tokio::test]
async fn one_event_that_spawns_a_thousand_orders_is_stopped_and_its_cancels_are_not() {
    const RATIO: u32 = 5;
    let firm = || Coverage::One(Scope::Firm);
    let rules = vec![
        rule("ratio", firm(), Limit::OrdersPerCause { max: RATIO, window: Duration::from_secs(3_600) }),
        rule("messages", firm(), Limit::MessageRate { max: 2_000, window: Duration::from_secs(60) }),
    ];
    let world = World::new();
    // Two processes run the old code: the ratio is of the firm.
    let with = || RiskLimits { rules: rules.clone(), ..limits() };
    let engines = [world.engine(with()).await, world.engine(with()).await];
    let parent = || EventId::new("parent-order-1").unwrap();
    let mut working = Vec::new();
    for n in 0..1_000 {
        let side = if n % 2 == 0 { Side::Buy } else { Side::Sell };
        let instrument = if n % 2 == 0 { btc() } else { eth() };
        let child = order(&format!("child-{n}"), &instrument, side, "0.1", "100").caused_by(parent());
        match reserve(&engines[n % 2], child, Stance::Open).await {
            Ok(approval) => working.push(approval),
            refused => {
                let decision = refusal(refused);
                let check = decision.failures().next().unwrap();
                assert_eq!((check.code, check.rule.as_deref()), ("orders_per_cause", Some("ratio")));
                assert_eq!((check.value, check.limit), (dec("5"), dec("5")));
            }
        }
    }
    assert_eq!(working.len(), RATIO as usize);
    for mut approval in working {
        let checks = engines[0].count_message(&approval.order, Message::Cancel).await.unwrap();
        assert!(checks.iter().all(|c| c.passed));
        settle(&engines[0], &mut approval, Outcome::End).await;
    }
    // What another event asks for goes on.
    let other = order("other", &btc(), Side::Buy, "0.1", "100").caused_by(EventId::new("parent-order-2").unwrap());
    reserve(&engines[1], other, Stance::Open).await.unwrap();
}

#[tokio::test]
async fn exits_of_a_runaway_event_pass() {
    let limit = Limit::OrdersPerCause { max: 1, window: Duration::from_secs(60) };
    let rules = vec![rule("ratio", Coverage::One(Scope::Firm), limit)];
    let world = World::new();
    let engine = world.engine(RiskLimits { rules, ..limits() }).await;
    let caused = |id: &str, side, qty| order(id, &btc(), side, qty, "100").caused_by(EventId::new("e").unwrap());
    trade(&engine, caused("in", Side::Buy, "3")).await;
    for id in ["a", "b", "c"] {
        trade(&engine, caused(id, Side::Sell, "1")).await;
    }
    assert_nothing_used(&engine).await;
}
