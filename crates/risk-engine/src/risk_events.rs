//! What happened to limits and positions, typed, in a bounded list that every process of the ledger writes and reads.

mod filter;

use std::sync::Arc;

use infra_state_store::{Batch, Key, ListRange, Op, StateStore, Ttl};
use infra_types::{
    AccountId, Decimal, EventId, InstrumentId, Namespace, Order, OrderId, Scope, StrategyId, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};

use crate::{
    decision::{Check, Decision, Level},
    error::RiskError,
    ledger,
};

pub use filter::{RiskEventFilter, RiskEventPage};

/// The list, in the ledger's namespace.
const LIST: &str = "risk/events";
/// Longest note that is kept.
const NOTE_CHARS_MAX: usize = 500;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RiskEventKind {
    /// A limit refused an order, or a figure went beyond its limit.
    Breach,
    /// A figure came near its limit.
    Warning,
    /// A rule in shadow mode would have refused.
    ShadowBreach,
    /// Somebody asked to be let past a limit once.
    OverrideRequested,
    /// A second person granted it.
    OverrideGranted,
    /// An order went past a limit with it.
    OverrideUsed,
    /// Limits were stored anew.
    LimitsChanged,
    /// A named person enabled a strategy again.
    Rearmed,
    /// An order's holder died; the order goes on counting.
    Orphaned,
    /// Somebody took an orphaned order over.
    Adopted,
    /// The ledger and the venue disagreed.
    ReconciledDifference,
    /// More was filled than was reserved, or a reduce order made a position larger.
    UnexpectedFill,
    /// A figure passed an emergency threshold.
    Emergency,
    /// Somebody asked for a position.
    PositionRequested,
    /// A second person approved it.
    PositionApproved,
    /// A second person rejected it.
    PositionRejected,
    /// Its author took the request back.
    PositionWithdrawn,
    /// An order used the approval up.
    PositionUsed,
    /// A request or an approval ran out.
    PositionExpired,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must look now.
    Critical,
}

impl RiskEventKind {
    /// How much events of this kind matter unless they say otherwise.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Orphaned | Self::ReconciledDifference | Self::UnexpectedFill | Self::Emergency => Severity::Critical,
            Self::Breach | Self::Warning | Self::OverrideUsed | Self::LimitsChanged | Self::Rearmed => {
                Severity::Warning
            }
            _ => Severity::Info,
        }
    }
}

/// One event. What does not apply is none and is left out of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskEvent {
    /// Its name for ever: where pages go on, and what a bus recognises a repetition by.
    pub id: EventId,
    /// When, by the clock of who writes it.
    pub at: Timestamp,
    /// What happened.
    pub kind: RiskEventKind,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about.
    pub scope: Scope,
    /// The stable code of the check, or a code of the writer's own; see [`crate::code`].
    pub code: String,
    /// The rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The account, where the scope is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// The strategy, where the scope is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyId>,
    /// The instrument, where the scope is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instrument: Option<InstrumentId>,
    /// The order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// The person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Decimal>,
    /// Its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Decimal>,
    /// Version of the limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_version: Option<u64>,
    /// One line for a person, at most 500 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl RiskEvent {
    /// An event with an id of its own and the severity of its kind.
    #[must_use]
    pub fn new(at: Timestamp, kind: RiskEventKind, scope: Scope, code: impl Into<String>) -> Self {
        Self {
            id: EventId::generate(),
            at,
            kind,
            severity: kind.severity(),
            scope,
            code: code.into(),
            rule: None,
            account: None,
            strategy: None,
            instrument: None,
            order: None,
            user: None,
            value: None,
            limit: None,
            limits_version: None,
            note: String::new(),
        }
    }

    /// What a check found.
    #[must_use]
    pub fn of_check(at: Timestamp, kind: RiskEventKind, check: &Check) -> Self {
        let mut event = Self::new(at, kind, check.scope.clone(), check.code);
        event.rule = check.rule.as_deref().map(str::to_owned);
        event.with_figures(check.value, check.limit).with_note(check.note.as_ref())
    }

    /// What a decision has to tell of an order, one event a check: a breach for each that refused it, a shadow breach for each rule that
    /// is only tried out and would have, an override used for each that it was let past, a warning for each figure that came near
    /// its limit. Nothing of what passed quietly.
    #[must_use]
    pub fn of_decision(at: Timestamp, order: &Order, decision: &Decision) -> Vec<Self> {
        let kind = |check: &Check| match check.level {
            Level::Breach if check.overridden => Some(RiskEventKind::OverrideUsed),
            Level::Breach if check.shadow => Some(RiskEventKind::ShadowBreach),
            Level::Breach => Some(RiskEventKind::Breach),
            Level::Warn if !check.shadow => Some(RiskEventKind::Warning),
            _ => None,
        };
        let told = decision.checks.iter().filter_map(|check| Some(Self::of_check(at, kind(check)?, check)));
        let with_version = |event: Self| Self { limits_version: Some(decision.limits), ..event.about(order) };
        told.map(with_version).collect()
    }

    /// The same event, with what an order says of itself.
    #[must_use]
    pub fn about(mut self, order: &Order) -> Self {
        self.account = Some(order.account.clone());
        self.strategy = Some(order.strategy.clone());
        self.instrument = Some(order.instrument.clone());
        self.order = Some(order.id.clone());
        self.user.clone_from(&order.user);
        self
    }

    /// The same event, with the person who did it.
    #[must_use]
    pub fn by(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// The same event, with a figure and its limit.
    #[must_use]
    pub fn with_figures(mut self, value: Decimal, limit: Decimal) -> Self {
        (self.value, self.limit) = (Some(value), Some(limit));
        self
    }

    /// The same event, with a line for a person; what is over 500 characters is cut off.
    #[must_use]
    pub fn with_note(mut self, note: impl AsRef<str>) -> Self {
        self.note = note.as_ref().chars().take(NOTE_CHARS_MAX).collect();
        self
    }
}

/// The events of one ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RiskEvents {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    list: Key,
    events_max: u32,
}

impl RiskEvents {
    /// The most events that can be kept.
    pub const EVENTS_MAX: u32 = 10_000;

    /// The events of the ledger in `namespace`: its newest 10,000 are kept.
    ///
    /// # Errors
    /// None that a caller could cause; what the store says of the list's name.
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace) -> Result<Self, RiskError> {
        Ok(Self { store, namespace, list: Key::list(LIST)?, events_max: Self::EVENTS_MAX })
    }

    /// Keeps the newest `max` events, 1 to 10,000.
    #[must_use]
    pub fn with_events_max(mut self, max: u32) -> Self {
        self.events_max = max.clamp(1, Self::EVENTS_MAX);
        self
    }

    /// The operation that stores an event: it rides in the batch of what it tells of, so that both are there or neither. The
    /// batch must be in the ledger's namespace.
    ///
    /// # Errors
    /// `Overflow` for an event that cannot be written as JSON.
    pub fn op(&self, event: &RiskEvent) -> Result<Op, RiskError> {
        let value = ledger::encode(event, "a risk event")?.into();
        Ok(Op::Push { list: self.list.clone(), value, cap: self.events_max, ttl: Ttl::Never })
    }

    /// Stores events, in their order, in one batch.
    ///
    /// # Errors
    /// What the store says; more events than the operations of a batch are `TooLarge`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave all of them stored, never some.
    pub async fn record(&self, events: &[RiskEvent]) -> Result<(), RiskError> {
        let mut batch = Batch::new(self.namespace.clone());
        for event in events {
            batch = batch.with(self.op(event)?);
        }
        self.store.apply(batch).await?;
        Ok(())
    }

    /// The events that a filter lets through, the newest first. Reads at most as many as are kept.
    ///
    /// # Errors
    /// `Invalid` unless the filter's limit is 1 to 1,000; `Corrupt` for an entry that is no event; what the store says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn query(&self, filter: &RiskEventFilter) -> Result<RiskEventPage, RiskError> {
        filter.validate()?;
        let mut pick = filter.pick();
        let mut range = ListRange::newest(1_000);
        loop {
            let page = self.store.list_range(&self.namespace, &self.list, range).await?;
            for bytes in &page.values {
                let event = serde_json::from_slice(bytes);
                let event = event.map_err(|e| RiskError::Corrupt { key: LIST.to_owned(), reason: e.to_string() })?;
                if pick.offer(event) {
                    return Ok(pick.page());
                }
            }
            if page.values.len() < range.limit {
                return Ok(pick.page());
            }
            range.skip = range.skip.saturating_add(1_000);
        }
    }
}

#[cfg(test)]
mod tests;
