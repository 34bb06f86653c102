//! What a fill or an end makes of position, account and counters: pure, from what is in memory.

use infra_state_store::{Op, Ttl, Value};
use infra_types::{Decimal, Fill, Order, Scaled};

use crate::{
    account::AccountState,
    book::{Book, Now},
    config::RiskLimits,
    error::RiskError,
    ledger,
    plan::{Ops, Role, version_of},
    position::{PLACES, Position},
    reservation::{Effect, Outcome, Reservation, Settled},
    slots,
};

const OVERFLOW: RiskError = RiskError::Overflow("a settled amount");

/// The reservation after `filled` units, everything released if `is_last`.
fn release(reservation: &Reservation, filled: Decimal, is_last: bool) -> Option<Reservation> {
    let mut next = reservation.clone();
    next.remaining = if is_last { Decimal::ZERO } else { reservation.remaining - filled.min(reservation.remaining) };
    if next.remaining.is_zero() {
        next.remaining = Decimal::ZERO;
        (next.hold, next.hold_firm, next.hold_reducing) = (Scaled::ZERO, Scaled::ZERO, 0);
        return Some(next);
    }
    let keep = |hold: Scaled| {
        let part = next.remaining.checked_div(reservation.remaining)?.checked_mul(hold.to_decimal())?;
        Scaled::used(part).ok().map(|kept| kept.min(hold))
    };
    (next.hold, next.hold_firm) = (keep(reservation.hold)?, keep(reservation.hold_firm)?);
    if reservation.effect == Effect::Reduce {
        next.hold_reducing = ledger::qty_held(next.remaining)?.min(reservation.hold_reducing);
    }
    Some(next)
}

/// A fee in the account's currency: a base-currency fee at the price of its own fill, others by rate.
fn fee_of(
    book: &Book,
    fill: &Fill,
    reservation: &Reservation,
    account: &AccountState,
    rate: Decimal,
) -> Option<Decimal> {
    let fee = &fill.fee;
    if fee.amount.is_zero() {
        return Some(Decimal::ZERO);
    }
    let to_account = if fee.currency == account.currency {
        Some(Decimal::ONE)
    } else if fee.currency == reservation.quote {
        Some(rate)
    } else if fee.currency == reservation.base {
        fill.price.get().checked_mul(rate)
    } else {
        book.rates.get(&fee.currency, &account.currency)
    };
    fee.amount.checked_mul(to_account?).map(|fee| fee.round_dp(PLACES))
}

/// Whether a fill of a reduce order did what reduce orders must not do.
fn grew(before: &Position, after: &Position) -> bool {
    let turned = !after.is_flat() && after.qty.is_sign_positive() != before.qty.is_sign_positive();
    after.qty.abs() > before.qty.abs() || turned
}

pub(crate) fn plan(
    book: &Book,
    limits: &RiskLimits,
    now: Now,
    order: &Order,
    reservation: &Reservation,
    outcome: Outcome<'_>,
) -> Result<(Settled, Ops), RiskError> {
    let account = book.accounts.get(&order.account).ok_or_else(|| RiskError::UnknownAccount(order.account.clone()))?;
    let known = book.position(&order.account, &order.instrument);
    let before = known.map(|p| p.value.clone());
    let mut ops = Ops::default();
    let mut settled = Settled {
        reservation: reservation.clone(),
        position_before: before.clone(),
        position_after: before.clone(),
        realised: Decimal::ZERO,
        fee: Some(Decimal::ZERO),
        overfilled: Decimal::ZERO,
        grew_by_reducing: false,
        account: account.value.clone(),
    };
    let before = before.unwrap_or_default();
    let mut after = before.clone();
    match outcome {
        Outcome::End => {
            settled.reservation = release(reservation, Decimal::ZERO, true).ok_or(OVERFLOW)?;
        }
        Outcome::Fill { fill, is_last } => {
            let filled = fill.qty.get();
            settled.overfilled = (filled - reservation.remaining).max(Decimal::ZERO);
            settled.reservation = release(reservation, filled, is_last).ok_or(OVERFLOW)?;
            let rate = rate_of(book, reservation, known.is_some().then_some(&before), &account.value)?;
            let firm_rate = limits
                .firm_currency
                .as_ref()
                .and_then(|firm| book.rates.get(&account.value.currency, firm))
                .or(reservation.firm_rate)
                .unwrap_or(before.firm_rate);
            let value = fill.price.get().checked_mul(filled).and_then(|v| v.checked_mul(rate)).ok_or(OVERFLOW)?;
            settled.fee = fee_of(book, fill, reservation, &account.value, rate);
            let (mut position, booked) = before
                .apply_fill(order.side, filled, value.round_dp(PLACES), settled.fee.unwrap_or_default())
                .ok_or(OVERFLOW)?;
            let cost = position.cost.abs();
            position.booked = Scaled::used(cost).map_err(|_| OVERFLOW)?;
            let cost_firm = cost.checked_mul(firm_rate).ok_or(OVERFLOW)?;
            position.booked_firm = Scaled::used(cost_firm).map_err(|_| OVERFLOW)?;
            (position.rate, position.firm_rate) = (rate, firm_rate);
            settled.realised = booked.realised;
            let mut next = account.value.booked(booked.realised, settled.fee, booked.trip_closed).ok_or(OVERFLOW)?;
            let unrealised = book.unrealised(&next, Some((&order.instrument, &position)), now, None).ok();
            let pnl = unrealised.map(|unrealised| next.pnl(unrealised));
            next.observe(now.day, pnl);
            settled.grew_by_reducing = reservation.effect == Effect::Reduce && grew(&before, &position);
            write(&mut ops, order, &position, &next, version_of(known), version_of(Some(account)))?;
            after = position.clone();
            settled.position_after = Some(position);
            settled.account = next;
        }
    }
    counters(book, &mut ops, order, reservation, &settled, &before, &after, version_of(known))?;
    Ok((settled, ops))
}

/// The rate from quote to account currency: today's, the approval's, the position's last.
fn rate_of(
    book: &Book,
    reservation: &Reservation,
    position: Option<&Position>,
    account: &AccountState,
) -> Result<Decimal, RiskError> {
    let now = book.rates.get(&reservation.quote, &account.currency);
    now.or(reservation.rate)
        .or(position.map(|p| p.rate))
        .ok_or_else(|| RiskError::MissingConversion { from: reservation.quote.clone(), to: account.currency.clone() })
}

fn write(
    ops: &mut Ops,
    order: &Order,
    position: &Position,
    account: &AccountState,
    position_is: infra_state_store::When,
    account_is: infra_state_store::When,
) -> Result<(), RiskError> {
    let set = |name: &str, bytes: Vec<u8>, when| -> Result<Op, RiskError> {
        Ok(Op::Set { key: ledger::key(name)?, value: Value::from(bytes), ttl: Ttl::Never, when })
    };
    let bytes = ledger::encode(account, "the account's record")?;
    ops.0.push((set(&ledger::account(&order.account), bytes, account_is)?, Role::Account));
    let name = ledger::position(&order.account, &order.instrument);
    let bytes = ledger::encode(position, "the position's record")?;
    ops.0.push((set(&name, bytes, position_is)?, Role::Position));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one step of `plan`, split off for its length")]
fn counters(
    book: &Book,
    ops: &mut Ops,
    order: &Order,
    was: &Reservation,
    settled: &Settled,
    before: &Position,
    after: &Position,
    position_is: infra_state_store::When,
) -> Result<(), RiskError> {
    let (account, instrument, is) = (&order.account, &order.instrument, &settled.reservation);
    let by = (after.booked.raw() - before.booked.raw()) - (was.hold.raw() - is.hold.raw());
    let by_firm = (after.booked_firm.raw() - before.booked_firm.raw()) - (was.hold_firm.raw() - is.hold_firm.raw());
    let closes = was.effect == Effect::Open && !was.is_closed() && is.is_closed();
    let name = ledger::opening(account, instrument);
    let slot = slots::change(book.counter(&name), -i64::from(closes), before.is_flat(), after.is_flat());
    if let Some(delta) = slot.opening {
        // Whether the position is flat decides the slot; a fill's own write has settled that already.
        if ops.0.is_empty() {
            ops.check(&ledger::position(account, instrument), position_is)?;
        }
        ops.add(name, delta, None)?;
    }
    ops.move_by(ledger::SLOTS_FIRM.to_owned(), slot.slots)?;
    ops.move_by(ledger::EXPOSURE_FIRM.to_owned(), by_firm)?;
    ops.move_by(ledger::exposure_account(account), by)?;
    ops.move_by(ledger::exposure_position(account, instrument), by)?;
    ops.move_by(ledger::reducing(account, instrument), is.hold_reducing - was.hold_reducing)?;
    Ok(())
}
