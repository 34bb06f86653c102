//! What each rule that covers an order says about it.

use std::time::Duration;

use infra_state_store::{Ttl, Value};
use infra_types::{AccountId, Decimal, Scaled, Scope, Side};

use super::{
    bound::{On, duplicate_name, suffix, window_name},
    judge::{Judge, is_own},
};
use crate::{
    config::LimitValue,
    decision::{Check, code},
    ledger::{self, Counter, Metric, Place},
    limits::{self, Bounded, MessageKind},
    rulebook::Named,
    rules::{Limit, Mode},
    working::Working,
};

impl Judge<'_> {
    /// What the order holds in the currency of a place; none if a rate is missing.
    fn hold(&self, place: &Place) -> Option<Scaled> {
        self.worth?;
        Some(if is_own(place) { self.reservation.hold } else { self.reservation.hold_firm })
    }

    fn used(&self, counter: &Counter) -> i64 {
        self.book.counter(&counter.name())
    }

    /// Judges an opening order by one rule.
    pub(super) fn open(&mut self, named: &Named, place: &Place) {
        let (scope, mode, order) = (place.scope(), named.rule.mode, self.order);
        if mode == Mode::Enforce {
            self.covered.insert((named.rule.limit.kind(), named.rule.covers.sort()));
        }
        let quote = self.quote.as_ref().map(|(quote, _)| quote);
        let check = match named.rule.limit {
            Limit::Restricted => limits::restricted(scope),
            Limit::UserRequired => limits::attribution(scope, order.user.as_ref()),
            Limit::OrderQty(max) => limits::order_qty(scope, max, order.qty),
            Limit::ReferenceAge(max) => limits::reference_price(scope, max, self.quote),
            Limit::Spread(part) => limits::spread(scope, part, quote),
            Limit::PriceMove { part, window } => {
                let range = self.book.market.range(&order.instrument, window, self.now.mono);
                limits::price_move(scope, part, range)
            }
            Limit::PriceCollar(part) => limits::price_collar(scope, part, order.side, &order.kind, quote),
            Limit::Drawdown(limit) => limits::drawdown(limit, self.account, self.pnl(mode)),
            Limit::DailyLoss(limit) => self.daily_loss(named, place, limit),
            Limit::OrderNotional(limit) => {
                let Some((own, firm)) = self.worth else { return };
                let equity = self.equity_for(named, place, limit);
                let notional = if is_own(place) { own } else { firm };
                limits::order_notional(scope, limit, equity, notional).unwrap_or_else(|check| check)
            }
            Limit::SelfMatch => self.self_match(place),
            _ => return self.counted(named, place),
        };
        self.push(named, check);
    }

    fn daily_loss(&mut self, named: &Named, place: &Place, limit: LimitValue) -> Check {
        let (mode, limits) = (named.rule.mode, self.active.limits());
        let Place::Scope(Scope::Strategy(strategy)) = place else {
            let loss = self.pnl(mode).map(|pnl| self.account.daily_loss(pnl));
            return limits::daily_loss(place.scope(), limit, Some(self.account.day_start_equity()), loss);
        };
        self.needs_strategy = true;
        let basis = self.equity_for(named, place, limit);
        let unrealised = limits
            .firm_currency
            .as_ref()
            .map(|firm| self.book.unrealised_of_strategy(strategy, None, firm, self.now, limits.mark_age()));
        let loss = match (unrealised, self.book.strategy(strategy)) {
            (_, None) => Some(Decimal::ZERO),
            (Some(Ok(unrealised)), Some(known)) => Some(known.value.daily_loss(known.value.pnl(unrealised))),
            (Some(Err(check)), _) => {
                self.note(mode, check);
                None
            }
            (None, _) => None,
        };
        limits::daily_loss(place.scope(), limit, basis, loss)
    }

    fn self_match(&mut self, place: &Place) -> Check {
        self.must_list = true;
        let (book, groups) = (self.book, &self.active.limits().groups);
        let known = book.working.get(&self.order.instrument).map(|known| &known.value);
        if known.is_some_and(Working::is_full) {
            return Check::missing(code::SELF_MATCH, place.scope(), "too many orders work here to compare with");
        }
        let same = |account: &AccountId| match place {
            Place::Scope(Scope::Group(group)) => groups.get(account) == Some(group),
            Place::Scope(Scope::Account(of)) => account == of,
            _ => true,
        };
        let working = known.into_iter().flat_map(|known| &known.orders).filter(|w| same(&w.account));
        limits::self_match(place.scope(), self.order, working)
    }

    /// Limits on figures that the store counts.
    fn counted(&mut self, named: &Named, place: &Place) {
        let (scope, order) = (place.scope(), self.order);
        let counter = |metric| Counter { metric, place: place.clone() };
        match named.rule.limit {
            Limit::Gross(limit) => {
                let Some(hold) = self.hold(place) else { return };
                let equity = self.equity_for(named, place, limit);
                let counter = counter(Metric::Gross);
                let found = limits::exposure(gross_code(place), scope, limit, equity, self.used(&counter), hold);
                self.bound_counter(named, counter, found);
            }
            Limit::Net(limit) => {
                let Some(hold) = self.hold(place) else { return };
                let equity = self.equity_for(named, place, limit);
                let counter = counter(if order.side == Side::Buy { Metric::NetLong } else { Metric::NetShort });
                let found = limits::net(scope, order.side, limit, equity, self.used(&counter), hold);
                self.bound_counter(named, counter, found);
            }
            Limit::Leverage(times) => {
                let Some(hold) = self.hold(place) else { return };
                let equity = self.equity(named.rule.mode, place);
                let counter = counter(Metric::Gross);
                let found = limits::leverage(scope, times, equity, self.used(&counter), hold);
                self.bound_counter(named, counter, found);
            }
            Limit::Concentration(part) => {
                let Some(hold) = self.hold(place) else { return };
                let equity = self.equity(named.rule.mode, place);
                let whole = match place {
                    Place::Position(account, _) => Scope::Account(account.clone()),
                    Place::Scope(_) => Scope::Firm,
                };
                let (counter, whole) = (counter(Metric::Gross), self.used(&Counter::of(Metric::Gross, whole)));
                let found = limits::concentration(scope, part, equity, whole, self.used(&counter), hold);
                self.bound_counter(named, counter, found);
            }
            Limit::LongQty(max) if order.side == Side::Buy => self.quantity(named, place, max),
            Limit::ShortQty(max) if order.side == Side::Sell => self.quantity(named, place, max),
            Limit::OpenPositions(max) => {
                let counter = counter(Metric::Slots);
                let found = limits::max_positions(scope, max, self.used(&counter), self.slot.slots);
                self.bound_counter(named, counter, Ok(found));
            }
            Limit::WorkingOrders(max) => {
                let counter = counter(Metric::Orders);
                let found = limits::working_orders(scope, max, self.used(&counter), 1);
                self.bound_counter(named, counter, Ok(found));
            }
            Limit::QtyRate { max, window } => match ledger::qty_held(order.qty.get()) {
                Some(by) => {
                    let on = self.window(named, "qty", place, by, window, ledger::QTY_PLACES);
                    self.bound(named, limits::qty_rate(scope, max, 0, by), on);
                }
                None => self.note(named.rule.mode, Check::missing(code::OVERFLOW, scope, "more than a window counts")),
            },
            Limit::NotionalRate { max, window } => {
                let Some(hold) = self.hold(place) else { return };
                let on = self.window(named, "notional", place, hold.raw(), window, Scaled::SCALE);
                self.bound(named, limits::notional_rate(scope, max, 0, hold), on);
            }
            Limit::MessageRate { .. }
            | Limit::Duplicates { .. }
            | Limit::Executions(_)
            | Limit::OrdersPerCause { .. } => self.counts(named, place, false),
            _ => {}
        }
    }

    fn quantity(&mut self, named: &Named, place: &Place, max: Decimal) {
        let (side, whole) = (self.order.side, self.reservation.whole);
        let metric = match (side, whole) {
            (Side::Buy, false) => Metric::Long,
            (Side::Buy, true) => Metric::LongWhole,
            (Side::Sell, false) => Metric::Short,
            (Side::Sell, true) => Metric::ShortWhole,
        };
        let counter = Counter { metric, place: place.clone() };
        let (used, add) = (self.used(&counter), self.moves.of(&counter));
        let mut found = limits::long_short(place.scope(), side, max, used, add);
        if whole {
            found.check.measure(Decimal::from(used).saturating_add(Decimal::from(add)));
            found.max = i64::try_from(max.floor()).unwrap_or(Value::COUNTER_MAX).min(Value::COUNTER_MAX);
        }
        self.bound_counter(named, counter, Ok(found));
    }

    fn window(&self, named: &Named, what: &str, place: &Place, by: i64, length: Duration, places: u32) -> On {
        On::Window { key: window_name(named, what, place), by, length, places }
    }

    /// What an order that reduces is counted in: it is never refused for it.
    pub(super) fn reduce(&mut self, named: &Named, place: &Place) {
        match named.rule.limit {
            Limit::SelfMatch => self.must_list = true,
            Limit::MessageRate { .. } | Limit::Executions(_) => self.counts(named, place, true),
            Limit::OrdersPerCause { .. } if self.order.cause.is_some() => self.counts(named, place, true),
            _ => {}
        }
    }

    /// Figures that only their rules count. What is exempt is counted and passes.
    fn counts(&mut self, named: &Named, place: &Place, exempt: bool) {
        let (scope, order) = (place.scope(), self.order);
        let (mut found, on) = match named.rule.limit {
            Limit::MessageRate { max, window } => {
                let kind = if exempt { MessageKind::Exempt } else { MessageKind::Throttled };
                let on = self.window(named, "messages", place, 1, window, 0);
                (limits::message_rate(scope, max, kind, 0, 1), on)
            }
            Limit::Duplicates { window } => {
                let name = duplicate_name(named, order);
                let check = limits::duplicates(scope, window, 0);
                let on = On::Count { name, ttl: Ttl::After(window), own: 1, is_known: false };
                (Bounded { check, max: 1 }, on)
            }
            Limit::Executions(max) => {
                let name = ledger::executions(&order.strategy);
                let found = limits::executions(scope, max, self.book.counter(&name), 1);
                (found, On::Count { name, ttl: Ttl::Keep, own: 0, is_known: true })
            }
            Limit::OrdersPerCause { max, window } => {
                match limits::orders_per_cause(scope, max, order.cause.as_ref(), 0, 1) {
                    Ok(found) => {
                        let cause = order.cause.as_ref().map_or("", |cause| cause.as_str());
                        let name = format!("risk/cause/by{}/{cause}", suffix(named));
                        (found, On::Count { name, ttl: Ttl::After(window), own: 0, is_known: false })
                    }
                    Err(check) => {
                        self.push(named, check);
                        return;
                    }
                }
            }
            _ => return,
        };
        if exempt {
            found.max = Value::COUNTER_MAX;
            found.check.note = "counted, and passes whatever the count".into();
        }
        self.bound(named, found, on);
        if exempt && let Some(bound) = self.bounds.last_mut() {
            bound.is_free = false;
        }
    }
}

fn gross_code(place: &Place) -> &'static str {
    match place {
        Place::Position(..) => code::POSITION_NOTIONAL,
        Place::Scope(Scope::Firm) => code::EXPOSURE_FIRM,
        Place::Scope(Scope::Group(_)) => code::EXPOSURE_GROUP,
        Place::Scope(Scope::Venue(_)) => code::EXPOSURE_VENUE,
        Place::Scope(Scope::Account(_)) => code::EXPOSURE_ACCOUNT,
        Place::Scope(Scope::Strategy(_)) => code::EXPOSURE_STRATEGY,
        Place::Scope(Scope::Instrument(_)) => code::EXPOSURE_INSTRUMENT,
    }
}
