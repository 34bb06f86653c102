//! Why the switch refused, by what to do.

use infra_event_bus::BusError;
use infra_state_store::StoreError;
use infra_types::{BotId, ErrorKind, Scope, Timestamp, UserId};

use crate::state::EmergencyState;

/// A refusal of the switch. None of them ever means "trade".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmergencyError {
    /// The request or a setting is wrong.
    #[error("{rule}")]
    Invalid {
        /// The rule, as an instruction.
        rule: String,
    },
    /// Trading is stopped.
    #[error("trading is at {state} in {scope} since {at} by {by}: {reason}")]
    Stopped {
        /// Of what.
        scope: Scope,
        /// How far.
        state: EmergencyState,
        /// Who stopped it.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// The state was never read, or not within the lease.
    #[error("the emergency state is not confirmed: refresh it and trade nothing until then")]
    Unconfirmed,
    /// The durable record cannot be read. It counts as HALT for everybody.
    #[error("the record emergency/firm is unreadable ({what}) and counts as HALT: inspect it, then re-arm")]
    Damaged {
        /// What was found instead.
        what: String,
    },
    /// The store answers with less than this process has already seen: a restored backup, a lost write, a cleared namespace.
    #[error(
        "the record emergency/firm went back from version {known} to {found} and counts as HALT: find out what the store lost"
    )]
    WentBack {
        /// The newest version this process has seen.
        known: u64,
        /// The version the store answers with; 0 if the record is gone.
        found: u64,
    },
    /// The scope was stopped, or re-armed, since the person looked at it.
    #[error(
        "the emergency state of {scope} is {state} at version {found}, not at version {expected}: look again before you re-arm"
    )]
    Moved {
        /// Of what.
        scope: Scope,
        /// The version the person named.
        expected: u64,
        /// The version now.
        found: u64,
        /// The state now.
        state: EmergencyState,
    },
    /// Others kept changing the record.
    #[error("the record emergency/firm kept changing: read it and try again")]
    Contended,
    /// The stop holds in this process, but the store did not take it. It is written again with every refresh.
    #[error("this process is at {state}, but it could not be written, other processes may not know: {cause}")]
    NotDurable {
        /// What this process enforces.
        state: EmergencyState,
        /// Why it was not written.
        cause: Box<EmergencyError>,
    },
    /// As many scopes are stopped as the record has room for.
    #[error("{max} scopes besides the firm are stopped already: stop a wider scope")]
    TooManyScopes {
        /// How many may be.
        max: usize,
    },
    /// There is a list of persons who may re-arm, and this one is not on it for this scope.
    #[error("{user} may not re-arm {scope}: ask a person who is entitled to")]
    NotEntitled {
        /// Who.
        user: UserId,
        /// What.
        scope: Scope,
    },
    /// A program halted it, and the time to look has not passed yet.
    #[error("{scope} was halted by a program and may be re-armed from {until} on")]
    CoolingDown {
        /// What.
        scope: Scope,
        /// Until when, by the wall clock.
        until: Timestamp,
    },
    /// It takes two persons.
    #[error("re-arming takes two persons: request it, and have another person confirm it")]
    SecondPersonNeeded,
    /// The one who asked wants to confirm.
    #[error("{user} asked for this re-arm: another person has to confirm it")]
    SamePerson {
        /// Who.
        user: UserId,
    },
    /// There is no such request (any more): it expired, or a stop that came after it made it void.
    #[error("there is no such request to re-arm {scope} (any more): look again and request it anew")]
    NoRequest {
        /// What.
        scope: Scope,
    },
    /// Another run of the bot beats, or a watcher that found it dead has not finished.
    #[error("the heartbeat of {bot} is held by {holder} until {until}: wait, and see that the bot runs once")]
    AlreadyBeating {
        /// Which bot.
        bot: BotId,
        /// Who.
        holder: String,
        /// Until when by the store's clock, unless it is prolonged.
        until: Timestamp,
    },
    /// A watcher found the bot silent: its scopes were halted and its orders canceled.
    #[error("{bot} was silent for too long and was declared dead: reconcile its orders before it trades again")]
    DeclaredDead {
        /// Which bot.
        bot: BotId,
    },
    /// The bus refused.
    #[error("the bus does not carry the transitions: {0}")]
    Bus(#[from] BusError),
    /// The store refused or failed.
    #[error("the emergency state could not be read or written: {0}")]
    Store(#[from] StoreError),
}

impl EmergencyError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Stopped { .. } | Self::Unconfirmed | Self::CoolingDown { .. } | Self::AlreadyBeating { .. } => {
                ErrorKind::Unavailable
            }
            Self::DeclaredDead { .. } => ErrorKind::Fenced,
            Self::Damaged { .. } | Self::WentBack { .. } => ErrorKind::Corrupt,
            Self::Moved { .. } | Self::Contended | Self::NoRequest { .. } => ErrorKind::Conflict,
            Self::TooManyScopes { .. } => ErrorKind::LimitExceeded,
            Self::NotEntitled { .. } | Self::SamePerson { .. } => ErrorKind::Permanent,
            Self::SecondPersonNeeded => ErrorKind::Invalid,
            Self::Bus(e) => e.kind(),
            Self::NotDurable { cause, .. } => cause.kind(),
            Self::Store(e) => e.kind(),
        }
    }

    pub(crate) fn invalid(rule: impl Into<String>) -> Self {
        Self::Invalid { rule: rule.into() }
    }
}
