//! When a bot falls silent, another one marks its orders as orphaned and cancels them; what they held counts on until the venue's word
//! ends it.

use std::sync::Arc;

use async_trait::async_trait;
use infra_emergency::{BotDeath, OnDeath};
use infra_types::{BotId, Scope};

use super::halt_cancels::Venues;
use crate::gate::OrderGate;

/// Cancels a dead bot's orders at the venues that this bot can reach.
pub(crate) struct CancelForDead {
    /// Who finds out.
    pub(crate) by: BotId,
    pub(crate) gate: Arc<OrderGate>,
    pub(crate) venues: Venues,
}

#[async_trait]
impl OnDeath for CancelForDead {
    async fn dead(&self, death: &BotDeath) -> Result<String, String> {
        let gate = self.gate.of_bot(&death.bot);
        // Marked before anything else: what cannot be cancelled is then known to be nobody's.
        gate.orphan_all(&self.by, "its bot fell silent").await.map_err(|e| e.to_string())?;
        let mut cancelled = 0;
        let mut problems = Vec::new();
        for (venue, sink) in &self.venues {
            match gate.withdraw(&Scope::Firm, venue, sink.as_ref()).await {
                Ok(withdrawn) => {
                    cancelled += withdrawn.cancelled;
                    problems.extend(
                        (!withdrawn.open.is_empty()).then(|| format!("{venue}: {} open", withdrawn.open.len())),
                    );
                }
                Err(e) => problems.push(format!("{venue}: {e}")),
            }
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        let left = gate.open_orders().await.map_err(|e| e.to_string())?;
        let elsewhere = left.iter().filter(|r| !self.venues.contains_key(&r.order.instrument.venue)).count();
        let unknown = left.len() - elsewhere;
        Ok(format!(
            "{cancelled} orders cancelled; {unknown} that the venues do not know and {elsewhere} at venues out of reach go on counting"
        ))
    }
}
