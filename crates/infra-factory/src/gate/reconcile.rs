//! After a start: what became of the orders whose end is not written down?

use infra_types::{Order, OrderId, OrderStatus, Venue};

use super::{GateError, OrderGate, Placed, approved::Approved, sink::OrderSink};

/// What to do with an approved order that the venue never had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAtVenue {
    /// Send it now, under the same client order id and reservation, if the kill switch lets it.
    Send,
    /// Give it up and release what it held.
    Discard,
}

/// What reconciliation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Open orders that were asked about.
    pub asked: usize,
    /// Those that the venue has or had.
    pub at_venue: usize,
    /// Those that were sent now.
    pub sent: usize,
    /// Those that were given up.
    pub discarded: usize,
    /// Those that the venue could not tell about: they count as live.
    pub unknown: usize,
    /// Those that the venue once had and now knows nothing of: they count as live, and a person must compare.
    pub missing: usize,
}

impl OrderGate {
    /// Asks the venue about every open order of this bot and reports what it says, so that ledger and venue agree. Call it
    /// before the first new order of a run, and again when a placement ended as unknown. Orders whose token still waits, or that
    /// another call is just sending, are left to their holders.
    ///
    /// # Errors
    /// The first thing that the ledger said; the other orders were reconciled all the same. A venue that does not answer is not an
    /// error: those orders stay open and are counted.
    ///
    /// # Cancel safety
    /// Each order is reconciled wholly or not at all; calling again goes on.
    pub async fn reconcile(&self, sink: &dyn OrderSink, policy: NotAtVenue) -> Result<Reconciled, GateError> {
        self.reconcile_all(None, sink, policy).await
    }

    /// As [`OrderGate::reconcile`], for the orders at one venue.
    ///
    /// # Errors
    /// As [`OrderGate::reconcile`].
    ///
    /// # Cancel safety
    /// As [`OrderGate::reconcile`].
    pub async fn reconcile_at(
        &self,
        venue: &Venue,
        sink: &dyn OrderSink,
        policy: NotAtVenue,
    ) -> Result<Reconciled, GateError> {
        self.reconcile_all(Some(venue), sink, policy).await
    }

    async fn reconcile_all(
        &self,
        venue: Option<&Venue>,
        sink: &dyn OrderSink,
        policy: NotAtVenue,
    ) -> Result<Reconciled, GateError> {
        self.sweep().await?;
        let mut result = Reconciled::default();
        let mut failed = Ok(());
        let open = self.open_orders().await?.into_iter();
        for record in open.filter(|record| venue.is_none_or(|venue| record.order.instrument.venue == *venue)) {
            let Some(_flight) = self.tokens.fly_if_idle(&record.order.id) else { continue };
            let outcome = self.reconcile_one(&record.order.id, sink, policy, &mut result).await;
            failed = failed.and(outcome);
        }
        failed.map(|()| result)
    }

    async fn reconcile_one(
        &self,
        id: &OrderId,
        sink: &dyn OrderSink,
        policy: NotAtVenue,
        result: &mut Reconciled,
    ) -> Result<(), GateError> {
        // It may have moved since it was listed.
        let Some(stored) = self.orders.load(id).await? else { return Ok(()) };
        let record = stored.record;
        self.orders.note(&record);
        if record.status.is_terminal() {
            return Ok(());
        }
        result.asked += 1;
        match self.ask(id, sink).await {
            Ok(true) => {
                result.at_venue += 1;
                if record.orphaned.is_some() {
                    self.take_up(id).await?;
                }
            }
            Err(GateError::Venue(_)) => result.unknown += 1,
            Err(e) => return Err(e),
            // Only an order without a word from the venue can be missing there honestly.
            Ok(false) if matches!(record.status, OrderStatus::New | OrderStatus::Sent | OrderStatus::Unknown) => {
                self.settle_missing(record.order, record.approved_at, sink, policy, result).await?;
            }
            Ok(false) => result.missing += 1,
        }
        Ok(())
    }

    async fn settle_missing(
        &self,
        order: Order,
        approved_at: infra_types::Timestamp,
        sink: &dyn OrderSink,
        policy: NotAtVenue,
        result: &mut Reconciled,
    ) -> Result<(), GateError> {
        if policy == NotAtVenue::Discard {
            self.discard(&order.id, None).await?;
            result.discarded += 1;
            return Ok(());
        }
        let expires = self.parts.system_clock.now() + self.config.approval_ttl;
        match self.send(Approved::new(order, approved_at, expires, 1), sink).await {
            Ok(Placed::Unknown { .. }) => result.unknown += 1,
            Ok(Placed::NotSent { .. }) => result.discarded += 1,
            Ok(_) => result.sent += 1,
            Err(GateError::Halted { .. } | GateError::ApprovalExpired { .. }) => result.discarded += 1,
            Err(e) => return Err(e),
        }
        Ok(())
    }
}
