//! What venues say comes back here, and nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use infra_risk_engine::{Outcome, RiskError, Settled};
use infra_state_store::{Batch, Op, StoreError};
use infra_types::{CorrelationId, Decimal, ErrorKind, Execution, OrderId, OrderStatus};

use super::{
    GateError, OrderGate, error_at_caller,
    ledger::Stored,
    record::{OrderRecord, Step},
};
use crate::wiring::unexpected_fill_halts;

/// How often a report is tried again after another process changed the same records.
const TRIES_MAX: u32 = 16;

/// What a report did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reported {
    /// It was counted; the order as it is now.
    Counted {
        /// The order.
        record: Box<OrderRecord>,
        /// What a fill realised, in the account's currency, before fees.
        realised: Option<Decimal>,
    },
    /// It was counted before; only the caller's operations happened.
    Duplicate,
    /// It says nothing new; only the caller's operations happened.
    Stale,
}

impl OrderGate {
    /// Counts an execution report: the order's state, the position, fees, P&L and the release of what it held, in one batch.
    /// The same report counts once.
    ///
    /// # Errors
    /// `UnknownOrder`, `ReportRefused`, or what the ledger says; then nothing was counted, and reporting it again is right.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it counted, never half; reporting it again is right.
    pub async fn report(&self, execution: Execution) -> Result<Reported, GateError> {
        self.report_with(execution, Vec::new()).await
    }

    /// As [`OrderGate::report`]; `ops` are in the same batch, also where the report says nothing new.
    ///
    /// # Errors
    /// As [`OrderGate::report`]; `Caller` if one of `ops` refuses.
    ///
    /// # Cancel safety
    /// As [`OrderGate::report`].
    pub async fn report_with(&self, execution: Execution, ops: Vec<Op>) -> Result<Reported, GateError> {
        let began = self.parts.system_clock.now();
        let reported = self.count(&execution, &ops).await;
        self.parts.report_latency.record(self.parts.system_clock.now().since(began));
        reported
    }

    async fn count(&self, execution: &Execution, ops: &[Op]) -> Result<Reported, GateError> {
        self.catch_up().await?;
        for _ in 0..TRIES_MAX {
            let stored = self.orders.load(&execution.order).await?;
            let stored = stored.ok_or_else(|| GateError::UnknownOrder { order: execution.order.clone() })?;
            let step = stored.record.step(execution);
            let (next, outcome) = match &step {
                // The order may be over by a report whose reply was lost, so the hint is set right here too.
                Step::Duplicate => {
                    self.orders.note(&stored.record);
                    return self.only_callers(ops).await.map(|()| Reported::Duplicate);
                }
                Step::Stale => {
                    self.orders.note(&stored.record);
                    return self.only_callers(ops).await.map(|()| Reported::Stale);
                }
                Step::TooMany => {
                    if self.config.halt_on_unexpected_fill {
                        unexpected_fill_halts::uncounted(&self.parts.emergency, &stored.record.order).await;
                    }
                    return Err(GateError::ReportRefused { order: execution.order.clone() });
                }
                Step::Moves(next) => (next, None),
                Step::Ends(next) => (next, Some(Outcome::End)),
                Step::Fills { next, fill, is_last } => (next, Some(Outcome::Fill { fill, is_last: *is_last })),
            };
            match self.write(&stored, next.clone(), outcome, Some(execution), ops).await? {
                Some(reported) => return Ok(reported),
                // Somebody else reported on the same order in between: look again.
                None => continue,
            }
        }
        Err(GateError::Contended)
    }

    /// Ends an order that was never sent; if `approval` is given, only if that made it.
    pub(super) async fn discard(&self, id: &OrderId, approval: Option<CorrelationId>) -> Result<(), GateError> {
        for _ in 0..TRIES_MAX {
            let Some(stored) = self.orders.load(id).await? else { return Ok(()) };
            if approval.is_some_and(|approval| stored.record.approval != approval) {
                return Ok(());
            }
            if stored.record.status.is_terminal() {
                self.orders.note(&stored.record);
                return Ok(());
            }
            let mut next = stored.record.clone();
            next.status = OrderStatus::Discarded;
            if self.write(&stored, next, Some(Outcome::End), None, &[]).await?.is_some() {
                return Ok(());
            }
        }
        Err(GateError::Contended)
    }

    /// One batch: what risk settles, the record, the rows, the caller's operations. `None` if the record has changed since.
    async fn write(
        &self,
        stored: &Stored,
        next: OrderRecord,
        outcome: Option<Outcome<'_>>,
        execution: Option<&Execution>,
        ops: &[Op],
    ) -> Result<Option<Reported>, GateError> {
        let order = stored.record.order.clone();
        let at = self.parts.decision_clock.wall();
        let compose = |next: &OrderRecord, settled: Option<&Settled>| -> Result<(Vec<Op>, usize), GateError> {
            let mut all = self.orders.replace(stored, next)?;
            all.extend(self.rows.reported(next, execution, settled, at));
            let own_count = all.len();
            all.extend(ops.iter().cloned());
            Ok((all, own_count))
        };
        let (record, realised) = match outcome {
            None => {
                let (all, own_count) = compose(&next, None)?;
                let mut batch = Batch::new(self.parts.namespace.clone());
                batch.extend(all);
                match self.parts.ledger.apply(batch).await {
                    Ok(_) => (next, None),
                    Err(e @ StoreError::Mismatch { .. }) if e.index() == Some(0) => return Ok(None),
                    Err(e) => return Err(error_at_caller(e, own_count)),
                }
            }
            Some(outcome) => {
                let is_fill = matches!(outcome, Outcome::Fill { .. });
                let with_reservation = |settled: &Settled| {
                    let mut next = next.clone();
                    next.reservation = settled.reservation.clone();
                    next
                };
                // Keys were checked when the order was approved, so composing cannot fail any more.
                compose(&next, None)?;
                // What is told of a fill depends on what it did, and so does where the caller's operations begin.
                let own = AtomicUsize::new(0);
                let ops_of = |settled: &Settled| {
                    let (all, own_count) = compose(&with_reservation(settled), Some(settled)).unwrap_or_default();
                    own.store(own_count, Relaxed);
                    all
                };
                let reservation = stored.record.reservation.clone();
                let answer = self.parts.risk.settle(&order, &reservation, outcome, &ops_of).await;
                let own_count = own.load(Relaxed);
                match answer {
                    Ok(settled) => {
                        if is_fill {
                            self.losses.filled(&order.account, &order.strategy);
                        }
                        if self.config.halt_on_unexpected_fill {
                            unexpected_fill_halts::after(&self.parts.emergency, &order, next.filled, &settled).await;
                        }
                        (with_reservation(&settled), is_fill.then_some(settled.realised))
                    }
                    Err(RiskError::Caller { index: 0, source: StoreError::Mismatch { .. } }) => return Ok(None),
                    Err(RiskError::Caller { index, source }) if index >= own_count => {
                        return Err(GateError::Caller { index: index - own_count, source });
                    }
                    Err(RiskError::Caller { source, .. }) => return Err(GateError::Store(source)),
                    Err(RiskError::Contended { .. }) => return Err(GateError::Contended),
                    Err(lost) if lost.kind() == ErrorKind::Ambiguous => {
                        self.fell_behind().await;
                        return Err(GateError::Risk(lost));
                    }
                    Err(other) => return Err(GateError::Risk(other)),
                }
            }
        };
        self.orders.note(&record);
        Ok(Some(Reported::Counted { record: Box::new(record), realised }))
    }

    async fn only_callers(&self, ops: &[Op]) -> Result<(), GateError> {
        if ops.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(self.parts.namespace.clone());
        batch.extend(ops.iter().cloned());
        self.parts.ledger.apply(batch).await.map(|_| ()).map_err(|e| error_at_caller(e, 0))
    }
}
