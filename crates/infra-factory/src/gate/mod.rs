//! The one way an order leaves: approve → [`Approved`] → place → report.
//!
//! Approval writes the reservation, the order's record and the rows for audit and events in **one batch**; a report writes the
//! position, the account, the release and the record in one batch. So whatever is killed when, the ledger is whole, and
//! [`OrderGate::reconcile`] finds out about the orders whose end is not written down.

mod approved;
mod cancel;
mod error;
mod ledger;
mod messages;
mod orphans;
mod place;
mod reconcile;
mod record;
mod report;
mod rows;
mod scopes;
mod sink;
mod tokens;
mod withdraw;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use infra_emergency::{EmergencyController, LimitReport, Stance};
use infra_latency_monitor::Recorder;
use infra_risk_engine::{Approval, RiskEngine, RiskError, RiskEvents};
use infra_state_store::{Batch, Op, StateStore, StoreError, When};
use infra_types::{BotId, Clock, CorrelationId, ErrorKind, Namespace, Order, OrderId};

pub(crate) use self::orphans::orphans;
pub use self::{
    approved::Approved,
    error::GateError,
    orphans::Orphan,
    place::Placed,
    reconcile::{NotAtVenue, Reconciled},
    record::{OrderRecord, Orphaned},
    report::Reported,
    sink::{OrderSink, Placement, SinkError, VenueOrder},
    withdraw::Withdrawn,
};
use self::{ledger::OrderLedger, messages::Messages, record::OrderRecord as Record, rows::Rows, tokens::Tokens};
pub use crate::wiring::breach_escalates::LossPolicy;
use crate::wiring::breach_escalates::{LossParts, LossWatch};

/// How the gate waits and gives up.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// How long an approval may wait to be placed. Default 5 s.
    pub approval_ttl: Duration,
    /// How often one order is sent, at most, if the venue surely does not have it. Default 5.
    pub attempts_max: u32,
    /// How often the venue is asked about an order whose reply was lost, per attempt. Default 5.
    pub queries_max: u32,
    /// How long to wait between those.
    pub backoff: infra_types::Backoff,
    /// Whether a breach of a loss limit halts the limit's scope: the account, or the strategy. Default true.
    pub halt_on_breach: bool,
    /// How losses are watched, and what else comes of them.
    pub losses: LossPolicy,
    /// Whether a fill beyond what was approved, or an exit's fill that makes a position larger, halts the account. Default true.
    pub halt_on_unexpected_fill: bool,
}

impl Default for GateConfig {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let backoff = infra_types::Backoff::new(ms(2), ms(500), 3, infra_types::Jitter::Equal).unwrap_or_default();
        Self {
            approval_ttl: Duration::from_secs(5),
            attempts_max: 5,
            queries_max: 5,
            backoff,
            halt_on_breach: true,
            losses: LossPolicy::default(),
            halt_on_unexpected_fill: true,
        }
    }
}

/// What the gate is made of.
#[derive(Clone)]
pub struct GateParts {
    /// Whose orders these are.
    pub bot: BotId,
    /// Where money-critical state lives; the same store and namespace that `risk` uses.
    pub ledger: Arc<dyn StateStore>,
    /// Its namespace.
    pub namespace: Namespace,
    /// The limits.
    pub risk: Arc<RiskEngine>,
    /// The kill switch.
    pub emergency: Arc<EmergencyController>,
    /// The clock that decisions are dated by: the system's, or a replay's.
    pub decision_clock: Arc<dyn Clock>,
    /// The clock that tokens expire by.
    pub system_clock: Arc<dyn Clock>,
    /// Where approvals are timed.
    pub approve_latency: Recorder,
    /// Where placements are timed.
    pub place_latency: Recorder,
    /// Where reports are timed.
    pub report_latency: Recorder,
}

/// The gate. Share it as `Arc<OrderGate>`.
pub struct OrderGate {
    parts: GateParts,
    config: GateConfig,
    orders: Arc<OrderLedger>,
    rows: Rows,
    tokens: Tokens,
    losses: Arc<LossWatch>,
    messages: Messages,
    /// A reply of the ledger was lost, so what risk remembers may be older than what the ledger holds.
    risk_is_behind: AtomicBool,
}

impl std::fmt::Debug for OrderGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrderGate").field("bot", &self.parts.bot).finish_non_exhaustive()
    }
}

impl OrderGate {
    /// Puts the gate together; no I/O.
    #[must_use]
    pub fn new(parts: GateParts, config: GateConfig) -> Self {
        let losses = LossParts {
            bot: parts.bot.clone(),
            ledger: Arc::clone(&parts.ledger),
            namespace: parts.namespace.clone(),
            risk: Arc::clone(&parts.risk),
            switch: Arc::clone(&parts.emergency),
            decision_clock: Arc::clone(&parts.decision_clock),
            system_clock: Arc::clone(&parts.system_clock),
        };
        let losses = Arc::new(LossWatch::new(losses, config.losses.clone(), config.halt_on_breach));
        Self::over(parts, config, losses)
    }

    fn over(parts: GateParts, config: GateConfig, losses: Arc<LossWatch>) -> Self {
        let orders = Arc::new(OrderLedger::new(Arc::clone(&parts.ledger), parts.namespace.clone(), &parts.bot));
        let events = RiskEvents::new(Arc::clone(&parts.ledger), parts.namespace.clone()).ok();
        let rows = Rows::new(parts.bot.clone(), events);
        let (tokens, messages, risk_is_behind) = (Tokens::default(), Messages::default(), AtomicBool::new(false));
        Self { parts, config, orders, rows, tokens, losses, messages, risk_is_behind }
    }

    /// Compares what accounts and strategies lost with their limits now, at the last quotes: a breach halts the limit's scope, as if an
    /// order had been refused by it. Answers the figures that are near their limit or beyond it. An infrastructure does this after
    /// each fill and every [`LossPolicy::look_every`], unless its decisions follow a clock of their own: a replay calls it at times
    /// of its own.
    ///
    /// # Cancel safety
    /// As [`EmergencyController::halt`]; what was not told is told by the next call.
    pub async fn check_losses(&self) -> Vec<LimitReport> {
        self.losses.look().await
    }

    pub(crate) fn losses(&self) -> &Arc<LossWatch> {
        &self.losses
    }

    /// Cancels that are in no message rate: the ledger did not answer, or 64 others were just being counted. They were sent all the same.
    #[must_use]
    pub fn messages_uncounted(&self) -> u64 {
        self.messages.uncounted()
    }

    /// Asks for an order to be allowed: kill switch, limits, reservation and a durable record, in this order.
    ///
    /// # Errors
    /// `Refused` and `Halted` with the reasons; `DuplicateOrderId`; whatever else the ledger says. On any error nothing is held,
    /// but after one of kind `Ambiguous`, where what may be held is given back once the ledger answers again and
    /// [`GateConfig::approval_ttl`] has passed.
    ///
    /// # Cancel safety
    /// Dropping the future may leave an approved order that was never placed; [`OrderGate::reconcile`] ends it.
    pub async fn approve(&self, order: Order) -> Result<Approved<Order>, GateError> {
        self.approve_with(order, Vec::new()).await
    }

    /// As [`OrderGate::approve`]; `ops` (an inbox mark, a cursor) are in the batch of the decision, **whether it is an approval or
    /// a refusal**, so that what caused the order is done exactly when the order is decided.
    ///
    /// # Errors
    /// As [`OrderGate::approve`]; `Caller` if one of `ops` refuses.
    ///
    /// # Cancel safety
    /// As [`OrderGate::approve`].
    pub async fn approve_with(&self, order: Order, ops: Vec<Op>) -> Result<Approved<Order>, GateError> {
        let began = self.parts.system_clock.now();
        let decided = self.decide(order, ops).await;
        let took = self.parts.system_clock.now().since(began);
        match &decided {
            Ok(_) => self.parts.approve_latency.record(took),
            Err(_) => self.parts.approve_latency.record_failed(took),
        }
        decided
    }

    async fn decide(&self, order: Order, ops: Vec<Op>) -> Result<Approved<Order>, GateError> {
        self.catch_up().await?;
        // What cannot be given back goes on counting, and must not keep an exit from leaving.
        if let Err(e) = self.sweep().await {
            tracing::warn!(error = %e, "an approval that was never placed could not be given back yet");
        }
        self.losses.saw(&order.account, &order.strategy);
        let stance = match self.stance_of(&order) {
            (Stance::Open, _) => infra_risk_engine::Stance::Open,
            (Stance::ReduceOnly, _) => infra_risk_engine::Stance::ReduceOnly,
            (Stance::Closed, state) => {
                let state = state.to_string();
                let refused = GateError::Halted { order: order.id.clone(), state };
                return Err(self.refuse(&order, refused, ops).await);
            }
        };
        let approved_at = self.parts.decision_clock.wall();
        let approval_id = CorrelationId::generate();
        let wanted = order.clone();
        let keys = self.orders.keys(&order.id)?;
        // From before it is written down until it is placed, nobody else in this process may end it.
        let _flight = self.tokens.fly(&order.id);
        // Before the caller's operations come ours: the id was never used, the record, and the rows of this decision.
        let own_count = AtomicUsize::new(0);
        let compose = |approval: &Approval| {
            let record = self.record(approval, approval_id, approved_at);
            let mut own = vec![
                Op::Check { key: keys.done.clone(), when: When::Absent },
                ledger::set(&keys.open, &record, When::Absent),
            ];
            own.extend(self.rows.approved(&record, &approval.decision));
            own_count.store(own.len(), Ordering::Relaxed);
            own.extend(ops.iter().cloned());
            own
        };
        let answer = self.parts.risk.check_and_reserve(order, stance, &compose).await;
        let own_count = own_count.load(Ordering::Relaxed);
        match answer {
            Ok(approval) => Ok(self.hand_out(approval.order, approval_id, approved_at)),
            Err(RiskError::Refused(decision)) => {
                self.losses.refused(&decision).await;
                Err(self.refuse(&wanted, GateError::Refused(decision), ops).await)
            }
            Err(RiskError::Caller { index, source: StoreError::Mismatch { .. } }) if index < 2 => {
                Err(GateError::DuplicateOrderId { order: wanted.id })
            }
            Err(RiskError::Caller { index, source }) if index >= own_count => {
                Err(GateError::Caller { index: index - own_count, source })
            }
            Err(RiskError::Caller { source, .. }) => Err(GateError::Store(source)),
            Err(RiskError::Contended { .. }) => Err(GateError::Contended),
            Err(lost) if lost.kind() == ErrorKind::Ambiguous => {
                self.fell_behind().await;
                self.find_out(&wanted.id, approval_id, approved_at, GateError::Risk(lost)).await
            }
            Err(other) => Err(GateError::Risk(other)),
        }
    }

    /// The reply to a write was lost: positions and counters are read anew, now or before the next decision or report.
    async fn fell_behind(&self) {
        self.risk_is_behind.store(true, Ordering::Release);
        if let Err(e) = self.catch_up().await {
            tracing::warn!(error = %e, "positions cannot be read anew yet; before the next order they are");
        }
    }

    async fn catch_up(&self) -> Result<(), GateError> {
        if self.risk_is_behind.swap(false, Ordering::AcqRel)
            && let Err(e) = self.parts.risk.restore().await
        {
            self.risk_is_behind.store(true, Ordering::Release);
            return Err(GateError::Risk(e));
        }
        Ok(())
    }

    fn record(&self, approval: &Approval, approval_id: CorrelationId, at: infra_types::Timestamp) -> Record {
        let (order, reservation) = (approval.order.clone(), approval.reservation.clone());
        Record::new(order, approval_id, reservation, at)
    }

    fn hand_out(&self, order: Order, approval_id: CorrelationId, at: infra_types::Timestamp) -> Approved<Order> {
        let expires = self.parts.system_clock.now() + self.config.approval_ttl;
        self.tokens.wait(order.id.clone(), Some(approval_id), expires);
        self.orders.mark_open(&order.id);
        Approved::new(order, at, expires, 1)
    }

    /// The reply to an approval was lost: the record says whether it was made.
    async fn find_out(
        &self,
        id: &OrderId,
        approval_id: CorrelationId,
        at: infra_types::Timestamp,
        lost: GateError,
    ) -> Result<Approved<Order>, GateError> {
        match self.orders.load(id).await {
            Ok(Some(stored)) if stored.record.approval == approval_id => {
                Ok(self.hand_out(stored.record.order, approval_id, at))
            }
            Ok(_) => Err(lost),
            Err(_) => {
                let expires = self.parts.system_clock.now() + self.config.approval_ttl;
                self.tokens.wait(id.clone(), Some(approval_id), expires);
                Err(lost)
            }
        }
    }

    /// Writes the refusal down, with the caller's operations. What is answered is the refusal, unless it could not be written.
    async fn refuse(&self, order: &Order, refusal: GateError, ops: Vec<Op>) -> GateError {
        let own = self.rows.refused(order, &refusal, self.parts.decision_clock.wall());
        let own_count = own.len();
        let mut batch = Batch::new(self.parts.namespace.clone());
        batch.extend(own);
        batch.extend(ops);
        match self.parts.ledger.apply(batch).await {
            Ok(_) => refusal,
            Err(e) => error_at_caller(e, own_count),
        }
    }

    /// The orders whose end is not written down, as the ledger has them.
    ///
    /// # Errors
    /// What the ledger says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn open_orders(&self) -> Result<Vec<OrderRecord>, GateError> {
        self.orders.list_open().await
    }

    /// The orders that are over, by id.
    ///
    /// # Errors
    /// What the ledger says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn done_orders(&self) -> Result<Vec<OrderRecord>, GateError> {
        self.orders.list_done().await
    }

    /// One order as the ledger has it.
    ///
    /// # Errors
    /// What the ledger says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn order(&self, id: &OrderId) -> Result<Option<OrderRecord>, GateError> {
        Ok(self.orders.load(id).await?.map(|stored| stored.record))
    }

    /// Whether any order was approved or placed by this process and is not over. One lock, no I/O.
    #[must_use]
    pub fn has_open_orders(&self) -> bool {
        self.orders.open_count() > 0
    }

    /// Gives back what approvals hold whose token expired unplaced; how many there were. `approve` does it by itself.
    ///
    /// # Errors
    /// What the ledger says; what was not swept is swept the next time.
    ///
    /// # Cancel safety
    /// Each order is swept wholly or not at all.
    pub async fn sweep(&self) -> Result<usize, GateError> {
        let due = self.tokens.due(self.parts.system_clock.now());
        for (id, approval_id) in &due {
            self.discard(id, *approval_id).await?;
            self.tokens.forget(id);
        }
        Ok(due.len())
    }
}

/// Tells an error of the caller's operations from one of ours, by the place in the batch.
fn error_at_caller(e: StoreError, own_count: usize) -> GateError {
    match e.index() {
        Some(index) if index >= own_count => GateError::Caller { index: index - own_count, source: e },
        _ => GateError::Store(e),
    }
}
