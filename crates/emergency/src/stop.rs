//! A stop before it is in force.

use infra_state_store::Version;
use infra_types::{Scope, Timestamp};

use crate::{durable::Held, state::EmergencyState};

/// Bytes of a reason that are kept of the firm's stop: a halt must not fail because its reason is long.
const FIRM_REASON_BYTES_MAX: usize = 1_024;
/// The same of a narrower scope, of which there may be many in one record.
const REASON_BYTES_MAX: usize = 256;
/// Bytes of an author that are kept: as long as a user id may be.
const BY_BYTES_MAX: usize = 64;

/// A stop to be: how far, of what, by whom and why.
///
/// ```
/// # use infra_emergency::Stop;
/// let stop = Stop::halt("feed-watch", "prices are stale").in_scope("venue:binance_spot".parse()?).automatic();
/// # Ok::<(), infra_types::InvalidValue>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it stops nothing before `EmergencyController::stop` has it"]
pub struct Stop {
    pub(crate) state: EmergencyState,
    pub(crate) scope: Scope,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) automatic: bool,
}

impl Stop {
    fn new(state: EmergencyState, by: &str, reason: &str) -> Self {
        Self { state, scope: Scope::Firm, by: by.to_owned(), reason: reason.to_owned(), automatic: false }
    }

    /// The whole firm to ALERT.
    pub fn alert(by: &str, reason: &str) -> Self {
        Self::new(EmergencyState::Alert, by, reason)
    }

    /// The whole firm to HALT.
    pub fn halt(by: &str, reason: &str) -> Self {
        Self::new(EmergencyState::Halt, by, reason)
    }

    /// The whole firm to SHUTDOWN.
    pub fn shutdown(by: &str, reason: &str) -> Self {
        Self::new(EmergencyState::Shutdown, by, reason)
    }

    /// Of this scope instead of the firm.
    pub fn in_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// A program decided it, so that [`RearmPolicy::cool_down`](crate::RearmPolicy::cool_down) counts.
    pub fn automatic(mut self) -> Self {
        self.automatic = true;
        self
    }

    pub(crate) fn decided(self, at: Timestamp) -> Decision {
        let Self { state, scope, by, reason, automatic } = self;
        let or = |text: String, instead: &str| if text.trim().is_empty() { instead.to_owned() } else { text };
        Decision {
            state,
            by: clip(&or(by, "unknown"), BY_BYTES_MAX),
            reason: clip_reason(&or(reason, "no reason given"), &scope),
            scope,
            at,
            automatic,
            rearm_from: None,
        }
    }
}

/// A stop as it was decided.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    pub(crate) scope: Scope,
    pub(crate) state: EmergencyState,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
    pub(crate) automatic: bool,
    /// Nobody re-arms it before.
    pub(crate) rearm_from: Option<Timestamp>,
}

impl Decision {
    /// What is stored, as it was decided.
    pub(crate) fn of(scope: &Scope, held: &Held) -> Self {
        let Held { state, by, reason, at, automatic, rearm_from, .. } = held.clone();
        Self { scope: scope.clone(), state, by, reason, at, automatic, rearm_from }
    }

    /// As it is stored, set at `version`.
    pub(crate) fn held(&self, version: Version) -> Held {
        Held {
            state: self.state,
            version,
            reason: self.reason.clone(),
            by: self.by.clone(),
            at: self.at,
            automatic: self.automatic,
            rearm_from: self.rearm_from,
            request: None,
        }
    }
}

/// A reason, cut to what a record keeps of it.
pub(crate) fn clip_reason(text: &str, scope: &Scope) -> String {
    clip(text, if *scope == Scope::Firm { FIRM_REASON_BYTES_MAX } else { REASON_BYTES_MAX })
}

/// Control characters become spaces: each would take six bytes in JSON, and a line of a log is one line.
fn clip(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
