//! The newest values of something, as a capped list beside its latest.

use std::time::Duration;

use super::typed::{Cached, TypedCache};
use crate::{
    batch::{Applied, Batch, Ttl},
    codec::{StoredExt, encode_stored},
    error::StoreError,
    key::Key,
    list::ListRange,
    op::Op,
};

/// The most values of a history: what one read gives, so that it is one snapshot.
pub(super) const HISTORY_MAX: u32 = 1_000;

/// How much of the past is kept, and how long after the last value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    pub(super) max: u32,
    pub(super) ttl: Duration,
}

impl Keep {
    /// # Panics
    /// If `max` is 0 or above [`HISTORY_MAX`].
    pub(super) fn with_max(self, max: u32) -> Self {
        assert!((1..=HISTORY_MAX).contains(&max), "a history keeps 1 to 1,000 values");
        Self { max, ..self }
    }
}

impl<T: Cached> TypedCache<T> {
    fn list(name: &str) -> Result<Key, StoreError> {
        Key::list(format!("{}{name}", T::PREFIX))
    }

    /// The operation that appends a value to a history.
    pub(super) fn remember(name: &str, value: &T, keep: Keep) -> Result<Op, StoreError> {
        let (list, value) = (Self::list(name)?, encode_stored(value)?);
        Ok(Op::Push { list, value, cap: keep.max, ttl: Ttl::After(keep.ttl) })
    }

    /// The newest values of a history, the newest first.
    pub(super) async fn past(&self, name: &str, limit: u32) -> Result<Vec<T>, StoreError> {
        let range = ListRange::newest(limit.clamp(1, HISTORY_MAX) as usize);
        Ok(self.store.list_stored(&self.namespace, &Self::list(name)?, range).await?.0)
    }

    /// Removes the latest value and the history.
    pub(super) async fn forget(&self, name: &str) -> Result<bool, StoreError> {
        let batch = Batch::new(self.namespace.clone()).delete(self.key(name)?).delete(Self::list(name)?);
        let gone = self.store.apply(batch).await?;
        Ok(gone.contains(&Applied::Existed(true)))
    }
}
