//! How far a procedure is, in memory and in the store.

use std::collections::BTreeMap;

use infra_types::{BotId, OrderId, Scope, Timestamp, Venue};
use serde::{Deserialize, Serialize};

use crate::state::{EmergencyState, Snapshot};

pub(super) const SCHEMA: u32 = 1;

/// Open orders that a report names of one venue; it counts all.
pub(super) const OPEN_NAMED_MAX: usize = 100;

/// How a venue stands in a procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VenueStatus {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Nothing is open there any more.
    Canceled,
    /// The time was over first: something may be open still.
    GaveUp,
    /// The scope was re-armed meanwhile, so that nothing is to be canceled any more.
    Rearmed,
}

/// One venue in a procedure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenueReport {
    /// How it stands.
    pub status: VenueStatus,
    /// How often canceling was tried.
    pub attempts: u32,
    /// How many orders were canceled.
    pub canceled: u64,
    /// How many orders are known to be open.
    pub open_count: u64,
    /// Which, up to 100.
    pub open: Vec<OrderId>,
    /// What the last attempt complained of.
    pub problem: Option<String>,
}

impl VenueReport {
    pub(super) fn waiting() -> Self {
        Self { status: VenueStatus::Waiting, attempts: 0, canceled: 0, open_count: 0, open: Vec::new(), problem: None }
    }

    pub(super) fn is_over(&self) -> bool {
        !matches!(self.status, VenueStatus::Waiting | VenueStatus::Running)
    }
}

/// What a bot did because of one stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaltReport {
    pub(super) schema: u32,
    /// Whose orders.
    pub bot: BotId,
    /// What was stopped.
    pub scope: Scope,
    /// How far.
    pub state: EmergencyState,
    /// By whom.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// When the procedure began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The venues that the scope touches.
    pub venues: BTreeMap<Venue, VenueReport>,
    /// Whether the store holds this report as it is.
    #[serde(skip)]
    pub is_recorded: bool,
}

impl HaltReport {
    pub(super) fn new(bot: BotId, stop: &Snapshot, began: Timestamp, venues: Vec<Venue>) -> Self {
        Self {
            schema: SCHEMA,
            bot,
            scope: stop.scope.clone(),
            state: stop.state,
            by: stop.by.clone(),
            at: stop.at,
            began,
            ended: None,
            venues: venues.into_iter().map(|venue| (venue, VenueReport::waiting())).collect(),
            is_recorded: false,
        }
    }

    /// Whether it is about this very stop.
    pub(super) fn is_of(&self, stop: &Snapshot) -> bool {
        (&self.scope, self.state, &self.by, self.at) == (&stop.scope, stop.state, &stop.by, stop.at)
    }

    /// Whether nothing is known to be open, and every venue said so.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ended.is_some() && self.venues.values().all(|v| v.status == VenueStatus::Canceled)
    }

    /// The venues where something may be open still.
    pub fn unfinished(&self) -> impl Iterator<Item = (&Venue, &VenueReport)> {
        self.venues.iter().filter(|(_, v)| !matches!(v.status, VenueStatus::Canceled | VenueStatus::Rearmed))
    }
}
