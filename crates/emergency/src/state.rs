//! The vocabulary of the switch.

use std::fmt;

use infra_types::{EventId, Scope, Timestamp, UserId};
use serde::{Deserialize, Serialize};

/// How far trading is stopped, ordered by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EmergencyState {
    /// Trading as usual.
    #[default]
    Normal,
    /// Something is wrong: nothing that adds risk.
    Alert,
    /// Trading is stopped; positions may be reduced and orders cancelled.
    Halt,
    /// Trading is over; orders may only be cancelled.
    Shutdown,
}

impl EmergencyState {
    /// The state as operators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Alert => "ALERT",
            Self::Halt => "HALT",
            Self::Shutdown => "SHUTDOWN",
        }
    }

    /// What it lets through while it is confirmed.
    #[must_use]
    pub const fn stance(self) -> Stance {
        match self {
            Self::Normal => Stance::Open,
            Self::Alert | Self::Halt => Stance::ReduceOnly,
            Self::Shutdown => Stance::Closed,
        }
    }
}

impl fmt::Display for EmergencyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an order gate may let through. Cancels pass in every stance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stance {
    /// Every order.
    Open,
    /// Orders that can only reduce a position: exits always work.
    ReduceOnly,
    /// No order.
    Closed,
}

/// What a process enforces in one scope at one moment, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of what.
    pub scope: Scope,
    /// How far trading is stopped in this scope alone, whatever a wider one says.
    pub state: EmergencyState,
    /// At which version of the durable record this was set, as [`rearm`](crate::EmergencyController::rearm) wants to hear it; 0 if
    /// it never was. What happens to other scopes does not change it.
    pub version: u64,
    /// Why.
    pub reason: String,
    /// Who: a person, a part of the bot, or the bot itself.
    pub by: String,
    /// When it was decided, by the wall clock of whoever decided.
    pub at: Timestamp,
    /// How many transitions the durable record has seen, of all scopes.
    pub transitions: u64,
    /// Whether the store holds it, so that other processes see it too. False for a halt that is on its way or could not be
    /// written, for a record that is missing or unreadable, and before the first read.
    pub is_durable: bool,
    /// Whether a program decided it rather than a person.
    pub is_automatic: bool,
    /// Nobody re-arms it before this time, by the wall clock.
    pub rearm_from: Option<Timestamp>,
    /// The re-arm that waits for its second person.
    pub request: Option<RearmRequest>,
}

/// A re-arm that one person asked for and that another one has to confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RearmRequest {
    /// Names it, for [`confirm_rearm`](crate::EmergencyController::confirm_rearm).
    pub id: EventId,
    /// Who asked.
    pub by: UserId,
    /// What was found, and why it is safe.
    pub reason: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// From when on it is void.
    pub expires: Timestamp,
}

/// What kind of change a [`Transition`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransitionKind {
    /// A stop; from its state to the same one if it only made a requested re-arm void.
    Raised,
    /// A person asked for a re-arm that needs a second one; the state stays.
    RearmRequested,
    /// Back to NORMAL.
    Rearmed,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// What kind of change.
    pub kind: TransitionKind,
    /// The state before.
    pub from: EmergencyState,
    /// The state after.
    pub to: EmergencyState,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Who confirmed a re-arm that needed a second person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_by: Option<UserId>,
    /// When it was decided, by the wall clock of whoever decided.
    pub at: Timestamp,
    /// For companion operations and in the history, the version that the record gets in the same batch: each transition has
    /// one of its own. For subscribers, the newest version that this process knew: a halt is told before the store has answered.
    pub version: u64,
    /// What it covers.
    pub scope: Scope,
}
