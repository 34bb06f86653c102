//! The kill switch between, before and after everything.

use std::time::Duration;

use infra_factory::{
    gate::{GateError, NotAtVenue, Placed},
    risk_engine::code,
    types::{OrderStatus, Side},
};

use crate::common::{Answer, Venue, World, assert_flat, cancelled, fill, order};

#[tokio::test]
async fn a_halt_between_approval_and_sending_stops_what_opens_and_not_what_closes() {
    let (world, venue) = (World::new().await, Venue::default());
    world.hold("o-1", "2").await;
    let opens = world.buy("o-2", "1").await.unwrap();
    let closes = world.sell("o-3", "1").await.unwrap();
    world.emergency.halt("anna", "test").await.unwrap();
    let e = world.gate.place(opens, &venue).await.unwrap_err();
    assert!(matches!(&e, GateError::Halted { state, .. } if state == "HALT"), "{e}");
    assert_eq!(world.status("o-2").await, Some(OrderStatus::Discarded));
    assert!(matches!(world.gate.place(closes, &venue).await.unwrap(), Placed::AtVenue(_)));
    world.report(fill("f-3", "o-3", "1", "100")).await;

    let e = world.buy("o-4", "1").await.unwrap_err();
    assert_eq!(e.code(), code::NOT_REDUCING_IN_HALT);
    let last = world.gate.approve(order("o-5", Side::Sell, "7", "100").reduce_only()).await.unwrap();
    world.gate.place(last, &venue).await.unwrap();
    world.report(fill("f-5", "o-5", "1", "100")).await;
    assert_flat(&world).await;
    assert_eq!(venue.arrivals().len(), 2);
}

#[tokio::test]
async fn shutdown_lets_nothing_out_and_cancels_still_go() {
    let (world, venue) = (World::new().await, Venue::default());
    world.hold("o-1", "2").await;
    let resting = world.buy("o-2", "1").await.unwrap();
    world.gate.place(resting, &venue).await.unwrap();
    let closes = world.sell("o-3", "1").await.unwrap();
    world.emergency.shutdown("anna", "test").await.unwrap();
    assert_eq!(world.gate.place(closes, &venue).await.unwrap_err().code(), "halted");
    for wanted in [order("o-4", Side::Buy, "1", "100"), order("o-5", Side::Sell, "1", "100").reduce_only()] {
        let e = world.gate.approve(wanted).await.unwrap_err();
        assert_eq!(e.code(), "halted");
    }
    let row = world.rows().await.pop().unwrap();
    assert_eq!((row.action.as_str(), row.details["code"].as_str()), ("refuse", "halted"));
    assert!(venue.arrivals().len() == 1);

    venue.fail_cancels(1);
    assert_eq!(world.gate.cancel(&"o-2".parse().unwrap(), &venue).await.unwrap_err().code(), "venue_silent");
    assert_eq!(world.gate.cancel_all(&venue).await.unwrap(), (1, 0));
    assert_eq!(venue.cancels(), ["o-2".parse().unwrap()]);
    assert!(world.gate.has_open_orders(), "only the venue's word ends an order");
    world.report(cancelled("o-2")).await;
    assert!(!world.gate.has_open_orders());
}

#[tokio::test]
async fn cancels_go_in_a_halt_without_a_ledger_and_when_one_fails() {
    let (world, venue) = (World::new().await, Venue::default());
    for id in ["o-1", "o-2", "o-3"] {
        let approved = world.buy(id, "1").await.unwrap();
        world.gate.place(approved, &venue).await.unwrap();
    }
    world.emergency.halt("anna", "test").await.unwrap();
    venue.fail_cancels(1);
    assert_eq!(world.gate.cancel_all(&venue).await.unwrap(), (3, 1));
    world.store.cut(true);
    world.gate.cancel(&"o-1".parse().unwrap(), &venue).await.unwrap();
    assert_eq!(venue.cancels().len(), 3);
}

#[tokio::test]
async fn a_lease_that_ran_out_lets_only_exits_through() {
    let (world, venue) = (World::new().await, Venue::default());
    world.hold("o-1", "1").await;
    let opens = world.buy("o-2", "1").await.unwrap();
    world.clock.advance(Duration::from_secs(2));
    assert!(world.emergency.can_trade(), "the state is as it was, only unconfirmed");
    assert_eq!(world.buy("o-3", "1").await.unwrap_err().code(), code::NOT_REDUCING_IN_HALT);
    assert_eq!(world.gate.place(opens, &venue).await.unwrap_err().code(), "halted");
    let closes = world.sell("o-4", "1").await.unwrap();
    assert!(matches!(world.gate.place(closes, &venue).await.unwrap(), Placed::AtVenue(_)));
    world.emergency.refresh().await.unwrap();
    let _ = world.buy("o-5", "1").await.unwrap();
}

#[tokio::test]
async fn a_halt_while_it_is_tried_again_gives_it_up() {
    /// Halts while the first attempt is under way.
    struct Halting(Venue, std::sync::Arc<infra_factory::emergency::EmergencyController>);
    #[async_trait::async_trait]
    impl infra_factory::gate::OrderSink for Halting {
        async fn place(
            &self,
            order: infra_factory::gate::Approved<infra_factory::types::Order>,
        ) -> infra_factory::gate::Placement {
            self.1.halt("anna", "test").await.unwrap();
            self.0.place(order).await
        }
        async fn cancel(&self, order: &infra_factory::types::OrderId) -> Result<(), infra_factory::gate::SinkError> {
            self.0.cancel(order).await
        }
        async fn query(
            &self,
            order: &infra_factory::types::OrderId,
        ) -> Result<infra_factory::gate::VenueOrder, infra_factory::gate::SinkError> {
            self.0.query(order).await
        }
    }
    for first in [Answer::NotSent, Answer::LostAway] {
        let world = World::new().await;
        let venue = Halting(Venue::answering([first]), world.emergency.clone());
        let approved = world.buy("o-1", "1").await.unwrap();
        assert_eq!(world.gate.place(approved, &venue).await.unwrap_err().code(), "halted");
        assert_eq!((venue.0.attempts().len(), venue.0.arrivals().len()), (1, 0));
        assert_flat(&world).await;
    }
}

#[tokio::test]
async fn a_start_into_a_halt_sends_nothing_that_opens() {
    let world = World::new().await;
    world.hold("o-1", "2").await;
    let (_opens, _closes) = (world.buy("o-2", "1").await.unwrap(), world.sell("o-3", "1").await.unwrap());
    world.emergency.halt("anna", "test").await.unwrap();
    let (world, venue) = (world.rebuild().await, Venue::default());
    let found = world.gate.reconcile(&venue, NotAtVenue::Send).await.unwrap();
    assert_eq!((found.asked, found.sent, found.discarded), (2, 1, 1));
    assert_eq!(world.status("o-2").await, Some(OrderStatus::Discarded));
    assert_eq!(world.status("o-3").await, Some(OrderStatus::Acknowledged));
}
