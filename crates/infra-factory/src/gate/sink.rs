//! What a bot brings along: the way to its venue.

use async_trait::async_trait;
use infra_types::{Execution, Order, OrderId};

use super::approved::Approved;

/// What is known about a placement after the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The venue has it.
    Acknowledged {
        /// The venue's own id.
        venue_order_id: String,
    },
    /// The venue refused it for good.
    Rejected {
        /// The venue's words.
        reason: String,
    },
    /// It surely did not reach the venue's book: not connected, turned away unread. It may be sent again.
    NotSent {
        /// What went wrong.
        reason: String,
    },
    /// Nobody knows: a timeout, a lost connection, an answer that says so. Never sent again before the venue was asked.
    Unknown {
        /// What went wrong.
        reason: String,
    },
}

/// What a venue says about an order when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VenueOrder {
    /// It never had it **and never will**: an adapter whose earlier request might still arrive answers an error instead.
    NotFound,
    /// Every report on it so far, oldest first.
    Found {
        /// The reports.
        executions: Vec<Execution>,
    },
}

/// The venue did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the venue did not answer: {reason}")]
pub struct SinkError {
    /// What went wrong.
    pub reason: String,
}

/// The way to a venue: implemented by the bot (or an adapter crate), called by the gate alone.
///
/// An implementation gives each call a deadline of its own and retries nothing: the gate asks before it repeats.
#[async_trait]
pub trait OrderSink: Send + Sync {
    /// Sends an order under its client order id.
    async fn place(&self, order: Approved<Order>) -> Placement;

    /// Asks the venue to take an order out of its book; the report follows. Cancelling what is over is fine.
    ///
    /// # Errors
    /// `SinkError` if the venue did not answer; cancelling again is safe.
    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError>;

    /// Asks what became of an order.
    ///
    /// # Errors
    /// `SinkError` if the venue did not answer, or cannot tell yet.
    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError>;
}
