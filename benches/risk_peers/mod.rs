//! The same orders through each: our ledger, openpit, the least that must be done, and the shared engine over a store in memory.

mod floor;
mod local;
mod openpit;

use std::hint::black_box;

pub(crate) use floor::Floor;
pub(crate) use local::{Local, engine, order};
pub(crate) use openpit::{Openpit, Policies};

/// Orders that are made ready before any time is taken: different prices and quantities, so that nothing is predicted.
pub(crate) const ORDERS: usize = 256;
/// Orders that work at once, before all are given back.
pub(crate) const BURST: usize = 64;

/// What number `n` of the orders asks for: hundred thousandths of a bitcoin and cents, within every limit of every peer.
pub(crate) fn wish(n: usize) -> (i64, i64) {
    let n = i64::try_from(n % ORDERS).unwrap_or(0);
    (1_000 + (n * 37) % 101, 8_723_201 - (n * 53) % 97)
}

/// One implementation. Orders are given by number, so that none is made while time is taken.
pub(crate) trait Peer {
    /// Makes ready what the next `orders` calls of `reserve` take.
    fn prepare(&mut self, orders: usize);
    /// Checks and reserves; true if the order passed.
    fn reserve(&mut self) -> bool;
    /// Gives back all that is reserved.
    fn release(&mut self);
}

/// Fails where an order did not pass: a refusal is another path.
#[inline]
pub(crate) fn reserve(peer: &mut impl Peer) {
    assert!(black_box(peer.reserve()), "within all limits");
}
