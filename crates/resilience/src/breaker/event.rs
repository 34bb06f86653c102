//! What a breaker tells its listeners, and what it answers when asked.

use std::{collections::VecDeque, sync::Arc};

use infra_types::Monotonic;

/// The state of a breaker: three that it finds itself, three that an operator sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls pass and are recorded.
    Closed,
    /// Calls are refused until the open time is over. Reported until the first call after that.
    Open,
    /// A few calls pass to find out whether the callee is well again.
    HalfOpen,
    /// An operator refuses all calls, until `reset`. Nothing is recorded.
    ForcedOpen,
    /// An operator lets all calls pass, until `reset`. Nothing is recorded.
    Disabled,
    /// All calls pass and are recorded; crossing the threshold is told to the listeners and changes nothing.
    MetricsOnly,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerEventKind {
    /// The breaker changed its state.
    StateChanged {
        /// The state before.
        from: BreakerState,
        /// The state now.
        to: BreakerState,
    },
    /// In `MetricsOnly`: the breaker would have opened. Told once until the window is below the threshold again.
    ThresholdReached,
}

/// One thing that happened to one breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerEvent {
    /// The breaker's name.
    pub name: Arc<str>,
    /// When, by the breaker's clock.
    pub at: Monotonic,
    /// What.
    pub kind: BreakerEventKind,
    /// Failures in the window (in half-open: of the probes) when it happened.
    pub failures: u32,
    /// Verdicts in the window (in half-open: of the probes) when it happened.
    pub calls: u32,
}

/// A breaker's figures at one moment. The totals count since it was made and saturate never in practice (64 bits).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSnapshot {
    /// The state.
    pub state: BreakerState,
    /// Grows with every change of state and every `reset`: a permit belongs to one generation.
    pub generation: u64,
    /// Verdicts in the window now.
    pub window_calls: u32,
    /// Failures in the window now.
    pub window_failures: u32,
    /// Calls refused.
    pub rejected: u64,
    /// Results that came after their generation had ended; they changed nothing.
    pub late_results: u64,
    /// Calls dropped without a verdict within their generation.
    pub abandoned: u64,
    /// Events that no listener was told because too many were waiting.
    pub events_dropped: u64,
    /// Listeners that panicked.
    pub listener_panics: u64,
}

/// How many events may wait for a slow listener.
const WAITING_MAX: usize = 64;

/// Events on their way to the listeners. Whoever finds nobody delivering delivers, so the order is kept without holding
/// the breaker's lock during a callback.
#[derive(Debug)]
pub(super) struct EventQueue {
    waiting: VecDeque<BreakerEvent>,
    pub(super) delivering: bool,
    pub(super) dropped: u64,
    pub(super) panics: u64,
}

impl EventQueue {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(WAITING_MAX), delivering: false, dropped: 0, panics: 0 }
    }

    pub(super) fn push(&mut self, event: BreakerEvent) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(event);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<BreakerEvent> {
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
