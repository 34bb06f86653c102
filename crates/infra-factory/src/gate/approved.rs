//! The proof that an order may be sent.

use infra_types::{Monotonic, Order, Timestamp};

/// An order that passed the kill switch and every limit, holds its reservation and is written down: the only thing that
/// [`OrderSink::place`](super::OrderSink::place) takes.
///
/// Only the gate makes one; it is consumed by being placed, and it expires.
///
/// A bare order cannot be placed:
/// ```compile_fail,E0308
/// use infra_factory::gate::OrderSink;
/// async fn cheat(sink: &dyn OrderSink, order: infra_types::Order) {
///     sink.place(order).await;
/// }
/// ```
/// A token cannot be made by hand:
/// ```compile_fail,E0451
/// use infra_factory::gate::Approved;
/// fn cheat(order: infra_types::Order, at: infra_types::Timestamp, until: infra_types::Monotonic) -> Approved<infra_types::Order> {
///     Approved { order, approved_at: at, expires: until, attempt: 1 }
/// }
/// ```
/// Nor used twice:
/// ```compile_fail,E0382
/// use infra_factory::gate::{Approved, OrderSink};
/// async fn cheat(sink: &dyn OrderSink, token: Approved<infra_types::Order>) {
///     sink.place(token).await;
///     sink.place(token).await;
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an approved order holds its reservation until it is placed or its token expires"]
pub struct Approved<T = Order> {
    order: T,
    approved_at: Timestamp,
    expires: Monotonic,
    attempt: u32,
}

impl<T> Approved<T> {
    pub(super) fn new(order: T, approved_at: Timestamp, expires: Monotonic, attempt: u32) -> Self {
        Self { order, approved_at, expires, attempt }
    }

    /// What may be sent; a reduce-only order may be smaller than what was asked for.
    pub fn order(&self) -> &T {
        &self.order
    }

    /// When the decision was made, by the gate's decision clock.
    pub fn approved_at(&self) -> Timestamp {
        self.approved_at
    }

    /// Until when it may be sent, by the machine's clock.
    pub fn expires(&self) -> Monotonic {
        self.expires
    }

    /// Which try this is; the first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}
