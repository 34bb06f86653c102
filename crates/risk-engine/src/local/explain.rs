//! The same decision told check by check, with names and decimals: what a refused order gets, and who asks without an order.

use std::time::Duration;

use infra_types::{Decimal, Order, Scaled, Scope, Side};

use crate::{
    decision::{Check, Decision, code},
    engine::Stance,
    limits, position,
    reservation::Effect,
    rulebook::Sort,
};

use super::{
    book::{ACCOUNT_AT, Account, Book, Conversion, FIRM, INSTRUMENT_AT, RouteCell},
    compile::{Of, RateOf},
    fixed,
    judge::{converted, rate_add, side_of},
    marks::loss_of,
    recent::{Likeness, Seen},
    tally::Tally,
};

/// What the order may be worth at most, in account and in firm currency, and what it would hold.
#[derive(Debug, Clone, Copy)]
struct Worth {
    notional: Decimal,
    firm: Decimal,
    hold: i64,
    hold_firm: i64,
}

struct Explanation<'a> {
    book: &'a mut Book,
    at: usize,
    now: u64,
    checks: Vec<Check>,
}

/// Every check of the order as things stand.
pub(super) fn explain(book: &mut Book, at: usize, order: &Order, stance: Stance, now: u64) -> Decision {
    let mut explanation = Explanation { book, at, now, checks: Vec::with_capacity(24) };
    match explanation.effect_of(order, stance) {
        Ok((effect, order)) => {
            let spec = &explanation.book.instruments[explanation.route().instrument].spec;
            explanation.checks.extend(limits::spec(spec, &order));
            if effect == Effect::Open {
                explanation.open(&order);
            } else {
                explanation.reduce(&order);
            }
        }
        Err(check) => {
            let spec = &explanation.book.instruments[explanation.route().instrument].spec;
            explanation.checks.extend(limits::spec(spec, order));
            explanation.checks.push(check);
        }
    }
    Decision::over(order.id.clone(), explanation.checks)
}

impl Explanation<'_> {
    fn route(&self) -> &RouteCell {
        &self.book.routes[self.at]
    }

    fn of_instrument(&self) -> Scope {
        Scope::Instrument(self.route().instrument_id.clone())
    }

    fn of_account(&self) -> Scope {
        Scope::Account(self.route().account_id.clone())
    }

    fn effect_of(&self, order: &Order, stance: Stance) -> Result<(Effect, Order), Check> {
        let (route, scope) = (self.route(), self.of_instrument());
        let pair = &self.book.pairs[route.pair];
        if !pair.position.is_opposed_by(order.side) {
            return if order.reduce_only {
                Err(Check::missing(code::NOTHING_TO_REDUCE, scope, "there is no position on the other side"))
            } else if stance == Stance::ReduceOnly {
                let note = "only orders that reduce a position may pass now";
                Err(Check::missing(code::NOT_REDUCING_IN_HALT, scope, note))
            } else {
                Ok((Effect::Open, order.clone()))
            };
        }
        let working = pair.reducing + pair.works[side_of(order.side)];
        let working = Decimal::new(working, crate::ledger::QTY_PLACES);
        let reducible = pair.position.qty.abs().saturating_sub(working).max(Decimal::ZERO);
        if order.qty.get() <= reducible {
            return Ok((Effect::Reduce, order.clone()));
        }
        if !order.reduce_only {
            let check = Check::at_most(code::WOULD_FLIP, scope, order.qty.get(), reducible);
            return Err(check.with_note("more than the position less working reduces: close it first"));
        }
        let qty = self.book.instruments[route.instrument].spec.floor_to_lot(reducible);
        if qty.get().is_zero() {
            let check = Check::at_most(code::NOTHING_TO_REDUCE, scope, order.qty.get(), reducible);
            return Err(check.with_note("working orders reduce all of it already"));
        }
        Ok((Effect::Reduce, Order { qty, ..order.clone() }))
    }

    fn reduce(&mut self, order: &Order) {
        let (scope, pair) = (self.of_instrument(), &self.book.pairs[self.route().pair]);
        let working = pair.reducing + pair.works[side_of(order.side)];
        let reducible = pair.position.qty.abs().saturating_sub(Decimal::new(working, crate::ledger::QTY_PLACES));
        self.checks.push(Check::at_most(code::WOULD_FLIP, scope.clone(), order.qty.get(), reducible));
        if fixed::up(order.qty.get()).is_none_or(|qty| qty > Scaled::MAX) {
            let max = Decimal::new(Scaled::MAX, crate::ledger::QTY_PLACES);
            let check = Check::new(code::POSITION_QTY, scope, order.qty.get(), max, false);
            self.checks.push(check.with_note("split the order"));
        }
    }

    fn open(&mut self, order: &Order) {
        self.order_limits(order);
        self.market(order);
        self.conversions();
        self.losses();
        self.counters(order);
        self.memory(order);
    }

    fn order_limits(&mut self, order: &Order) {
        let route = self.route();
        let mut checks = Vec::new();
        for (name, sort) in &route.limits.unset {
            let scope = match sort {
                Sort::Firm => Scope::Firm,
                Sort::Account => self.of_account(),
                _ => self.of_instrument(),
            };
            checks.push(Check::unset(name, scope));
        }
        for of in &route.limits.restricted {
            checks.push(of.origin.sign(limits::restricted(of.scope.clone())));
        }
        for of in &route.limits.user_required {
            checks.push(of.origin.sign(limits::attribution(of.scope.clone(), order.user.as_ref())));
        }
        self.checks.append(&mut checks);
    }

    fn market(&mut self, order: &Order) {
        let route = self.route();
        let instrument = &self.book.instruments[route.instrument];
        let (quote, age) = (instrument.quote, instrument.age(self.now));
        let seconds = |nanos: i64| limits::seconds(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
        let mut checks = Vec::with_capacity(4);
        for of in &route.limits.ages {
            let scope = of.scope.clone();
            let check = if quote.is_none() {
                Check::missing(code::NO_REFERENCE_PRICE, scope, "no quote was taken yet")
            } else {
                let passed = u128::try_from(age).unwrap_or(0) <= of.limit.as_nanos();
                let (age, max) = (seconds(age), limits::seconds(of.limit));
                let check = Check::new(code::STALE_REFERENCE_PRICE, scope, age, max, passed);
                check.with_note("age of the quote, seconds")
            };
            checks.push(of.origin.sign(check));
        }
        for of in &route.limits.spreads {
            checks.push(of.origin.sign(limits::spread(of.scope.clone(), of.limit.figure, quote.as_ref())));
        }
        for of in &route.limits.collars {
            let (scope, part) = (of.scope.clone(), of.limit.figure);
            let check = limits::price_collar(scope, part, order.side, &order.kind, quote.as_ref());
            checks.push(of.origin.sign(check));
        }
        self.checks.append(&mut checks);
    }

    /// Adds a failed check unless it is there.
    fn note_once(&mut self, check: Check) {
        let known = |c: &Check| !c.passed && (c.code, &c.scope) == (check.code, &check.scope);
        if !self.checks.iter().any(known) {
            self.checks.push(check);
        }
    }

    /// Why the account's P&L is not known, or is no longer: the first position that cannot be priced.
    fn unpriced(&self, account: &Account) -> Option<Check> {
        let age_max = self.book.limits.mark_age();
        for (id, pair) in &account.pairs {
            let pair = &self.book.pairs[*pair];
            if pair.sign == 0 {
                continue;
            }
            let instrument = &self.book.instruments[pair.instrument];
            let missing = |code, note: &'static str| Some(Check::missing(code, Scope::Instrument(id.clone()), note));
            if instrument.quote.is_none() {
                return missing(code::NO_REFERENCE_PRICE, "held, and no quote was taken yet");
            }
            let age = Duration::from_nanos(u64::try_from(instrument.age(self.now)).unwrap_or(0));
            if let Some(max) = age_max.filter(|max| age > *max) {
                let (age, max) = (limits::seconds(age), limits::seconds(max));
                let scope = Scope::Instrument(id.clone());
                let check = Check::new(code::STALE_REFERENCE_PRICE, scope, age, max, false);
                return Some(check.with_note("held: age of the quote, seconds"));
            }
            if self.book.rates.get(&instrument.spec.quote, &account.state.currency).is_none() {
                return missing(code::MISSING_CONVERSION, "held, and its currency has no rate");
            }
        }
        let scope = Scope::Account(account.state.id.clone());
        account.equity.is_none().then(|| Check::missing(code::OVERFLOW, scope, "unrealised P&L"))
    }

    fn losses(&mut self) {
        let scope = self.of_account();
        let account = &self.book.accounts[self.route().account];
        let unpriced = self.unpriced(account);
        let pnl = account.equity.filter(|_| unpriced.is_none()).map(|e| e.saturating_sub(account.state.deposits));
        let mut checks = Vec::with_capacity(4);
        for loss in &account.losses {
            let code = if loss.is_drawdown { code::DRAWDOWN } else { code::DAILY_LOSS };
            let check = match pnl {
                None => Check::missing(code, scope.clone(), "the equity is not known: see the missing price or rate"),
                Some(pnl) => {
                    let (lost, of) = loss_of(&account.state, loss, pnl);
                    let limit = loss.limit.at(of);
                    Check::new(code, scope.clone(), lost, limit, lost < limit)
                }
            };
            checks.push(loss.origin.sign(check));
        }
        let firm = self.book.accounts.iter().filter(|_| self.route().follows_firm).find_map(|a| self.unpriced(a));
        unpriced.into_iter().chain(firm).for_each(|check| self.note_once(check));
        self.checks.append(&mut checks);
    }

    fn conversions(&mut self) {
        let route = self.route();
        let (account, firm) = (&self.book.accounts[route.account], self.book.limits.firm_currency.as_ref());
        let mut checks = Vec::new();
        if firm.is_none() {
            checks.push(Check::unset("firm_currency", Scope::Firm));
        }
        let (quote, currency) = (&self.book.instruments[route.instrument].spec.quote, &account.state.currency);
        if self.book.rates.get(quote, currency).is_none() {
            let note = format!("set the rate from {quote} to {currency}");
            checks.push(Check::missing(code::MISSING_CONVERSION, self.of_account(), note));
        }
        if let (Some(firm), None) = (firm, account.to_firm) {
            let note = format!("set the rate from {currency} to {firm}");
            checks.push(Check::missing(code::MISSING_CONVERSION, Scope::Firm, note));
        }
        self.checks.append(&mut checks);
    }

    fn counters(&mut self, order: &Order) {
        let route = self.route();
        let (scope, of_account) = (self.of_instrument(), self.of_account());
        let to_hold = |value: Decimal| Scaled::used(value.round_dp(position::PLACES)).ok().map(Scaled::raw);
        let is_missing = route.conversion == Conversion::Missing;
        let found = converted(self.book, route, order);
        let worth = found.and_then(|(notional, firm)| {
            let (hold, hold_firm) = (to_hold(notional)?, to_hold(firm)?);
            Some(Worth { notional, firm, hold, hold_firm })
        });
        let countable = self.book.instruments[route.instrument].qty_countable;
        let qty = fixed::up(order.qty.get()).filter(|qty| *qty <= countable);
        if worth.is_none() && !is_missing {
            let check = Check::missing(code::OVERFLOW, of_account, "the order's value is too large to count");
            self.checks.push(check);
        }
        match qty {
            Some(qty) => {
                self.scopes(order, worth, qty);
                self.windows(worth, qty);
            }
            None => self.checks.push(Check::missing(code::POSITION_QTY, scope, "split the order")),
        }
    }

    fn scopes(&mut self, order: &Order, worth: Option<Worth>, qty: i64) {
        let (side, route) = (side_of(order.side), self.route());
        let account = &self.book.accounts[route.account];
        // An order of nothing is refused elsewhere and adds nothing.
        let working = i64::from(qty > 0);
        let slot = working * i64::from(self.book.pairs[route.pair].is_idle());
        let account_equity = account.equity.filter(|_| self.now < account.stale_from);
        let firm_equity = self.book.firm_equity.filter(|_| self.now < self.book.firm_stale_from);
        let mut checks = Vec::with_capacity(8);
        for (place, cell) in route.cells.iter().enumerate() {
            let (money, notional, equity) = match worth {
                Some(worth) if place < ACCOUNT_AT => (worth.hold_firm, Some(worth.firm), firm_equity),
                Some(worth) => (worth.hold, Some(worth.notional), account_equity),
                None => (0, None, None),
            };
            let mut adds = Tally { gross: money, working, order_qty: qty, ..Tally::default() };
            adds.net[side] = money;
            if place == INSTRUMENT_AT || place > ACCOUNT_AT {
                adds.qty[side] = qty;
            }
            if place == FIRM || place == ACCOUNT_AT {
                adds.slots = slot;
            }
            self.book.cells[*cell].explain(&adds, side, notional, equity, &mut checks);
        }
        self.checks.append(&mut checks);
    }

    fn windows(&mut self, worth: Option<Worth>, qty: i64) {
        let mut checks = Vec::new();
        let (at, now) = (self.at, self.now);
        let Book { routes, windows, .. } = &mut *self.book;
        for window in &routes[at].windows {
            let rate = &mut windows[*window];
            if rate.of == RateOf::Notional && worth.is_none() {
                continue;
            }
            let (hold, hold_firm) = worth.map_or((0, 0), |worth| (worth.hold, worth.hold_firm));
            let add = rate_add(rate.of, rate.name.is_firms(), hold, hold_firm, qty);
            let with = rate.window.used(now).saturating_add(add);
            let (code, places) = match rate.of {
                RateOf::Qty => (code::QTY_RATE, crate::ledger::QTY_PLACES),
                RateOf::Notional => (code::NOTIONAL_RATE, Scaled::SCALE),
                RateOf::Messages => (code::MESSAGE_RATE, 0),
            };
            let (value, limit) = (Decimal::new(with, places), Decimal::new(rate.window.max, places));
            let check = Check::at_most(code, rate.name.scope(), value, limit).with_note("in the window");
            checks.push(rate.origin.sign(check));
        }
        self.checks.append(&mut checks);
    }

    fn memory(&mut self, order: &Order) {
        let route = self.route();
        let raw = (fixed::exact(order.qty.get()), fixed::exact(order.kind.price().get()));
        let (Some(qty), Some(price)) = raw else { return };
        let at = u32::try_from(self.at).unwrap_or(u32::MAX);
        let like = Likeness { route: at, is_buy: order.side == Side::Buy, qty, price };
        let alike = u32::from(self.book.recent.look(&like, self.now) == Seen::Yes);
        let check = |of: &Of<Duration>| of.origin.sign(limits::duplicates(of.scope.clone(), of.limit, alike));
        let mut checks: Vec<Check> = route.limits.duplicates.iter().map(check).collect();
        self.checks.append(&mut checks);
    }
}
