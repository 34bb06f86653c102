//! The decision on one order, on figures that were made ready before: nothing is allocated, converted or looked up by name.

use infra_types::{Decimal, Order, OrderKind, Scaled, Side};

use crate::{engine::Stance, plan, position, reservation::Effect};

use super::{
    book::{ACCOUNT_AT, Book, Conversion, FIRM, INSTRUMENT_AT, Instrument, RouteCell},
    compile::RateOf,
    fixed,
    orders::{Held, Ticket, Working},
    recent::{Likeness, Seen},
};

/// What a passed order will hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) effect: Effect,
    /// Base units: less than was asked if an exit was clipped.
    pub(super) qty: Decimal,
    pub(super) held: Held,
    /// 1 if the order is the first of its account in its instrument.
    pub(super) slot: i64,
    /// Where it is remembered for duplicates.
    remember: Option<(usize, Likeness)>,
}

/// Why there is no verdict to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A check failed; `explain` says which.
    Refused,
    /// Too many orders are remembered to know whether this one is a duplicate.
    DuplicatesFull,
}

#[inline]
pub(super) fn side_of(side: Side) -> usize {
    usize::from(side == Side::Sell)
}

/// What the order does and how much of it may: the quantity at 1e-8, and whether that is less than was asked.
#[inline]
fn effect_of(book: &Book, route: &RouteCell, order: &Order, stance: Stance) -> Result<(Effect, i64, bool), Stop> {
    let pair = &book.pairs[route.pair];
    let opposed = pair.sign != 0 && (pair.sign > 0) == (order.side == Side::Sell);
    if !opposed {
        if order.reduce_only || stance == Stance::ReduceOnly {
            return Err(Stop::Refused);
        }
        return fixed::exact(order.qty.get()).map(|qty| (Effect::Open, qty, false)).ok_or(Stop::Refused);
    }
    let reducible = pair.reducible(side_of(order.side));
    let asked = fixed::up(order.qty.get()).unwrap_or(i64::MAX);
    if asked <= reducible {
        // Off the grid of 1e-8 is off the lot grid too.
        return fixed::exact(order.qty.get()).map(|qty| (Effect::Reduce, qty, false)).ok_or(Stop::Refused);
    }
    let lot = i64::try_from(book.instruments[route.instrument].lot).unwrap_or(i64::MAX);
    let clipped = reducible - reducible % lot;
    if !order.reduce_only || clipped == 0 {
        return Err(Stop::Refused);
    }
    Ok((Effect::Reduce, clipped, true))
}

/// What an order may be worth at most, in account and in firm currency.
#[derive(Debug, Clone, Copy)]
struct Worth {
    hold: i64,
    hold_firm: i64,
    /// At 1e-16.
    value: u128,
    value_firm: u128,
}

/// The highest price that the order is reckoned to fill at, as the shared engine has it: a market buy may fill at the ask, a sell
/// at the bid, whatever they name.
#[inline]
fn worst_price(instrument: &Instrument, order: &Order, price: i64) -> i64 {
    match (order.side, order.kind) {
        (Side::Buy, OrderKind::Limit(_)) => price,
        (Side::Buy, OrderKind::Market { .. }) => price.max(instrument.ask),
        (Side::Sell, _) => price.max(instrument.bid),
    }
}

/// Worth at the worst price.
#[inline]
fn worth(book: &Book, route: &RouteCell, order: &Order, price: i64, qty: i64) -> Option<Worth> {
    let instrument = &book.instruments[route.instrument];
    if route.conversion == Conversion::Same {
        let value = fixed::value(worst_price(instrument, order, price), qty);
        let hold = fixed::held(value)?;
        return Some(Worth { hold, hold_firm: hold, value, value_firm: value });
    }
    let (notional, firm) = converted(book, route, order)?;
    let scaled = |value: Decimal| Scaled::used(value.round_dp(position::PLACES)).ok().map(Scaled::raw);
    let (value, value_firm) = (fixed::product(notional, true)?, fixed::product(firm, true)?);
    Some(Worth { hold: scaled(notional)?, hold_firm: scaled(firm)?, value, value_firm })
}

/// The order's worst value in account and in firm currency, exactly.
pub(super) fn converted(book: &Book, route: &RouteCell, order: &Order) -> Option<(Decimal, Decimal)> {
    let (rate, firm_rate) = match route.conversion {
        Conversion::Same => (Decimal::ONE, Decimal::ONE),
        Conversion::Rates(rate, firm_rate) => (rate, firm_rate),
        Conversion::Missing => return None,
    };
    let price = plan::worst_price(order, book.instruments[route.instrument].quote.as_ref());
    let notional = price.checked_mul(order.qty.get())?.checked_mul(rate)?;
    Some((notional, notional.checked_mul(firm_rate)?))
}

/// All checks. `now` is in nanoseconds.
#[inline]
pub(super) fn judge(book: &mut Book, at: usize, order: &Order, stance: Stance, now: u64) -> Result<Judged, Stop> {
    let route = &book.routes[at];
    let (effect, qty, is_clipped) = effect_of(book, route, order, stance)?;
    let instrument = &book.instruments[route.instrument];
    let price = fixed::exact(order.kind.price().get()).ok_or(Stop::Refused)?;
    let on_grid = price.unsigned_abs().is_multiple_of(instrument.tick)
        & qty.unsigned_abs().is_multiple_of(instrument.lot)
        & (qty > 0)
        & (qty >= instrument.qty_min)
        & (qty <= instrument.qty_max)
        & (fixed::value(price, qty) >= instrument.notional_min);
    if !on_grid {
        return Err(Stop::Refused);
    }
    let remaining = if is_clipped { Decimal::new(qty, crate::ledger::QTY_PLACES).normalize() } else { order.qty.get() };
    if effect == Effect::Reduce {
        if qty > Scaled::MAX {
            return Err(Stop::Refused);
        }
        let held = Held { remaining, qty, ..Held::default() };
        return Ok(Judged { effect, qty: remaining, held, slot: 0, remember: None });
    }
    let account = &book.accounts[route.account];
    let ready = route.opens
        & account.opens
        & (now < account.stale_from)
        & (!route.follows_firm || now < book.firm_stale_from)
        & (qty <= instrument.qty_countable)
        & instrument.quote.is_some()
        & (instrument.age(now) <= route.age_max);
    if !ready || !within_market(route, instrument, order, price) {
        return Err(Stop::Refused);
    }
    if !route.limits.user_required.is_empty() && order.user.is_none() {
        return Err(Stop::Refused);
    }
    let Worth { hold, hold_firm, value, value_firm } = worth(book, route, order, price, qty).ok_or(Stop::Refused)?;
    let side = side_of(order.side);
    let slot = i64::from(book.pairs[route.pair].is_idle());
    let mut admitted = true;
    for (place, cell) in route.cells.iter().enumerate() {
        let (by, value) = if place < ACCOUNT_AT { (hold_firm, value_firm) } else { (hold, value) };
        let slot = if place == FIRM || place == ACCOUNT_AT { slot } else { 0 };
        admitted &= book.cells[*cell].admits(side, by, value, qty, slot);
    }
    if !admitted {
        return Err(Stop::Refused);
    }
    for window in &route.windows {
        let rate = &mut book.windows[*window];
        let add = rate_add(rate.of, rate.name.is_firms(), hold, hold_firm, qty);
        if add > rate.window.max.saturating_sub(rate.window.used(now)) {
            return Err(Stop::Refused);
        }
    }
    let remember = if route.duplicates > 0 {
        let like = Likeness { route: u32::try_from(at).unwrap_or(u32::MAX), is_buy: side == 0, qty, price };
        match book.recent.look(&like, now) {
            Seen::No(place) => Some((place, like)),
            Seen::Yes => return Err(Stop::Refused),
            Seen::Full => return Err(Stop::DuplicatesFull),
        }
    } else {
        None
    };
    let held = Held { remaining, money: hold, money_firm: hold_firm, qty };
    Ok(Judged { effect, qty: remaining, held, slot, remember })
}

#[inline]
pub(super) fn rate_add(of: RateOf, is_firms: bool, hold: i64, hold_firm: i64, qty: i64) -> i64 {
    match of {
        RateOf::Messages => 1,
        RateOf::Qty => qty,
        RateOf::Notional if is_firms => hold_firm,
        RateOf::Notional => hold,
    }
}

/// Collar and spread, against twice the middle so that nothing is rounded. A market order trades with the other side of the book at
/// least, whatever it names.
#[inline]
fn within_market(route: &RouteCell, instrument: &Instrument, order: &Order, price: i64) -> bool {
    let (bid, ask, side) = (instrument.bid, instrument.ask, order.side);
    let price = match (order.kind, side) {
        (OrderKind::Limit(_), _) => price,
        (OrderKind::Market { .. }, Side::Buy) => price.max(ask),
        (OrderKind::Market { .. }, Side::Sell) => price.min(bid),
    };
    let twice = i128::from(bid) + i128::from(ask);
    let wide = 2 * (i128::from(ask) - i128::from(bid));
    let distance = 2 * i128::from(price) - twice;
    let distance = if side == Side::Buy { distance } else { -distance };
    route.limits.spreads.iter().all(|of| of.limit.admits(wide, twice))
        && route.limits.collars.iter().all(|of| of.limit.admits(distance, twice))
}

/// Takes what a passed order holds from every scope. None if no more orders may work; then nothing was taken.
#[inline]
pub(super) fn take(book: &mut Book, at: usize, order: &Order, judged: &Judged, now: u64) -> Option<Ticket> {
    let (side, held) = (order.side, judged.held);
    let route = u32::try_from(at).ok()?;
    let ticket = book.orders.put(Working { route, side, effect: judged.effect, held })?;
    let route = &book.routes[at];
    let pair = &mut book.pairs[route.pair];
    for window in &route.windows {
        let rate = &mut book.windows[*window];
        // Exits are counted as messages; nothing else counts them.
        if judged.effect == Effect::Open || rate.of == RateOf::Messages {
            rate.window.used(now);
            rate.window.add(rate_add(rate.of, rate.name.is_firms(), held.money, held.money_firm, held.qty));
        }
    }
    if judged.effect == Effect::Reduce {
        pair.reducing += held.qty;
        return Some(ticket);
    }
    pair.opening += 1;
    let side = side_of(side);
    pair.works[side] += held.qty;
    for (place, cell) in route.cells.iter().enumerate() {
        let used = &mut book.cells[*cell].used;
        let money = if place < ACCOUNT_AT { held.money_firm } else { held.money };
        used.gross += money;
        used.net[side] += money;
        used.working += 1;
        if place == INSTRUMENT_AT || place > ACCOUNT_AT {
            used.qty[side] += held.qty;
        }
        if place == FIRM || place == ACCOUNT_AT {
            used.slots += judged.slot;
        }
    }
    if let Some((place, like)) = judged.remember {
        book.recent.put(place, like, now.saturating_add(route.duplicates));
    }
    Some(ticket)
}
