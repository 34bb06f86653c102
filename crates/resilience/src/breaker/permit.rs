//! The right to make one call.

use super::{
    CircuitBreaker,
    machine::{End, Verdict},
};

/// Who drops a permit without a verdict, and so what that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Code of the caller: a drop while the thread unwinds is a panic of the call.
    Caller,
    /// A future of ours that is not being polled: a drop is a cancellation, even if the thread unwinds for some other
    /// reason.
    Waiting,
    /// A future of ours that is being polled: only a panic of the call can drop it.
    Polling,
}

/// The right to make one call through the breaker. It belongs to the generation that gave it: a verdict that comes after
/// a change of state changes nothing. Dropped without a verdict it is an abandoned call, or a failure if the thread
/// panics.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once counts as an abandoned call"]
pub struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    generation: u64,
    pub(super) holder: Holder,
    settled: bool,
}

impl<'a> Permit<'a> {
    pub(super) fn new(breaker: &'a CircuitBreaker, generation: u64) -> Self {
        Self { breaker, generation, holder: Holder::Caller, settled: false }
    }

    /// Records what the call said about the callee.
    pub fn settle(mut self, verdict: Verdict) {
        self.settled = true;
        self.breaker.settle(self.generation, End::Verdict(verdict));
    }

    /// The callee is well.
    pub fn success(self) {
        self.settle(Verdict::Success);
    }

    /// The callee is ill.
    pub fn failure(self) {
        self.settle(Verdict::Failure);
    }

    /// No evidence either way.
    pub fn ignore(self) {
        self.settle(Verdict::Ignore);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let panicked = match self.holder {
            Holder::Caller => std::thread::panicking(),
            Holder::Waiting => false,
            Holder::Polling => true,
        };
        self.breaker.settle(self.generation, if panicked { End::Panicked } else { End::Dropped });
    }
}
