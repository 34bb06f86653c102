//! Open orders of a bot that died: marked, listed, and taken up again by the bot when it is back. What they hold counts all the time.

use std::sync::Arc;

use infra_state_store::{Batch, StateStore, StoreError};
use infra_types::{BotId, Namespace, OrderId};
use serde::Serialize;

use super::{
    GateError, OrderGate,
    ledger::{OPEN, records_under},
    record::{OrderRecord, Orphaned},
};

/// How often a mark is tried again after another process changed the same record.
const TRIES_MAX: u32 = 16;

/// An open order that nobody looks after.
#[derive(Debug, Clone, Serialize)]
pub struct Orphan {
    /// Whose it was.
    pub bot: BotId,
    /// The order, as the ledger has it.
    #[serde(flatten)]
    pub record: OrderRecord,
}

/// The orphaned orders of every bot on a ledger.
pub(crate) async fn orphans(store: &Arc<dyn StateStore>, namespace: &Namespace) -> Result<Vec<Orphan>, GateError> {
    let mut found = Vec::new();
    for (key, record) in records_under(store, namespace, OPEN).await? {
        let bot = key.strip_prefix(OPEN).and_then(|rest| rest.split('/').next()).and_then(|bot| bot.parse().ok());
        let bot = bot.ok_or_else(|| GateError::Corrupt { reason: format!("{key} names no bot") })?;
        if record.orphaned.is_some() {
            found.push(Orphan { bot, record });
        }
    }
    Ok(found)
}

impl OrderGate {
    /// The orders of every bot of the ledger that nobody looks after: their bot died, and the venue did not say yet that they are over. Each
    /// counts until it does. The bot takes them up again when it is back and reconciles.
    ///
    /// # Errors
    /// What the ledger says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, GateError> {
        orphans(&self.parts.ledger, &self.parts.namespace).await
    }

    /// Marks every open order of this gate's bot as orphaned; how many are.
    pub(crate) async fn orphan_all(&self, by: &BotId, why: &str) -> Result<usize, GateError> {
        let mut marked = 0;
        for record in self.open_orders().await? {
            let since = self.parts.decision_clock.wall();
            let mark = Orphaned { since, by: by.clone(), why: why.to_owned() };
            marked += usize::from(self.mark(&record.order.id, Some(mark)).await?);
        }
        Ok(marked)
    }

    /// Its bot is back, and looks after it again.
    pub(super) async fn take_up(&self, id: &OrderId) -> Result<(), GateError> {
        self.mark(id, None).await.map(drop)
    }

    /// Writes or wipes the mark, if the order is open; whether it has one now.
    async fn mark(&self, id: &OrderId, mark: Option<Orphaned>) -> Result<bool, GateError> {
        for _ in 0..TRIES_MAX {
            let Some(stored) = self.orders.load(id).await? else { return Ok(false) };
            let has_mark = stored.record.orphaned.is_some();
            if stored.record.status.is_terminal() || has_mark == mark.is_some() {
                return Ok(has_mark && !stored.record.status.is_terminal());
            }
            let next = OrderRecord { orphaned: mark.clone(), ..stored.record.clone() };
            let mut batch = Batch::new(self.parts.namespace.clone());
            batch.extend(self.orders.replace(&stored, &next)?);
            batch.extend(self.rows.orphaned(&next, self.parts.decision_clock.wall()));
            match self.parts.ledger.apply(batch).await {
                Ok(_) => return Ok(mark.is_some()),
                Err(e @ StoreError::Mismatch { .. }) if e.index() == Some(0) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(GateError::Contended)
    }
}
