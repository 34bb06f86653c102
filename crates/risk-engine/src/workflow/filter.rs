//! Which requests a reader wants.

use infra_types::{AccountId, InstrumentId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use super::{PositionRequest, RequestState};

/// Which requests: those that every field lets through. `Default` lets all through, 100 of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestFilter {
    /// One of these; empty is any.
    pub states: Vec<RequestState>,
    /// For this account.
    pub account: Option<AccountId>,
    /// Of this instrument.
    pub instrument: Option<InstrumentId>,
    /// Asked by this person.
    pub asked_by: Option<UserId>,
    /// Decided by this person.
    pub decided_by: Option<UserId>,
    /// Asked at this moment or later.
    pub from: Option<Timestamp>,
    /// Asked before this moment.
    pub until: Option<Timestamp>,
    /// How many at most, 1 to 1,000.
    pub limit: usize,
}

impl Default for RequestFilter {
    fn default() -> Self {
        Self {
            states: Vec::new(),
            account: None,
            instrument: None,
            asked_by: None,
            decided_by: None,
            from: None,
            until: None,
            limit: 100,
        }
    }
}

impl RequestFilter {
    /// Whether the request is wanted.
    #[must_use]
    pub fn lets_through(&self, request: &PositionRequest) -> bool {
        let ask = &request.ask;
        (self.states.is_empty() || self.states.contains(&request.state))
            && self.account.as_ref().is_none_or(|of| *of == ask.account)
            && self.instrument.as_ref().is_none_or(|of| *of == ask.instrument)
            && self.asked_by.as_ref().is_none_or(|by| *by == ask.by)
            && self.decided_by.as_ref().is_none_or(|by| Some(by) == request.decided_by.as_ref())
            && self.from.is_none_or(|from| request.asked_at >= from)
            && self.until.is_none_or(|until| request.asked_at < until)
    }

    /// Whether open ones, or ones that are over, can be among them.
    pub(super) fn wants(&self, open: bool) -> bool {
        self.states.is_empty() || self.states.iter().any(|state| state.is_open() == open)
    }
}
