//! What an operator wants to see.

use infra_state_store::ListRange;
use infra_types::Scope;
use serde::Serialize;

use crate::{
    controller::EmergencyController,
    durable::HISTORY_MAX,
    error::EmergencyError,
    heartbeat::BotRecord,
    push::PushCounts,
    state::{Snapshot, Transition},
};

/// How the switch stands, for a person who looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmergencyStatus {
    /// The whole firm.
    pub firm: Snapshot,
    /// Every narrower scope that is stopped.
    pub scopes: Vec<Snapshot>,
    /// Whether the state is confirmed by the store at this moment. If not, only exits pass.
    pub is_confirmed: bool,
    /// Why the store could not confirm it just now.
    pub problem: Option<String>,
    /// The newest transitions, the newest first; empty if they could not be read.
    pub history: Vec<Transition>,
    /// Every bot with a heartbeat; empty if they could not be read.
    pub bots: Vec<BotRecord>,
    /// How many refreshes of this process failed.
    pub refreshes_failed: u64,
    /// What became of pushes.
    pub push: PushCounts,
}

impl EmergencyController {
    /// Reads the store and tells how everything stands, with up to `history` (at most 500) transitions. Never an error: what
    /// could not be read is in [`EmergencyStatus::problem`].
    ///
    /// # Cancel safety
    /// As [`refresh`](Self::refresh).
    pub async fn status(&self, history: usize) -> EmergencyStatus {
        let refreshed = self.refresh().await.map(drop);
        let (history, read) = match self.history(history).await {
            Ok(history) => (history, Ok(())),
            Err(e) => (Vec::new(), Err(e)),
        };
        let (bots, read) = match self.bots().await {
            Ok(bots) => (bots, read),
            Err(e) => (Vec::new(), read.and(Err(e))),
        };
        let (firm, scopes) = self.snapshots().into_iter().partition::<Vec<_>, _>(|s| s.scope == Scope::Firm);
        EmergencyStatus {
            firm: firm.into_iter().next().unwrap_or_else(|| self.snapshot()),
            scopes,
            is_confirmed: self.clock.now() < self.valid_until(),
            problem: refreshed.and(read).err().map(|e| e.to_string()),
            history,
            bots,
            refreshes_failed: self.refreshes_failed(),
            push: self.push_counts(),
        }
    }

    /// The newest transitions of all scopes, the newest first, at most 500. A line that cannot be read is passed over.
    ///
    /// # Errors
    /// `Store`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn history(&self, limit: usize) -> Result<Vec<Transition>, EmergencyError> {
        let limit = limit.min(HISTORY_MAX as usize);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let page = self.store.list_range(&self.namespace, &self.history, ListRange::newest(limit)).await?;
        Ok(page.values.iter().filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}
