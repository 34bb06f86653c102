//! Cancels are counted as messages, beside the way of the cancel: they are never refused, and wait for nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use infra_risk_engine::{Message, RiskEngine, RiskError};
use infra_types::{Order, OrderId};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{OrderGate, ledger::OrderLedger};

/// Messages that are being counted at once.
const COUNTING_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Messages {
    room: Arc<Semaphore>,
    uncounted: Arc<AtomicU64>,
}

impl Default for Messages {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(COUNTING_MAX)), uncounted: Arc::default() }
    }
}

/// The order that a cancel is about, or where to look for it.
enum About {
    Order(Box<Order>),
    Id(OrderId, Arc<OrderLedger>),
}

impl Messages {
    pub(super) fn uncounted(&self) -> u64 {
        self.uncounted.load(Relaxed)
    }

    /// Counts the cancel of `order`.
    pub(super) fn count_cancel(&self, gate: &OrderGate, order: Order) {
        self.spawn(gate, About::Order(Box::new(order)));
    }

    /// The same, where only the id is at hand.
    pub(super) fn count_cancel_of(&self, gate: &OrderGate, id: &OrderId) {
        self.spawn(gate, About::Id(id.clone(), Arc::clone(&gate.orders)));
    }

    fn spawn(&self, gate: &OrderGate, about: About) {
        let (room, runtime) = (Arc::clone(&self.room).try_acquire_owned(), Handle::try_current());
        let (Ok(permit), Ok(runtime)) = (room, runtime) else {
            self.uncounted.fetch_add(1, Relaxed);
            return;
        };
        let (risk, uncounted) = (Arc::clone(&gate.parts.risk), Arc::clone(&self.uncounted));
        runtime.spawn(async move {
            let _permit = permit;
            if let Err(reason) = count(&risk, about).await {
                uncounted.fetch_add(1, Relaxed);
                tracing::warn!(reason, "a cancel was sent and could not be counted");
            }
        });
    }
}

async fn count(risk: &RiskEngine, about: About) -> Result<(), String> {
    let order = match about {
        About::Order(order) => *order,
        About::Id(id, orders) => match orders.load(&id).await {
            Ok(Some(stored)) => stored.record.order,
            Ok(None) => return Err(format!("{id} was never approved here")),
            Err(e) => return Err(e.to_string()),
        },
    };
    risk.count_message(&order, Message::Cancel).await.map(drop).map_err(|e: RiskError| e.to_string())
}
