//! Eight comparisons of integers and what a reservation must at least write: no scopes, no market, no names, no lock.

use super::{BURST, Peer, wish};

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    notional: i64,
    qty: i64,
}

#[derive(Debug)]
pub(crate) struct Floor {
    qty_max: i64,
    notional_max: i64,
    price_max: i64,
    price_min: i64,
    long_max: i64,
    gross_max: i64,
    working_max: i64,
    loss_max: i64,
    long: i64,
    gross: i64,
    working: i64,
    loss: i64,
    held: Vec<Held>,
    next: usize,
}

impl Floor {
    pub(crate) fn new() -> Self {
        Self {
            qty_max: 10_000_000,
            notional_max: 500_000_000,
            price_max: 9_000_000,
            price_min: 8_000_000,
            long_max: 100_000_000,
            gross_max: 100_000_000_000,
            working_max: 10_000,
            loss_max: 500_000,
            long: 0,
            gross: 0,
            working: 0,
            loss: 0,
            held: Vec::with_capacity(BURST),
            next: 0,
        }
    }
}

impl Peer for Floor {
    fn prepare(&mut self, _: usize) {}

    #[inline]
    fn reserve(&mut self) -> bool {
        let (qty, price) = wish(self.next);
        self.next += 1;
        let notional = qty * price / 100;
        let passed = qty <= self.qty_max
            && notional <= self.notional_max
            && price <= self.price_max
            && price >= self.price_min
            && self.long + qty <= self.long_max
            && self.gross + notional <= self.gross_max
            && self.working < self.working_max
            && self.loss < self.loss_max;
        if passed {
            self.long += qty;
            self.gross += notional;
            self.working += 1;
            self.held.push(Held { notional, qty });
        }
        passed
    }

    fn release(&mut self) {
        for held in self.held.drain(..) {
            self.long -= held.qty;
            self.gross -= held.notional;
            self.working -= 1;
        }
    }
}
