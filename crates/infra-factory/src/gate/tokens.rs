//! Which orders this process has in hand: approved and not placed, or on their way at this moment.

use std::collections::BTreeMap;

use infra_types::{CorrelationId, Monotonic, OrderId};
use parking_lot::Mutex;

/// Without it, a reconciliation beside the trading would find an order that is just being sent missing at the venue, and send
/// it a second time.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Approvals that were not placed yet: which one (any, if it is not known), and when its token expires.
    waiting: BTreeMap<OrderId, (Option<CorrelationId>, Monotonic)>,
    /// How many calls of this process are busy with an order.
    flying: BTreeMap<OrderId, usize>,
}

/// A call is busy with an order as long as this lives.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    tokens: &'a Tokens,
    id: OrderId,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut inner = self.tokens.0.lock();
        match inner.flying.get_mut(&self.id) {
            Some(calls) if *calls > 1 => *calls -= 1,
            _ => drop(inner.flying.remove(&self.id)),
        }
    }
}

impl Tokens {
    /// Begins to be busy with an order.
    pub(super) fn fly(&self, id: &OrderId) -> Flight<'_> {
        *self.0.lock().flying.entry(id.clone()).or_default() += 1;
        Flight { tokens: self, id: id.clone() }
    }

    /// As [`Tokens::fly`], but only if nobody is busy with the order or holds a token of it.
    pub(super) fn fly_if_idle(&self, id: &OrderId) -> Option<Flight<'_>> {
        let mut inner = self.0.lock();
        if inner.waiting.contains_key(id) || inner.flying.contains_key(id) {
            return None;
        }
        inner.flying.insert(id.clone(), 1);
        Some(Flight { tokens: self, id: id.clone() })
    }

    /// Takes a token in: the order waits no longer, it flies.
    pub(super) fn take(&self, id: &OrderId) -> Flight<'_> {
        let mut inner = self.0.lock();
        inner.waiting.remove(id);
        *inner.flying.entry(id.clone()).or_default() += 1;
        Flight { tokens: self, id: id.clone() }
    }

    /// What `approval` holds is given back at `expires`, unless it is placed before. An older approval of the same id stands.
    pub(super) fn wait(&self, id: OrderId, approval: Option<CorrelationId>, expires: Monotonic) {
        self.0.lock().waiting.entry(id).or_insert((approval, expires));
    }

    /// What waited for too long.
    pub(super) fn due(&self, now: Monotonic) -> Vec<(OrderId, Option<CorrelationId>)> {
        let inner = self.0.lock();
        let due = inner.waiting.iter().filter(|(_, (_, expires))| *expires <= now);
        due.map(|(id, (approval, _))| (id.clone(), *approval)).collect()
    }

    pub(super) fn forget(&self, id: &OrderId) {
        self.0.lock().waiting.remove(id);
    }
}
