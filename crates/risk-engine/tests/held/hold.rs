//! The record stands exactly as long as the order holds something.

use infra_risk_engine::{HeldState, Outcome, RiskError, Stance};
use infra_types::{ErrorKind, Side};

use crate::support::*;

#[tokio::test]
async fn a_record_comes_with_the_approval_follows_each_fill_and_goes_with_the_end() {
    let world = World::new();
    let engine = world.joined("bot").await;
    let mut first = buy(&engine, "a", "10").await;
    let record = held(&engine, "a").await.unwrap();
    assert_eq!((&record.order, &record.reservation), (&first.order, &first.reservation));
    assert_eq!((record.holder.as_str(), record.fence, record.state), ("bot", 1, HeldState::Held));

    filled(&engine, &mut first, &fill("4", "99")).await;
    let record = held(&engine, "a").await.unwrap();
    assert_eq!((record.filled, record.filled_value, record.reservation.held()), (dec("4"), dec("396"), dec("600")));
    assert_eq!(record.fees[&"USDT".parse().unwrap()], dec("0.1"));
    settle(&engine, &mut first, Outcome::End).await.unwrap();
    assert_eq!(held(&engine, "a").await, None);
    assert_eq!(exposure(&engine).await, dec("396"), "the position stays");

    let exit = engine.check_and_reserve(order("x", Side::Sell, "4"), Stance::ReduceOnly, &|_| vec![]).await;
    let mut exit = exit.unwrap();
    assert_eq!(held(&engine, "x").await.unwrap().reservation, exit.reservation);
    settle(&engine, &mut exit, Outcome::Fill { fill: &fill("4", "100"), is_last: true }).await.unwrap();
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn what_is_refused_leaves_no_record() {
    let world = World::new();
    let engine = world.joined("bot").await;
    buy(&engine, "a", "50").await;
    buy(&engine, "b", "50").await;
    assert_eq!(try_buy(&engine, "c", "1").await.unwrap_err().decision().unwrap().first_code(), Some("exposure_firm"));
    assert_eq!(ids(&engine.held_orders(Some(&account())).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn an_id_is_held_once() {
    let world = World::new();
    let (one, two) = (world.joined("bot-1").await, world.joined("bot-2").await);
    buy(&one, "a", "10").await;
    let again = try_buy(&two, "a", "10").await.unwrap_err();
    assert!(matches!(&again, RiskError::AlreadyHeld(order) if order.as_str() == "a"), "{again:?}");
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(exposure(&one).await, dec("1000"));
}

#[tokio::test]
async fn the_number_of_held_orders_is_limited_for_what_opens_and_not_for_exits() {
    let world = World::new();
    let engine = world.named(config("bot").with_held_max(2)).await;
    engine.join().await.unwrap();
    let mut first = buy(&engine, "a", "1").await;
    filled(&engine, &mut first, &fill("0.5", "100")).await;
    buy(&engine, "b", "1").await;
    let refused = try_buy(&engine, "c", "1").await.unwrap_err();
    let decision = refused.decision().unwrap();
    assert_eq!(decision.first_code(), Some("held_orders"), "{decision:?}");
    let check = decision.failures().next().unwrap();
    assert_eq!((check.value, check.limit), (dec("2"), dec("2")));
    let exit = order("x", Side::Sell, "0.5").reduce_only();
    engine.check_and_reserve(exit, Stance::Open, &|_| vec![]).await.unwrap();
    assert_eq!(engine.held_orders(None).await.unwrap().len(), 3);
    settle(&engine, &mut first, Outcome::End).await.unwrap();
    assert_eq!(try_buy(&engine, "c", "1").await.unwrap_err().decision().unwrap().first_code(), Some("held_orders"));
}

#[tokio::test]
async fn an_old_reservation_settles_nothing() {
    let world = World::new();
    let (one, two) = (world.joined("bot-1").await, world.nameless().await);
    let mut ours = buy(&one, "a", "10").await;
    let mut theirs = ours.clone();
    filled(&two, &mut theirs, &fill("4", "100")).await;
    // The same report again, and another one, with what was held before it.
    for outcome in [Outcome::Fill { fill: &fill("4", "100"), is_last: false }, Outcome::End] {
        match settle(&one, &mut ours, outcome).await.unwrap_err() {
            RiskError::ReservationMoved { now: Some(now), .. } => assert_eq!(*now, theirs.reservation),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(exposure(&one).await, dec("1000"));
    settle(&two, &mut theirs, Outcome::End).await.unwrap();
    let over = settle(&one, &mut ours, Outcome::End).await.unwrap_err();
    assert!(matches!(over, RiskError::ReservationMoved { now: None, .. }), "{over:?}");
    assert_eq!(exposure(&one).await, dec("400"));
}

#[tokio::test]
async fn a_fill_that_comes_after_the_end_is_booked() {
    let world = World::new();
    let engine = world.joined("bot").await;
    let mut first = buy(&engine, "a", "10").await;
    settle(&engine, &mut first, Outcome::End).await.unwrap();
    filled(&engine, &mut first, &fill("3", "100")).await;
    assert_eq!(exposure(&engine).await, dec("300"));
}

#[tokio::test]
async fn an_engine_without_a_name_writes_no_record_and_settles_those_of_others() {
    let world = World::new();
    let (named, nameless) = (world.joined("bot").await, world.nameless().await);
    let mut plain = buy(&nameless, "a", "10").await;
    assert_eq!(held(&nameless, "a").await, None);
    settle(&nameless, &mut plain, Outcome::End).await.unwrap();
    let mut recorded = buy(&named, "b", "10").await;
    settle(&nameless, &mut recorded, Outcome::End).await.unwrap();
    assert_nothing_used(&nameless).await;
}
