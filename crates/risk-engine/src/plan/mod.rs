//! From an order to a decision and the operations that reserve it: pure, from what is in memory.

mod bound;
mod judge;
mod ops;
mod rules;

use infra_state_store::{Delta, When};
use infra_types::{AccountId, Decimal, InstrumentId, InstrumentSpec, Order, OrderKind, Scaled, Scope, Side};

pub(crate) use self::bound::window_name;
use self::judge::Judge;
pub(crate) use self::ops::{Measure, Ops, Role, version_of};
use crate::{
    account::AccountState,
    book::{Book, Now},
    decision::{Check, Decision, code},
    engine::Stance,
    error::RiskError,
    ledger::{self, Counter, Metric},
    limit_store::Active,
    limits,
    market::Quote,
    moves::{self, Step},
    position::{PLACES, Position},
    reservation::{Approval, Effect, Reservation},
    rulebook::Places,
    slots,
};

#[derive(Debug)]
pub(crate) enum Planned {
    Refused(Decision),
    Go(Box<Approval>, Ops),
}

/// What the order would do, the order that may be sent, and the check that says why not.
fn effect_of(
    order: &Order,
    spec: &InstrumentSpec,
    position: &Position,
    working: Decimal,
    stance: Stance,
) -> Result<(Effect, Order), Check> {
    let scope = || Scope::Instrument(order.instrument.clone());
    if !position.is_opposed_by(order.side) {
        return if order.reduce_only {
            Err(Check::missing(code::NOTHING_TO_REDUCE, scope(), "there is no position on the other side"))
        } else if stance == Stance::ReduceOnly {
            Err(Check::missing(code::NOT_REDUCING_IN_HALT, scope(), "only orders that reduce a position may pass now"))
        } else {
            Ok((Effect::Open, order.clone()))
        };
    }
    let reducible = position.qty.abs().saturating_sub(working).max(Decimal::ZERO);
    if order.qty.get() <= reducible {
        return Ok((Effect::Reduce, order.clone()));
    }
    if !order.reduce_only {
        let check = Check::at_most(code::WOULD_FLIP, scope(), order.qty.get(), reducible);
        return Err(check.with_note("more than the position less working reduces: close it first"));
    }
    let qty = spec.floor_to_lot(reducible);
    if qty.get().is_zero() {
        let check = Check::at_most(code::NOTHING_TO_REDUCE, scope(), order.qty.get(), reducible);
        return Err(check.with_note("working orders reduce all of it already"));
    }
    Ok((Effect::Reduce, Order { qty, ..order.clone() }))
}

pub(crate) fn plan(
    book: &Book,
    active: &Active,
    now: Now,
    order: &Order,
    stance: Stance,
) -> Result<Planned, RiskError> {
    let decide = |checks| Decision::over(order.id.clone(), checks).under(active.set.version);
    let refused = |checks| Ok(Planned::Refused(decide(checks)));
    let (Some(account), Some(spec)) = (book.accounts.get(&order.account), book.specs.get(&order.instrument)) else {
        return refused(unknown(book, order));
    };
    let known = book.position(&order.account, &order.instrument);
    let flat = Position::default();
    let position = known.map_or(&flat, |p| &p.value);
    let reducing = ledger::reducing(&order.account, &order.instrument);
    // What works against the position already: exits, and orders of the other side that were approved while it was flat.
    let opposed = opposed(book, &order.account, &order.instrument, position);
    let working = ledger::figure(&reducing, book.counter(&reducing)).saturating_add(opposed);
    let (effect, order) = match effect_of(order, spec, position, working, stance) {
        Ok(found) => found,
        Err(check) => return refused(limits::spec(spec, order).into_iter().chain([check]).collect()),
    };
    let mut checks: Vec<Check> = limits::spec(spec, &order).into_iter().collect();
    let mut ops = Ops::default();
    ops.check(ledger::LIMITS, active.stored)?;
    ops.check(&ledger::account(&order.account), When::Version(account.version))?;
    ops.check(&ledger::position(&order.account, &order.instrument), version_of(known))?;

    let limits = active.limits();
    let mut reservation = Reservation {
        order: order.id.clone(),
        account: order.account.clone(),
        instrument: order.instrument.clone(),
        strategy: order.strategy.clone(),
        group: limits.groups.get(&order.account).cloned(),
        side: order.side,
        effect,
        remaining: order.qty.get(),
        hold: Scaled::ZERO,
        hold_firm: Scaled::ZERO,
        hold_reducing: 0,
        whole: spec.lot_size.fract().is_zero(),
        listed: false,
        base: spec.base.clone(),
        quote: spec.quote.clone(),
        rate: book.rates.get(&spec.quote, &account.value.currency),
        firm_rate: limits.firm_currency.as_ref().and_then(|firm| book.rates.get(&account.value.currency, firm)),
        recorded: false,
    };
    let worth = match effect {
        Effect::Open => value(book, active, now, &order, &account.value, &mut reservation, &mut checks),
        Effect::Reduce => {
            let reducible = position.qty.abs().saturating_sub(working);
            let scope = Scope::Instrument(order.instrument.clone());
            checks.push(Check::at_most(code::WOULD_FLIP, scope, order.qty.get(), reducible));
            reservation.hold_reducing = ledger::qty_held(order.qty.get()).unwrap_or(0);
            None
        }
    };
    // Some amount beyond what a counter holds: without its moves there is nothing to judge by, and the order is refused.
    let step = Step { reservation: (None, &reservation), position: (position, position), part: (&flat, &flat) };
    let too_much = effect == Effect::Reduce && ledger::qty_held(order.qty.get()).is_none();
    let Some(mut moves) = step.moves().filter(|_| !too_much) else {
        let scope = Scope::Instrument(order.instrument.clone());
        let max = ledger::figure(&reducing, Scaled::MAX);
        checks.push(Check::at_most(code::POSITION_QTY, scope, order.qty.get(), max).with_note("split the order"));
        return refused(checks);
    };
    let slot = match effect {
        Effect::Open => step.slot(book, &moves),
        Effect::Reduce => slots::Change { opening: None, slots: 0 },
    };
    for counter in moves::slot_counters(&reservation) {
        moves.0.insert(counter, slot.slots);
    }
    // It has a bound of its own, below.
    let held = moves.0.remove(&Counter::of_position(Metric::Reducing, &order.account, &order.instrument));

    let places = Places::of(&order, limits.groups.get(&order.account));
    let mut judge = Judge::new(book, active, now, &order, &account.value, &reservation, &moves, slot, checks);
    judge.worth = worth;
    match effect {
        Effect::Open => {
            active.rules.covering(&places).for_each(|(named, place)| judge.open(named, place));
            judge.required();
        }
        Effect::Reduce => {
            // More than a counter can hold leaves in several orders.
            let there = position.qty.abs().saturating_sub(opposed).max(Decimal::ZERO);
            let there = ledger::qty_there(there).unwrap_or(Scaled::MAX);
            ops.add(reducing, Delta::at_most(held.unwrap_or(0), there), None)?;
            active.rules.covering(&places).for_each(|(named, place)| judge.reduce(named, place));
        }
    }
    let listed = judge.lists();
    let decision = decide(judge.finish(&mut ops)?);
    if !decision.approved {
        return Ok(Planned::Refused(decision));
    }
    reservation.listed = listed;
    Ok(Planned::Go(Box::new(Approval { order, reservation, decision }), ops))
}

/// Quantity of working opening orders on the other side of a position: they make it smaller too when they fill. None can be added while
/// the position is what it is, since such orders are exits then.
fn opposed(book: &Book, account: &AccountId, instrument: &InstrumentId, position: &Position) -> Decimal {
    if position.is_flat() {
        return Decimal::ZERO;
    }
    let is_long = position.qty.is_sign_positive();
    let metrics = if is_long { [Metric::Short, Metric::ShortWhole] } else { [Metric::Long, Metric::LongWhole] };
    let counted = metrics.map(|metric| {
        let name = Counter::of_position(metric, account, instrument).name();
        ledger::figure(&name, book.counter(&name))
    });
    // The counter holds the position itself, with the other sign.
    let sum = counted.into_iter().fold(position.qty.abs(), Decimal::saturating_add);
    sum.max(Decimal::ZERO)
}

/// The checks of an order whose account or instrument nobody knows.
fn unknown(book: &Book, order: &Order) -> Vec<Check> {
    let mut checks = Vec::new();
    if !book.accounts.contains_key(&order.account) {
        let scope = Scope::Account(order.account.clone());
        checks.push(Check::missing(code::UNKNOWN_ACCOUNT, scope, "open the account first"));
    }
    if !book.specs.contains_key(&order.instrument) {
        let scope = Scope::Instrument(order.instrument.clone());
        checks.push(Check::missing(code::UNKNOWN_INSTRUMENT, scope, "register the instrument first"));
    }
    checks
}

/// The highest price that the order is reckoned to fill at. A buy with a limit fills there or lower. A market buy fills at the ask
/// whatever worst price it names, and a sell may fill as high as the bid. Without a quote nothing is opened.
pub(crate) fn worst_price(order: &Order, quote: Option<&Quote>) -> Decimal {
    let named = order.kind.price();
    let worst = match (order.side, order.kind, quote) {
        (Side::Buy, OrderKind::Limit(_), _) | (_, _, None) => named,
        (Side::Buy, OrderKind::Market { .. }, Some(quote)) => named.max(quote.ask),
        (Side::Sell, _, Some(quote)) => named.max(quote.bid),
    };
    worst.get()
}

/// What an opening order is worth in the account's and the firm's currency, held by the reservation from then on; none, with the
/// reason among the checks, if a rate is missing.
fn value(
    book: &Book,
    active: &Active,
    now: Now,
    order: &Order,
    account: &AccountState,
    reservation: &mut Reservation,
    checks: &mut Vec<Check>,
) -> Option<(Decimal, Decimal)> {
    let of_account = || Scope::Account(order.account.clone());
    if let Some(why) = &active.unreadable {
        checks.push(Check::missing(code::LIMITS_UNREADABLE, Scope::Firm, why.clone()));
    }
    if reservation.rate.is_none() {
        let note = format!("set the rate from {} to {}", reservation.quote, account.currency);
        checks.push(Check::missing(code::MISSING_CONVERSION, of_account(), note));
    }
    match (&active.limits().firm_currency, reservation.firm_rate) {
        (None, _) => checks.push(Check::unset("firm_currency", Scope::Firm)),
        (Some(firm), None) => {
            let note = format!("set the rate from {} to {firm}", account.currency);
            checks.push(Check::missing(code::MISSING_CONVERSION, Scope::Firm, note));
        }
        _ => {}
    }
    let (rate, firm_rate) = reservation.rate.zip(reservation.firm_rate)?;
    let quote = book.market.quote(&order.instrument, now.mono);
    let worst = worst_price(order, quote.as_ref().map(|(quote, _)| quote)).checked_mul(order.qty.get());
    let own = worst.and_then(|worst| worst.checked_mul(rate));
    let firm = own.and_then(|own| own.checked_mul(firm_rate));
    let to_hold = |value: Option<Decimal>| value.map(|v| v.round_dp(PLACES)).and_then(|v| Scaled::used(v).ok());
    let holds = to_hold(own).zip(to_hold(firm));
    let Some((hold, hold_firm)) = holds else {
        checks.push(Check::missing(code::OVERFLOW, of_account(), "the order's value is too large to count"));
        return None;
    };
    (reservation.hold, reservation.hold_firm) = (hold, hold_firm);
    own.zip(firm)
}
