//! Limits in the store: versions, conflicts, and that nobody decides under old ones.

use std::future::Future;

use crate::support::*;
use infra_risk_engine::{Coverage, Limit, LimitValue, RiskError, RiskLimits, ScopeKind, Stance};
use infra_state_store::{Key, Op, Ttl, Value, When};
use infra_types::{ErrorKind, Order, Side, UserId};

fn ann() -> UserId {
    "ann".parse().unwrap()
}

fn buy(id: &str, qty: &str) -> Order {
    order(id, &btc(), Side::Buy, qty, "100")
}

fn firm_max(max: &str) -> RiskLimits {
    RiskLimits { exposure_firm_max: Some(LimitValue::Amount(dec(max))), ..limits() }
}

/// Runs `work` to its end from inside a synchronous callback.
fn now<F: Future>(work: F) -> F::Output {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
}

#[tokio::test]
async fn what_is_stored_is_what_every_engine_decides_by() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    assert_eq!((one.limits().version, one.limits().limits), (0, limits()));
    let set = one.set_limits(0, firm_max("150"), ann(), "quiet day", &|_| vec![]).await.unwrap();
    assert_eq!((set.version, set.reason.as_str(), set.author), (1, "quiet day", ann()));
    // The other has heard nothing; its next decision is by the new limits all the same.
    let decision = refusal(reserve(&two, buy("a", "2"), Stance::Open).await);
    assert_eq!((decision.first_code(), decision.limits), (Some("exposure_firm"), 1));
    assert_eq!(two.limits().limits, firm_max("150"));
    let approval = reserve(&two, buy("b", "1.5"), Stance::Open).await.unwrap();
    assert_eq!(approval.decision.limits, 1);

    two.set_limits(1, firm_max("10000"), "bob".parse().unwrap(), "over", &|_| vec![]).await.unwrap();
    reserve(&one, buy("c", "2"), Stance::Open).await.unwrap();
    let history = one.limit_history(10).await.unwrap();
    let line = |set: &infra_risk_engine::LimitSet| (set.version, set.author.to_string(), set.reason.clone());
    assert_eq!(
        history.iter().map(line).collect::<Vec<_>>(),
        [(2, "bob".into(), "over".into()), (1, "ann".into(), "quiet day".into())]
    );
    assert_eq!(one.limit_history(1).await.unwrap().len(), 1);
    // A new process with another configuration follows the store.
    let three = world.engine(firm_max("1")).await;
    assert_eq!(three.limits(), history[0]);
    let json = serde_json::to_string(&three.limits()).unwrap();
    assert_eq!(serde_json::from_str::<infra_risk_engine::LimitSet>(&json).unwrap(), history[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_stored_between_plan_and_batch_hold() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    let raced = std::sync::atomic::AtomicBool::new(false);
    let compose = |_: &_| {
        if !raced.swap(true, std::sync::atomic::Ordering::Relaxed) {
            now(two.set_limits(0, firm_max("50"), ann(), "stop", &|_| vec![])).unwrap();
        }
        vec![]
    };
    let decision = refusal(one.check_and_reserve(buy("a", "1"), Stance::Open, &compose).await);
    assert_eq!((decision.first_code(), decision.limits), (Some("exposure_firm"), 1));
    assert_nothing_used(&one).await;
}

#[tokio::test]
async fn two_people_cannot_undo_each_other_and_mistakes_are_all_named() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.engine(limits()).await);
    one.set_limits(0, firm_max("100"), ann(), "first", &|_| vec![]).await.unwrap();
    let late = two.set_limits(0, firm_max("900"), "bob".parse().unwrap(), "second", &|_| vec![]).await.unwrap_err();
    assert!(matches!(late, RiskError::LimitsChanged { base: 0, stored: 1 }), "{late:?}");
    assert_eq!((late.kind(), two.limits().limits), (ErrorKind::Conflict, firm_max("100")));
    let group = Coverage::Each(ScopeKind::Group);
    let wrong = RiskLimits {
        order_qty_max: Some(dec("0")),
        rules: vec![rule("x", group.clone(), Limit::SelfMatch), rule("x", group, Limit::Leverage(dec("-1")))],
        ..limits()
    };
    let error = one.set_limits(1, wrong, ann(), "oops", &|_| vec![]).await.unwrap_err();
    let RiskError::InvalidLimits(mistakes) = error else { panic!("{error:?}") };
    for says in
        ["order_qty_max must be", "two rules are called x", "x no account is in any group", "multiple of equity"]
    {
        assert!(mistakes.iter().any(|m| m.contains(says)), "{says} in {mistakes:?}");
    }
    assert!(one.set_limits(1, limits(), ann(), "", &|_| vec![]).await.is_err(), "no reason");
    assert_eq!(one.limits().version, 1);
}

#[tokio::test]
async fn the_firms_currency_changes_only_while_nothing_is_counted_in_it() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let mut working = reserve(&engine, buy("a", "1"), Stance::Open).await.unwrap();
    let euro = || RiskLimits { firm_currency: Some("EUR".parse().unwrap()), ..limits() };
    let error = engine.set_limits(0, euro(), ann(), "move", &|_| vec![]).await.unwrap_err();
    assert!(error.to_string().contains("firm_currency: cannot change"), "{error}");
    settle(&engine, &mut working, infra_risk_engine::Outcome::End).await;
    engine.set_limits(0, euro(), ann(), "move", &|_| vec![]).await.unwrap();
    assert!(refusal(reserve(&engine, buy("b", "1"), Stance::Open).await).failed("missing_conversion"));
}

#[tokio::test]
async fn the_audit_of_a_change_is_there_with_it_or_the_change_is_not() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let row = |set: &infra_risk_engine::LimitSet| {
        let value = Value::from(set.reason.clone());
        vec![Op::Set { key: Key::record("audit").unwrap(), value, ttl: Ttl::Never, when: When::Absent }]
    };
    engine.set_limits(0, firm_max("100"), ann(), "one", &row).await.unwrap();
    let error = engine.set_limits(1, firm_max("200"), ann(), "two", &row).await.unwrap_err();
    assert!(matches!(error, RiskError::Caller { index: 0, .. }), "{error:?}");
    assert!(!engine.reload_limits().await.unwrap());
    assert_eq!(engine.limits().version, 1);
}

/// Stores a kind of rule that only a newer program has; what was stored before.
async fn make_unreadable(world: &World) -> String {
    let ns = infra_types::Namespace::new("ledger").unwrap();
    let key = Key::record("risk/limits").unwrap();
    let text = String::from_utf8(world.store.get(&ns, &key).await.unwrap().unwrap().value.as_bytes().unwrap().to_vec())
        .unwrap();
    let newer = text
        .replace("\"rules\":[]", "\"rules\":[{\"id\":\"n\",\"covers\":{\"each\":\"venue\"},\"limit\":\"quantum\"}]");
    assert_ne!(newer, text);
    world.store.apply(infra_state_store::Batch::new(ns).set(key, newer)).await.unwrap();
    text
}

#[tokio::test]
async fn limits_that_this_program_does_not_understand_keep_no_start_and_no_catching_up_from_its_way() {
    let world = World::new();
    let old = world.engine(limits()).await;
    old.set_limits(0, limits(), ann(), "known", &|_| vec![]).await.unwrap();
    trade(&old, buy("held", "1")).await;
    let mut before = reserve(&old, buy("before", "1"), Stance::Open).await.unwrap();
    make_unreadable(&world).await;
    // The one that runs reads all anew, and another one starts.
    old.restore().await.unwrap();
    let new = world.engine(limits()).await;
    let traded = fill("1", "100", "0", "USDT");
    settle(&new, &mut before, infra_risk_engine::Outcome::Fill { fill: &traded, is_last: true }).await;
    for (engine, id) in [(&old, "out-old"), (&new, "out-new")] {
        engine.restore().await.unwrap();
        let decision = refusal(reserve(engine, buy(&format!("{id}-in"), "1"), Stance::Open).await);
        assert_eq!(decision.failures().map(|c| c.code).collect::<Vec<_>>(), ["limits_unreadable"]);
        trade(engine, order(id, &btc(), Side::Sell, "1", "100")).await;
    }
    assert_nothing_used(&old).await;
}

#[tokio::test]
async fn limits_that_this_program_does_not_understand_stop_everything_that_opens() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    engine.set_limits(0, limits(), ann(), "known", &|_| vec![]).await.unwrap();
    let mut before = reserve(&engine, buy("before", "1"), Stance::Open).await.unwrap();
    let text = make_unreadable(&world).await;
    let decision = refusal(reserve(&engine, buy("a", "1"), Stance::Open).await);
    assert_eq!(decision.failures().map(|c| c.code).collect::<Vec<_>>(), ["limits_unreadable"]);
    assert_eq!(engine.reload_limits().await.unwrap_err().kind(), ErrorKind::Corrupt);
    // What was approved fills, and what is held can be left.
    let traded = fill("1", "100", "0", "USDT");
    settle(&engine, &mut before, infra_risk_engine::Outcome::Fill { fill: &traded, is_last: true }).await;
    trade(&engine, order("out", &btc(), Side::Sell, "1", "100")).await;
    assert_nothing_used(&engine).await;
    let ns = infra_types::Namespace::new("ledger").unwrap();
    world.store.apply(infra_state_store::Batch::new(ns).set(Key::record("risk/limits").unwrap(), text)).await.unwrap();
    reserve(&engine, buy("b", "1"), Stance::Open).await.unwrap();
}
