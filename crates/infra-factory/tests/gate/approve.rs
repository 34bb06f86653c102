//! What may leave, what may not, and what is written down about it.

use std::{sync::Arc, time::Duration};

use infra_factory::{
    gate::{GateError, Placed},
    risk_engine::{LimitValue, RiskLimits, code},
    state_store::{Key, Op, StateStoreExt, StoreError, Ttl},
    types::{ErrorKind, EventId, Order, OrderStatus, Side},
};

use crate::common::{Venue, World, assert_flat, cancelled, dec, expired, fill, limits, order, patient_gate};

fn mark(id: &str) -> Op {
    let consumer = Key::record("inbox/test").unwrap();
    Op::MarkInbox { consumer, id: EventId::new(id).unwrap(), ttl: Ttl::Never }
}

fn note(name: &str) -> Op {
    let key = Key::record(format!("note/{name}")).unwrap();
    Op::Set { key, value: "seen".to_owned().into(), ttl: Ttl::Never, when: Default::default() }
}

async fn has_note(world: &World, name: &str) -> bool {
    let key = Key::record(format!("note/{name}")).unwrap();
    world.store.inner().get_many(&world.namespace, &[key]).await.unwrap()[0].is_some()
}

#[tokio::test]
async fn an_order_lives_and_nothing_is_held_in_the_end() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "2").await.unwrap();
    assert_eq!((approved.attempt(), approved.approved_at()), (1, infra_factory::types::Clock::wall(&world.clock)));
    assert!(world.gate.has_open_orders(), "an approval is open from the first moment");
    let held = world.used().await;
    assert_eq!(held["risk/used/exposure/firm"], dec("200"));
    let Placed::AtVenue(record) = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!((record.status, record.venue_order_id.as_deref()), (OrderStatus::Acknowledged, Some("v-o-1")));
    world.report(fill("f-1", "o-1", "0.5", "100")).await;
    assert_eq!(world.status("o-1").await, Some(OrderStatus::PartiallyFilled));
    world.report(fill("f-2", "o-1", "1.5", "99")).await;
    let record = world.gate.order(&"o-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((record.status, record.filled_notional), (OrderStatus::Filled, dec("198.5")));
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("198.5"), "what is held is at cost now");

    let approved = world.sell("o-2", "2").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    world.report(fill("f-1", "o-2", "2", "101")).await;
    assert_flat(&world).await;
    assert_eq!(world.gate.done_orders().await.unwrap().len(), 2);
    assert_eq!(world.risk.account(&"main".parse().unwrap()).unwrap().realised, dec("3.5"));
    let told = ["approve", "acknowledge", "open", "fill", "fill", "approve", "acknowledge", "close", "fill"];
    assert_eq!(world.actions().await, told);
}

#[tokio::test]
async fn rows_of_two_orders_with_the_same_execution_id_are_two_rows() {
    let (world, venue) = (World::new().await, Venue::default());
    let (long_a, long_b) = (format!("{}a", "x".repeat(63)), format!("{}b", "x".repeat(63)));
    let execution = "e".repeat(64);
    for id in [&long_a, &long_b] {
        let approved = world.buy(id, "1").await.unwrap();
        world.gate.place(approved, &venue).await.unwrap();
        world.report(fill(&execution, id, "1", "100")).await;
    }
    let mut ids = std::collections::BTreeSet::new();
    for what in ["audit", "events"] {
        let queue = Key::record(format!("outbox/{what}/bot-1")).unwrap();
        for row in world.store.inner().outbox_read(&world.namespace, &queue, None, 1_000).await.unwrap() {
            assert!(ids.insert((what, row.id.clone())), "{} twice", row.id);
        }
    }
    assert_eq!(ids.len(), 9, "approve, acknowledge and fill of each, one open, and two trades");
}

#[tokio::test]
async fn a_refusal_has_a_code_and_a_row_and_the_callers_operations() {
    let world = World::new().await;
    let refused = world.gate.approve_with(order("o-1", Side::Buy, "99", "100"), vec![mark("m-1"), note("n")]).await;
    let e = refused.unwrap_err();
    assert_eq!((e.code(), e.kind()), (code::ORDER_NOTIONAL, ErrorKind::LimitExceeded));
    assert!(has_note(&world, "n").await);
    let rows = world.rows().await;
    assert_eq!(
        (rows.len(), rows[0].kind.as_str(), rows[0].details["code"].as_str()),
        (1, "RISK_ALERT", "order_notional")
    );
    assert!(rows[0].details["reason"].contains("9900 of 5000"), "{:?}", rows[0]);
    assert_flat(&world).await;

    // At the same moment, as in a replay, with another reason: both rows stand.
    assert!(world.buy("o-1", "99.5").await.is_err());
    let ids: Vec<_> = world.rows().await.into_iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);

    // A refused id was never used.
    let _ = world.buy("o-1", "1").await.unwrap();
}

#[tokio::test]
async fn what_was_decided_before_is_not_decided_again() {
    let world = World::new().await;
    let approved = world.gate.approve_with(order("o-1", Side::Buy, "1", "100"), vec![mark("m-1"), note("n")]).await;
    let _token = approved.unwrap();
    assert!(has_note(&world, "n").await);
    let before = (world.used().await, world.rows().await);
    for (id, qty) in [("o-2", "1"), ("o-3", "99")] {
        let again = world.gate.approve_with(order(id, Side::Buy, qty, "100"), vec![note("never"), mark("m-1")]).await;
        let Err(GateError::Caller { index: 1, source: StoreError::AlreadyProcessed { .. } }) = again else {
            panic!("{again:?}")
        };
        assert_eq!(world.status(id).await, None);
    }
    assert!(!has_note(&world, "never").await);
    assert_eq!((world.used().await, world.rows().await), before);
}

#[tokio::test]
async fn an_id_is_used_once_for_ever() {
    let (world, venue) = (World::new().await, Venue::default());
    let first = world.buy("o-1", "1").await.unwrap();
    let held = world.used().await;
    let e = world.buy("o-1", "1").await.unwrap_err();
    assert_eq!((e.code(), e.kind()), ("duplicate_order_id", ErrorKind::Conflict));
    assert_eq!(world.used().await, held);
    world.gate.place(first, &venue).await.unwrap();
    world.report(cancelled("o-1")).await;
    let e = world.gate.approve_with(order("o-1", Side::Buy, "1", "100"), vec![note("n")]).await.unwrap_err();
    assert_eq!(e.code(), "duplicate_order_id");
    assert!(!has_note(&world, "n").await);
    assert_flat(&world).await;
    assert_eq!(venue.arrivals().len(), 1);
}

#[tokio::test]
async fn what_is_missing_or_against_the_venues_rules_is_refused_by_name() {
    let world = World::new().await;
    let with = |change: &dyn Fn(&mut Order)| {
        let mut wanted = order("o-1", Side::Buy, "1", "100");
        change(&mut wanted);
        wanted
    };
    let cases: [(&str, Order); 7] = [
        (code::UNKNOWN_INSTRUMENT, with(&|o| o.instrument = "sim/NOPE".parse().unwrap())),
        (code::UNKNOWN_ACCOUNT, with(&|o| o.account = "nobody".parse().unwrap())),
        (code::SPEC_TICK, order("o-1", Side::Buy, "1", "100.001")),
        (code::SPEC_LOT, order("o-1", Side::Buy, "1.0001", "100")),
        (code::SPEC_QTY, order("o-1", Side::Buy, "0", "100")),
        (code::SPEC_NOTIONAL, order("o-1", Side::Buy, "0.009", "100")),
        (code::NOTHING_TO_REDUCE, order("o-1", Side::Sell, "1", "100").reduce_only()),
    ];
    for (expected, wanted) in cases {
        let e = world.gate.approve(wanted).await.unwrap_err();
        let GateError::Refused(decision) = &e else { panic!("{expected}: {e}") };
        assert!(decision.failed(expected), "{expected}: {e}");
    }
    assert_flat(&world).await;
    assert_eq!(world.rows().await.len(), 7);

    let euros = RiskLimits { firm_currency: Some("EUR".parse().unwrap()), ..limits() };
    let world = World::with(euros, patient_gate()).await;
    let e = world.buy("o-1", "1").await.unwrap_err();
    assert_eq!(e.code(), code::MISSING_CONVERSION);
    world.risk.set_conversion("USDT".parse().unwrap(), "EUR".parse().unwrap(), dec("0.9")).unwrap();
    let _ = world.buy("o-1", "1").await.unwrap();
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("90"));
}

#[tokio::test]
async fn an_old_price_refuses_and_does_not_halt() {
    let world = World::new().await;
    world.hold("o-1", "1").await;
    world.clock.advance(Duration::from_secs(120));
    world.emergency.refresh().await.unwrap();
    let e = world.buy("o-2", "1").await.unwrap_err();
    let GateError::Refused(decision) = &e else { panic!("{e}") };
    assert!(decision.failed(code::STALE_REFERENCE_PRICE) && decision.failed(code::DAILY_LOSS), "{e}");
    assert!(world.emergency.can_trade(), "nobody lost anything: {:?}", world.emergency.snapshot());
}

#[tokio::test]
async fn a_token_that_waits_too_long_gives_everything_back() {
    let (world, venue) = (World::new().await, Venue::default());
    let late = world.buy("o-1", "1").await.unwrap();
    let forgotten = world.buy("o-2", "1").await.unwrap();
    let in_time = world.buy("o-3", "1").await.unwrap();
    world.clock.advance(Duration::from_millis(4_999));
    world.emergency.refresh().await.unwrap();
    assert!(matches!(world.gate.place(in_time, &venue).await.unwrap(), Placed::AtVenue(_)));
    world.clock.advance(Duration::from_millis(1));
    let e = world.gate.place(late, &venue).await.unwrap_err();
    assert_eq!((e.code(), e.kind()), ("approval_expired", ErrorKind::Transient));
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Discarded));
    assert_eq!(world.status("o-2").await, Some(OrderStatus::New));
    assert_eq!(world.gate.sweep().await.unwrap(), 1);
    assert_eq!(world.gate.sweep().await.unwrap(), 0);
    assert_eq!(world.status("o-2").await, Some(OrderStatus::Discarded));
    let e = world.gate.place(forgotten, &venue).await.unwrap_err();
    assert_eq!(e.code(), "approval_expired");
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("100"));
    world.report(expired("o-3")).await;
    assert_flat(&world).await;
    assert_eq!(venue.arrivals().len(), 1);
}

#[tokio::test]
async fn reduce_only_is_clipped_to_what_is_left() {
    let (world, venue) = (World::new().await, Venue::default());
    world.hold("o-1", "3").await;
    let first = world.gate.approve(order("o-2", Side::Sell, "2", "100").reduce_only()).await.unwrap();
    let second = world.gate.approve(order("o-3", Side::Sell, "9", "100").reduce_only()).await.unwrap();
    assert_eq!((first.order().qty.get(), second.order().qty.get()), (dec("2"), dec("1")));
    let e = world.gate.approve(order("o-4", Side::Sell, "1", "100").reduce_only()).await.unwrap_err();
    assert_eq!(e.code(), code::NOTHING_TO_REDUCE);
    let e = world.sell("o-5", "1").await.unwrap_err();
    assert_eq!(e.code(), code::WOULD_FLIP);
    for token in [first, second] {
        let (id, qty) = (token.order().id.to_string(), token.order().qty.to_string());
        world.gate.place(token, &venue).await.unwrap();
        world.report(fill(&format!("f-{id}"), &id, &qty, "100")).await;
    }
    assert_eq!(world.position(), dec("0"));
    assert_flat(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_at_once_pass_a_limit_no_further_than_one_after_the_other() {
    let limits = RiskLimits { exposure_account_max: Some(LimitValue::Amount(dec("1050"))), ..limits() };
    let world = Arc::new(World::with(limits, patient_gate()).await);
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                loop {
                    match world.buy(&format!("o-{n}"), "1").await {
                        Ok(token) => return Some(token),
                        Err(e @ GateError::Contended) => drop(e),
                        Err(e) => {
                            assert_eq!(e.code(), code::EXPOSURE_ACCOUNT);
                            return None;
                        }
                    }
                }
            })
        })
        .collect();
    let mut admitted = Vec::new();
    for task in tasks {
        admitted.extend(task.await.unwrap());
    }
    assert_eq!(admitted.len(), 10);
    assert_eq!(world.used().await["risk/used/exposure/account/main"], dec("1000"));
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(world.gate.sweep().await.unwrap(), 10);
    assert_flat(&world).await;
}

#[tokio::test]
async fn a_long_order_id_is_an_order_id() {
    let (world, venue) = (World::new().await, Venue::default());
    let id = "z".repeat(64);
    let approved = world.buy(&id, "1").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    world.report(cancelled_of(&id)).await;
    assert_flat(&world).await;
    let ns = world.namespace.clone();
    let key = Key::record(format!("order/done/bot-1/{id}")).unwrap();
    assert!(world.store.inner().get_json::<serde_json::Value>(&ns, &key).await.unwrap().is_some());
}

fn cancelled_of(id: &str) -> infra_factory::types::Execution {
    infra_factory::types::Execution {
        id: "cancel-long".parse().unwrap(),
        order: id.parse().unwrap(),
        ..cancelled("o-1")
    }
}
