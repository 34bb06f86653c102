//! Sending: the only caller of a venue's `place`.

use infra_emergency::Stance;
use infra_risk_engine::Effect;
use infra_types::{Execution, ExecutionKind, Order, OrderId};

use super::{
    GateError, OrderGate,
    approved::Approved,
    record::OrderRecord,
    sink::{OrderSink, Placement, VenueOrder},
};

/// How a placement ended, as far as is known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Placed {
    /// The venue has it (or had it: it may be filled already).
    AtVenue(Box<OrderRecord>),
    /// The venue refused it; nothing is held any more.
    Rejected {
        /// The venue's words.
        reason: String,
    },
    /// The venue could not be asked. The order counts as live until [`OrderGate::reconcile`] knows better.
    Unknown {
        /// What went wrong.
        reason: String,
    },
    /// It surely never reached the venue, and was given up; nothing is held any more.
    NotSent {
        /// What went wrong.
        reason: String,
    },
}

impl OrderGate {
    /// Sends an approved order. Where the venue surely does not have it, it is sent again; where nobody knows, the venue is asked
    /// first. Never are there two orders.
    ///
    /// # Errors
    /// `ApprovalExpired` and `Halted` if the time or the kill switch ran out since the approval (what it held is given back), or what
    /// the ledger says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the order at the venue without a report; [`OrderGate::reconcile`] finds it.
    pub async fn place(&self, approved: Approved<Order>, sink: &dyn OrderSink) -> Result<Placed, GateError> {
        let id = approved.order().id.clone();
        self.waiting.lock().remove(&id);
        if approved.expires() <= self.parts.system_clock.now() {
            self.discard(&id).await?;
            return Err(GateError::ApprovalExpired { order: id });
        }
        let began = self.parts.system_clock.now();
        let placed = self.send(approved, sink).await;
        self.parts.place_latency.record(self.parts.system_clock.now().since(began));
        placed
    }

    /// Whether the kill switch, asked now, lets this order out.
    async fn recheck(&self, id: &OrderId) -> Result<(), GateError> {
        let allowed = match self.parts.emergency.stance() {
            Stance::Open => true,
            Stance::Closed => false,
            Stance::ReduceOnly => {
                let stored = self.orders.load(id).await?;
                stored.is_some_and(|s| s.record.reservation.effect() == Effect::Reduce)
            }
        };
        if allowed {
            return Ok(());
        }
        self.discard(id).await?;
        Err(GateError::Halted { order: id.clone(), state: self.parts.emergency.state().to_string() })
    }

    pub(super) async fn send(&self, mut approved: Approved<Order>, sink: &dyn OrderSink) -> Result<Placed, GateError> {
        let id = approved.order().id.clone();
        loop {
            self.recheck(&id).await?;
            let (at, expires, attempt) = (approved.approved_at(), approved.expires(), approved.attempt());
            let order = approved.order().clone();
            self.orders.mark_open(&id);
            let last = match sink.place(approved).await {
                Placement::Acknowledged { venue_order_id } => {
                    let kind = ExecutionKind::Acknowledged { venue_order_id };
                    self.report(self.own_report(&id, "ack", kind)?).await?;
                    return self.at_venue(&id).await;
                }
                Placement::Rejected { reason } => {
                    let kind = ExecutionKind::Rejected { reason: reason.clone() };
                    self.report(self.own_report(&id, "reject", kind)?).await?;
                    return Ok(Placed::Rejected { reason });
                }
                Placement::NotSent { reason } => reason,
                Placement::Unknown { reason } => {
                    let kind = ExecutionKind::Unknown { reason: reason.clone() };
                    self.report(self.own_report(&id, "unknown", kind)?).await?;
                    match self.ask(&id, sink).await {
                        Ok(true) => return self.at_venue(&id).await,
                        Ok(false) => reason,
                        Err(GateError::Venue(e)) => return Ok(Placed::Unknown { reason: e.to_string() }),
                        Err(e) => return Err(e),
                    }
                }
            };
            if attempt >= self.config.attempts_max {
                self.discard(&id).await?;
                return Ok(Placed::NotSent { reason: last });
            }
            self.pause(attempt).await;
            approved = Approved::new(order, at, expires, attempt + 1);
        }
    }

    /// Asks the venue about an order until it answers, and reports what it says; whether the venue has it.
    pub(super) async fn ask(&self, id: &OrderId, sink: &dyn OrderSink) -> Result<bool, GateError> {
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match sink.query(id).await {
                Ok(answer) => break answer,
                Err(e) if tries >= self.config.queries_max => return Err(GateError::Venue(e)),
                Err(_) => self.pause(tries).await,
            }
        };
        match answer {
            VenueOrder::NotFound => Ok(false),
            VenueOrder::Found { executions } => {
                for execution in executions {
                    self.report(execution).await?;
                }
                Ok(true)
            }
        }
    }

    async fn at_venue(&self, id: &OrderId) -> Result<Placed, GateError> {
        let stored = self.orders.load(id).await?.ok_or_else(|| GateError::UnknownOrder { order: id.clone() })?;
        let rejection = stored.record.executions.iter().find_map(|e| match &e.kind {
            ExecutionKind::Rejected { reason } => Some(reason.clone()),
            _ => None,
        });
        Ok(rejection.map_or_else(|| Placed::AtVenue(Box::new(stored.record)), |reason| Placed::Rejected { reason }))
    }

    async fn pause(&self, attempt: u32) {
        // The id of the running task spreads retries of a fleet well enough and needs no random source here.
        let random = infra_types::CorrelationId::generate().as_u128() as u64;
        self.parts.system_clock.sleep(self.config.backoff.delay(attempt, random)).await;
    }

    /// A report that the gate itself makes from a call's answer; its id is the same each time.
    fn own_report(&self, id: &OrderId, what: &str, kind: ExecutionKind) -> Result<Execution, GateError> {
        let execution_id = rows_id(id, what)
            .parse()
            .map_err(|e: infra_types::InvalidValue| GateError::Corrupt { reason: e.to_string() })?;
        Ok(Execution { id: execution_id, order: id.clone(), at: self.parts.decision_clock.wall(), kind })
    }
}

/// Execution ids have 64 bytes; an order id may fill them, so its tail gives way.
fn rows_id(id: &OrderId, what: &str) -> String {
    let room = 64 - what.len() - 1;
    let text = id.as_str();
    format!("{what}.{}", &text[text.len().saturating_sub(room)..])
}
