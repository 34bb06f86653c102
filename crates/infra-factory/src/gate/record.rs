//! What is written down about an order, and the states it passes through.

use infra_risk_engine::Reservation;
use infra_types::{CorrelationId, Execution, ExecutionId, ExecutionKind, Fill, Order, OrderStatus, Qty, Timestamp};
use serde::{Deserialize, Serialize};

/// Reports after which an order takes no more fills: a record of so many, each as long as can be, still fits into one value
/// of a store. The other reports come a few times at most and are always taken, so that such an order can end.
const EXECUTIONS_MAX: usize = 2_048;

/// An order as the ledger has it, from approval on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderRecord {
    /// What was approved.
    pub order: Order,
    /// The approval that made it: after a lost reply, the record of that approval is told from an older one of the same id.
    pub approval: CorrelationId,
    /// What it still holds of the limits.
    pub reservation: Reservation,
    /// Where it stands.
    pub status: OrderStatus,
    /// When it was approved, by the decision clock.
    pub approved_at: Timestamp,
    /// The venue's own id, once it said so.
    pub venue_order_id: Option<String>,
    /// How much traded.
    pub filled: Qty,
    /// Σ price × quantity of the fills, in the quote currency.
    pub filled_notional: infra_types::Decimal,
    /// The reports that were counted, oldest first.
    pub executions: Vec<Execution>,
}

/// What a report changes.
#[derive(Debug)]
pub(super) enum Step {
    /// The report was counted before.
    Duplicate,
    /// It says nothing new (a late acknowledgement, the end of what is over).
    Stale,
    /// The order moves on; what it holds is untouched.
    Moves(OrderRecord),
    /// A part traded.
    Fills { next: OrderRecord, fill: Fill, is_last: bool },
    /// It is over: what it holds is released.
    Ends(OrderRecord),
    /// There are too many reports.
    TooMany,
}

impl OrderRecord {
    pub(super) fn new(order: Order, approval: CorrelationId, reservation: Reservation, approved_at: Timestamp) -> Self {
        Self {
            order,
            approval,
            reservation,
            status: OrderStatus::New,
            approved_at,
            venue_order_id: None,
            filled: Qty::ZERO,
            filled_notional: infra_types::Decimal::ZERO,
            executions: Vec::new(),
        }
    }

    fn has(&self, id: &ExecutionId) -> bool {
        self.executions.iter().any(|e| e.id == *id)
    }

    fn moved(&self, execution: &Execution, status: OrderStatus) -> Self {
        let mut next = self.clone();
        next.status = status;
        next.executions.push(execution.clone());
        next
    }

    /// What `execution` changes, by venue truth: a fill counts in any state, everything else only where it can still be true.
    pub(super) fn step(&self, execution: &Execution) -> Step {
        if self.has(&execution.id) {
            return Step::Duplicate;
        }
        let waits = matches!(self.status, OrderStatus::New | OrderStatus::Sent | OrderStatus::Unknown);
        match &execution.kind {
            ExecutionKind::Filled(fill) => self.fill(execution, fill),
            ExecutionKind::Acknowledged { venue_order_id } if waits => {
                let mut next = self.moved(execution, OrderStatus::Acknowledged);
                next.venue_order_id = Some(venue_order_id.clone());
                Step::Moves(next)
            }
            // A fill overtook the acknowledgement: only the venue's id is news.
            ExecutionKind::Acknowledged { venue_order_id }
                if self.venue_order_id.is_none() && self.status != OrderStatus::Discarded =>
            {
                let mut next = self.moved(execution, self.status);
                next.venue_order_id = Some(venue_order_id.clone());
                Step::Moves(next)
            }
            ExecutionKind::Unknown { .. } if matches!(self.status, OrderStatus::New | OrderStatus::Sent) => {
                Step::Moves(self.moved(execution, OrderStatus::Unknown))
            }
            ExecutionKind::Cancelled if !self.status.is_terminal() => {
                Step::Ends(self.moved(execution, OrderStatus::Cancelled))
            }
            ExecutionKind::Expired if !self.status.is_terminal() => {
                Step::Ends(self.moved(execution, OrderStatus::Expired))
            }
            ExecutionKind::Rejected { .. } if !self.status.is_terminal() => {
                Step::Ends(self.moved(execution, OrderStatus::Rejected))
            }
            _ => Step::Stale,
        }
    }

    fn fill(&self, execution: &Execution, fill: &Fill) -> Step {
        if self.executions.len() >= EXECUTIONS_MAX {
            return Step::TooMany;
        }
        let filled = self.filled.get().checked_add(fill.qty.get()).and_then(|sum| Qty::new(sum).ok());
        let traded = fill.price.get().checked_mul(fill.qty.get());
        let (Some(filled), Some(traded)) = (filled, traded) else { return Step::TooMany };
        let is_last = filled >= self.order.qty;
        let status = match (is_last, self.status.is_terminal()) {
            (true, _) => OrderStatus::Filled,
            // A fill that overtook the news of the cancel changes the position, not the end.
            (false, true) => self.status,
            (false, false) => OrderStatus::PartiallyFilled,
        };
        let mut next = self.moved(execution, status);
        next.filled = filled;
        let Some(notional) = self.filled_notional.checked_add(traded) else { return Step::TooMany };
        next.filled_notional = notional;
        Step::Fills { next, fill: fill.clone(), is_last }
    }
}
