//! Nothing that is reserved stays behind, and what is counted is what is there.

use std::collections::BTreeMap;

use crate::support::*;
use infra_risk_engine::{Approval, Outcome, RiskEngine, RiskError, Stance};
use infra_types::{Decimal, InstrumentId, Side};
use proptest::prelude::*;

/// The counters against the sum of their parts.
async fn audit(engine: &RiskEngine, working: &[Approval]) {
    engine.restore().await.unwrap();
    let used: BTreeMap<String, Decimal> = engine.used().await.unwrap().into_iter().collect();
    let at = |key: &str| used.get(key).copied().unwrap_or_default();
    let booked = |id: &InstrumentId| engine.position(&account(), id).unwrap_or_default().booked.to_decimal();
    let held = |id: &InstrumentId| -> Decimal {
        working.iter().filter(|a| &a.order.instrument == id).map(|a| a.reservation.held()).sum()
    };
    let mut total = Decimal::ZERO;
    let mut slots = 0;
    for id in [btc(), eth()] {
        let here = booked(&id) + held(&id);
        assert_eq!(at(&format!("risk/used/exposure/position/main/{id}")), here);
        slots += i64::from(!here.is_zero());
        total += here;
    }
    assert_eq!(at("risk/used/exposure/account/main"), total);
    assert_eq!(at("risk/used/exposure/firm"), total);
    assert_eq!(at("risk/used/positions/firm"), Decimal::from(slots));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_every_order_ended_and_every_position_closed_all_counters_are_zero(
        steps in prop::collection::vec(
            (0u8..6, 1i64..400, 9_000i64..11_000, any::<prop::sample::Index>(), any::<[bool; 5]>()),
            1..50,
        ),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let world = World::new();
            let engines = [world.engine(limits()).await, world.engine(limits()).await];
            let mut working: Vec<Approval> = Vec::new();
            let mut cash = Decimal::ZERO;
            for (n, (action, qty, price, pick, [second, buy, first_instrument, reduce_only, is_last])) in
                steps.into_iter().enumerate()
            {
                let engine = &engines[usize::from(second)];
                let (qty, price) = (Decimal::new(qty, 2), Decimal::new(price, 2));
                match action {
                    0..=2 => {
                        let side = if buy { Side::Buy } else { Side::Sell };
                        let id = if first_instrument { btc() } else { eth() };
                        let mut wish = order(&format!("o-{n}"), &id, side, &qty.to_string(), &price.to_string());
                        wish.reduce_only = reduce_only;
                        match reserve(engine, wish, Stance::Open).await {
                            Ok(approval) => working.push(approval),
                            Err(RiskError::Refused(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    _ if working.is_empty() => {}
                    3 => {
                        let mut ended = working.swap_remove(pick.index(working.len()));
                        settle(engine, &mut ended, Outcome::End).await;
                    }
                    _ => {
                        let at = pick.index(working.len());
                        let approval = &mut working[at];
                        // Sometimes more than is left: the venue has the last word.
                        let traded = fill(&qty.to_string(), &price.to_string(), "0.003", "USDT");
                        let left = approval.reservation.remaining();
                        let settled = settle(engine, approval, Outcome::Fill { fill: &traded, is_last }).await;
                        assert_eq!(settled.overfilled, (qty - left).max(Decimal::ZERO));
                        let sign = if approval.order.side == Side::Buy { -Decimal::ONE } else { Decimal::ONE };
                        cash += sign * qty * price - dec("0.003");
                        if approval.reservation.is_closed() {
                            working.swap_remove(at);
                        }
                    }
                }
                audit(&engines[n % 2], &working).await;
            }
            for mut approval in working {
                settle(&engines[0], &mut approval, Outcome::End).await;
            }
            engines[1].restore().await.unwrap();
            for (account, id, position) in engines[1].positions() {
                assert_eq!(account, crate::support::account());
                let side = if position.qty.is_sign_positive() { Side::Sell } else { Side::Buy };
                cash += position.qty * dec("100");
                trade(&engines[1], order(&format!("close-{}", id.symbol), &id, side, &position.qty.abs().to_string(), "100")).await;
            }
            assert_nothing_used(&engines[1]).await;
            let state = engines[1].account(&account()).unwrap();
            assert_eq!(state.realised - state.fees, cash, "the books are the cash account");
        });
    }
}
