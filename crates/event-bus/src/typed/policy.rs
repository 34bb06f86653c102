//! What a topic does without room, and how a publisher is told.

use std::fmt;

use infra_types::ErrorKind;

/// What happens to a new event while a receiver has `capacity` events waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The publisher waits for the slowest receiver: nothing is lost.
    #[default]
    Block,
    /// A receiver that is behind loses its oldest events and is told how many; publishers never wait.
    DropOldest,
    /// No receiver gets the new event; the next one that they get says how many there were.
    DropNewest,
    /// The publisher gets its event back as [`PublishError::Full`].
    Error,
}

/// Why an event was not published. It carries the event, so that nothing has to be cloned in order to try again.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError<T> {
    /// The slowest receiver has no room.
    #[error("the topic is full: the slowest receiver has to catch up, or be dropped")]
    Full(T),
    /// The topic was closed.
    #[error("the topic is closed")]
    Closed(T),
}

impl<T> PublishError<T> {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::LimitExceeded,
            Self::Closed(_) => ErrorKind::Unavailable,
        }
    }

    /// The event that was not published.
    #[must_use]
    pub fn into_event(self) -> T {
        match self {
            Self::Full(event) | Self::Closed(event) => event,
        }
    }
}

/// Without the event, which need not be printable and may be secret.
impl<T> fmt::Debug for PublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

/// Why there is no event right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// Nothing is waiting.
    #[error("no event is waiting")]
    Empty,
    /// The topic was closed, or its last publisher was dropped, and everything before that was received.
    #[error("the topic is closed and everything was received")]
    Closed,
}

/// Counts of one topic since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct TopicMetrics {
    /// Events that a publisher was rid of with success, whatever became of them.
    pub published: u64,
    /// Of those, the ones that came while nobody was subscribed.
    pub unheard: u64,
    /// Events lost to a full receiver: with `DropNewest` counted once for all, with `DropOldest` once for each receiver,
    /// when it comes back and is told.
    pub dropped: u64,
    /// Events given back as `Full`.
    pub refused: u64,
    /// Receivers there are now.
    pub receivers: usize,
    /// Publishers that wait for room now.
    pub waiting: usize,
}
