//! Rules, arranged so that those that cover an order are found at once and always in the same order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use infra_types::{GroupId, Order, Scope};

use crate::{
    config::RiskLimits,
    ledger::Place,
    rules::{Coverage, Limit, Mode, Rule, ScopeKind},
};

/// Which limit, whatever its figure; in the order of checking: what needs nothing but the order and the market first, then
/// losses, then what is counted in the store, and windows last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Restricted,
    UserRequired,
    OrderQty,
    ReferenceAge,
    Spread,
    PriceMove,
    PriceCollar,
    DailyLoss,
    Drawdown,
    OrderNotional,
    SelfMatch,
    Gross,
    Net,
    Leverage,
    Concentration,
    LongQty,
    ShortQty,
    OpenPositions,
    WorkingOrders,
    Executions,
    OrdersPerCause,
    Duplicates,
    QtyRate,
    NotionalRate,
    MessageRate,
}

/// A sort of coverage, from wide to narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    Firm,
    Group,
    Venue,
    Account,
    Strategy,
    Instrument,
    Position,
}

impl Limit {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::OrderQty(_) => Kind::OrderQty,
            Self::OrderNotional(_) => Kind::OrderNotional,
            Self::PriceCollar(_) => Kind::PriceCollar,
            Self::PriceMove { .. } => Kind::PriceMove,
            Self::Spread(_) => Kind::Spread,
            Self::ReferenceAge(_) => Kind::ReferenceAge,
            Self::Gross(_) => Kind::Gross,
            Self::Net(_) => Kind::Net,
            Self::Leverage(_) => Kind::Leverage,
            Self::Concentration(_) => Kind::Concentration,
            Self::LongQty(_) => Kind::LongQty,
            Self::ShortQty(_) => Kind::ShortQty,
            Self::OpenPositions(_) => Kind::OpenPositions,
            Self::WorkingOrders(_) => Kind::WorkingOrders,
            Self::DailyLoss(_) => Kind::DailyLoss,
            Self::Drawdown(_) => Kind::Drawdown,
            Self::QtyRate { .. } => Kind::QtyRate,
            Self::NotionalRate { .. } => Kind::NotionalRate,
            Self::MessageRate { .. } => Kind::MessageRate,
            Self::Duplicates { .. } => Kind::Duplicates,
            Self::Executions(_) => Kind::Executions,
            Self::OrdersPerCause { .. } => Kind::OrdersPerCause,
            Self::SelfMatch => Kind::SelfMatch,
            Self::Restricted => Kind::Restricted,
            Self::UserRequired => Kind::UserRequired,
        }
    }
}

impl Coverage {
    pub(crate) fn sort(&self) -> Sort {
        match self {
            Self::One(Scope::Firm) => Sort::Firm,
            Self::One(Scope::Group(_)) | Self::Each(ScopeKind::Group) => Sort::Group,
            Self::One(Scope::Venue(_)) | Self::Each(ScopeKind::Venue) => Sort::Venue,
            Self::One(Scope::Account(_)) | Self::Each(ScopeKind::Account) => Sort::Account,
            Self::One(Scope::Strategy(_)) | Self::Each(ScopeKind::Strategy) => Sort::Strategy,
            Self::One(Scope::Instrument(_)) | Self::Each(ScopeKind::Instrument) => Sort::Instrument,
            Self::Position(..) | Self::Each(ScopeKind::Position) => Sort::Position,
        }
    }

    /// The one place; none for each.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::One(scope) => Some(Place::Scope(scope.clone())),
            Self::Position(account, instrument) => Some(Place::Position(account.clone(), instrument.clone())),
            Self::Each(_) => None,
        }
    }
}

/// Where an order counts.
#[derive(Debug)]
pub(crate) struct Places([Option<Place>; 7]);

impl Places {
    pub(crate) fn of(order: &Order, group: Option<&GroupId>) -> Self {
        let scope = |scope| Some(Place::Scope(scope));
        Self([
            scope(Scope::Firm),
            group.and_then(|group| scope(Scope::Group(group.clone()))),
            scope(Scope::Venue(order.instrument.venue.clone())),
            scope(Scope::Account(order.account.clone())),
            scope(Scope::Strategy(order.strategy.clone())),
            scope(Scope::Instrument(order.instrument.clone())),
            Some(Place::Position(order.account.clone(), order.instrument.clone())),
        ])
    }

    fn at(&self, sort: Sort) -> Option<&Place> {
        self.0[sort as usize].as_ref()
    }
}

/// A rule with its id ready to be shared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: Arc<str>,
    pub(crate) rule: Rule,
}

/// All rules of one kind over one sort of coverage.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    each: Option<Named>,
    one: BTreeMap<Place, Named>,
}

/// All rules of a set of limits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleBook {
    families: BTreeMap<(Kind, Sort, bool), Family>,
    /// The windows in which somebody asks how far prices moved.
    pub(crate) price_windows: BTreeSet<Duration>,
}

impl RuleBook {
    pub(crate) fn of(limits: &RiskLimits) -> Self {
        let mut book = Self::default();
        for rule in limits.all_rules() {
            if let Limit::PriceMove { window, .. } = rule.limit {
                book.price_windows.insert(window);
            }
            let (place, is_shadow) = (rule.covers.place(), rule.mode == Mode::Shadow);
            let family = book.families.entry((rule.limit.kind(), rule.covers.sort(), is_shadow)).or_default();
            let named = Named { id: rule.id.as_str().into(), rule };
            match place {
                None => family.each = Some(named),
                Some(place) => {
                    family.one.insert(place, named);
                }
            }
        }
        book
    }

    /// The rules that cover an order, with the place of each.
    pub(crate) fn covering<'a>(&'a self, places: &'a Places) -> impl Iterator<Item = (&'a Named, &'a Place)> {
        self.families.iter().filter_map(|((_, sort, _), family)| {
            let place = places.at(*sort)?;
            Some((family.one.get(place).or(family.each.as_ref())?, place))
        })
    }

    /// The enforced rule of a kind at a place.
    pub(crate) fn at(&self, kind: Kind, sort: Sort, place: &Place) -> Option<&Named> {
        let family = self.families.get(&(kind, sort, false))?;
        family.one.get(place).or(family.each.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use infra_types::{Decimal, Side};

    use super::*;

    fn rule(id: &str, covers: Coverage, qty: i64, mode: Mode) -> Rule {
        Rule { id: id.into(), covers, limit: Limit::OrderQty(Decimal::from(qty)), warn_at: None, mode }
    }

    #[test]
    fn one_takes_the_place_of_each_of_its_mode_and_groups_cover_their_accounts() {
        let account = |id: &str| Coverage::One(Scope::Account(id.parse().unwrap()));
        let limits = RiskLimits {
            order_qty_max: Some(Decimal::from(100)),
            rules: vec![
                rule("each", Coverage::Each(ScopeKind::Account), 1, Mode::Enforce),
                rule("a", account("a"), 2, Mode::Enforce),
                rule("trial", account("b"), 3, Mode::Shadow),
                rule("desk", Coverage::One(Scope::Group("g".parse().unwrap())), 4, Mode::Enforce),
            ],
            groups: [("a".parse().unwrap(), "g".parse().unwrap())].into(),
            ..RiskLimits::default()
        };
        let book = RuleBook::of(&limits);
        let of = |account: &str| {
            let [o, s] = ["o", "s"];
            let order = Order::limit(
                o.parse().unwrap(),
                account.parse().unwrap(),
                s.parse().unwrap(),
                "v/X".parse().unwrap(),
                Side::Buy,
                "1".parse().unwrap(),
                "1".parse().unwrap(),
            );
            let places = Places::of(&order, limits.groups.get(&order.account));
            book.covering(&places).map(|(named, _)| named.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("a"), ["desk", "a", "order_qty_max"]);
        assert_eq!(of("b"), ["each", "trial", "order_qty_max"], "what is tried out replaces nothing");
    }
}
