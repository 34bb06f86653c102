//! Work that is done once, however often it is asked for.

use infra_types::EventId;

use crate::{
    batch::{Applied, Batch, Ttl},
    error::StoreError,
    key::Key,
    op::Op,
    store::StateStore,
};

/// What became of work that may be asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once<T> {
    /// It was done now.
    Done(T),
    /// It was done before; nothing was changed now.
    Already,
}

impl<T> Once<T> {
    /// What was done now, if it was.
    #[must_use]
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::Already => None,
        }
    }
}

/// The mark stands first, so that a repetition is known before a precondition that the first run itself has ended.
pub(super) async fn apply<S: StateStore + ?Sized>(
    store: &S,
    consumer: Key,
    id: EventId,
    ttl: Ttl,
    mut batch: Batch,
) -> Result<Once<Vec<Applied>>, StoreError> {
    batch.ops.insert(0, Op::MarkInbox { consumer, id, ttl });
    match store.apply(batch).await {
        Ok(mut applied) if !applied.is_empty() => {
            applied.remove(0);
            Ok(Once::Done(applied))
        }
        Ok(_) => Err(StoreError::Ambiguous { reason: "the store answered nothing to an operation".into() }),
        Err(StoreError::AlreadyProcessed { index: 0 }) => Ok(Once::Already),
        Err(e) => Err(without_the_mark(e)),
    }
}

/// The caller counts its own operations.
fn without_the_mark(mut e: StoreError) -> StoreError {
    match &mut e {
        StoreError::Mismatch { index, .. }
        | StoreError::OutOfBounds { index, .. }
        | StoreError::Overflow { index, .. }
        | StoreError::WrongType { index, .. }
        | StoreError::LeaseHeld { index, .. }
        | StoreError::Fenced { index, .. }
        | StoreError::WindowFull { index, .. }
        | StoreError::AlreadyProcessed { index } => *index = index.saturating_sub(1),
        _ => {}
    }
    e
}
