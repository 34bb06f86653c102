//! Taking orders back. Never gated, never throttled.

use infra_types::OrderId;

use super::{GateError, OrderGate, sink::OrderSink};

impl OrderGate {
    /// Asks the venue to cancel an order; what it held is given back when the venue's report confirms the cancel. It is counted in the
    /// message rates that cover the order, beside the call, and never waits for that.
    ///
    /// # Errors
    /// `Venue` if it did not answer; cancelling again is safe.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the cancel sent; cancelling again is safe.
    pub async fn cancel(&self, id: &OrderId, sink: &dyn OrderSink) -> Result<(), GateError> {
        self.messages.count_cancel_of(self, id);
        sink.cancel(id).await.map_err(GateError::Venue)
    }

    /// Asks the venue to cancel every open order; how many were asked for and how many calls failed. Failures do not stop the rest.
    ///
    /// # Errors
    /// Only if the open orders cannot be read.
    ///
    /// # Cancel safety
    /// As [`OrderGate::cancel`].
    pub async fn cancel_all(&self, sink: &dyn OrderSink) -> Result<(usize, usize), GateError> {
        let open = self.open_orders().await?;
        let mut failed = 0;
        for record in &open {
            self.messages.count_cancel(self, record.order.clone());
            failed += usize::from(sink.cancel(&record.order.id).await.is_err());
        }
        Ok((open.len(), failed))
    }
}
