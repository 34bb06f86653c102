//! Reconciliation beside everything else.

use std::sync::Arc;

use infra_factory::{
    gate::{Approved, NotAtVenue, OrderSink, Placed, Placement, Reconciled, SinkError, VenueOrder},
    types::{Order, OrderId, OrderStatus},
};
use tokio::sync::Notify;

use crate::common::{Answer, Venue, World, assert_flat, cancelled, fill};

#[tokio::test]
async fn a_token_that_waits_is_left_to_its_holder() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "1").await.unwrap();
    for policy in [NotAtVenue::Send, NotAtVenue::Discard] {
        assert_eq!(world.gate.reconcile(&venue, policy).await.unwrap(), Reconciled::default());
    }
    assert!(matches!(world.gate.place(approved, &venue).await.unwrap(), Placed::AtVenue(_)));
    assert_eq!(venue.arrivals().len(), 1);
}

/// Holds its placements until it is told to go on.
struct Slow {
    venue: Venue,
    began: Notify,
    go: Notify,
}

#[async_trait::async_trait]
impl OrderSink for Slow {
    async fn place(&self, order: Approved<Order>) -> Placement {
        self.began.notify_one();
        self.go.notified().await;
        self.venue.place(order).await
    }
    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError> {
        self.venue.cancel(order).await
    }
    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError> {
        self.venue.query(order).await
    }
}

#[tokio::test]
async fn an_order_that_is_just_being_sent_is_not_sent_by_reconciliation() {
    let world = Arc::new(World::new().await);
    let slow = Arc::new(Slow { venue: Venue::default(), began: Notify::new(), go: Notify::new() });
    let approved = world.buy("o-1", "1").await.unwrap();
    let placing = tokio::spawn({
        let (world, slow) = (world.clone(), slow.clone());
        async move { world.gate.place(approved, slow.as_ref()).await.unwrap() }
    });
    slow.began.notified().await;
    // The duplicate that comes in between must not end the protection.
    assert_eq!(world.buy("o-1", "1").await.unwrap_err().code(), "duplicate_order_id");
    for policy in [NotAtVenue::Send, NotAtVenue::Discard] {
        assert_eq!(world.gate.reconcile(&slow.venue, policy).await.unwrap(), Reconciled::default());
    }
    slow.go.notify_one();
    assert!(matches!(placing.await.unwrap(), Placed::AtVenue(_)));
    assert_eq!(slow.venue.arrivals().len(), 1);
}

#[tokio::test]
async fn a_placement_that_was_dropped_is_found() {
    let world = World::new().await;
    let slow = Slow { venue: Venue::default(), began: Notify::new(), go: Notify::new() };
    let approved = world.buy("o-1", "1").await.unwrap();
    tokio::select! {
        biased;
        _ = world.gate.place(approved, &slow) => panic!("it was held"),
        () = slow.began.notified() => {}
    }
    assert!(world.gate.has_open_orders());
    let found = world.gate.reconcile(&slow.venue, NotAtVenue::Discard).await.unwrap();
    assert_eq!((found.asked, found.discarded), (1, 1));
    assert_flat(&world).await;
}

#[tokio::test]
async fn two_reconciliations_at_once_send_once() {
    let world = World::new().await;
    let _lost = world.buy("o-1", "1").await.unwrap();
    let world = Arc::new(world.rebuild().await);
    let slow = Arc::new(Slow { venue: Venue::default(), began: Notify::new(), go: Notify::new() });
    let first = tokio::spawn({
        let (world, slow) = (world.clone(), slow.clone());
        async move { world.gate.reconcile(slow.as_ref(), NotAtVenue::Send).await.unwrap() }
    });
    slow.began.notified().await;
    assert_eq!(world.gate.reconcile(&slow.venue, NotAtVenue::Send).await.unwrap(), Reconciled::default());
    slow.go.notify_one();
    assert_eq!(first.await.unwrap().sent, 1);
    assert_eq!(slow.venue.arrivals().len(), 1);
}

#[tokio::test]
async fn an_acknowledged_order_that_the_venue_denies_stays_live() {
    let (world, venue) = (World::new().await, Venue::default());
    let approved = world.buy("o-1", "1").await.unwrap();
    world.gate.place(approved, &venue).await.unwrap();
    let (world, forgetful) = (world.rebuild().await, Venue::default());
    for policy in [NotAtVenue::Send, NotAtVenue::Discard] {
        let found = world.gate.reconcile(&forgetful, policy).await.unwrap();
        assert_eq!((found.asked, found.missing, found.sent, found.discarded), (1, 1, 0, 0));
    }
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Acknowledged));
    assert!(forgetful.attempts().is_empty());
}

#[tokio::test]
async fn what_reconciliation_sends_may_get_lost_too() {
    let world = World::new().await;
    let _tokens = [world.buy("o-1", "1").await.unwrap(), world.buy("o-2", "1").await.unwrap()];
    let world = world.rebuild().await;
    let venue = Venue::answering([Answer::LostArrived, Answer::Rejects]);
    let found = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.sent), (2, 2));
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Acknowledged));
    assert_eq!(world.status("o-2").await, Some(OrderStatus::Rejected));
    world.report(cancelled("o-1")).await;
    assert_flat(&world).await;
}

#[tokio::test]
async fn one_order_that_cannot_be_reconciled_does_not_keep_the_others() {
    let (world, venue) = (World::new().await, Venue::default());
    for id in ["o-1", "o-2", "o-3"] {
        // The venue reports on o-1 what belongs to an order that nobody knows.
        let of = if id == "o-1" { "stranger" } else { id };
        venue.fate(id, vec![fill(&format!("f-{id}"), of, "1", "100")]);
        let approved = world.buy(id, "1").await.unwrap();
        world.gate.place(approved, &venue).await.unwrap();
    }
    let world = world.rebuild().await;
    let e = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap_err();
    assert_eq!(e.code(), "unknown_order");
    assert_eq!(world.status("o-1").await, Some(OrderStatus::Acknowledged));
    for id in ["o-2", "o-3"] {
        assert_eq!(world.status(id).await, Some(OrderStatus::Filled));
    }
}

/// Turns every placement away, and takes its time for it.
struct Sluggish(Venue, infra_factory::types::ManualClock);

#[async_trait::async_trait]
impl OrderSink for Sluggish {
    async fn place(&self, order: Approved<Order>) -> Placement {
        self.1.advance(std::time::Duration::from_millis(5_000));
        self.0.place(order).await
    }
    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError> {
        self.0.cancel(order).await
    }
    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError> {
        self.0.query(order).await
    }
}

#[tokio::test]
async fn what_expires_while_it_is_tried_again_is_given_up() {
    let world = World::new().await;
    world.hold("o-0", "2").await;
    let sluggish = Sluggish(Venue::answering([Answer::NotSent; 2]), world.clock.clone());
    let approved = world.sell("o-1", "1").await.unwrap();
    let e = world.gate.place(approved, &sluggish).await.unwrap_err();
    assert_eq!((e.code(), sluggish.0.attempts().len()), ("approval_expired", 1));
    let _lost = world.sell("o-2", "1").await.unwrap();
    let world = world.rebuild().await;
    let found = world.gate.reconcile(&sluggish, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.discarded, found.sent), (1, 1, 0));
    for id in ["o-1", "o-2"] {
        assert_eq!(world.status(id).await, Some(OrderStatus::Discarded));
    }
}
