//! Exits work and stay exits.

use crate::support::*;
use infra_risk_engine::{Approval, Effect, LimitValue, Outcome, RiskError, RiskLimits, Stance};
use infra_types::{Decimal, Side};
use proptest::prelude::*;

#[tokio::test]
async fn a_reduce_order_is_clipped_to_what_is_left_and_never_flips() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    trade(&engine, order("in", &btc(), Side::Buy, "0.1", "100")).await;
    let sell = |id: &str, qty: &str| order(id, &btc(), Side::Sell, qty, "100");

    let decision = refusal(reserve(&engine, sell("flip", "0.5"), Stance::Open).await);
    assert_eq!(decision.first_code(), Some("would_flip"));

    let mut first = reserve(&engine, sell("a", "0.06").reduce_only(), Stance::ReduceOnly).await.unwrap();
    let second = reserve(&engine, sell("b", "0.5").reduce_only(), Stance::ReduceOnly).await.unwrap();
    assert_eq!(second.order.qty.get(), dec("0.04"), "working reduces count");
    assert_eq!(second.reservation.effect(), Effect::Reduce);
    let decision = refusal(reserve(&engine, sell("c", "0.01").reduce_only(), Stance::ReduceOnly).await);
    assert_eq!(decision.first_code(), Some("nothing_to_reduce"));
    settle(&engine, &mut first, Outcome::End).await;
    reserve(&engine, sell("d", "0.06"), Stance::ReduceOnly).await.unwrap();
}

#[tokio::test]
async fn in_a_halt_only_exits_pass() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let buy = |id: &str| order(id, &btc(), Side::Buy, "1", "100");
    assert_eq!(
        refusal(reserve(&engine, buy("a"), Stance::ReduceOnly).await).first_code(),
        Some("not_reducing_in_halt")
    );
    trade(&engine, buy("b")).await;
    assert_eq!(
        refusal(reserve(&engine, buy("c"), Stance::ReduceOnly).await).first_code(),
        Some("not_reducing_in_halt")
    );
    let alone = order("d", &btc(), Side::Buy, "1", "100").reduce_only();
    assert_eq!(refusal(reserve(&engine, alone, Stance::Open).await).first_code(), Some("nothing_to_reduce"));
    let exit = reserve(&engine, order("e", &btc(), Side::Sell, "1", "100"), Stance::ReduceOnly).await.unwrap();
    assert_eq!(exit.reservation.held(), Decimal::ZERO);
}

#[tokio::test]
async fn losses_stop_what_opens_and_never_what_closes() {
    let world = World::new();
    let small = LimitValue::Amount(dec("50"));
    let engine = world.engine(RiskLimits { daily_loss_max: Some(small), drawdown_max: Some(small), ..limits() }).await;
    trade(&engine, order("in", &btc(), Side::Buy, "10", "100")).await;
    world.quote(&engine, &btc(), "94");
    assert_eq!(engine.daily_loss(&account()), Some(dec("60")));
    let decision = refusal(reserve(&engine, order("more", &eth(), Side::Buy, "1", "100"), Stance::Open).await);
    assert!(decision.failed("daily_loss") && decision.failed("drawdown"), "unrealised losses count: {decision:?}");
    let (allowed, why) = engine.can_open_position(&account(), dec("10"));
    assert!(!allowed && why.contains("daily_loss"), "{why}");
    trade(&engine, order("out", &btc(), Side::Sell, "10", "94")).await;
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn another_engines_working_exit_counts() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    trade(&one, order("in", &btc(), Side::Buy, "1", "100")).await;
    // `two` has not heard of the position.
    reserve(&two, order("a", &btc(), Side::Sell, "0.7", "100"), Stance::ReduceOnly).await.unwrap();
    let clipped = order("b", &btc(), Side::Sell, "1", "100").reduce_only();
    assert_eq!(reserve(&one, clipped, Stance::Open).await.unwrap().order.qty.get(), dec("0.3"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Opening orders of one side, exits of the other: whatever fills when, no exit makes the position larger or turns it.
    #[test]
    fn reduce_orders_never_grow_or_flip_a_position(
        long in any::<bool>(),
        steps in prop::collection::vec((0u8..5, 1i64..300, any::<prop::sample::Index>(), any::<bool>()), 1..60),
    ) {
        runtime().block_on(async {
            let world = World::new();
            let engines = [world.engine(limits()).await, world.engine(limits()).await];
            let (enter, exit) = if long { (Side::Buy, Side::Sell) } else { (Side::Sell, Side::Buy) };
            let mut working: Vec<Approval> = Vec::new();
            for (n, (action, qty, pick, second)) in steps.into_iter().enumerate() {
                let engine = &engines[usize::from(second)];
                let qty = Decimal::new(qty, 2).to_string();
                match action {
                    0 | 1 => {
                        let mut wish = order(&format!("o-{n}"), &btc(), if action == 0 { enter } else { exit }, &qty, "100");
                        wish.reduce_only = action == 1;
                        match reserve(engine, wish, Stance::Open).await {
                            Ok(approval) => working.push(approval),
                            Err(RiskError::Refused(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    _ if working.is_empty() => {}
                    2 => {
                        let at = pick.index(working.len());
                        settle(engine, &mut working[at], Outcome::End).await;
                        working.remove(at);
                    }
                    _ => {
                        let at = pick.index(working.len());
                        let approval = &mut working[at];
                        let part = approval.reservation.remaining().min(qty.parse().unwrap());
                        let traded = fill(&part.to_string(), "100", "0", "USDT");
                        let effect = approval.reservation.effect();
                        let settled = settle(engine, approval, Outcome::Fill { fill: &traded, is_last: false }).await;
                        let before = settled.position_before.unwrap_or_default().qty;
                        let after = settled.position_after.unwrap().qty;
                        if effect == Effect::Reduce {
                            assert_eq!(after.abs(), before.abs() - part, "{before} -> {after}");
                            assert!(!settled.grew_by_reducing);
                        }
                        assert!(after.is_zero() || after.is_sign_positive() == long);
                        if approval.reservation.is_closed() {
                            working.remove(at);
                        }
                    }
                }
            }
        });
    }
}

/// A quarter of ten thousand sequences, so that they run beside each other.
fn quarter(of: u64) {
    let mut seen = crate::sequences::Seen::default();
    runtime().block_on(async {
        for seed in of * 2_500..(of + 1) * 2_500 {
            seen.add(crate::sequences::live(seed, 16).await);
        }
    });
    // The sequences were about something.
    assert!(seen.exits > 1_500 && seen.exits_in_halt > 400 && seen.clipped > 200, "{seen:?}");
    assert!(seen.exit_fills > 1_000 && seen.cancels > 500 && seen.halted > 500, "{seen:?}");
}

#[test]
fn exits_of_ten_thousand_sequences_first_quarter() {
    quarter(0);
}

#[test]
fn exits_of_ten_thousand_sequences_second_quarter() {
    quarter(1);
}

#[test]
fn exits_of_ten_thousand_sequences_third_quarter() {
    quarter(2);
}

#[test]
fn exits_of_ten_thousand_sequences_fourth_quarter() {
    quarter(3);
}
