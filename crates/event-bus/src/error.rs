//! Why a bus refused, by what the caller should do.

use infra_types::{ErrorKind, InvalidValue};

/// A refusal. Unless it is `Ambiguous`, `SubscriberFull` or `Unfinished`, nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// A request makes no sense.
    #[error("invalid request: {rule}")]
    Invalid {
        /// The rule, as an instruction.
        rule: String,
    },
    /// Something is larger than the bus takes.
    #[error("{what} is too large: {found} bytes, at most {max}; store it elsewhere and publish its name")]
    TooLarge {
        /// Which part of the envelope.
        what: &'static str,
        /// Its size in bytes.
        found: usize,
        /// The largest size in bytes.
        max: usize,
    },
    /// A group has not worked off what it was sent; publishing on would grow without end.
    #[error("group {group} has {pending} events waiting, the most there may be: start its consumers or remove it")]
    BacklogFull {
        /// Which group.
        group: String,
        /// How many wait.
        pending: u64,
    },
    /// An earlier event of the same key and batch was refused, and this one must not overtake it. Nothing was stored of it.
    #[error(
        "an earlier event of key {key} was refused because group {group} is full, and this one must not overtake it: publish both again, in order"
    )]
    HeldBack {
        /// The key that both have.
        key: String,
        /// Which group was full.
        group: String,
    },
    /// As many events wait for their time as may.
    #[error("{waiting} events are delayed already, the most there may be: publish this one later")]
    DelayFull {
        /// How many.
        waiting: u64,
    },
    /// A live subscriber with policy `Error` had no room; every other subscriber got the event.
    #[error("subscription {subscription} is full and asked to be told: slow down or widen it")]
    SubscriberFull {
        /// Its label.
        subscription: String,
    },
    /// The group exists with another pattern.
    #[error("group {group} was created for {stored:?}, not {asked:?}: use another name or remove the group first")]
    GroupDiffers {
        /// Which group.
        group: String,
        /// The pattern it has.
        stored: String,
        /// The pattern that was asked for.
        asked: String,
    },
    /// There is no such group.
    #[error("no group is called {group}: subscribe to create it")]
    NoGroup {
        /// Which name.
        group: String,
    },
    /// A replay cannot begin there.
    #[error("event {id} is not kept (any more): begin with a later one, or raise history_max")]
    Gone {
        /// Its id.
        id: String,
    },
    /// Somebody in this process already consumes under that name.
    #[error("consumer {consumer} of group {group} is already running here: give each its own name")]
    ConsumerInUse {
        /// Which group.
        group: String,
        /// Which consumer name.
        consumer: String,
    },
    /// Another process consumes under that name since: this subscription ended by itself, and what it had not begun was given back.
    #[error(
        "another process runs consumer {consumer} of group {group} since: give each its own name, or end one of them"
    )]
    Displaced {
        /// Which group.
        group: String,
        /// Which consumer name.
        consumer: String,
    },
    /// The subscription was stopped, so it will handle nothing more.
    #[error("the subscription was stopped")]
    Stopped,
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// Closing gave up on handlers that did not end in time; their stored events will be delivered again.
    #[error(
        "{unfinished} events were still being handled at the deadline ({subscriptions}): they will come again if stored"
    )]
    Unfinished {
        /// How many events.
        unfinished: usize,
        /// Whose, by label.
        subscriptions: String,
    },
    /// The spill log holds as much as it may, and the store is still lost. Nothing was stored.
    #[error(
        "the spill log is full ({events} events, {bytes} bytes): the store is lost for longer than was planned for; stop what publishes, or raise events_max or bytes_max"
    )]
    SpillFull {
        /// How many events it holds.
        events: u64,
        /// How many bytes they are.
        bytes: u64,
    },
    /// Somebody else has the spill log open.
    #[error("spill log {path} is in use by another bus or process: give each a path of its own")]
    SpillInUse {
        /// Its path.
        path: String,
    },
    /// The spill log is not what was written. It was left as it is, and nothing behind the damage was published.
    #[error(
        "spill log {path} is damaged at byte {offset}: {reason}; keep a copy, then cut it there (truncate -s {offset}) to publish the {intact} events before it, and what follows in the copy by hand"
    )]
    SpillDamaged {
        /// Its path.
        path: String,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What was found there.
        reason: String,
        /// How many whole events stand before it.
        intact: u64,
    },
    /// The bus was closed before the store was back. The events are kept on disk, and go first when the spill log is opened again.
    #[error(
        "{events} events ({bytes} bytes) are left in spill log {path}: open it again to publish them ({unfinished} were still being handled at the deadline)"
    )]
    SpillLeft {
        /// How many.
        events: u64,
        /// How many bytes they are.
        bytes: u64,
        /// Where.
        path: String,
        /// What else closing gave up on, as in `Unfinished`.
        unfinished: usize,
    },
    /// The reply was lost: the event may or may not be stored. Publish it again **with the same id**.
    #[error("the event may or may not be stored ({reason}): publish it again with the same id")]
    Ambiguous {
        /// What was seen.
        reason: String,
    },
    /// The database failed; nothing was changed.
    #[error("{message}")]
    Backend {
        /// What to do, in the backend's words.
        message: String,
        /// Its class.
        kind: ErrorKind,
    },
}

impl BusError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } | Self::NoGroup { .. } | Self::Gone { .. } => {
                ErrorKind::Invalid
            }
            Self::BacklogFull { .. } | Self::HeldBack { .. } | Self::DelayFull { .. } | Self::SubscriberFull { .. } => {
                ErrorKind::LimitExceeded
            }
            Self::GroupDiffers { .. } | Self::ConsumerInUse { .. } | Self::Displaced { .. } => ErrorKind::Conflict,
            Self::SpillFull { .. } => ErrorKind::LimitExceeded,
            Self::SpillInUse { .. } => ErrorKind::Conflict,
            Self::SpillDamaged { .. } => ErrorKind::Corrupt,
            Self::Stopped | Self::Closed | Self::SpillLeft { .. } => ErrorKind::Unavailable,
            Self::Unfinished { .. } | Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Backend { kind, .. } => *kind,
        }
    }
}

impl From<InvalidValue> for BusError {
    fn from(e: InvalidValue) -> Self {
        Self::Invalid { rule: e.to_string() }
    }
}

#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
impl From<infra_backends::BackendError> for BusError {
    fn from(e: infra_backends::BackendError) -> Self {
        match (e.kind(), e) {
            (_, infra_backends::BackendError::Ambiguous { reason }) => Self::Ambiguous { reason },
            (kind, e) => Self::Backend { message: e.to_string(), kind },
        }
    }
}
