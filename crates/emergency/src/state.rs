//! The vocabulary of the switch.

use std::fmt;

use infra_types::{Scope, Timestamp};
use serde::{Deserialize, Serialize};

/// How far trading is stopped, ordered by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EmergencyState {
    /// Trading as usual.
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

/// What a process enforces at one moment, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// How far trading is stopped.
    pub state: EmergencyState,
    /// The durable record's version, as [`rearm`](crate::EmergencyController::rearm) wants to hear it; 0 without a record.
    pub version: u64,
    /// Why.
    pub reason: String,
    /// Who: a person, a part of the bot, or the bot itself.
    pub by: String,
    /// When it was decided, by the wall clock of whoever decided.
    pub at: Timestamp,
    /// How many transitions the durable record has seen.
    pub transitions: u64,
    /// Whether the store holds it, so that other processes see it too. False for a halt that is on its way or could not be
    /// written, for a record that is missing or unreadable, and before the first read.
    pub is_durable: bool,
}

/// One change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// The state before.
    pub from: EmergencyState,
    /// The state after.
    pub to: EmergencyState,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When it was decided, by the wall clock of whoever decided.
    pub at: Timestamp,
    /// For companion operations, the version that the record gets in the same batch. For subscribers, the newest version that
    /// this process knew: a halt is told before the store has answered.
    pub version: u64,
    /// What it covers; always the firm for now.
    pub scope: Scope,
}
