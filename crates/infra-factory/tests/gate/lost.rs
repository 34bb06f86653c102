//! Single writes whose replies are lost, in a process that lives on.

use std::time::Duration;

use infra_factory::{
    gate::{NotAtVenue, Placed, Reported},
    types::{ErrorKind, OrderStatus},
};

use crate::common::{Answer, Fault, Venue, World, assert_flat, cancelled, dec, fill};

#[tokio::test]
async fn an_approval_whose_reply_was_lost_is_looked_up() {
    let (world, venue) = (World::new().await, Venue::default());
    world.store.arm(1, Fault::LostApplied);
    let approved = world.buy("o-1", "1").await.unwrap();
    assert!(matches!(world.gate.place(approved, &venue).await.unwrap(), Placed::AtVenue(_)));
    world.report(cancelled("o-1")).await;
    world.store.arm(1, Fault::LostAbsent);
    assert_eq!(world.buy("o-2", "1").await.unwrap_err().kind(), ErrorKind::Ambiguous);
    assert_eq!(world.status("o-2").await, None);
    assert_flat(&world).await;
    let _ = world.buy("o-2", "1").await.unwrap();
}

#[tokio::test]
async fn an_approval_that_cannot_be_looked_up_is_given_back_later() {
    for fault in [Fault::LostApplied, Fault::LostAbsent] {
        let world = World::new().await;
        world.store.arm(1, fault);
        world.store.fail_reads();
        assert_eq!(world.buy("o-1", "1").await.unwrap_err().kind(), ErrorKind::Ambiguous);
        world.store.cut(false);
        assert_eq!(world.used().await.is_empty(), fault == Fault::LostAbsent);
        world.clock.advance(Duration::from_secs(5));
        world.emergency.refresh().await.unwrap();
        world.gate.sweep().await.unwrap();
        assert_flat(&world).await;
    }
}

#[tokio::test]
async fn a_doubtful_approval_never_ends_an_older_order_of_its_id() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "1").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    world.store.arm(1, Fault::LostAbsent);
    world.store.fail_reads();
    assert_eq!(world.buy("o-1", "1").await.unwrap_err().kind(), ErrorKind::Ambiguous);
    world.store.cut(false);
    world.clock.advance(Duration::from_secs(5));
    world.gate.sweep().await.unwrap();
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Acknowledged));
}

#[tokio::test]
async fn an_order_that_left_is_unknown_and_no_error_when_the_ledger_fails() {
    for answer in [Answer::Acks, Answer::LostArrived] {
        let (world, venue) = (World::new().await, Venue::answering([answer]));
        let approved = world.buy("o-1", "1").await.unwrap();
        world.store.arm(1, Fault::Fails);
        let placed = world.gate.place(approved, &venue).await.unwrap();
        assert!(matches!(placed, Placed::Unknown { .. }), "{placed:?}");
        assert_eq!(world.used().await["risk/used/exposure/firm"], dec("100"));
        let found = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
        assert_eq!((found.at_venue, venue.arrivals().len()), (1, 1));
    }
}

#[tokio::test]
async fn what_cannot_be_given_back_now_is_given_back_by_the_next_sweep() {
    // An expired token, a halted one, one that nobody took: each time the ledger fails at the release.
    for case in 0..3 {
        let world = World::new().await;
        let venue = Venue::answering([Answer::NotSent; 5]);
        let approved = world.buy("o-1", "1").await.unwrap();
        match case {
            0 => world.clock.advance(Duration::from_secs(5)),
            1 => drop(world.emergency.halt("anna", "test").await.unwrap()),
            _ => {}
        }
        world.store.arm(1, Fault::Fails);
        let e = world.gate.place(approved, &venue).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unavailable, "case {case}: {e}");
        assert!(!world.used().await.is_empty());
        assert_eq!(world.gate.sweep().await.unwrap(), 1);
        assert_flat(&world).await;
    }
}

#[tokio::test]
async fn a_report_whose_reply_was_lost_counts_once() {
    for fault in [Fault::LostApplied, Fault::LostAbsent, Fault::Fails] {
        let (world, venue) = (World::new().await, Venue::default());
        let approved = world.buy("o-1", "1").await.unwrap();
        world.gate.place(approved, &venue).await.unwrap();
        world.store.arm(1, fault);
        world.gate.report(fill("f-1", "o-1", "1", "100")).await.unwrap_err();
        let again = world.report(fill("f-1", "o-1", "1", "100")).await;
        assert_eq!(matches!(again, Reported::Duplicate), fault == Fault::LostApplied);
        assert!(!world.gate.has_open_orders());
        let closes = world.sell("o-2", "1").await.unwrap();
        world.gate.place(closes, &venue).await.unwrap();
        world.report(fill("f-2", "o-2", "1", "101")).await;
        assert_eq!(world.risk.account(&"main".parse().unwrap()).unwrap().realised, dec("1"));
        assert_flat(&world).await;
    }
}
