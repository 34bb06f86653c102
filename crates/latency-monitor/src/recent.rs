//! Single samples, kept for a person to look at.

use std::{collections::VecDeque, time::Duration};

use infra_types::{CorrelationId, Timestamp};
use parking_lot::Mutex;

use crate::operation::OperationKey;

/// One recording, kept as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What was done.
    pub key: OperationKey,
    /// How long it took.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
    /// Whether it was over its threshold.
    pub slow: bool,
    /// When it was recorded.
    pub at: Timestamp,
    /// The story that it belongs to: given, or the running task's.
    pub correlation: Option<CorrelationId>,
}

/// A ring of samples: takes its memory at once, drops the oldest, counts what it dropped.
#[derive(Debug)]
pub(crate) struct Recent {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    samples: VecDeque<Sample>,
    evicted: u64,
}

impl Recent {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, inner: Mutex::new(Inner { samples: VecDeque::with_capacity(max), evicted: 0 }) }
    }

    pub(crate) fn push(&self, sample: Sample) {
        let mut inner = self.inner.lock();
        if inner.samples.len() == self.max {
            inner.samples.pop_front();
            inner.evicted += 1;
        }
        inner.samples.push_back(sample);
    }

    /// The newest `limit`, newest first.
    pub(crate) fn newest(&self, limit: usize) -> Vec<Sample> {
        self.inner.lock().samples.iter().rev().take(limit).cloned().collect()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.inner.lock().evicted
    }

    pub(crate) fn clear(&self) {
        self.inner.lock().samples.clear();
    }
}
