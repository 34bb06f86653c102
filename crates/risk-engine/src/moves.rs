//! What every step does to the counters: one function of what was held before and after, for approvals, fills, ends, orphans
//! and reconciliations alike. Counters are kept for every scope, whether a rule names it or not, so that a limit that is set
//! tomorrow finds true figures today.

use std::collections::BTreeMap;

use infra_state_store::{Delta, StoreError};
use infra_types::{Scope, Side, StrategyId};

use crate::{
    book::Book,
    ledger::{self, Counter, Metric, Place},
    plan::Ops,
    position::Position,
    reservation::{Effect, Reservation},
    slots,
};

/// One step of one order: what was there and what is there then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    /// The reservation before (none: the order is new) and after. Both are the same order's.
    pub(crate) reservation: (Option<&'a Reservation>, &'a Reservation),
    /// The account's position.
    pub(crate) position: (&'a Position, &'a Position),
    /// The strategy's part of it.
    pub(crate) part: (&'a Position, &'a Position),
}

/// Changes of counters, by counter; what does not change is not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves(pub(crate) BTreeMap<Counter, i64>);

impl Moves {
    fn add(&mut self, metric: Metric, place: Place, by: i64) {
        if by == 0 {
            return;
        }
        let sum = self.0.entry(Counter { metric, place }).or_default();
        *sum += by;
    }

    fn prune(mut self) -> Self {
        self.0.retain(|_, by| *by != 0);
        self
    }

    pub(crate) fn of(&self, counter: &Counter) -> i64 {
        self.0.get(counter).copied().unwrap_or(0)
    }

    /// What an order holds, `sign` times.
    fn reservation(&mut self, r: &Reservation, sign: i64) -> Option<()> {
        let position = || Place::Position(r.account.clone(), r.instrument.clone());
        self.add(Metric::Reducing, position(), sign * r.hold_reducing);
        if r.effect == Effect::Reduce || r.is_closed() {
            return Some(());
        }
        let strategy = || Place::Scope(Scope::Strategy(r.strategy.clone()));
        self.amounts(r, sign * r.hold.raw(), sign * r.hold_firm.raw());
        self.add(Metric::Gross, strategy(), sign * r.hold_firm.raw());
        let (net, qty) = match (r.side, r.whole) {
            (Side::Buy, false) => (Metric::NetLong, Metric::Long),
            (Side::Buy, true) => (Metric::NetLong, Metric::LongWhole),
            (Side::Sell, false) => (Metric::NetShort, Metric::Short),
            (Side::Sell, true) => (Metric::NetShort, Metric::ShortWhole),
        };
        self.net(net, r, sign * r.hold.raw(), sign * r.hold_firm.raw());
        let held = sign * ledger::qty_counted(r.remaining, qty.places())?;
        self.add(qty, position(), held);
        self.add(qty, Place::Scope(Scope::Instrument(r.instrument.clone())), held);
        for place in
            [Place::Scope(Scope::Firm), Place::Scope(Scope::Account(r.account.clone())), strategy(), position()]
        {
            self.add(Metric::Orders, place, sign);
        }
        Some(())
    }

    /// Gross amounts of account and position (account currency) and of everything wider but strategies (firm currency).
    fn amounts(&mut self, r: &Reservation, amount: i64, firm: i64) {
        for scope in [Scope::Firm, Scope::Venue(r.instrument.venue.clone()), Scope::Instrument(r.instrument.clone())] {
            self.add(Metric::Gross, Place::Scope(scope), firm);
        }
        if let Some(group) = &r.group {
            self.add(Metric::Gross, Place::Scope(Scope::Group(group.clone())), firm);
        }
        self.add(Metric::Gross, Place::Scope(Scope::Account(r.account.clone())), amount);
        self.add(Metric::Gross, Place::Position(r.account.clone(), r.instrument.clone()), amount);
    }

    fn net(&mut self, metric: Metric, r: &Reservation, amount: i64, firm: i64) {
        self.add(metric, Place::Scope(Scope::Firm), firm);
        if let Some(group) = &r.group {
            self.add(metric, Place::Scope(Scope::Group(group.clone())), firm);
        }
        self.add(metric, Place::Scope(Scope::Account(r.account.clone())), amount);
    }

    /// What the account holds of the instrument, `sign` times. It counts for the group under which it was booked.
    fn position(&mut self, of: &Reservation, p: &Position, sign: i64) -> Option<()> {
        let of = &Reservation { group: p.group.clone(), ..of.clone() };
        let (amount, firm) = (p.booked.raw(), p.booked_firm.raw());
        self.amounts(of, sign * amount, sign * firm);
        let signed = if p.cost.is_sign_negative() { -sign } else { sign };
        self.net(Metric::NetLong, of, signed * amount, signed * firm);
        self.net(Metric::NetShort, of, -signed * amount, -signed * firm);
        let (long, short) =
            if p.whole { (Metric::LongWhole, Metric::ShortWhole) } else { (Metric::Long, Metric::Short) };
        let qty = sign * ledger::qty_counted(p.qty, long.places())?;
        let position = || Place::Position(of.account.clone(), of.instrument.clone());
        let instrument = || Place::Scope(Scope::Instrument(of.instrument.clone()));
        self.add(long, position(), qty);
        self.add(long, instrument(), qty);
        self.add(short, position(), -qty);
        self.add(short, instrument(), -qty);
        Some(())
    }

    /// What the strategy holds of it, `sign` times.
    fn part(&mut self, strategy: &StrategyId, p: &Position, sign: i64) {
        self.add(Metric::Gross, Place::Scope(Scope::Strategy(strategy.clone())), sign * p.booked_firm.raw());
    }
}

impl Step<'_> {
    /// Every counter's change, but for the number of open positions; none beyond what a counter can hold.
    pub(crate) fn moves(&self) -> Option<Moves> {
        let mut moves = Moves::default();
        let (was, is) = self.reservation;
        if let Some(was) = was {
            moves.reservation(was, -1)?;
        }
        moves.reservation(is, 1)?;
        moves.position(is, self.position.0, -1)?;
        moves.position(is, self.position.1, 1)?;
        moves.part(&is.strategy, self.part.0, -1);
        moves.part(&is.strategy, self.part.1, 1);
        Some(moves.prune())
    }

    /// The change of the position's working opening orders and of the number of open positions.
    pub(crate) fn slot(&self, book: &Book, moves: &Moves) -> slots::Change {
        let is = self.reservation.1;
        let opening = Counter::of_position(Metric::Orders, &is.account, &is.instrument);
        let (before, after) = (self.position.0.is_flat(), self.position.1.is_flat());
        slots::change(book.counter(&opening.name()), moves.of(&opening), before, after)
    }
}

/// The counters of open positions that a slot is counted in.
pub(crate) fn slot_counters(of: &Reservation) -> [Counter; 2] {
    [Counter::of(Metric::Slots, Scope::Firm), Counter::of(Metric::Slots, Scope::Account(of.account.clone()))]
}

/// Adds the operations that move every counter, without limits: what fills, ends and reconciliations need.
///
/// # Errors
/// A key that the store does not take.
pub(crate) fn unbounded(ops: &mut Ops, of: &Reservation, moves: &Moves, slot: slots::Change) -> Result<(), StoreError> {
    let opening = Counter::of_position(Metric::Orders, &of.account, &of.instrument);
    if let Some(delta) = slot.opening {
        ops.add(opening.name(), delta, None)?;
    }
    for counter in slot_counters(of) {
        ops.move_by(counter.name(), slot.slots)?;
    }
    for (counter, by) in moves.0.iter().filter(|(counter, _)| **counter != opening) {
        ops.add(counter.name(), Delta::unbounded(*by), None)?;
    }
    Ok(())
}
