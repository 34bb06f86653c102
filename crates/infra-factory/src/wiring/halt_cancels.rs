//! When trading is halted, working orders are cancelled at every venue.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use infra_emergency::{CancelFailed, CancelOrders, CancelProgress};
use infra_types::{Scope, Venue};

use crate::gate::{OrderGate, OrderSink};

/// The ways to the venues, by name.
pub type Venues = BTreeMap<Venue, Arc<dyn OrderSink>>;

/// Cancels one bot's orders through its gate, so that what the venue answers is counted.
pub(crate) struct CancelThroughGate {
    pub(crate) gate: Arc<OrderGate>,
    pub(crate) venues: Venues,
}

#[async_trait]
impl CancelOrders for CancelThroughGate {
    fn venues(&self) -> Vec<Venue> {
        self.venues.keys().cloned().collect()
    }

    async fn cancel_all(&self, venue: &Venue, scope: &Scope) -> Result<CancelProgress, CancelFailed> {
        let sink = self.venues.get(venue).ok_or_else(|| CancelFailed(format!("there is no way to {venue}")))?;
        let withdrawn = self.gate.withdraw(scope, venue, sink.as_ref()).await;
        let withdrawn = withdrawn.map_err(|e| CancelFailed(e.to_string()))?;
        Ok(CancelProgress { canceled: withdrawn.cancelled, open: withdrawn.open })
    }
}
