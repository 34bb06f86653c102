//! Money that is paid in or taken out: limits follow it, profit and loss do not.

use crate::support::*;
use infra_risk_engine::{LimitValue, RiskError, RiskLimits, Stance};
use infra_state_store::{Key, Op, StoreError, Ttl, Value, When};
use infra_types::{Decimal, ErrorKind, Side};

/// The caller's record of a payment: there once.
fn payment(id: &str) -> Vec<Op> {
    let (key, value) = (Key::record(format!("payments/{id}")).unwrap(), Value::from(id.to_owned()));
    vec![Op::Set { key, value, ttl: Ttl::Never, when: When::Absent }]
}

#[tokio::test]
async fn limits_follow_a_payment_and_the_drawdown_does_not_move() {
    let world = World::new();
    let limits = RiskLimits { exposure_account_max: Some(LimitValue::OfEquity(dec("0.1"))), ..limits() };
    let engine = world.engine(limits.clone()).await;
    trade(&engine, order("a", &btc(), Side::Buy, "1", "100")).await;
    world.quote(&engine, &btc(), "200");
    world.quote(&engine, &btc(), "110");
    let before = engine.account(&account()).unwrap();
    assert_eq!((before.high_water_mark, before.drawdown(before.last_pnl)), (dec("100"), dec("90")));
    // Equity 10,010: a tenth is 1,001, of which 100 are used.
    let wish = |id: &str, qty: &str| order(id, &eth(), Side::Buy, qty, "100");
    assert!(refusal(reserve(&engine, wish("b", "15"), Stance::Open).await).failed("exposure_account"));

    let after = engine.adjust_deposits(&account(), dec("10000"), &|_| payment("in")).await.unwrap();
    let expected = infra_risk_engine::AccountState { deposits: dec("20000"), ..before.clone() };
    assert_eq!((&after, &engine.account(&account()).unwrap()), (&expected, &expected), "nothing else moves");
    let mut approval = reserve(&engine, wish("c", "15"), Stance::Open).await.unwrap();
    settle(&engine, &mut approval, infra_risk_engine::Outcome::End).await;

    engine.adjust_deposits(&account(), dec("-15000"), &|_| payment("out")).await.unwrap();
    // Equity 5,010.
    assert!(refusal(reserve(&engine, wish("d", "5"), Stance::Open).await).failed("exposure_account"));
    reserve(&engine, wish("e", "4"), Stance::Open).await.unwrap();
    let new = world.bare(limits);
    new.restore().await.unwrap();
    let stored = new.account(&account()).unwrap();
    assert_eq!(stored.deposits, dec("5000"));
    assert_eq!((stored.high_water_mark, stored.max_drawdown), (dec("100"), dec("90")));
}

#[tokio::test]
async fn a_payment_is_booked_once_and_on_what_others_wrote() {
    let world = World::new();
    let (one, two) = (world.engine(limits()).await, world.bare(limits()));
    // One that never read the ledger.
    let after = two.adjust_deposits(&account(), dec("5"), &|_| payment("x")).await.unwrap();
    assert_eq!(after.deposits, dec("10005"));
    // The other does not know of it yet.
    trade(&two_with_quotes(&world, two), order("a", &btc(), Side::Buy, "1", "100")).await;
    let after = one.adjust_deposits(&account(), dec("7"), &|_| payment("y")).await.unwrap();
    assert_eq!(after.deposits, dec("10012"));
    let again = one.adjust_deposits(&account(), dec("7"), &|_| payment("y")).await.unwrap_err();
    assert!(matches!(&again, RiskError::Caller { index: 0, source: StoreError::Mismatch { .. } }), "{again:?}");
    one.restore().await.unwrap();
    assert_eq!(one.account(&account()).unwrap().deposits, dec("10012"));
}

fn two_with_quotes(world: &World, engine: infra_risk_engine::RiskEngine) -> infra_risk_engine::RiskEngine {
    engine.register_instrument(spec(&btc())).unwrap();
    world.quote(&engine, &btc(), "100");
    engine
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_reason() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let nothing = |_: &_| vec![];
    let zero = engine.adjust_deposits(&account(), dec("0.00"), &nothing).await.unwrap_err();
    assert!(matches!(zero, RiskError::Invalid(_)), "{zero:?}");
    let nobody = engine.adjust_deposits(&"nobody".parse().unwrap(), dec("1"), &nothing).await.unwrap_err();
    assert!(matches!(nobody, RiskError::UnknownAccount(_)), "{nobody:?}");
    for amount in [Decimal::MAX, dec("0.0000000000000000000000000001")] {
        let error = engine.adjust_deposits(&account(), amount, &nothing).await.unwrap_err();
        assert!(matches!(error, RiskError::Overflow(_)), "{amount}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
    assert_eq!(engine.account(&account()).unwrap().deposits, dec("10000"));
    let below = engine.adjust_deposits(&account(), dec("-10001"), &nothing).await.unwrap();
    assert_eq!(below.deposits, dec("-1"), "a venue that paid out has paid out");
    assert!(!refusal(reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await).approved);
}
