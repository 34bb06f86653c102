//! A venue that answers by script and knows the truth.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use infra_factory::{
    gate::{Approved, OrderSink, Placement, SinkError, VenueOrder},
    types::{Execution, ExecutionKind, Fill, Money, Order, OrderId, Timestamp},
};
use parking_lot::Mutex;

/// How the venue answers one placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It arrives and is acknowledged.
    Acks,
    /// It arrives; the reply is lost.
    LostArrived,
    /// It never arrives, and nobody knows.
    LostAway,
    /// It surely never left.
    NotSent,
    /// It is refused for good.
    Rejects,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    /// What will have happened to an order once it arrives.
    fates: BTreeMap<OrderId, Vec<Execution>>,
    truth: BTreeMap<OrderId, Vec<Execution>>,
    arrivals: Vec<Order>,
    attempts: Vec<(OrderId, u32)>,
    queries: u32,
    queries_fail: u32,
    cancels: Vec<OrderId>,
    cancels_fail: u32,
}

/// Placements meet the queue of answers, then acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Venue(Mutex<State>);

impl Venue {
    pub(crate) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let venue = Self::default();
        venue.0.lock().answers = answers.into_iter().collect();
        venue
    }

    /// What `order` meets at the venue: after its acknowledgement come `executions`, at once.
    pub(crate) fn fate(&self, order: &str, executions: Vec<Execution>) {
        self.0.lock().fates.insert(order.parse().unwrap(), executions);
    }

    /// Something happens to an order that is at the venue.
    pub(crate) fn happens(&self, execution: Execution) {
        self.0.lock().truth.get_mut(&execution.order).expect("it is at the venue").push(execution);
    }

    /// The next `n` questions are not answered.
    pub(crate) fn fail_queries(&self, n: u32) {
        self.0.lock().queries_fail = n;
    }

    pub(crate) fn fail_cancels(&self, n: u32) {
        self.0.lock().cancels_fail = n;
    }

    /// Everything that the venue says about an order.
    pub(crate) fn truth(&self, order: &OrderId) -> Vec<Execution> {
        self.0.lock().truth.get(order).cloned().unwrap_or_default()
    }

    /// What arrived, in order; an order that arrived twice stands there twice.
    pub(crate) fn arrivals(&self) -> Vec<Order> {
        self.0.lock().arrivals.clone()
    }

    /// Every call of `place`: which order, which attempt.
    pub(crate) fn attempts(&self) -> Vec<(OrderId, u32)> {
        self.0.lock().attempts.clone()
    }

    pub(crate) fn queries(&self) -> u32 {
        self.0.lock().queries
    }

    pub(crate) fn cancels(&self) -> Vec<OrderId> {
        self.0.lock().cancels.clone()
    }
}

impl State {
    fn arrive(&mut self, order: &Order) {
        let mut executions = vec![ack(order.id.as_str())];
        executions.extend(self.fates.get(&order.id).cloned().unwrap_or_default());
        self.truth.insert(order.id.clone(), executions);
        self.arrivals.push(order.clone());
    }
}

#[async_trait]
impl OrderSink for Venue {
    async fn place(&self, approved: Approved<Order>) -> Placement {
        let mut state = self.0.lock();
        let order = approved.order();
        state.attempts.push((order.id.clone(), approved.attempt()));
        let reason = "by script".to_owned();
        match state.answers.pop_front().unwrap_or(Answer::Acks) {
            Answer::Acks => {
                state.arrive(order);
                Placement::Acknowledged { venue_order_id: format!("v-{}", order.id) }
            }
            Answer::LostArrived => {
                state.arrive(order);
                Placement::Unknown { reason }
            }
            Answer::LostAway => Placement::Unknown { reason },
            Answer::NotSent => Placement::NotSent { reason },
            Answer::Rejects => Placement::Rejected { reason },
        }
    }

    async fn cancel(&self, order: &OrderId) -> Result<(), SinkError> {
        let mut state = self.0.lock();
        if state.cancels_fail > 0 {
            state.cancels_fail -= 1;
            return Err(SinkError { reason: "by script".into() });
        }
        state.cancels.push(order.clone());
        Ok(())
    }

    async fn query(&self, order: &OrderId) -> Result<VenueOrder, SinkError> {
        let mut state = self.0.lock();
        state.queries += 1;
        if state.queries_fail > 0 {
            state.queries_fail -= 1;
            return Err(SinkError { reason: "by script".into() });
        }
        Ok(match state.truth.get(order) {
            Some(executions) => VenueOrder::Found { executions: executions.clone() },
            None => VenueOrder::NotFound,
        })
    }
}

fn execution(id: String, order: &str, kind: ExecutionKind) -> Execution {
    Execution {
        id: id.parse().unwrap(),
        order: order.parse().unwrap(),
        at: Timestamp::from_millis(1_735_689_600_000),
        kind,
    }
}

pub(crate) fn ack(order: &str) -> Execution {
    let venue_order_id = format!("v-{order}");
    execution(
        format!("venue.{}", &order[order.len().saturating_sub(58)..]),
        order,
        ExecutionKind::Acknowledged { venue_order_id },
    )
}

pub(crate) fn fill(id: &str, order: &str, qty: &str, price: &str) -> Execution {
    fill_with_fee(id, order, qty, price, "0")
}

pub(crate) fn fill_with_fee(id: &str, order: &str, qty: &str, price: &str, fee: &str) -> Execution {
    let fee = Money::new(fee.parse().unwrap(), "USDT".parse().unwrap());
    let fill = Fill { qty: qty.parse().unwrap(), price: price.parse().unwrap(), fee, is_maker: false };
    execution(id.to_owned(), order, ExecutionKind::Filled(fill))
}

pub(crate) fn cancelled(order: &str) -> Execution {
    execution(format!("cancel.{order}"), order, ExecutionKind::Cancelled)
}

pub(crate) fn expired(order: &str) -> Execution {
    execution(format!("expire.{order}"), order, ExecutionKind::Expired)
}
