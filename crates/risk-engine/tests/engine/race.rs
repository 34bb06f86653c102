//! Somebody else writes between the plan and the batch: `compose` runs exactly there.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use infra_risk_engine::{Coverage, Limit, LimitValue, Outcome, RiskLimits, Stance};
use infra_types::Side;

use crate::support::*;

/// Runs `work` to its end from inside a synchronous callback.
fn now<F: Future>(work: F) -> F::Output {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_of_another_engine_clips_ours() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    trade(&one, order("in", &btc(), Side::Buy, "1", "100")).await;
    let raced = AtomicBool::new(false);
    let compose = |_: &_| {
        if !raced.swap(true, Ordering::Relaxed) {
            now(reserve(&two, order("b", &btc(), Side::Sell, "0.7", "100"), Stance::Open)).unwrap();
        }
        vec![]
    };
    let exit = order("a", &btc(), Side::Sell, "1", "100").reduce_only();
    let approval = one.check_and_reserve(exit, Stance::Open, &compose).await.unwrap();
    assert_eq!(approval.order.qty.get(), dec("0.3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_another_engine_books_stops_our_order() {
    let world = World::new();
    let limits = RiskLimits { daily_loss_max: Some(LimitValue::Amount(dec("50"))), ..limits() };
    let (one, two) = (world.engine(limits.clone()).await, world.engine(limits).await);
    trade(&two, order("in", &eth(), Side::Buy, "10", "100")).await;
    one.restore().await.unwrap();
    let raced = AtomicBool::new(false);
    let compose = |_: &_| {
        if !raced.swap(true, Ordering::Relaxed) {
            now(trade(&two, order("out", &eth(), Side::Sell, "10", "90")));
        }
        vec![]
    };
    let buy = order("a", &btc(), Side::Buy, "1", "100");
    let decision = refusal(one.check_and_reserve(buy, Stance::Open, &compose).await);
    assert_eq!(decision.first_code(), Some("daily_loss"));
    assert_nothing_used(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_is_booked_on_top_of_another_engines_fill() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    let approval = reserve(&one, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let raced = AtomicBool::new(false);
    let compose = |_: &_| {
        if !raced.swap(true, Ordering::Relaxed) {
            now(trade(&two, order("b", &btc(), Side::Buy, "2", "103")));
        }
        vec![]
    };
    let traded = fill("1", "100", "0", "USDT");
    let outcome = Outcome::Fill { fill: &traded, is_last: true };
    let settled = one.settle(&approval.order, &approval.reservation, outcome, &compose).await.unwrap();
    assert_eq!(settled.position_before.unwrap().qty, dec("2"));
    assert_eq!(settled.position_after.unwrap().average_cost(), Some(dec("102")));
    trade(&one, order("c", &btc(), Side::Sell, "3", "100")).await;
    assert_nothing_used(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_never_rests_is_contended_and_nothing_stays_reserved() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    let compose = |_: &_| {
        now(two.checkpoint()).unwrap();
        now(two.restore()).unwrap();
        vec![]
    };
    let buy = order("a", &btc(), Side::Buy, "1", "100");
    let error = one.check_and_reserve(buy, Stance::Open, &compose).await.unwrap_err();
    assert!(matches!(error, infra_risk_engine::RiskError::Contended { tries: 8 }), "{error:?}");
    assert_nothing_used(&one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_that_another_engine_uses_up_lets_nothing_through_here() {
    let world = World::new();
    let closed = rule("closed", Coverage::One(infra_types::Scope::Firm), Limit::Restricted);
    let limits = RiskLimits { rules: vec![closed], ..limits() };
    let (one, two) = (world.engine(limits.clone()).await, world.engine(limits).await);
    let wish = order("a", &btc(), Side::Buy, "1", "100");
    let (rules, hour) = (["closed".to_owned()].into(), std::time::Duration::from_secs(3_600));
    one.request_override(&wish, rules, "ann".parse().unwrap(), "why", hour, &|_| vec![]).await.unwrap();
    one.grant_override(&wish.account, &wish.id, "bob".parse().unwrap(), &|_| vec![]).await.unwrap();
    let raced = AtomicBool::new(false);
    let compose = |_: &_| {
        if !raced.swap(true, Ordering::Relaxed) {
            now(reserve(&two, wish.clone(), Stance::Open)).unwrap();
        }
        vec![]
    };
    let decision = refusal(one.check_and_reserve(wish.clone(), Stance::Open, &compose).await);
    assert_eq!(decision.first_code(), Some("restricted"));
}
