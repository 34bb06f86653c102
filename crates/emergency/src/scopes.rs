//! Which stops cover an order, answered without a lock as long as only the firm is stopped, and never with an allocation.

use std::collections::BTreeMap;

use infra_types::{AccountId, GroupId, InstrumentId, Order, Scope, StrategyId, Venue};

use crate::{gauge::Gauge, state::EmergencyState};

/// Which group of accounts an order belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OrderGroup<'a> {
    /// None.
    #[default]
    None,
    /// This one.
    In(&'a GroupId),
    /// Whoever asks does not know: a stop of any group counts.
    Unknown,
}

/// The scopes that an order lies in; the firm always is one of them.
///
/// A part that is missing is not asked for: a gate names all that the order has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderScopes<'a> {
    /// The group of its account.
    pub group: OrderGroup<'a>,
    /// Its venue.
    pub venue: Option<&'a Venue>,
    /// Its account.
    pub account: Option<&'a AccountId>,
    /// Its strategy.
    pub strategy: Option<&'a StrategyId>,
    /// Its instrument.
    pub instrument: Option<&'a InstrumentId>,
}

impl<'a> OrderScopes<'a> {
    /// The scopes that an order names itself. It does not name the group of its account, so a stop of any group covers it unless
    /// [`in_group`](Self::in_group) says which it is.
    #[must_use]
    pub fn of(order: &'a Order) -> Self {
        Self {
            group: OrderGroup::Unknown,
            venue: Some(&order.instrument.venue),
            account: Some(&order.account),
            strategy: Some(&order.strategy),
            instrument: Some(&order.instrument),
        }
    }

    /// Says which group the account is in, or that it is in none.
    #[must_use]
    pub fn in_group(mut self, group: Option<&'a GroupId>) -> Self {
        self.group = group.map_or(OrderGroup::None, OrderGroup::In);
        self
    }

    /// Whether a stop of `scope` covers the order.
    #[must_use]
    pub fn lie_in(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Firm => true,
            Scope::Group(id) => self.group == OrderGroup::Unknown || self.group == OrderGroup::In(id),
            Scope::Venue(id) => self.venue == Some(id),
            Scope::Account(id) => self.account == Some(id),
            Scope::Strategy(id) => self.strategy == Some(id),
            Scope::Instrument(id) => self.instrument == Some(id),
        }
    }
}

/// What is in force, by scope; narrower scopes only while they are stopped.
pub(crate) type States = BTreeMap<Scope, EmergencyState>;

/// The same, to be asked with borrowed names.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    firm: EmergencyState,
    groups: BTreeMap<GroupId, EmergencyState>,
    venues: BTreeMap<Venue, EmergencyState>,
    accounts: BTreeMap<AccountId, EmergencyState>,
    strategies: BTreeMap<StrategyId, EmergencyState>,
    instruments: BTreeMap<InstrumentId, EmergencyState>,
}

impl Standing {
    /// The strongest state that covers the order.
    fn covering(&self, order: &OrderScopes<'_>) -> EmergencyState {
        fn of<K: Ord>(states: &BTreeMap<K, EmergencyState>, id: Option<&K>) -> EmergencyState {
            id.and_then(|id| states.get(id)).copied().unwrap_or_default()
        }
        let group = match order.group {
            OrderGroup::None => EmergencyState::Normal,
            OrderGroup::In(id) => of(&self.groups, Some(id)),
            OrderGroup::Unknown => self.groups.values().max().copied().unwrap_or_default(),
        };
        self.firm
            .max(group)
            .max(of(&self.venues, order.venue))
            .max(of(&self.accounts, order.account))
            .max(of(&self.strategies, order.strategy))
            .max(of(&self.instruments, order.instrument))
    }
}

impl From<&States> for Standing {
    fn from(states: &States) -> Self {
        let mut standing = Self::default();
        for (scope, &state) in states {
            match scope.clone() {
                Scope::Firm => standing.firm = state,
                Scope::Group(id) => drop(standing.groups.insert(id, state)),
                Scope::Venue(id) => drop(standing.venues.insert(id, state)),
                Scope::Account(id) => drop(standing.accounts.insert(id, state)),
                Scope::Strategy(id) => drop(standing.strategies.insert(id, state)),
                Scope::Instrument(id) => drop(standing.instruments.insert(id, state)),
            }
        }
        standing
    }
}

/// Set beside the firm's state while a narrower scope is stopped too.
const NARROWER: u8 = 0x80;

fn firm_of(word: u8) -> EmergencyState {
    match word & !NARROWER {
        0 => EmergencyState::Normal,
        1 => EmergencyState::Alert,
        2 => EmergencyState::Halt,
        _ => EmergencyState::Shutdown,
    }
}

/// The states in force and until when they are confirmed, as everybody asks for them.
#[derive(Debug)]
pub(crate) struct InForce(Gauge<Standing>);

impl InForce {
    /// The firm at HALT, nothing confirmed: nothing was read yet.
    pub(crate) fn unread() -> Self {
        let firm = EmergencyState::Halt;
        Self(Gauge::new(firm as u8, Standing { firm, ..Standing::default() }))
    }

    /// Replaces what is in force. Calls must not overlap.
    pub(crate) fn publish(&self, states: &States) {
        let standing = Standing::from(states);
        let narrower = if states.keys().any(|scope| *scope != Scope::Firm) { NARROWER } else { 0 };
        self.0.publish(standing.firm as u8 | narrower, standing);
    }

    /// Confirms what was published until `nanos` of the clock; never takes back.
    pub(crate) fn confirm(&self, nanos: u64) {
        self.0.confirm(nanos);
    }

    pub(crate) fn valid_until(&self) -> u64 {
        self.0.valid_until()
    }

    /// The firm's state: one atomic load.
    pub(crate) fn firm(&self) -> EmergencyState {
        firm_of(self.0.word())
    }

    /// Until when what follows is confirmed, and the strongest state that covers the order.
    pub(crate) fn covering(&self, order: &OrderScopes<'_>) -> (u64, EmergencyState) {
        let whole = |word: u8| (word & NARROWER == 0).then(|| firm_of(word));
        self.0.look(whole, |standing| standing.covering(order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> (GroupId, Venue, AccountId, StrategyId, InstrumentId) {
        let venue: Venue = "v".parse().unwrap();
        let instrument = InstrumentId::new(venue.clone(), "BTC".parse().unwrap());
        ("g".parse().unwrap(), venue, "a".parse().unwrap(), "s".parse().unwrap(), instrument)
    }

    #[test]
    fn the_strongest_scope_that_covers_an_order_counts_and_no_other() {
        let (group, venue, account, strategy, instrument) = order();
        let scopes = OrderScopes {
            group: OrderGroup::In(&group),
            venue: Some(&venue),
            account: Some(&account),
            strategy: Some(&strategy),
            instrument: Some(&instrument),
        };
        let in_force = InForce::unread();
        assert_eq!(in_force.covering(&scopes).1, EmergencyState::Halt);
        for text in ["firm", "group:g", "venue:v", "account:a", "strategy:s", "instrument:v/BTC"] {
            let scope: Scope = text.parse().unwrap();
            assert!(scopes.lie_in(&scope), "{text}");
            in_force.publish(&States::from([(scope.clone(), EmergencyState::Shutdown)]));
            assert_eq!(in_force.covering(&scopes).1, EmergencyState::Shutdown, "{text}");
            assert_eq!(in_force.firm() == EmergencyState::Shutdown, scope == Scope::Firm, "{text}");
            in_force.publish(&States::from([(Scope::Firm, EmergencyState::Halt), (scope, EmergencyState::Alert)]));
            assert!(in_force.covering(&scopes).1 <= EmergencyState::Halt);
        }
        for text in ["group:h", "venue:w", "account:b", "strategy:t", "instrument:v/ETH", "instrument:w/BTC"] {
            let scope: Scope = text.parse().unwrap();
            assert!(!scopes.lie_in(&scope), "{text}");
            in_force.publish(&States::from([(scope, EmergencyState::Halt)]));
            assert_eq!(in_force.covering(&scopes).1, EmergencyState::Normal, "{text}");
        }
        let any = OrderScopes { group: OrderGroup::Unknown, ..scopes };
        in_force.publish(&States::from([("group:h".parse().unwrap(), EmergencyState::Halt)]));
        assert_eq!(in_force.covering(&any).1, EmergencyState::Halt, "who does not know the group asks for all");
        assert_eq!(in_force.covering(&OrderScopes::default()).1, EmergencyState::Normal);
    }
}
