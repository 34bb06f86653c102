//! How many retries a fleet of calls may make together.

use std::sync::atomic::{AtomicU64, Ordering};

const RETRY: u64 = 100;

/// Limits retries to a share of the calls, so that retries cannot multiply the load on a callee that is already ill.
///
/// Every call pays in `percent` hundredths of a retry; every retry takes a whole one. At the start, and at most, there is
/// enough for `reserve` retries. Share one budget between all callers of the same callee.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    full: u64,
    balance: AtomicU64,
}

impl RetryBudget {
    /// A budget of `percent` retries per hundred calls, with `reserve` retries saved up at most.
    #[must_use]
    pub fn new(percent: u32, reserve: u32) -> Self {
        let full = u64::from(reserve) * RETRY;
        Self { percent: u64::from(percent), full, balance: AtomicU64::new(full) }
    }

    /// Pays in for one call.
    pub fn deposit(&self) {
        let add = |balance: u64| Some((balance + self.percent).min(self.full));
        // The closure always gives a value, so the update cannot fail.
        let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes one retry if there is one.
    pub fn try_withdraw(&self) -> bool {
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| balance.checked_sub(RETRY)).is_ok()
    }

    /// How many retries could be made now.
    #[must_use]
    pub fn retries_left(&self) -> u64 {
        self.balance.load(Ordering::Relaxed) / RETRY
    }
}
