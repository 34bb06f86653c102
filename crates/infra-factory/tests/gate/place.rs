//! Sending: what comes back, what does not, and that there is never a second order.

use infra_factory::{
    gate::{GateConfig, NotAtVenue, Placed},
    types::OrderStatus,
};

use crate::common::{Answer, Venue, World, assert_flat, cancelled, dec, fill, limits, patient_gate};

#[tokio::test]
async fn a_rejected_order_holds_nothing() {
    let (world, venue) = (World::new().await, Venue::answering([Answer::Rejects]));
    let approved = world.buy("o-1", "1").await.unwrap();
    let Placed::Rejected { reason } = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!(reason, "by script");
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Rejected));
    assert_eq!(world.actions().await, ["approve", "reject"]);
    assert_flat(&world).await;
}

#[tokio::test]
async fn what_was_not_sent_is_sent_again_so_often_and_then_given_up() {
    let world = World::with(limits(), GateConfig { attempts_max: 3, ..patient_gate() }).await;
    let venue = Venue::answering([Answer::NotSent; 3]);
    let approved = world.buy("o-1", "1").await.unwrap();
    assert!(matches!(world.gate.place(approved, &venue).await.unwrap(), Placed::NotSent { .. }));
    let attempts: Vec<u32> = venue.attempts().iter().map(|(_, attempt)| *attempt).collect();
    assert_eq!((attempts, venue.queries()), (vec![1, 2, 3], 0));
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Discarded));
    assert_eq!(world.actions().await, ["approve", "discard"]);
    assert_flat(&world).await;

    let venue = Venue::answering([Answer::NotSent, Answer::NotSent]);
    let approved = world.buy("o-2", "1").await.unwrap();
    assert!(matches!(world.gate.place(approved, &venue).await.unwrap(), Placed::AtVenue(_)));
    assert_eq!(venue.arrivals().len(), 1);
}

#[tokio::test]
async fn a_lost_reply_is_asked_about_and_its_reports_count_once() {
    let (world, venue) = (World::new().await, Venue::answering([Answer::LostArrived]));
    venue.fate("o-1", vec![fill("f-1", "o-1", "1", "100"), fill("f-2", "o-1", "0.5", "100")]);
    let approved = world.buy("o-1", "2").await.unwrap();
    let Placed::AtVenue(record) = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!((record.status, record.filled.get()), (OrderStatus::PartiallyFilled, dec("1.5")));
    assert_eq!((venue.attempts().len(), venue.queries()), (1, 1));
    // The stream tells it all again.
    for execution in venue.truth(&"o-1".parse().unwrap()) {
        world.report(execution).await;
    }
    assert_eq!(world.position(), dec("1.5"));
    world.report(cancelled("o-1")).await;
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("150"));
}

#[tokio::test]
async fn a_lost_order_that_never_arrived_is_sent_again_under_its_id() {
    let (world, venue) = (World::new().await, Venue::answering([Answer::LostAway, Answer::LostAway]));
    let approved = world.buy("o-1", "1").await.unwrap();
    let Placed::AtVenue(record) = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!(record.status, OrderStatus::Acknowledged);
    let id: infra_factory::types::OrderId = "o-1".parse().unwrap();
    assert_eq!(venue.attempts(), [(id.clone(), 1), (id.clone(), 2), (id, 3)]);
    assert_eq!((venue.arrivals().len(), venue.queries()), (1, 2));
    world.report(cancelled("o-1")).await;
    assert_flat(&world).await;
}

#[tokio::test]
async fn a_venue_that_is_silent_leaves_the_order_live_until_it_speaks() {
    let world = World::with(limits(), GateConfig { queries_max: 4, ..patient_gate() }).await;
    let venue = Venue::answering([Answer::LostArrived]);
    venue.fail_queries(4 + 4);
    let approved = world.buy("o-1", "1").await.unwrap();
    assert!(matches!(world.gate.place(approved, &venue).await.unwrap(), Placed::Unknown { .. }));
    assert_eq!((venue.attempts().len(), venue.queries()), (1, 4));
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Unknown));
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("100"));
    let found = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.unknown), (1, 1));
    assert!(world.gate.has_open_orders());
    let found = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.at_venue, found.sent), (1, 1, 0));
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Acknowledged));
    venue.happens(cancelled("o-1"));
    world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
    assert_eq!((world.status("o-1").await, venue.arrivals().len()), (Some(OrderStatus::Cancelled), 1));
    assert_flat(&world).await;
}

#[tokio::test]
async fn a_fill_that_overtakes_the_acknowledgement_does_not_lose_the_venues_id() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "2").await.unwrap();
    world.report(fill("f-1", "o-1", "1", "100")).await;
    let Placed::AtVenue(record) = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!((record.status, record.venue_order_id.as_deref()), (OrderStatus::PartiallyFilled, Some("v-o-1")));

    let approved = world.buy("o-2", "1").await.unwrap();
    world.report(fill("f-2", "o-2", "1", "100")).await;
    let Placed::AtVenue(record) = world.gate.place(approved, &venue).await.unwrap() else { panic!() };
    assert_eq!((record.status, record.venue_order_id.as_deref()), (OrderStatus::Filled, Some("v-o-2")));
    world.report(cancelled("o-1")).await;
    assert!(!world.gate.has_open_orders());
    assert_eq!(world.used().await["risk/used/exposure/firm"], dec("200"));
}
