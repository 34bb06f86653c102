//! What a fill or an end makes of position, account and counters: pure, from what is in memory.

use infra_types::{Decimal, Fill, Order, Scaled};

use crate::{
    account::AccountState,
    book::{Book, Now},
    error::RiskError,
    ledger,
    limit_store::Active,
    moves::{self, Step},
    plan::{Ops, Role, version_of},
    position::{PLACES, Position},
    reservation::{Effect, Outcome, Reservation, Settled},
    strategy::StrategyState,
    working,
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

/// A position with what the counters hold for it.
fn booked(mut position: Position, rate: Decimal, firm_rate: Decimal) -> Option<Position> {
    let cost = position.cost.abs();
    position.booked = Scaled::used(cost).ok()?;
    position.booked_firm = Scaled::used(cost.checked_mul(firm_rate)?).ok()?;
    (position.rate, position.firm_rate) = (rate, firm_rate);
    Some(position)
}

pub(crate) fn plan(
    book: &Book,
    active: &Active,
    now: Now,
    order: &Order,
    reservation: &Reservation,
    outcome: Outcome<'_>,
) -> Result<(Settled, Ops), RiskError> {
    let limits = active.limits();
    let account = book.accounts.get(&order.account).ok_or_else(|| RiskError::UnknownAccount(order.account.clone()))?;
    let known = book.position(&order.account, &order.instrument);
    let known_part = book.part(&reservation.strategy, &order.account, &order.instrument);
    let strategy = book.strategy(&reservation.strategy);
    let state = strategy.map(|s| s.value.clone());
    let mut ops = Ops::default();
    let mut settled = Settled {
        reservation: reservation.clone(),
        position_before: known.map(|p| p.value.clone()),
        position_after: known.map(|p| p.value.clone()),
        realised: Decimal::ZERO,
        fee: Some(Decimal::ZERO),
        overfilled: Decimal::ZERO,
        grew_by_reducing: false,
        account: account.value.clone(),
        strategy: state.unwrap_or_else(|| StrategyState::new(reservation.strategy.clone(), now.day)),
        strategy_position: known_part.map(|p| p.value.clone()),
    };
    let before = settled.position_before.clone().unwrap_or_default();
    let part_before = settled.strategy_position.clone().unwrap_or_default();
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
            let value = value.round_dp(PLACES);
            settled.fee = fee_of(book, fill, reservation, &account.value, rate);
            let fee = settled.fee.unwrap_or_default();
            let apply = |position: &Position| {
                let (position, done) = position.apply_fill(order.side, filled, value, fee)?;
                let counted = Position { group: limits.groups.get(&order.account).cloned(), ..position };
                Some((booked(Position { whole: reservation.whole, ..counted }, rate, firm_rate)?, done))
            };
            let (position, done) = apply(&before).ok_or(OVERFLOW)?;
            settled.realised = done.realised;
            let mut next = account.value.booked(done.realised, settled.fee, done.trip_closed).ok_or(OVERFLOW)?;
            let unrealised = book.unrealised(&next, Some((&order.instrument, &position)), now, None).ok();
            let pnl = unrealised.map(|unrealised| next.pnl(unrealised));
            next.observe(now.day, pnl);
            settled.grew_by_reducing = reservation.effect == Effect::Reduce && grew(&before, &position);

            let (part, of_part) = apply(&part_before).ok_or(OVERFLOW)?;
            let in_firm = |amount: Decimal| amount.checked_mul(firm_rate).map(|amount| amount.round_dp(PLACES));
            let trip = of_part.trip_closed.map_or(Some(None), |trip| in_firm(trip).map(Some));
            let figures = in_firm(of_part.realised).zip(in_firm(fee)).zip(trip);
            let next_strategy =
                figures.and_then(|((realised, fee), trip)| settled.strategy.booked(realised, fee, trip));
            let mut next_strategy = next_strategy.ok_or(OVERFLOW)?;
            let instead = Some((&order.account, &order.instrument, &part));
            let unrealised = limits
                .firm_currency
                .as_ref()
                .and_then(|firm| book.unrealised_of_strategy(&reservation.strategy, instead, firm, now, None).ok());
            let pnl = unrealised.map(|unrealised| next_strategy.pnl(unrealised));
            next_strategy.observe(now.day, pnl);

            let (of, at) = (&order.account, &order.instrument);
            ops.set(&ledger::account(of), &next, version_of(Some(account)), Role::Account)?;
            ops.set(&ledger::position(of, at), &position, version_of(known), Role::Position)?;
            let name = ledger::strategy(&reservation.strategy);
            ops.set(&name, &next_strategy, version_of(strategy), Role::Strategy)?;
            let name = ledger::part(&reservation.strategy, of, at);
            ops.set(&name, &part, version_of(known_part), Role::Part)?;
            settled.position_after = Some(position);
            settled.strategy_position = Some(part);
            (settled.account, settled.strategy) = (next, next_strategy);
        }
    }
    let step = Step {
        reservation: (Some(reservation), &settled.reservation),
        position: (&before, settled.position_after.as_ref().unwrap_or(&before)),
        part: (&part_before, settled.strategy_position.as_ref().unwrap_or(&part_before)),
    };
    let moves = step.moves().ok_or(OVERFLOW)?;
    let slot = step.slot(book, &moves);
    // Whether the position is flat decides the slot; a fill's own write has settled that already.
    if slot.opening.is_some() && ops.0.is_empty() {
        ops.check(&ledger::position(&order.account, &order.instrument), version_of(known))?;
    }
    moves::unbounded(&mut ops, &settled.reservation, &moves, slot)?;
    working::leave(book, &mut ops, reservation, &settled.reservation)?;
    // What is counted is in the currency and groups of these limits.
    ops.check(ledger::LIMITS, active.stored)?;
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
