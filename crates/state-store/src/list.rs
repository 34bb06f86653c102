//! What is read of a list.

use bytes::Bytes;

/// From which end a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// The newest value first.
    #[default]
    NewestFirst,
    /// The oldest value first.
    OldestFirst,
}

/// Which values of a list to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRange {
    /// From which end.
    pub order: ListOrder,
    /// How many values of that end to pass over.
    pub skip: u32,
    /// How many at most: 1 to 1,000.
    pub limit: usize,
}

impl ListRange {
    /// The newest `limit` values, the newest first.
    #[must_use]
    pub fn newest(limit: usize) -> Self {
        Self { order: ListOrder::NewestFirst, skip: 0, limit }
    }

    /// The oldest `limit` values, the oldest first.
    #[must_use]
    pub fn oldest(limit: usize) -> Self {
        Self { order: ListOrder::OldestFirst, skip: 0, limit }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The values, in the order that was asked for.
    pub values: Vec<Bytes>,
    /// How many the whole list holds; 0 for a list that is absent or expired.
    pub length: u32,
}
