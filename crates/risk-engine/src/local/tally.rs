//! The counters of one scope with their bounds: what every approved order adds to and every end takes from.

use infra_types::{AccountId, Decimal, GroupId, InstrumentId, InstrumentSpec, Scaled, Scope, StrategyId, Venue};

use crate::{config::LimitValue, decision::Check, rules::Coverage};

use super::{compile::Origin, fixed};

/// The largest counter of quantities: eight of them still fit.
const QTY_MAX: i64 = i64::MAX / 8;

/// The largest quantity at 1e-8 that one order may add to a counter. The store's counters end at 2⁵³−1 and count what trades in
/// whole units as such; here there is room for both at 1e-8.
pub(super) fn countable(spec: &InstrumentSpec) -> i64 {
    if spec.lot_size.fract().is_zero() { QTY_MAX } else { Scaled::MAX }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Metric {
    /// Positions at cost and working opening orders, money at 1e-4.
    Gross,
    /// Signed cost and working buys, money at 1e-4.
    NetLong,
    /// Minus signed cost and working sells, money at 1e-4.
    NetShort,
    /// Signed position and working buys, base units at 1e-8.
    LongQty,
    /// Minus signed position and working sells, base units at 1e-8.
    ShortQty,
    /// Opening orders that work.
    WorkingOrders,
    /// Account × instrument pairs that are open or being opened.
    Slots,
    /// Quantity that working exits may take from a position, base units at 1e-8.
    Reducing,
    /// Value of one order, money at 1e-4: bounded, and adds up to nothing.
    OrderNotional,
    /// Quantity of one order, base units at 1e-8: bounded, and adds up to nothing.
    OrderQty,
}

impl Metric {
    fn is_money(self) -> bool {
        matches!(self, Self::Gross | Self::NetLong | Self::NetShort | Self::OrderNotional)
    }

    /// The figure that a raw counter stands for.
    #[must_use]
    pub fn figure(self, raw: i64) -> Decimal {
        match self {
            Self::Gross | Self::NetLong | Self::NetShort | Self::OrderNotional => Decimal::new(raw, Scaled::SCALE),
            Self::LongQty | Self::ShortQty | Self::Reducing | Self::OrderQty => {
                Decimal::new(raw, crate::ledger::QTY_PLACES)
            }
            Self::WorkingOrders | Self::Slots => Decimal::from(raw),
        }
    }
}

/// The counters of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) gross: i64,
    /// [`Metric::NetLong`] and [`Metric::NetShort`].
    pub(super) net: [i64; 2],
    /// [`Metric::LongQty`] and [`Metric::ShortQty`]; of positions and instruments only.
    pub(super) qty: [i64; 2],
    pub(super) working: i64,
    /// Of the firm and of accounts only.
    pub(super) slots: i64,
    /// Of one order; as a bound only.
    pub(super) order_qty: i64,
}

impl Tally {
    /// What bounds nothing but what a counter can hold.
    const UNBOUNDED: Self = Self {
        gross: Scaled::MAX,
        net: [Scaled::MAX; 2],
        qty: [QTY_MAX; 2],
        working: Scaled::MAX,
        slots: Scaled::MAX,
        order_qty: QTY_MAX,
    };

    pub(super) fn get(&self, metric: Metric) -> i64 {
        match metric {
            Metric::Gross => self.gross,
            Metric::NetLong => self.net[0],
            Metric::NetShort => self.net[1],
            Metric::LongQty => self.qty[0],
            Metric::ShortQty => self.qty[1],
            Metric::WorkingOrders => self.working,
            Metric::Slots => self.slots,
            Metric::OrderQty => self.order_qty,
            Metric::Reducing | Metric::OrderNotional => 0,
        }
    }

    fn get_mut(&mut self, metric: Metric) -> Option<&mut i64> {
        Some(match metric {
            Metric::Gross => &mut self.gross,
            Metric::NetLong => &mut self.net[0],
            Metric::NetShort => &mut self.net[1],
            Metric::LongQty => &mut self.qty[0],
            Metric::ShortQty => &mut self.qty[1],
            Metric::WorkingOrders => &mut self.working,
            Metric::Slots => &mut self.slots,
            Metric::OrderQty => &mut self.order_qty,
            Metric::Reducing | Metric::OrderNotional => return None,
        })
    }

    /// Adds a change that was made elsewhere.
    #[inline]
    pub(super) fn add(&mut self, by: &Self) {
        self.gross += by.gross;
        self.working += by.working;
        self.slots += by.slots;
        for side in 0..2 {
            self.net[side] += by.net[side];
            self.qty[side] += by.qty[side];
        }
    }
}

/// Whose counters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Firm,
    /// Accounts that are in no group: counted and never bounded.
    NoGroup,
    Group(GroupId),
    Venue(Venue),
    Strategy(StrategyId),
    Instrument(InstrumentId),
    Account(AccountId),
    Position(AccountId, InstrumentId),
}

impl Name {
    /// Whether its money is in the firm's currency.
    pub(super) fn is_firms(&self) -> bool {
        !matches!(self, Self::Account(_) | Self::Position(..))
    }

    pub(super) fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Firm => Self::Firm,
            Scope::Group(id) => Self::Group(id.clone()),
            Scope::Venue(id) => Self::Venue(id.clone()),
            Scope::Strategy(id) => Self::Strategy(id.clone()),
            Scope::Instrument(id) => Self::Instrument(id.clone()),
            Scope::Account(id) => Self::Account(id.clone()),
        }
    }

    /// As a decision says it; a position is said by its instrument, as the engine does.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Firm | Self::NoGroup => Scope::Firm,
            Self::Group(id) => Scope::Group(id.clone()),
            Self::Venue(id) => Scope::Venue(id.clone()),
            Self::Strategy(id) => Scope::Strategy(id.clone()),
            Self::Instrument(id) | Self::Position(_, id) => Scope::Instrument(id.clone()),
            Self::Account(id) => Scope::Account(id.clone()),
        }
    }

    /// As a rule says it; none for what no rule can name.
    pub(super) fn coverage(&self) -> Option<Coverage> {
        match self {
            Self::NoGroup => None,
            Self::Position(account, instrument) => Some(Coverage::Position(account.clone(), instrument.clone())),
            other => Some(Coverage::One(other.scope())),
        }
    }
}

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Most {
    /// Money, or a part of the equity.
    Money(LimitValue),
    /// So many times the equity.
    Times(Decimal),
    /// Base units.
    Qty(Decimal),
    /// Orders or positions.
    Count(u32),
}

/// A limit on one counter of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) metric: Metric,
    pub(super) code: &'static str,
    pub(super) most: Most,
    pub(super) origin: Origin,
}

impl Bound {
    pub(super) fn follows_equity(&self) -> bool {
        match self.most {
            Most::Money(value) => value.needs_equity(),
            Most::Times(_) => true,
            Most::Qty(_) | Most::Count(_) => false,
        }
    }

    /// The limit at this equity; none if it is needed and not known.
    pub(super) fn limit(&self, equity: Option<Decimal>) -> Option<Decimal> {
        Some(match self.most {
            Most::Money(value) if value.needs_equity() => value.at(equity?),
            Most::Money(value) => value.at(Decimal::ZERO),
            Most::Times(times) => times.saturating_mul(equity?).max(Decimal::ZERO),
            Most::Qty(qty) => qty,
            Most::Count(count) => Decimal::from(count),
        })
    }

    /// The limit as a bound of the counter; what cannot be known admits nothing.
    fn max(&self, equity: Option<Decimal>) -> i64 {
        let Some(limit) = self.limit(equity) else { return i64::MIN };
        match self.most {
            Most::Money(_) | Most::Times(_) => Scaled::allowed(limit).map_or(Scaled::MAX, Scaled::raw).max(0),
            Most::Qty(_) => fixed::down(limit).unwrap_or(QTY_MAX).clamp(0, QTY_MAX),
            Most::Count(count) => i64::from(count),
        }
    }
}

/// One scope.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) used: Tally,
    /// The tightest bound of each counter.
    pub(super) max: Tally,
    /// The most that one order may be worth, at 1e-16.
    value_max: u128,
    pub(super) bounds: Vec<Bound>,
    pub(super) name: Name,
}

impl Cell {
    pub(super) fn new(name: Name, bounds: Vec<Bound>) -> Self {
        let mut cell = Self { used: Tally::default(), max: Tally::UNBOUNDED, value_max: u128::MAX, bounds, name };
        cell.rebound(None);
        cell
    }

    pub(super) fn follows_equity(&self) -> bool {
        self.bounds.iter().any(Bound::follows_equity)
    }

    /// Reckons the bounds anew.
    pub(super) fn rebound(&mut self, equity: Option<Decimal>) {
        (self.max, self.value_max) = (Tally::UNBOUNDED, u128::MAX);
        if self.name == Name::NoGroup {
            // What no limit covers must not fill up either.
            self.max = Tally { gross: i64::MAX, net: [i64::MAX; 2], ..Tally::UNBOUNDED };
        }
        for bound in &self.bounds {
            if bound.metric == Metric::OrderNotional {
                // A limit that does not fit is more than any order.
                let max = bound.limit(equity).map_or(0, |limit| fixed::product(limit, false).unwrap_or(u128::MAX));
                self.value_max = self.value_max.min(max);
            }
            let max = bound.max(equity);
            if let Some(tightest) = self.max.get_mut(bound.metric) {
                *tightest = max.min(*tightest);
            }
        }
    }

    /// Whether an order that adds this stays within every bound. `side` is 0 for a buy, 1 for a sell.
    #[inline]
    pub(super) fn admits(&self, side: usize, hold: i64, value: u128, qty: i64, slot: i64) -> bool {
        let (used, max) = (&self.used, &self.max);
        (used.gross + hold <= max.gross)
            & (used.net[side] + hold <= max.net[side])
            & (used.qty[side] + qty <= max.qty[side])
            & (used.working < max.working)
            & (value <= self.value_max)
            & (qty <= max.order_qty)
            & (slot == 0 || used.slots + slot <= max.slots)
    }

    /// The same, told limit by limit. `notional` is the order's value in the scope's currency; without it money is left out.
    pub(super) fn explain(
        &self,
        adds: &Tally,
        side: usize,
        notional: Option<Decimal>,
        equity: Option<Decimal>,
        checks: &mut Vec<Check>,
    ) {
        for bound in &self.bounds {
            let concerns = match bound.metric {
                Metric::NetLong | Metric::LongQty => side == 0,
                Metric::NetShort | Metric::ShortQty => side == 1,
                _ => true,
            };
            let concerns = concerns && (notional.is_some() || !bound.metric.is_money());
            if !concerns {
                continue;
            }
            let (add, scope) = (adds.get(bound.metric), self.name.scope());
            let check = match bound.limit(equity) {
                None => Check::missing(bound.code, scope, "the equity is not known: see the missing price or rate"),
                Some(limit) if bound.metric == Metric::OrderNotional => {
                    Check::at_most(bound.code, scope, notional.unwrap_or_default(), limit)
                }
                Some(limit) => {
                    let with = self.used.get(bound.metric).saturating_add(add);
                    let passed = add == 0 || with <= bound.max(equity);
                    Check::new(bound.code, scope, bound.metric.figure(with), limit, passed)
                }
            };
            checks.push(bound.origin.sign(check));
        }
    }
}
