//! Which events a reader wants.

use std::collections::BTreeSet;

use infra_types::{AccountId, EventId, InstrumentId, InvalidValue, OrderId, Scope, StrategyId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::{RiskEvent, RiskEventKind, Severity};

/// Which events: those that every field lets through. `Default` lets all through, 100 a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RiskEventFilter {
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before, not at.
    pub until: Option<Timestamp>,
    /// One of these; empty is any.
    pub kinds: Vec<RiskEventKind>,
    /// At least this severe.
    pub severity_min: Option<Severity>,
    /// About exactly this scope.
    pub scope: Option<Scope>,
    /// With exactly this code.
    pub code: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this account, as its scope or beside it.
    pub account: Option<AccountId>,
    /// Of this strategy, as its scope or beside it.
    pub strategy: Option<StrategyId>,
    /// Of this instrument, as its scope or beside it.
    pub instrument: Option<InstrumentId>,
    /// Of this order.
    pub order: Option<OrderId>,
    /// Of this person.
    pub user: Option<UserId>,
    /// How many at most, 1 to 1,000.
    pub limit: usize,
    /// Only older than this one: where the page before ended.
    pub after: Option<EventId>,
}

impl Default for RiskEventFilter {
    fn default() -> Self {
        Self {
            from: None,
            until: None,
            kinds: Vec::new(),
            severity_min: None,
            scope: None,
            code: None,
            rule: None,
            account: None,
            strategy: None,
            instrument: None,
            order: None,
            user: None,
            limit: 100,
            after: None,
        }
    }
}

fn wants<T: PartialEq>(wanted: &Option<T>, found: Option<&T>) -> bool {
    wanted.as_ref().is_none_or(|wanted| Some(wanted) == found)
}

impl RiskEventFilter {
    /// Whether the event is wanted, wherever pages begin and end.
    #[must_use]
    pub fn lets_through(&self, event: &RiskEvent) -> bool {
        let scope = |of: Option<Scope>| of.is_some_and(|of| of == event.scope);
        self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at < until)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.severity_min.is_none_or(|min| event.severity >= min)
            && wants(&self.scope, Some(&event.scope))
            && wants(&self.code, Some(&event.code))
            && wants(&self.rule, event.rule.as_ref())
            && (wants(&self.account, event.account.as_ref()) || scope(self.account.clone().map(Scope::Account)))
            && (wants(&self.strategy, event.strategy.as_ref()) || scope(self.strategy.clone().map(Scope::Strategy)))
            && (wants(&self.instrument, event.instrument.as_ref())
                || scope(self.instrument.clone().map(Scope::Instrument)))
            && wants(&self.order, event.order.as_ref())
            && wants(&self.user, event.user.as_ref())
    }

    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        if (1..=1_000).contains(&self.limit) {
            return Ok(());
        }
        Err(InvalidValue::new("risk event filter", format!("limit must be 1 to 1000, is {}", self.limit)))
    }

    pub(super) fn pick(&self) -> Pick<'_> {
        let page = RiskEventPage { events: Vec::new(), next: None, is_cursor_gone: self.after.is_some() };
        Pick { filter: self, seen: BTreeSet::new(), page }
    }
}

/// A page of events, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskEventPage {
    /// What was wanted.
    pub events: Vec<RiskEvent>,
    /// Where the next page starts (as [`RiskEventFilter::after`]); none when this is all.
    pub next: Option<EventId>,
    /// The event where this page should have started fell off the end in the meantime: what stood behind it is gone too.
    pub is_cursor_gone: bool,
}

/// Picks events out of a list that others push to while it is read.
pub(super) struct Pick<'a> {
    filter: &'a RiskEventFilter,
    /// What came already: a push moves values to the next chunk of the list.
    seen: BTreeSet<EventId>,
    page: RiskEventPage,
}

impl Pick<'_> {
    /// Takes the next older event; true once the page is full and more is there.
    pub(super) fn offer(&mut self, event: RiskEvent) -> bool {
        if !self.seen.insert(event.id.clone()) {
            return false;
        }
        if self.page.is_cursor_gone {
            self.page.is_cursor_gone = self.filter.after.as_ref() != Some(&event.id);
            return false;
        }
        if !self.filter.lets_through(&event) {
            return false;
        }
        if self.page.events.len() == self.filter.limit {
            self.page.next = self.page.events.last().map(|last| last.id.clone());
            return true;
        }
        self.page.events.push(event);
        false
    }

    pub(super) fn page(self) -> RiskEventPage {
        self.page
    }
}
