//! One order before the rules: what they find, and what it becomes in the store.

use std::{collections::BTreeSet, time::Duration};

use infra_state_store::{Delta, Op, Value};
use infra_types::{AccountId, Decimal, Order, Scope};

use super::{
    bound::{Bound, On},
    ops::{Ops, Role},
};
use crate::{
    account::AccountState,
    book::{Book, Now},
    config::LimitValue,
    decision::{Check, code},
    error::RiskError,
    ledger::{self, Counter, Metric, Place},
    limit_store::Active,
    limits::Bounded,
    market::Quote,
    moves::Moves,
    overrides::Override,
    reservation::Reservation,
    rulebook::{Kind, Named, Sort},
    rules::Mode,
    slots, working,
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
    pub(super) bounds: Vec<Bound>,
    pub(super) covered: BTreeSet<(Kind, Sort)>,
    pnl: Option<Option<Decimal>>,
    firm_equity: Option<Option<Decimal>>,
    /// A loss of the strategy was judged: its record must be what we know.
    pub(super) needs_strategy: bool,
    /// The order must stand in the list of working orders.
    pub(super) must_list: bool,
    uses_override: bool,
}

pub(super) fn is_own(place: &Place) -> bool {
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
    pub(super) fn push(&mut self, named: &Named, mut check: Check) -> usize {
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
    pub(super) fn note(&mut self, mode: Mode, mut check: Check) {
        check.shadow = mode == Mode::Shadow;
        let same = |c: &Check| c.refuses() && (c.code, &c.scope) == (check.code, &check.scope);
        if !self.checks.iter().any(same) {
            self.checks.push(check);
        }
    }

    pub(super) fn bound(&mut self, named: &Named, found: Bounded, on: On) {
        let is_lifted = self.lifts(named);
        let at = self.push(named, found.check);
        self.uses_override |= is_lifted;
        let is_free = is_lifted || named.rule.mode == Mode::Shadow;
        self.bounds.push(Bound { at, is_free, is_lifted, max: found.max, on });
    }

    /// A bound on a counter that every step moves; what does not move it upwards passes.
    pub(super) fn bound_counter(&mut self, named: &Named, counter: Counter, found: Result<Bounded, Check>) {
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
    pub(super) fn pnl(&mut self, mode: Mode) -> Option<Decimal> {
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
    pub(super) fn equity(&mut self, mode: Mode, place: &Place) -> Option<Decimal> {
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
        let counts = |id: &AccountId| group.is_none_or(|group| limits.groups.get(id) == Some(group));
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

    pub(super) fn equity_for(&mut self, named: &Named, place: &Place, limit: LimitValue) -> Option<Decimal> {
        limit.needs_equity().then(|| self.equity(named.rule.mode, place)).flatten()
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
