//! Positions that a second person must approve: asked for, approved or rejected, and used up once.
//!
//! ```text
//! Pending ─ Approved ─ Used
//!   │  │       ├────── Expired
//!   │  │       └────── Withdrawn
//!   │  └─ Rejected
//!   └──── Expired | Withdrawn
//! ```
//!
//! An open request (pending or approved) is a record that changes by compare-and-swap; what is over stands in a bounded list. Each
//! step writes a [`RiskEvent`](crate::RiskEvent) and the caller's companion operations (an audit row, say) in its own batch.

mod error;
mod filter;
mod run;

use std::{collections::BTreeSet, time::Duration};

use infra_types::{AccountId, EventId, InstrumentId, Order, OrderId, Qty, Side, Timestamp, UserId};
use serde::{Deserialize, Serialize};

pub use error::WorkflowError;
pub use filter::RequestFilter;
pub use run::{Companions, PositionGrant, PositionWorkflow};

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Nobody decided yet.
    Pending,
    /// One order may use it.
    Approved,
    /// A second person said no. Over.
    Rejected,
    /// An order used it. Over.
    Used,
    /// Its author took it back. Over.
    Withdrawn,
    /// Its time ran out. Over.
    Expired,
}

impl RequestState {
    /// Whether something can still come of it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Approved)
    }
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionAsk {
    /// Its name for ever, by which asking again after a lost reply is recognised.
    pub id: EventId,
    /// For which account.
    pub account: AccountId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// How much at most, in base units; above zero.
    pub size: Qty,
    /// Why; 1 to 500 characters.
    pub reason: String,
    /// Who asks.
    pub by: UserId,
    /// Until when a decision may be made and used.
    pub expires_at: Timestamp,
}

/// A request, from the ask to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRequest {
    /// What was asked for, by whom.
    pub ask: PositionAsk,
    /// When.
    pub asked_at: Timestamp,
    /// Where it stands.
    pub state: RequestState,
    /// Who approved or rejected it: never who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<UserId>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_because: Option<String>,
    /// The order that used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<OrderId>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_at: Option<Timestamp>,
}

impl PositionRequest {
    /// Why an order may not use it; none if it fits: same account, instrument and side, and not more.
    #[must_use]
    pub fn misfit(&self, order: &Order) -> Option<&'static str> {
        let ask = &self.ask;
        if order.account != ask.account {
            Some("it is for another account")
        } else if order.instrument != ask.instrument {
            Some("it is for another instrument")
        } else if order.side != ask.side {
            Some("it is for the other side")
        } else if order.qty > ask.size {
            Some("the order is larger")
        } else {
            None
        }
    }
}

/// Settings of a [`PositionWorkflow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkflowConfig {
    /// Who may decide; empty lets anybody who is not the author.
    pub approvers: BTreeSet<UserId>,
    /// How long a request may live at most.
    pub life_max: Duration,
    /// How many may be open at once: 1 to 10,000.
    pub open_max: u32,
    /// How many that are over are kept: 1 to 10,000.
    pub over_max: u32,
}

impl Default for WorkflowConfig {
    /// Anybody else decides, a day at most, 1,000 open, 10,000 kept.
    fn default() -> Self {
        Self { approvers: BTreeSet::new(), life_max: Duration::from_secs(86_400), open_max: 1_000, over_max: 10_000 }
    }
}

#[cfg(test)]
mod tests;
