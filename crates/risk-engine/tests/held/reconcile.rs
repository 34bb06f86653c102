//! The venue's word ends orphans; what it does not say is not made up.

use std::collections::BTreeSet;

use infra_risk_engine::{Difference, Outcome, Reconciled, RiskEngine, Settles, VenueBalance, VenueOrder, VenueTruth};
use infra_types::{Clock, Decimal, Fill, Side};
use proptest::prelude::*;

use crate::support::*;

fn venue_order(is_open: bool, fills: &[Fill]) -> VenueOrder {
    let filled = fills.iter().map(|fill| fill.qty.get()).sum();
    VenueOrder { instrument: btc(), is_open, filled, fills: fills.to_vec() }
}

fn truth(world: &World, orders: &[(&str, VenueOrder)]) -> VenueTruth {
    world.pass(std::time::Duration::from_millis(1));
    let mut truth = VenueTruth::asked_at(world.clock.wall());
    truth.orders = orders.iter().map(|(name, order)| (id(name), order.clone())).collect();
    truth
}

async fn reconcile(engine: &RiskEngine, truth: &VenueTruth) -> Reconciled {
    let first = engine.reconcile(&account(), truth, Settles::Orphans).await.unwrap();
    let before = (engine.used().await.unwrap(), engine.account(&account()), engine.held_orders(None).await.unwrap());
    let second = engine.reconcile(&account(), truth, Settles::Orphans).await.unwrap();
    let after = (engine.used().await.unwrap(), engine.account(&account()), engine.held_orders(None).await.unwrap());
    assert_eq!(before, after, "a second call changes nothing");
    assert!(second.settled.is_empty() && second.ended.is_empty() && second.moved.is_empty(), "{second:?}");
    assert!(second.differences.is_subset(&first.differences), "{second:?} after {first:?}");
    first
}

fn only(difference: Difference) -> BTreeSet<Difference> {
    [difference].into()
}

/// A dead bot's orders, orphaned, and an engine that sees them.
async fn orphaned(world: &World, orders: &[(&str, &str, &[Fill])]) -> RiskEngine {
    let dead = world.joined("dead").await;
    for (id, qty, fills) in orders {
        let mut approval = buy(&dead, id, qty).await;
        for fill in *fills {
            filled(&dead, &mut approval, fill).await;
        }
    }
    dead.leave().await.unwrap();
    let engine = world.joined("alive").await;
    assert_eq!(engine.sweep_orphans().await.unwrap().len(), orders.len());
    engine
}

#[tokio::test]
async fn missing_fills_are_settled_and_what_is_over_ends() {
    let world = World::new();
    let fills = [fill("4", "100"), fill("3", "99"), fill("3", "98")];
    let engine = orphaned(&world, &[("all", "10", &fills[..1]), ("part", "10", &[]), ("none", "10", &[])]).await;
    let mut truth = truth(
        &world,
        &[
            ("all", venue_order(false, &fills)),
            ("part", venue_order(false, &fills[..2])),
            ("none", venue_order(false, &[])),
        ],
    );
    truth.positions.insert(btc(), dec("17"));
    truth.balance =
        Some(VenueBalance::Cash(dec("10000") - dec("400") * dec("2") - dec("297") * dec("2") - dec("294.5")));
    let result = reconcile(&engine, &truth).await;
    assert_eq!(result.differences, BTreeSet::new());
    assert_eq!(result.settled.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["all", "all", "part", "part"]);
    assert_eq!((result.ended.len(), result.kept.len()), (3, 0));
    let position = engine.position(&account(), &btc()).unwrap();
    assert_eq!((position.qty, position.cost, position.fees), (dec("17"), dec("1688"), dec("0.5")));
    assert_eq!(exposure(&engine).await, dec("1688"));
    assert_eq!(engine.held_orders(None).await.unwrap(), vec![]);
}

#[tokio::test]
async fn what_the_venue_still_works_goes_on_counting_with_its_fills() {
    let world = World::new();
    let fills = [fill("4", "100"), fill("1", "99")];
    let engine = orphaned(&world, &[("a", "10", &[])]).await;
    let result = reconcile(&engine, &truth(&world, &[("a", venue_order(true, &fills))])).await;
    assert_eq!((result.kept, result.differences), (vec![id("a")], BTreeSet::new()));
    assert_eq!(exposure(&engine).await, dec("499") + dec("500"));
    let adopted = engine.adopt(&account(), &id("a")).await.unwrap();
    assert_eq!((adopted.filled, adopted.filled_value), (dec("5"), dec("499")));
}

#[tokio::test]
async fn what_the_venue_does_not_mention_counts_until_it_says_that_it_never_had_it() {
    let world = World::new();
    let engine = orphaned(&world, &[("a", "10", &[]), ("b", "10", &[fill("4", "100")])]).await;
    let mut truth = truth(&world, &[]);
    let result = reconcile(&engine, &truth).await;
    let missing = |order| Difference::UnknownToVenue { order: id(order) };
    assert_eq!(result.differences, [missing("a"), missing("b")].into());
    assert_eq!(exposure(&engine).await, dec("2000"));
    truth.never_had = [id("a"), id("b")].into();
    let result = reconcile(&engine, &truth).await;
    // A venue that filled an order had it, whatever it says now.
    assert_eq!((result.ended, result.differences), (vec![id("a")], only(missing("b"))));
    assert_eq!(exposure(&engine).await, dec("1000"));
}

#[tokio::test]
async fn fills_that_are_not_told_are_not_made_up() {
    let world = World::new();
    let engine = orphaned(&world, &[("a", "10", &[fill("2", "100")])]).await;
    let silent = VenueOrder { filled: dec("6"), ..venue_order(false, &[]) };
    let more = |ledger, venue| only(Difference::FilledMore { order: id("a"), ledger, venue });
    let result = reconcile(&engine, &truth(&world, &[("a", silent)])).await;
    assert_eq!((result.differences, result.kept), (more(dec("2"), dec("6")), vec![id("a")]));
    assert_eq!(exposure(&engine).await, dec("1000"), "over or not, it counts until its fills are known");
    // Some of them are told: those are settled, the order stays.
    let some = VenueOrder { filled: dec("6"), ..venue_order(false, &[fill("2", "100"), fill("1", "100")]) };
    let result = reconcile(&engine, &truth(&world, &[("a", some)])).await;
    assert_eq!((result.settled.len(), result.differences), (1, more(dec("3"), dec("6"))));
    let all = venue_order(false, &[fill("2", "100"), fill("1", "100"), fill("3", "100")]);
    let result = reconcile(&engine, &truth(&world, &[("a", all)])).await;
    assert_eq!((result.settled.len(), result.ended, result.differences), (1, vec![id("a")], BTreeSet::new()));
    assert_eq!(exposure(&engine).await, dec("600"));
}

#[tokio::test]
async fn fills_that_do_not_line_up_with_what_was_settled_are_told_and_nothing_is_guessed() {
    let world = World::new();
    let engine = orphaned(&world, &[("a", "10", &[fill("2", "100")])]).await;
    let other_price = venue_order(true, &[fill("2", "99"), fill("1", "100")]);
    let result = reconcile(&engine, &truth(&world, &[("a", other_price)])).await;
    let differ = |value, qty| Difference::FillsDiffer {
        order: id("a"),
        ledger: (dec("2"), dec("200")),
        venue: (dec(qty), dec(value)),
    };
    let more = |venue: &str| Difference::FilledMore { order: id("a"), ledger: dec("2"), venue: dec(venue) };
    assert_eq!(result.differences, [differ("198", "2"), more("3")].into());
    let other_size = venue_order(false, &[fill("1", "100"), fill("4", "100")]);
    let result = reconcile(&engine, &truth(&world, &[("a", other_size)])).await;
    assert_eq!(result.differences, [differ("500", "5"), more("5")].into());
    let less = venue_order(false, &[]);
    let result = reconcile(&engine, &truth(&world, &[("a", less)])).await;
    assert_eq!(
        result.differences,
        only(Difference::FilledLess { order: id("a"), ledger: dec("2"), venue: Decimal::ZERO })
    );
    assert_eq!(exposure(&engine).await, dec("1000"));
}

#[tokio::test]
async fn other_fees_positions_balances_and_instruments_are_told() {
    let world = World::new();
    let engine = orphaned(&world, &[("a", "10", &[fill("2", "100")]), ("b", "10", &[])]).await;
    let usdt: infra_types::Currency = "USDT".parse().unwrap();
    let mut dear = fill("2", "100");
    dear.fee.amount = dec("0.3");
    let elsewhere = VenueOrder { instrument: "v/ETHUSDT".parse().unwrap(), ..venue_order(true, &[]) };
    let mut truth = truth(&world, &[("a", venue_order(true, &[dear])), ("b", elsewhere.clone())]);
    truth.positions.insert(btc(), dec("1.5"));
    truth.balance = Some(VenueBalance::Wallet(dec("9999.7")));
    let result = reconcile(&engine, &truth).await;
    let expected = [
        Difference::Fee { order: id("a"), currency: usdt.clone(), ledger: dec("0.1"), venue: dec("0.3") },
        Difference::AnotherInstrument { order: id("b"), ledger: btc(), venue: elsewhere.instrument },
        Difference::Position { instrument: btc(), ledger: dec("2"), venue: dec("1.5") },
        Difference::Balance { currency: usdt, ledger: dec("9999.9"), venue: dec("9999.7") },
    ];
    assert_eq!(result.differences, expected.into());
}

#[tokio::test]
async fn an_order_that_nobody_approved_is_told() {
    let world = World::new();
    let engine = world.joined("bot").await;
    let result =
        reconcile(&engine, &truth(&world, &[("stray", venue_order(true, &[])), ("old", venue_order(false, &[]))]))
            .await;
    let stray = Difference::UnknownToUs { order: id("stray"), instrument: btc(), filled: Decimal::ZERO };
    assert_eq!(result.differences, only(stray));
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn orders_of_the_living_are_told_and_left_alone_and_own_ones_settled_if_asked() {
    let world = World::new();
    let (other, engine) = (world.joined("other").await, world.joined("own").await);
    buy(&other, "theirs", "10").await;
    buy(&engine, "ours", "10").await;
    let over = venue_order(false, &[fill("4", "100")]);
    let truth = truth(&world, &[("theirs", over.clone()), ("ours", over)]);
    buy(&engine, "younger", "10").await;
    let told = |order: &str, holder: &str| {
        let more = Difference::FilledMore { order: id(order), ledger: Decimal::ZERO, venue: dec("4") };
        [more, Difference::NotEnded { order: id(order), holder: holder.parse().unwrap() }]
    };
    let result = reconcile(&engine, &truth).await;
    let both: BTreeSet<_> = told("theirs", "other").into_iter().chain(told("ours", "own")).collect();
    assert_eq!((result.differences, result.kept), (both, vec![]));
    let result = engine.reconcile(&account(), &truth, Settles::OrphansAndOwn).await.unwrap();
    assert_eq!((result.differences, result.ended), (told("theirs", "other").into(), vec![id("ours")]));
    assert_eq!(exposure(&engine).await, dec("2400"));
}

#[tokio::test]
async fn more_than_was_ordered_is_booked_with_all_its_fills() {
    let world = World::new();
    let engine = orphaned(&world, &[("a", "10", &[])]).await;
    let fills = [fill("9", "100"), fill("2", "100"), fill("1", "100")];
    let result = reconcile(&engine, &truth(&world, &[("a", venue_order(false, &fills))])).await;
    assert_eq!((result.settled.len(), &result.ended[..]), (3, &[id("a")][..]));
    assert_eq!(result.settled[1].2.overfilled, dec("1"));
    assert_eq!(exposure(&engine).await, dec("1200"));
}

#[tokio::test]
async fn asking_sweeps_first_and_gives_the_held_orders() {
    let world = World::new();
    let dead = world.joined("dead").await;
    buy(&dead, "a", "10").await;
    dead.leave().await.unwrap();
    let engine = world.nameless().await;
    let ask = |held: Vec<infra_risk_engine::HeldOrder>| {
        assert_eq!((ids(&held), held[0].is_orphaned()), (vec!["a".to_owned()], true));
        let truth = truth(&world, &[("a", venue_order(false, &[]))]);
        async move { Ok::<_, String>(truth) }
    };
    let result = engine.reconcile_asking(&account(), Settles::Orphans, ask).await.unwrap();
    assert_eq!(result.ended, [id("a")]);
    assert_nothing_used(&engine).await;
    let silent = |_| async { Err::<VenueTruth, _>("timeout") };
    let error = engine.reconcile_asking(&account(), Settles::Orphans, silent).await.unwrap_err();
    assert_eq!(error.to_string(), "the venue did not say: timeout");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a holder died between the venue's fills and its own settling of them: ledger and venue agree afterwards, and once
    /// everything is sold nothing is used.
    #[test]
    fn whatever_was_settled_before_the_ledger_becomes_the_venue(
        orders in prop::collection::vec((1u32..40, prop::collection::vec((1u32..10, 95u32..101), 0..5), 0usize..6, any::<bool>()), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let dead = world.joined("dead").await;
            let (mut told, mut position) = (Vec::new(), Decimal::ZERO);
            for (n, (qty, fills, settled, is_open)) in orders.into_iter().enumerate() {
                let name = format!("o-{n}");
                let Ok(mut approval) = try_buy(&dead, &name, &qty.to_string()).await else { continue };
                let mut left = qty;
                let fills: Vec<_> = fills
                    .into_iter()
                    .map(|(part, price)| {
                        let part = part.min(left);
                        left -= part;
                        (part, price)
                    })
                    .filter(|(part, _)| *part > 0)
                    .map(|(part, price)| fill(&part.to_string(), &price.to_string()))
                    .collect();
                for fill in fills.iter().take(settled) {
                    filled(&dead, &mut approval, fill).await;
                }
                position += fills.iter().map(|fill| fill.qty.get()).sum::<Decimal>();
                told.push((name, venue_order(is_open && left > 0, &fills)));
            }
            dead.leave().await.unwrap();
            let engine = world.joined("alive").await;
            engine.sweep_orphans().await.unwrap();
            let told: Vec<_> = told.iter().map(|(name, order)| (name.as_str(), order.clone())).collect();
            let mut said = truth(&world, &told);
            said.positions.insert(btc(), position);
            let result = reconcile(&engine, &said).await;
            assert_eq!(result.differences, BTreeSet::new());
            let open: Vec<_> = told.iter().filter(|(_, order)| order.is_open).map(|(name, _)| id(name)).collect();
            assert_eq!(result.kept, open);
            said.orders.values_mut().for_each(|order| order.is_open = false);
            reconcile(&engine, &said).await;
            if !position.is_zero() {
                let exit = order("exit", Side::Sell, &position.to_string());
                let mut exit =
                    engine.check_and_reserve(exit, infra_risk_engine::Stance::ReduceOnly, &|_| vec![]).await.unwrap();
                let last = fill(&position.to_string(), "100");
                settle(&engine, &mut exit, Outcome::Fill { fill: &last, is_last: true }).await.unwrap();
            }
            assert_nothing_used(&engine).await;
        });
    }
}
