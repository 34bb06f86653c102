//! One line of the trail.

use infra_types::{AuditContext, EventId, Symbol, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::{fields::Fields, kind::AuditKind};

/// What happened, who did it, to what, and how the thing looked before and after.
///
/// The id makes an append repeatable: derive it from the cause (an order id, a message id) where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Names this event for ever.
    pub id: EventId,
    /// What sort of thing happened.
    pub kind: AuditKind,
    /// When, by the clock of whoever saw it; order in the log is the index, never this.
    pub at: Timestamp,
    /// Who, from where, and as part of which story.
    pub context: AuditContext,
    /// What it was done to, e.g. `order/bot-1-42`.
    pub resource: String,
    /// What was done, e.g. `place`.
    pub action: String,
    /// The instrument, if one is concerned.
    pub symbol: Option<Symbol>,
    /// The thing's state before, if it had one.
    pub before: Option<Fields>,
    /// The thing's state after, if it has one.
    pub after: Option<Fields>,
    /// Whatever else a reader will need.
    pub details: Fields,
}

impl AuditEvent {
    /// An event without context, symbol, states and details.
    #[must_use]
    pub fn new(
        id: EventId,
        kind: AuditKind,
        at: Timestamp,
        resource: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self {
            id,
            kind,
            at,
            context: AuditContext::default(),
            resource: resource.into(),
            action: action.into(),
            symbol: None,
            before: None,
            after: None,
            details: Fields::new(),
        }
    }

    /// Says who did it.
    #[must_use]
    pub fn with_context(mut self, context: AuditContext) -> Self {
        self.context = context;
        self
    }

    /// Names the person and leaves the rest of the context as it is.
    #[must_use]
    pub fn with_user(mut self, user: UserId) -> Self {
        self.context.user = Some(user);
        self
    }

    /// Names the instrument.
    #[must_use]
    pub fn with_symbol(mut self, symbol: Symbol) -> Self {
        self.symbol = Some(symbol);
        self
    }

    /// Records the state before.
    #[must_use]
    pub fn with_before(mut self, before: Fields) -> Self {
        self.before = Some(before);
        self
    }

    /// Records the state after.
    #[must_use]
    pub fn with_after(mut self, after: Fields) -> Self {
        self.after = Some(after);
        self
    }

    /// Records whatever else matters.
    #[must_use]
    pub fn with_details(mut self, details: Fields) -> Self {
        self.details = details;
        self
    }
}
