//! A venue that takes every order and knows of none afterwards.

use infra_factory::{
    gate::{Approved, OrderSink, Placement, SinkError, VenueOrder},
    types::{Order, OrderId},
};

pub(crate) struct Paper;

#[async_trait::async_trait]
impl OrderSink for Paper {
    async fn place(&self, order: Approved<Order>) -> Placement {
        Placement::Acknowledged { venue_order_id: format!("x-{}", order.order().id) }
    }
    async fn cancel(&self, _: &OrderId) -> Result<(), SinkError> {
        Ok(())
    }
    async fn query(&self, _: &OrderId) -> Result<VenueOrder, SinkError> {
        Ok(VenueOrder::NotFound)
    }
}
