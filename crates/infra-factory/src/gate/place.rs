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
    /// The venue could not be asked, or the ledger did not take its answer. The order counts as live until [`OrderGate::reconcile`] knows better.
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

/// What is known after one try.
enum Answer {
    Ended(Placed),
    /// The venue surely does not have it.
    Missing {
        reason: String,
    },
}

impl OrderGate {
    /// Sends an approved order. Where the venue surely does not have it, it is sent again; where nobody knows, the venue is asked
    /// first. Never are there two orders.
    ///
    /// # Errors
    /// `ApprovalExpired` and `Halted` if the time or the kill switch ran out since the approval (what it held is given back), or what
    /// the ledger says. After an error the order is not at the venue, and what it still holds is swept. A ledger that fails once the
    /// order left is no error but [`Placed::Unknown`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave the order at the venue without a report; [`OrderGate::reconcile`] finds it.
    pub async fn place(&self, approved: Approved<Order>, sink: &dyn OrderSink) -> Result<Placed, GateError> {
        let id = approved.order().id.clone();
        let _flight = self.tokens.take(&id);
        if approved.expires() <= self.parts.system_clock.now() {
            self.give_up(&id).await?;
            return Err(GateError::ApprovalExpired { order: id });
        }
        let began = self.parts.system_clock.now();
        let placed = self.send(approved, sink).await;
        self.parts.place_latency.record(self.parts.system_clock.now().since(began));
        placed
    }

    /// Whether the kill switch, asked now, lets this order out.
    async fn recheck(&self, order: &Order) -> Result<(), GateError> {
        let id = &order.id;
        let (stance, state) = self.stance_of(order);
        let allowed = match stance {
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
        self.give_up(id).await?;
        Err(GateError::Halted { order: id.clone(), state: state.to_string() })
    }

    /// Ends an order that is surely not at the venue. What the ledger does not take now, the next sweep does.
    async fn give_up(&self, id: &OrderId) -> Result<(), GateError> {
        self.discard(id, None).await.inspect_err(|_| self.sweep_soon(id))
    }

    fn sweep_soon(&self, id: &OrderId) {
        self.tokens.wait(id.clone(), None, self.parts.system_clock.now());
    }

    /// Sends until the venue has the order, refuses it, or it is given up. An error says that the venue surely does not have it.
    pub(super) async fn send(&self, mut approved: Approved<Order>, sink: &dyn OrderSink) -> Result<Placed, GateError> {
        let id = approved.order().id.clone();
        loop {
            self.recheck(approved.order()).await.inspect_err(|_| self.sweep_soon(&id))?;
            if approved.expires() <= self.parts.system_clock.now() {
                self.give_up(&id).await?;
                return Err(GateError::ApprovalExpired { order: id });
            }
            let (at, expires, attempt) = (approved.approved_at(), approved.expires(), approved.attempt());
            let order = approved.order().clone();
            self.orders.mark_open(&id);
            let last = match self.answer(&id, sink.place(approved).await, sink).await {
                Ok(Answer::Ended(placed)) => return Ok(placed),
                Ok(Answer::Missing { reason }) => reason,
                // The order left, so this is no refusal: it counts as live until it is known better.
                Err(e) => return Ok(Placed::Unknown { reason: e.to_string() }),
            };
            if attempt >= self.config.attempts_max {
                self.give_up(&id).await?;
                return Ok(Placed::NotSent { reason: last });
            }
            self.pause(attempt).await;
            approved = Approved::new(order, at, expires, attempt + 1);
        }
    }

    /// Writes down what the venue answered, and asks it where it did not.
    async fn answer(&self, id: &OrderId, placement: Placement, sink: &dyn OrderSink) -> Result<Answer, GateError> {
        let tell = async |what, kind| self.report(self.own_report(id, what, kind)?).await;
        match placement {
            Placement::Acknowledged { venue_order_id } => {
                tell("ack", ExecutionKind::Acknowledged { venue_order_id }).await?;
                self.at_venue(id).await.map(Answer::Ended)
            }
            Placement::Rejected { reason } => {
                tell("reject", ExecutionKind::Rejected { reason: reason.clone() }).await?;
                Ok(Answer::Ended(Placed::Rejected { reason }))
            }
            Placement::NotSent { reason } => Ok(Answer::Missing { reason }),
            Placement::Unknown { reason } => {
                tell("unknown", ExecutionKind::Unknown { reason: reason.clone() }).await?;
                match self.ask(id, sink).await? {
                    true => self.at_venue(id).await.map(Answer::Ended),
                    false => Ok(Answer::Missing { reason }),
                }
            }
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
