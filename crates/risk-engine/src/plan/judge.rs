//! What each rule that covers an order says about it, and which bounds it puts on the store's figures.

use std::{collections::BTreeSet, time::Duration};

use infra_state_store::{Delta, Key, Op, Ttl, Value, WindowLimit};
use infra_types::{Decimal, Order, Scaled, Scope, Side};

use super::ops::{Measure, Ops, Role};
use crate::{
    account::AccountState,
    book::{Book, Now},
    config::LimitValue,
    decision::{Check, code},
    error::RiskError,
    ledger::{self, Counter, Metric, Place},
    limit_store::Active,
    limits::{self, Bounded, MessageKind},
    market::Quote,
    moves::Moves,
    overrides::Override,
    reservation::Reservation,
    rulebook::{Kind, Named, Sort},
    rules::{Limit, Mode},
    slots,
    working::{self, Working},
};

/// Limits without which nothing is opened: the field that sets them, what it is of, and the sort that must be covered (none: any).
const REQUIRED: [(&str, Sort, Kind, Option<Sort>); 9] = [
    ("order_qty_max", Sort::Instrument, Kind::OrderQty, None),
    ("reference_age_max", Sort::Instrument, Kind::ReferenceAge, None),
    ("daily_loss_max", Sort::Account, Kind::DailyLoss, Some(Sort::Account)),
    ("drawdown_max", Sort::Account, Kind::Drawdown, Some(Sort::Account)),
    ("order_notional_max", Sort::Account, Kind::OrderNotional, None),
    ("exposure_firm_max", Sort::Firm, Kind::Gross, Some(Sort::Firm)),
    ("exposure_account_max", Sort::Account, Kind::Gross, Some(Sort::Account)),
    ("position_notional_max", Sort::Instrument, Kind::Gross, Some(Sort::Position)),
    ("open_positions_max", Sort::Firm, Kind::OpenPositions, Some(Sort::Firm)),
];

/// Failed checks with these codes say that an input is missing: nobody can let such an order through.
const MISSING: [&str; 5] = [
    code::NO_REFERENCE_PRICE,
    code::STALE_REFERENCE_PRICE,
    code::MISSING_CONVERSION,
    code::OVERFLOW,
    code::LIMIT_UNSET,
];

/// A figure of the store that a rule bounds.
struct Bound {
    /// The place of its check.
    at: usize,
    /// It refuses nothing: a rule that is tried out, or one that two people lifted.
    is_free: bool,
    is_lifted: bool,
    max: i64,
    on: On,
}

enum On {
    /// A counter that every step moves.
    Counter(Counter),
    /// A counter of this rule, which one order moves by one; what it counts of the order itself.
    Count {
        name: String,
        ttl: Ttl,
        own: i64,
        is_known: bool,
    },
    Window {
        key: String,
        by: i64,
        length: Duration,
        places: u32,
    },
}

/// One order before the rules.
pub(super) struct Judge<'a> {
    pub(super) book: &'a Book,
    pub(super) active: &'a Active,
    pub(super) now: Now,
    pub(super) order: &'a Order,
    pub(super) account: &'a AccountState,
    pub(super) reservation: &'a Reservation,
    /// What the order does to the counters, slots included.
    pub(super) moves: &'a Moves,
    pub(super) slot: slots::Change,
    pub(super) quote: Option<(Quote, Duration)>,
    /// The order's value in the account's and in the firm's currency; none if a rate is missing.
    pub(super) worth: Option<(Decimal, Decimal)>,
    /// What two people granted this order.
    pub(super) lifted: Option<&'a Override>,
    pub(super) checks: Vec<Check>,
    bounds: Vec<Bound>,
    covered: BTreeSet<(Kind, Sort)>,
    pnl: Option<Option<Decimal>>,
    firm_equity: Option<Option<Decimal>>,
    /// A loss of the strategy was judged: its record must be what we know.
    needs_strategy: bool,
    /// The order must stand in the list of working orders.
    pub(super) must_list: bool,
    uses_override: bool,
}

fn is_own(place: &Place) -> bool {
    matches!(place, Place::Position(..) | Place::Scope(Scope::Account(_)))
}

impl<'a> Judge<'a> {
    #[expect(clippy::too_many_arguments, reason = "everything that an order is judged by")]
    pub(super) fn new(
        book: &'a Book,
        active: &'a Active,
        now: Now,
        order: &'a Order,
        account: &'a AccountState,
        reservation: &'a Reservation,
        moves: &'a Moves,
        slot: slots::Change,
        checks: Vec<Check>,
    ) -> Self {
        let lifted = book.overrides.get(&(order.account.clone(), order.id.clone())).map(|known| &known.value);
        Self {
            book,
            active,
            now,
            order,
            account,
            reservation,
            moves,
            slot,
            quote: book.market.quote(&order.instrument, now.mono),
            worth: None,
            lifted: lifted.filter(|granted| granted.admits(order, now.wall)),
            checks,
            bounds: Vec::new(),
            covered: BTreeSet::new(),
            pnl: None,
            firm_equity: None,
            needs_strategy: false,
            must_list: false,
            uses_override: false,
        }
    }

    fn lifts(&self, named: &Named) -> bool {
        named.rule.mode == Mode::Enforce && self.lifted.is_some_and(|granted| granted.rules.contains(&*named.id))
    }

    /// Adds a rule's check.
    fn push(&mut self, named: &Named, mut check: Check) -> usize {
        check.rule = Some(named.id.clone());
        check.warn_at = named.rule.warn_at;
        check.shadow = named.rule.mode == Mode::Shadow;
        // A loss of zero against a limit of zero stands for an equity that nobody knows.
        let is_known = !MISSING.contains(&check.code) && (check.code == code::RESTRICTED || !is_blank(&check));
        if !check.passed && is_known && self.lifts(named) {
            check.overridden = true;
            self.uses_override = true;
        }
        self.checks.push(check);
        self.checks.len() - 1
    }

    /// Adds a failed check that stands for a missing input, unless it is there.
    fn note(&mut self, mode: Mode, mut check: Check) {
        check.shadow = mode == Mode::Shadow;
        let same = |c: &Check| c.refuses() && (c.code, &c.scope) == (check.code, &check.scope);
        if !self.checks.iter().any(same) {
            self.checks.push(check);
        }
    }

    fn bound(&mut self, named: &Named, found: Bounded, on: On) {
        let is_lifted = self.lifts(named);
        let at = self.push(named, found.check);
        self.uses_override |= is_lifted;
        let is_free = is_lifted || named.rule.mode == Mode::Shadow;
        self.bounds.push(Bound { at, is_free, is_lifted, max: found.max, on });
    }

    /// A bound on a counter that every step moves; what does not move it upwards passes.
    fn bound_counter(&mut self, named: &Named, counter: Counter, found: Result<Bounded, Check>) {
        match found {
            Err(check) => {
                self.push(named, check);
            }
            Ok(found) if self.moves.of(&counter) == 0 => {
                self.push(named, found.check);
            }
            Ok(found) => self.bound(named, found, On::Counter(counter)),
        }
    }

    /// The account's P&L; what it lacks is a check of its own.
    fn pnl(&mut self, mode: Mode) -> Option<Decimal> {
        if let Some(known) = self.pnl {
            return known;
        }
        let pnl = match self.book.unrealised(self.account, None, self.now, self.active.limits().mark_age()) {
            Ok(unrealised) => Some(self.account.pnl(unrealised)),
            Err(check) => {
                self.note(mode, check);
                None
            }
        };
        // A missing price that only a trial needed is noted again, and refuses, for a rule that is enforced.
        if pnl.is_some() || mode == Mode::Enforce {
            self.pnl = Some(pnl);
        }
        pnl
    }

    /// The equity that a part of equity is of at a place.
    fn equity(&mut self, mode: Mode, place: &Place) -> Option<Decimal> {
        if is_own(place) {
            return self.pnl(mode).map(|pnl| self.account.deposits.saturating_add(pnl));
        }
        let limits = self.active.limits();
        let firm = limits.firm_currency.as_ref()?;
        let group = match place {
            Place::Scope(Scope::Group(group)) => Some(group),
            _ => None,
        };
        if let (None, Some(known)) = (group, self.firm_equity) {
            return known;
        }
        let counts = |id: &infra_types::AccountId| group.is_none_or(|group| limits.groups.get(id) == Some(group));
        let equity = match self.book.equity_of(counts, firm, self.now, limits.mark_age()) {
            Ok(equity) => Some(equity),
            Err(check) => {
                self.note(mode, check);
                None
            }
        };
        if group.is_none() && (equity.is_some() || mode == Mode::Enforce) {
            self.firm_equity = Some(equity);
        }
        equity
    }

    fn equity_for(&mut self, named: &Named, place: &Place, limit: LimitValue) -> Option<Decimal> {
        limit.needs_equity().then(|| self.equity(named.rule.mode, place)).flatten()
    }

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
        let mid = self.quote.map(|(quote, _)| quote.mid());
        let check = match named.rule.limit {
            Limit::Restricted => limits::restricted(scope),
            Limit::UserRequired => limits::attribution(scope, order.user.as_ref()),
            Limit::OrderQty(max) => limits::order_qty(scope, max, order.qty),
            Limit::ReferenceAge(max) => limits::reference_price(scope, max, self.quote),
            Limit::Spread(part) => limits::spread(scope, part, self.quote.as_ref().map(|(quote, _)| quote)),
            Limit::PriceMove { part, window } => {
                let range = self.book.market.range(&order.instrument, window, self.now.mono);
                limits::price_move(scope, part, range)
            }
            Limit::PriceCollar(part) => limits::price_collar(scope, part, order.side, &order.kind, mid),
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
        let same = |account: &infra_types::AccountId| match place {
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
                let sort = named.rule.covers.sort() as u8;
                let name = format!("risk/duplicate/{sort}{}/{}", suffix(named), limits::fingerprint(order));
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

    /// Limits without which nothing is opened, and that nobody set.
    pub(super) fn required(&mut self) {
        for (name, of, kind, sort) in REQUIRED {
            let is_covered = |(k, s): &(Kind, Sort)| *k == kind && sort.is_none_or(|sort| sort == *s);
            if !self.covered.iter().any(is_covered) {
                let scope = match of {
                    Sort::Firm => Scope::Firm,
                    Sort::Account => Scope::Account(self.order.account.clone()),
                    _ => Scope::Instrument(self.order.instrument.clone()),
                };
                self.checks.push(Check::unset(name, scope));
            }
        }
    }

    /// Adds every operation that the order needs, and answers the checks.
    pub(super) fn finish(mut self, ops: &mut Ops) -> Result<Vec<Check>, RiskError> {
        // An order that goes asks the store; for one that does not, the last known usage explains.
        let going = !self.checks.iter().any(Check::refuses);
        let mut done = BTreeSet::new();
        let opening = Counter::of_position(Metric::Orders, &self.order.account, &self.order.instrument);
        if let Some(delta) = self.slot.opening {
            ops.add(opening.name(), delta, None)?;
            done.insert(opening.name());
        }
        for bound in std::mem::take(&mut self.bounds) {
            let check = &mut self.checks[bound.at];
            if bound.is_free || !going {
                check.passed = bound.max == Value::COUNTER_MAX || check.value <= check.limit;
                check.overridden = bound.is_lifted && !check.passed;
            }
            let (op, measure) = bound.operation(self.moves, &mut done)?;
            let role = if bound.is_free { Role::Watched(measure) } else { Role::Limited(measure) };
            ops.0.push((op, role));
        }
        for (counter, by) in &self.moves.0 {
            let name = counter.name();
            if *by != 0 && !done.contains(&name) {
                ops.add(name, Delta::unbounded(*by), None)?;
            }
        }
        let executions = ledger::executions(&self.order.strategy);
        if !done.contains(&executions) {
            ops.add(executions, Delta::unbounded(1), None)?;
        }
        if self.needs_strategy {
            let known = self.book.strategy(&self.order.strategy);
            ops.check(&ledger::strategy(&self.order.strategy), super::version_of(known))?;
        }
        if self.uses_override {
            let id = (self.order.account.clone(), self.order.id.clone());
            if let Some(known) = self.book.overrides.get(&id) {
                let key = ledger::key(&ledger::granted(&self.order.account, &self.order.id))?;
                ops.0.push((Op::Delete { key, when: super::version_of(Some(known)) }, Role::Record));
            }
        }
        if self.must_list
            && let Some(list) = working::with(self.book, self.order)
        {
            let known = self.book.working.get(&self.order.instrument);
            let name = ledger::working(&self.order.instrument);
            let when = super::version_of(known);
            let role = Role::Working(Box::new((self.order.instrument.clone(), list.clone())));
            ops.set(&name, &list, when, role)?;
        }
        Ok(self.checks)
    }

    /// Whether the order will stand in the list of working orders.
    pub(super) fn lists(&self) -> bool {
        self.must_list && working::with(self.book, self.order).is_some()
    }
}

/// Nothing was compared.
fn is_blank(check: &Check) -> bool {
    !check.passed && check.value.is_zero() && check.limit.is_zero()
}

/// Rules that are tried out count for themselves: the same figures may have other windows.
fn suffix(named: &Named) -> &'static str {
    if named.rule.mode == Mode::Shadow { "/shadow" } else { "" }
}

/// The window in which a rule counts at a place.
pub(crate) fn window_name(named: &Named, what: &str, place: &Place) -> String {
    format!("risk/window/{what}/{place}{}", suffix(named))
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

impl Bound {
    /// Its operation. The first of a counter moves it, any other only looks at it.
    fn operation(&self, moves: &Moves, done: &mut BTreeSet<String>) -> Result<(Op, Measure), RiskError> {
        let measure = |places, name| Measure { at: self.at, places, own: 0, included: 0, name, lifted: self.is_lifted };
        let delta = |by| if self.is_free { Delta::unbounded(by) } else { Delta::at_most(by, self.max) };
        Ok(match &self.on {
            On::Counter(counter) => {
                let (name, by) = (counter.name(), moves.of(counter));
                let is_first = done.insert(name.clone());
                let op = Op::Add { key: ledger::key(&name)?, delta: delta(by * i64::from(is_first)), ttl: Ttl::Keep };
                let included = by * i64::from(!is_first);
                (op, Measure { included, ..measure(counter.metric.places(), Some(name)) })
            }
            On::Count { name, ttl, own, is_known } => {
                let is_first = done.insert(name.clone());
                let op = Op::Add { key: ledger::key(name)?, delta: delta(i64::from(is_first)), ttl: *ttl };
                let remembered = is_known.then(|| name.clone());
                (op, Measure { own: *own, included: i64::from(!is_first), ..measure(0, remembered) })
            }
            On::Window { key, by, length, places } => {
                let max = if self.is_free { Value::COUNTER_MAX } else { self.max };
                let limit = WindowLimit::new(max, *length);
                (Op::Admit { window: Key::window(key)?, by: *by, limit }, measure(*places, None))
            }
        })
    }
}
