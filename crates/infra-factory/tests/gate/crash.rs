//! One scenario, broken at every write in every way; the end is always the same.

use std::collections::BTreeSet;

use infra_factory::{
    gate::{GateError, NotAtVenue, Placed},
    types::{Execution, ExecutionKind, OrderStatus, Side},
};

use crate::common::{Answer, Fault, Venue, World, assert_flat, cancelled, dec, fill_with_fee, order};

/// What the strategy wants, one after the other: name, side, quantity, price.
const PLAN: [(&str, Side, &str, &str); 4] = [
    ("a", Side::Buy, "2", "100"),
    ("b", Side::Sell, "1", "100"),
    ("c", Side::Buy, "1", "100"),
    ("d", Side::Sell, "1", "100"),
];

/// The same wish under the next id, if the one before was given up unsent.
const TRIES: [&str; 4] = ["", "-2", "-3", "-4"];

fn venue() -> Venue {
    // The second one's reply is lost though it arrived.
    let venue = Venue::answering([Answer::Acks, Answer::LostArrived]);
    for suffix in TRIES {
        let id = |name: &str| format!("{name}{suffix}");
        let fill = |n: &str, name: &str, qty, price| fill_with_fee(&format!("{name}{n}"), &id(name), qty, price, "0.1");
        venue.fate(&id("a"), vec![fill("1", "a", "0.5", "100"), fill("2", "a", "1.5", "99")]);
        venue.fate(&id("b"), vec![fill("1", "b", "1", "101")]);
        venue.fate(&id("c"), vec![cancelled(&id("c"))]);
        venue.fate(&id("d"), vec![fill("1", "d", "1", "102")]);
    }
    venue
}

/// Goes through the plan from wherever it stands. An error is a reason to look again.
async fn run(world: &World, venue: &Venue) -> Result<(), GateError> {
    for (name, side, qty, price) in PLAN {
        for suffix in TRIES {
            let id = format!("{name}{suffix}");
            let order_id = id.parse().unwrap();
            let known = world.gate.order(&order_id).await?;
            if known.is_none() {
                let approved = world.gate.approve(order(&id, side, qty, price)).await?;
                if let Placed::Unknown { reason } = world.gate.place(approved, venue).await? {
                    return Err(infra_factory::gate::SinkError { reason }.into());
                }
            }
            for execution in venue.truth(&order_id) {
                world.gate.report(execution).await?;
            }
            if world.status(&id).await != Some(OrderStatus::Discarded) {
                break;
            }
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
struct End {
    position: infra_factory::types::Decimal,
    realised: infra_factory::types::Decimal,
    fees: infra_factory::types::Decimal,
    trips: (u64, u64),
    fills: BTreeSet<String>,
    told: BTreeSet<String>,
}

async fn end(world: &World) -> End {
    let account = world.risk.account(&"main".parse().unwrap()).unwrap();
    let done = world.gate.done_orders().await.unwrap();
    let is_fill = |e: &&Execution| matches!(e.kind, ExecutionKind::Filled(_));
    let all: Vec<String> =
        done.iter().flat_map(|r| r.executions.iter().filter(is_fill).map(|e| e.id.to_string())).collect();
    let fills: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(fills.len(), all.len(), "a fill counted twice");
    let rows = world.rows().await;
    let told: Vec<String> = rows
        .iter()
        .filter(|r| ["fill", "open", "close"].contains(&r.action.as_str()))
        // The bot and the order's id, which may hold another try, are left out.
        .map(|r| r.id.split('.').skip(2).collect::<Vec<_>>().join("."))
        .collect();
    let ids: BTreeSet<_> = rows.iter().map(|r| r.id.clone()).collect();
    assert_eq!(ids.len(), rows.len(), "an audit row twice");
    let count = told.len();
    let told: BTreeSet<String> = told.into_iter().collect();
    assert_eq!(count, told.len(), "a fill told twice");
    End {
        position: world.position(),
        realised: account.realised,
        fees: account.fees,
        trips: (account.wins, account.losses),
        fills,
        told,
    }
}

async fn finish(mut world: World, venue: &Venue, policy: NotAtVenue, fault: Fault) -> World {
    for _ in 0..8 {
        if run(&world, venue).await.is_ok() && !world.gate.has_open_orders() {
            return world;
        }
        if fault.is_death() {
            world = world.rebuild().await;
        }
        world.quote("99.99", "100.01");
        // It may meet the fault as well; the next round looks again.
        let _ = world.gate.reconcile(venue, policy).await;
    }
    panic!("it does not come to an end");
}

#[tokio::test]
async fn whatever_write_is_broken_the_end_is_the_same() {
    let calm = venue();
    let world = World::new().await;
    run(&world, &calm).await.unwrap();
    assert_flat(&world).await;
    let expected = end(&world).await;
    assert_eq!((expected.position, expected.realised, expected.fees), (dec("0"), dec("4.5"), dec("0.4")));

    let mut broken = 0;
    for policy in [NotAtVenue::Send, NotAtVenue::Discard] {
        for fault in Fault::ALL {
            for nth in 1.. {
                let (world, venue) = (World::new().await, venue());
                world.store.arm(nth, fault);
                let armed = world.store.clone();
                let world = finish(world, &venue, policy, fault).await;
                let case = format!("{policy:?}, {fault:?} at write {nth}");
                assert_eq!(end(&world).await, expected, "{case}");
                assert_flat(&world).await;
                let arrivals: Vec<_> = venue.arrivals().into_iter().map(|o| o.id).collect();
                let once: BTreeSet<_> = arrivals.iter().cloned().collect();
                assert_eq!((arrivals.len(), once.len()), (PLAN.len(), PLAN.len()), "{case}: {arrivals:?}");
                if !armed.has_struck() {
                    break;
                }
                broken += 1;
            }
        }
    }
    assert!(broken > 100, "only {broken} cases");
}

#[tokio::test]
async fn a_process_that_dies_again_and_again_gets_there() {
    let calm = venue();
    let world = World::new().await;
    run(&world, &calm).await.unwrap();
    let expected = end(&world).await;

    let venue = venue();
    let mut world = World::new().await;
    // Each life is two writes long, so every step is broken at some time.
    for life in 0.. {
        assert!(life < 100, "no progress");
        let fault = if life % 2 == 0 { Fault::DiesBefore } else { Fault::DiesAfter };
        world.store.arm(2, fault);
        let went = world.gate.reconcile(&venue, NotAtVenue::Send).await.is_ok() && run(&world, &venue).await.is_ok();
        if went && !world.gate.has_open_orders() {
            assert!(life > 5);
            break;
        }
        world = world.rebuild().await;
    }
    assert_eq!(end(&world).await, expected);
    assert_flat(&world).await;
    assert_eq!(venue.arrivals().len(), PLAN.len());
}
