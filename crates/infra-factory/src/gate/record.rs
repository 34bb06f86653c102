//! What is written down about an order, and the states it passes through.

use infra_risk_engine::Reservation;
use infra_types::{
    BotId, CorrelationId, Execution, ExecutionId, ExecutionKind, Fill, Order, OrderStatus, Qty, Timestamp,
};
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
    /// Its bot was found dead, and nobody has heard of the order's end since: it counts until the venue says that it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned: Option<Orphaned>,
}

/// That nobody looks after an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphaned {
    /// Since when, by the decision clock of who found out.
    pub since: Timestamp,
    /// Who found out.
    pub by: BotId,
    /// What.
    pub why: String,
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
            orphaned: None,
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

#[cfg(test)]
mod tests {
    use infra_risk_engine::{LimitValue, Quote, RiskEngine, RiskLimits, Stance};
    use infra_state_store::{Limits, MemoryStateStore};
    use infra_types::{Clock, Decimal, InstrumentSpec, ManualClock, Money, Namespace, Side};

    use super::*;

    /// A record whose ids are as long as ids can be.
    async fn longest() -> OrderRecord {
        let long = |c: &str| c.repeat(64);
        let instrument: infra_types::InstrumentId = format!("{}/{}", long("v"), long("s")).parse().unwrap();
        let (base, quote): (infra_types::Currency, infra_types::Currency) =
            ("BTC".parse().unwrap(), "USDT".parse().unwrap());
        let clock = std::sync::Arc::new(ManualClock::default());
        let store = std::sync::Arc::new(MemoryStateStore::new(clock.clone()));
        let all = Some(LimitValue::Amount(Decimal::from(1_000_000)));
        let limits = RiskLimits {
            firm_currency: Some(quote.clone()),
            reference_age_max: Some(std::time::Duration::from_secs(5)),
            order_qty_max: Some(Decimal::from(1_000_000)),
            order_notional_max: Some(Decimal::from(1_000_000)),
            exposure_account_max: all,
            exposure_firm_max: all,
            position_notional_max: all,
            open_positions_max: Some(1),
            daily_loss_max: all,
            drawdown_max: all,
            ..RiskLimits::default()
        };
        let engine = RiskEngine::new(store, Namespace::new("ledger").unwrap(), clock.clone(), limits).unwrap();
        let account: infra_types::AccountId = long("a").parse().unwrap();
        engine.open_account(account.clone(), quote.clone(), Decimal::from(1_000_000)).await.unwrap();
        let spec = InstrumentSpec {
            id: instrument.clone(),
            base,
            quote,
            tick_size: Decimal::new(1, 2),
            lot_size: Decimal::new(1, 3),
            qty_min: Qty::ZERO,
            qty_max: "100000".parse().unwrap(),
            notional_min: Decimal::ONE,
            maker_fee_rate: Decimal::ZERO,
            taker_fee_rate: Decimal::ZERO,
        };
        engine.register_instrument(spec).unwrap();
        let quote = Quote { bid: "1".parse().unwrap(), ask: "1".parse().unwrap(), at: clock.wall() };
        engine.update_market(&instrument, quote).unwrap();
        let (id, strategy) = (long("o").parse().unwrap(), long("t").parse().unwrap());
        let (qty, price) = ("90000".parse().unwrap(), "1".parse().unwrap());
        let order = Order::limit(id, account, strategy, instrument, Side::Buy, qty, price);
        let approval = engine.check_and_reserve(order, Stance::Open, &|_| vec![]).await.unwrap();
        OrderRecord::new(approval.order, CorrelationId::generate(), approval.reservation, clock.wall())
    }

    fn report(record: &OrderRecord, n: usize, kind: ExecutionKind) -> Execution {
        Execution {
            id: format!("{n:0>64}").parse().unwrap(),
            order: record.order.id.clone(),
            at: record.approved_at,
            kind,
        }
    }

    #[tokio::test]
    async fn a_full_record_fits_into_a_value_and_can_still_end() {
        let mut record = longest().await;
        let longest = Decimal::from_i128_with_scale(79_228_162_514_264_337_593_543_950_335, 28);
        let fee = Money::new(-longest, "USDT".parse().unwrap());
        let fill = Fill { qty: longest.try_into().unwrap(), price: longest.try_into().unwrap(), fee, is_maker: false };
        for n in 0..EXECUTIONS_MAX - 1 {
            record.executions.push(report(&record, n, ExecutionKind::Filled(fill.clone())));
        }
        let one = Fill { qty: "0.001".parse().unwrap(), price: "1".parse().unwrap(), ..fill };
        let next = |n| report(&record, n, ExecutionKind::Filled(one.clone()));
        let Step::Fills { next: full, .. } = record.step(&next(EXECUTIONS_MAX)) else { panic!("it has room") };
        assert!(matches!(full.step(&next(EXECUTIONS_MAX + 1)), Step::TooMany));
        let Step::Ends(full) = full.step(&report(&full, EXECUTIONS_MAX + 2, ExecutionKind::Cancelled)) else {
            panic!("it must end")
        };
        let bytes = serde_json::to_vec(&full).unwrap().len();
        assert!(bytes < Limits::default().value_bytes_max * 9 / 10, "{bytes} bytes");
    }
}
