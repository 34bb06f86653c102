//! What fills and ends make of positions, accounts and counters. The arithmetic is the shared engine's.

use infra_types::{Decimal, Fill, Scaled, Side};

use crate::{
    position::{PLACES, Position},
    reservation::Effect,
};

use super::{
    LocalError,
    book::{ACCOUNT_AT, Book, FIRM, INSTRUMENT_AT, STRATEGY_AT, change},
    fixed,
    judge::side_of,
    orders::{Held, Ticket, Working},
    tally::Tally,
};

const OVERFLOW: LocalError = LocalError::Overflow("a settled amount");

/// What a fill or an end came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSettled {
    /// Whether the order is over: its ticket is no longer good.
    pub is_over: bool,
    /// Base units that may still fill.
    pub remaining: Decimal,
    /// Profit or loss that was realised, before fees, in the account's currency.
    pub realised: Decimal,
    /// The fee in the account's currency; none if it has no rate (it is counted in `AccountState::fees_unconverted`).
    pub fee: Option<Decimal>,
    /// Base units that filled beyond what was reserved: booked, since the venue did it, and a reason to halt.
    pub overfilled: Decimal,
    /// A reduce order's fill made the position larger or turned it; booked, and a reason to halt.
    pub grew_by_reducing: bool,
}

impl LocalSettled {
    fn of(held: Held) -> Self {
        Self {
            is_over: held.remaining.is_zero(),
            remaining: held.remaining,
            realised: Decimal::ZERO,
            fee: Some(Decimal::ZERO),
            overfilled: Decimal::ZERO,
            grew_by_reducing: false,
        }
    }
}

/// What is held after `filled` units, everything released if `is_last`.
fn release(held: Held, filled: Decimal, is_last: bool) -> Option<Held> {
    let remaining = if is_last { Decimal::ZERO } else { held.remaining - filled.min(held.remaining) };
    if remaining.is_zero() {
        return Some(Held::default());
    }
    let part = remaining.checked_div(held.remaining)?;
    let keep = |raw: i64| {
        let kept = Scaled::used(part.checked_mul(Decimal::new(raw, Scaled::SCALE))?).ok()?;
        Some(kept.raw().min(raw))
    };
    let qty = fixed::up(remaining)?.min(held.qty);
    Some(Held { remaining, money: keep(held.money)?, money_firm: keep(held.money_firm)?, qty })
}

/// Takes what is no longer held back from every scope.
fn give_back(book: &mut Book, working: &Working, after: Held) {
    let (was, route) = (working.held, &book.routes[working.route as usize]);
    let pair = &mut book.pairs[route.pair];
    if working.effect == Effect::Reduce {
        pair.reducing -= was.qty - after.qty;
        return;
    }
    let over = i64::from(after.remaining.is_zero());
    let was_idle = pair.is_idle();
    pair.opening -= over;
    let slot = i64::from(pair.is_idle()) - i64::from(was_idle);
    let side = side_of(working.side);
    pair.works[side] -= was.qty - after.qty;
    for (place, cell) in route.cells.iter().enumerate() {
        let used = &mut book.cells[*cell].used;
        let money = if place < ACCOUNT_AT { was.money_firm - after.money_firm } else { was.money - after.money };
        used.gross -= money;
        used.net[side] -= money;
        used.working -= over;
        if place == INSTRUMENT_AT || place > ACCOUNT_AT {
            used.qty[side] -= was.qty - after.qty;
        }
        if place == FIRM || place == ACCOUNT_AT {
            used.slots -= slot;
        }
    }
}

/// Cancelled, rejected, expired or never sent.
pub(super) fn end(book: &mut Book, ticket: Ticket) -> Result<LocalSettled, LocalError> {
    let working = *book.orders.get(ticket)?;
    give_back(book, &working, Held::default());
    book.orders.set(ticket, Held::default());
    Ok(LocalSettled::of(Held::default()))
}

/// A part of a working order traded, or all of it.
pub(super) fn fill(book: &mut Book, ticket: Ticket, fill: &Fill, is_last: bool) -> Result<LocalSettled, LocalError> {
    let working = *book.orders.get(ticket)?;
    let filled = fill.qty.get();
    let after = release(working.held, filled, is_last).ok_or(OVERFLOW)?;
    let booked = book_trade(book, working.route as usize, working.side, fill, working.effect == Effect::Reduce)?;
    give_back(book, &working, after);
    book.orders.set(ticket, after);
    Ok(LocalSettled {
        is_over: after.remaining.is_zero(),
        remaining: after.remaining,
        overfilled: (filled - working.held.remaining).max(Decimal::ZERO),
        ..booked
    })
}

/// What the counters of exposure hold for a position.
fn booked(mut position: Position, rate: Decimal, firm_rate: Decimal) -> Option<Position> {
    let cost = position.cost.abs();
    position.booked = Scaled::used(cost).ok()?;
    position.booked_firm = Scaled::used(cost.checked_mul(firm_rate)?).ok()?;
    (position.rate, position.firm_rate) = (rate, firm_rate);
    Some(position)
}

/// Whether a fill of a reduce order did what reduce orders must not do.
fn grew(before: &Position, after: &Position) -> bool {
    let turned = !after.is_flat() && after.qty.is_sign_positive() != before.qty.is_sign_positive();
    after.qty.abs() > before.qty.abs() || turned
}

/// A trade into account, position, strategy's part and counters. Nothing is changed unless all of it can be.
pub(super) fn book_trade(
    book: &mut Book,
    at: usize,
    side: Side,
    fill: &Fill,
    is_reducing: bool,
) -> Result<LocalSettled, LocalError> {
    let route = &book.routes[at];
    let (pair, account) = (&book.pairs[route.pair], &book.accounts[route.account]);
    let (spec, currency) = (&book.instruments[route.instrument].spec, &account.state.currency);
    let before = &pair.position;
    let rate = book.rates.get(&spec.quote, currency).or(pair.known.then_some(before.rate));
    let rate = rate.ok_or_else(|| LocalError::MissingConversion(spec.id.clone()))?;
    let firm_rate = account.to_firm.unwrap_or(before.firm_rate);
    let filled = fill.qty.get();
    let value = fill.price.get().checked_mul(filled).and_then(|v| v.checked_mul(rate)).ok_or(OVERFLOW)?;
    let value = value.round_dp(PLACES);
    let fee = fee_of(book, at, fill, rate);
    let charged = fee.unwrap_or_default();
    let (group, whole) = (book.limits.groups.get(&route.account_id), spec.lot_size.fract().is_zero());
    let apply = |position: &Position| {
        let (position, done) = position.apply_fill(side, filled, value, charged)?;
        let counted = Position { group: group.cloned(), whole, ..position };
        Some((booked(counted, rate, firm_rate)?, done))
    };
    let (position, done) = apply(before).ok_or(OVERFLOW)?;
    let (sub, _) = apply(&route.sub).ok_or(OVERFLOW)?;
    let state = account.state.booked(done.realised, fee, done.trip_closed).ok_or(OVERFLOW)?;
    let grew_by_reducing = is_reducing && grew(before, &position);

    let (pair, account, strategy) = (route.pair, route.account, route.cells[STRATEGY_AT]);
    let (_, moved) = change(&route.sub, &sub);
    book.cells[strategy].used.add(&Tally { qty: [0; 2], ..moved });
    book.routes[at].sub = sub;
    book.place_position(pair, position);
    book.accounts[account].state = state;
    book.reprice(account);
    let settled = LocalSettled::of(Held::default());
    Ok(LocalSettled { realised: done.realised, fee, grew_by_reducing, ..settled })
}

/// A fee in the account's currency: a base-currency fee at the price of its own fill, others by rate.
fn fee_of(book: &Book, at: usize, fill: &Fill, rate: Decimal) -> Option<Decimal> {
    let (route, fee) = (&book.routes[at], &fill.fee);
    let (spec, currency) = (&book.instruments[route.instrument].spec, &book.accounts[route.account].state.currency);
    if fee.amount.is_zero() {
        return Some(Decimal::ZERO);
    }
    let to_account = if fee.currency == *currency {
        Some(Decimal::ONE)
    } else if fee.currency == spec.quote {
        Some(rate)
    } else if fee.currency == spec.base {
        fill.price.get().checked_mul(rate)
    } else {
        book.rates.get(&fee.currency, currency)
    };
    fee.amount.checked_mul(to_account?).map(|fee| fee.round_dp(PLACES))
}
