//! What venues say, in any order and as often as they like.

use infra_factory::{
    gate::{GateError, NotAtVenue, Placed, Reported},
    state_store::{Key, Op, StoreError, Ttl},
    types::{ErrorKind, EventId, OrderStatus},
};
use proptest::prelude::*;

use crate::common::{Venue, World, ack, assert_flat, cancelled, dec, expired, fill, fill_with_fee};

async fn placed(world: &World, id: &str, qty: &str) {
    let approved = world.buy(id, qty).await.unwrap();
    assert!(matches!(world.gate.place(approved, &Venue::default()).await.unwrap(), Placed::AtVenue(_)));
}

#[tokio::test]
async fn a_report_counts_once() {
    let world = World::new().await;
    placed(&world, "o-1", "2").await;
    let first = world.report(fill_with_fee("f-1", "o-1", "1", "100", "0.1")).await;
    assert!(matches!(first, Reported::Counted { realised: Some(r), .. } if r.is_zero()));
    let before = (world.used().await, world.rows().await.len());
    assert!(matches!(world.report(fill_with_fee("f-1", "o-1", "1", "100", "0.1")).await, Reported::Duplicate));
    assert!(matches!(world.report(ack("o-1")).await, Reported::Stale));
    assert_eq!((world.used().await, world.rows().await.len()), before);
    assert_eq!(world.position(), dec("1"));
    assert_eq!(world.risk.account(&"main".parse().unwrap()).unwrap().fees, dec("0.1"));
}

#[tokio::test]
async fn a_fill_after_the_cancel_moves_the_position_and_not_the_end() {
    let world = World::new().await;
    placed(&world, "o-1", "2").await;
    world.report(cancelled("o-1")).await;
    assert_flat(&world).await;
    world.report(fill("f-1", "o-1", "0.5", "100")).await;
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Cancelled));
    assert_eq!((world.position(), world.used().await["risk/used/exposure/firm"]), (dec("0.5"), dec("50")));
    assert!(!world.gate.has_open_orders());
    assert!(matches!(world.report(expired("o-1")).await, Reported::Stale));
    let approved = world.sell("o-2", "0.5").await.unwrap();
    world.gate.place(approved, &Venue::default()).await.unwrap();
    world.report(fill("f-2", "o-2", "0.5", "100")).await;
    assert_flat(&world).await;
}

#[tokio::test]
async fn a_part_trades_and_the_rest_expires() {
    let world = World::new().await;
    placed(&world, "o-1", "2").await;
    world.report(fill("f-1", "o-1", "0.5", "100")).await;
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("200"));
    world.report(expired("o-1")).await;
    let record = world.gate.order(&"o-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((record.status, record.filled.get()), (OrderStatus::Expired, dec("0.5")));
    assert!(record.reservation.is_closed());
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("50"));
}

#[tokio::test]
async fn too_much_is_booked_and_said() {
    let world = World::new().await;
    placed(&world, "o-1", "1").await;
    world.report(fill("f-1", "o-1", "1", "100")).await;
    world.report(fill("f-2", "o-1", "0.4", "100")).await;
    assert_eq!((world.status("o-1").await, world.position()), (Some(OrderStatus::Filled), dec("1.4")));
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("140"));
    assert_eq!(world.rows().await.last().unwrap().details["filled_in_all"], "1.4");
    let approved = world.sell("o-2", "1.4").await.unwrap();
    world.gate.place(approved, &Venue::default()).await.unwrap();
    world.report(fill("f-3", "o-2", "1.4", "100")).await;
    assert_flat(&world).await;
}

#[tokio::test]
async fn a_report_on_an_order_that_nobody_approved_is_an_error_and_changes_nothing() {
    let world = World::new().await;
    let e = world.gate.report(fill("f-1", "o-1", "1", "100")).await.unwrap_err();
    assert_eq!((e.code(), e.kind()), ("unknown_order", ErrorKind::Invalid));
    assert_flat(&world).await;
    assert!(world.rows().await.is_empty());
}

#[tokio::test]
async fn the_callers_operations_go_with_every_report() {
    let world = World::new().await;
    placed(&world, "o-1", "1").await;
    let mark = |id: &str| {
        let consumer = Key::record("inbox/test").unwrap();
        vec![Op::MarkInbox { consumer, id: EventId::new(id).unwrap(), ttl: Ttl::Never }]
    };
    world.gate.report_with(fill("f-1", "o-1", "0.5", "100"), mark("m-1")).await.unwrap();
    let e = world.gate.report_with(fill("f-2", "o-1", "0.5", "100"), mark("m-1")).await.unwrap_err();
    assert!(matches!(e, GateError::Caller { index: 0, source: StoreError::AlreadyProcessed { .. } }), "{e}");
    assert_eq!(world.position(), dec("0.5"), "the refused batch counted nothing");
    let again = world.gate.report_with(fill("f-1", "o-1", "0.5", "100"), mark("m-2")).await.unwrap();
    assert!(matches!(again, Reported::Duplicate));
    let e = world.gate.report_with(ack("o-1"), mark("m-2")).await.unwrap_err();
    assert!(matches!(e, GateError::Caller { index: 0, .. }), "{e}");
    let e = world.gate.report_with(cancelled("o-1"), mark("m-2")).await.unwrap_err();
    assert!(matches!(e, GateError::Caller { index: 0, .. }), "{e}");
    assert_eq!(world.status("o-1").await, Some(OrderStatus::PartiallyFilled));
}

#[tokio::test]
async fn two_processes_that_hear_the_same_report_count_it_once() {
    let world = World::new().await;
    placed(&world, "o-1", "4").await;
    let other = world.rebuild().await;
    for n in 0..4 {
        let report = fill(&format!("f-{n}"), "o-1", "1", "100");
        let (a, b) = tokio::join!(world.gate.report(report.clone()), other.gate.report(report));
        let counted = [a.unwrap(), b.unwrap()].iter().filter(|r| matches!(r, Reported::Counted { .. })).count();
        assert_eq!(counted, 1);
    }
    let late = world.rebuild().await;
    assert_eq!(late.position(), dec("4"));
    assert_eq!(late.gate.reconcile(&Venue::default(), NotAtVenue::Send).await.unwrap().asked, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever order reports come in, and however often: position and counters are those of the set of reports.
    #[test]
    fn the_order_of_reports_does_not_matter(
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(0..6usize, 0..6),
        is_cancelled in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            placed(&world, "o-1", "2").await;
            let end = if is_cancelled { cancelled("o-1") } else { expired("o-1") };
            let all = [
                ack("o-1"),
                fill("f-1", "o-1", "0.5", "100"),
                fill("f-2", "o-1", "0.25", "100"),
                fill("f-3", "o-1", "0.25", "100"),
                end,
                fill("f-4", "o-1", "0.5", "100"),
            ];
            for n in order.iter().chain(&again) {
                world.report(all[*n].clone()).await;
            }
            assert_eq!(world.position(), dec("1.5"));
            let used = world.used().await;
            assert_eq!(used["risk/used/exposure/firm"], dec("150"));
            assert_eq!(used["risk/used/positions/firm"], dec("1"));
            assert!(!used.keys().any(|k| k.starts_with("risk/used/orders/")), "{used:?}");
            assert!(world.status("o-1").await.unwrap().is_terminal());
            assert!(!world.gate.has_open_orders());
        });
    }
}
