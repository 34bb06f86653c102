//! Taking every order out of a venue's book that lies in a scope, and finding out what became of each.

use futures::{StreamExt, stream};
use infra_types::{BotId, ExecutionKind, Order, OrderId, Scope, Venue};

use super::{GateError, OrderGate, sink::OrderSink};

/// Calls that are under way at one venue at a time.
const CALLS_MAX: usize = 16;

/// What a withdrawal came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Orders that the venue now says it cancelled.
    pub cancelled: u64,
    /// Orders that work still, are just being sent, or that the venue could not tell about.
    pub open: Vec<OrderId>,
}

/// What became of one order.
enum Fate {
    Cancelled,
    Over,
    Open(OrderId),
}

impl OrderGate {
    /// Asks `venue` to cancel every open order of this bot that lies in `scope`, then asks what became of each and counts what it says. What
    /// an order held is given back by the venue's word only. Repeating it is safe; never gated, never throttled.
    ///
    /// An order that the venue does not know is not open, and goes on counting until [`OrderGate::reconcile`] ends it.
    ///
    /// # Errors
    /// What the ledger says; a venue that does not answer is no error, but leaves its orders open.
    ///
    /// # Cancel safety
    /// Dropping the future may leave cancels sent; calling again goes on.
    pub async fn withdraw(&self, scope: &Scope, venue: &Venue, sink: &dyn OrderSink) -> Result<Withdrawn, GateError> {
        let groups = self.groups_for(scope).await;
        let open = self.open_orders().await?.into_iter().map(|record| record.order);
        let mine = open.filter(|order| order.instrument.venue == *venue && groups.scopes(order).lie_in(scope));
        let mut fates = stream::iter(mine).map(|order| self.withdraw_one(order, sink)).buffer_unordered(CALLS_MAX);
        let mut withdrawn = Withdrawn::default();
        while let Some(fate) = fates.next().await {
            match fate? {
                Fate::Cancelled => withdrawn.cancelled += 1,
                Fate::Over => {}
                Fate::Open(id) => withdrawn.open.push(id),
            }
        }
        withdrawn.open.sort_unstable();
        Ok(withdrawn)
    }

    async fn withdraw_one(&self, order: Order, sink: &dyn OrderSink) -> Result<Fate, GateError> {
        let id = order.id.clone();
        // One that is just being sent may reach the book after this cancel: it is asked for again.
        let is_idle = self.tokens.fly_if_idle(&id).is_some();
        self.messages.count_cancel(self, order);
        if sink.cancel(&id).await.is_err() {
            return Ok(Fate::Open(id));
        }
        let is_known = match self.ask(&id, sink).await {
            Ok(is_known) => is_known,
            Err(GateError::Venue(_)) => return Ok(Fate::Open(id)),
            Err(e) => return Err(e),
        };
        if !is_known {
            return Ok(if is_idle { Fate::Over } else { Fate::Open(id) });
        }
        let Some(stored) = self.orders.load(&id).await? else { return Ok(Fate::Over) };
        self.orders.note(&stored.record);
        let was_cancelled = stored.record.executions.iter().any(|e| e.kind == ExecutionKind::Cancelled);
        Ok(match stored.record.status.is_terminal() {
            false => Fate::Open(id),
            true if was_cancelled => Fate::Cancelled,
            true => Fate::Over,
        })
    }

    /// The same gate over the orders of another bot, which has died: to take its orders back and to count what the venue says of them.
    #[must_use]
    pub fn of_bot(&self, bot: &BotId) -> Self {
        let mut parts = self.parts.clone();
        parts.bot = bot.clone();
        let gate = Self::over(parts, self.config.clone(), std::sync::Arc::clone(&self.losses));
        // What another process wrote is not in this one's memory.
        gate.risk_is_behind.store(true, std::sync::atomic::Ordering::Release);
        gate
    }
}
