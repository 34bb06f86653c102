//! The circuit breaker: stops calling a callee that is ill, and finds out carefully when it is well.

mod builder;
mod event;
mod machine;
mod permit;
mod window;

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_types::{Clock, ErrorKind};
use parking_lot::Mutex;

pub use self::{
    builder::BreakerBuilder,
    event::{BreakerEvent, BreakerEventKind, BreakerSnapshot, BreakerState},
    machine::{Abandoned, Verdict},
    permit::Permit,
};
use self::{
    machine::{Core, End, Force},
    permit::Holder,
};
use crate::{classify::Classify, error::CallError};

type Listener = Arc<dyn Fn(&BreakerEvent) + Send + Sync>;

/// A call that the breaker refused; the callee saw nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("circuit breaker {name:?} refuses calls{}", retry_hint(.retry_after))]
pub struct Rejected {
    /// The breaker's name.
    pub name: Arc<str>,
    /// How long to wait before it may let a call pass; `None` if an operator forced it open.
    pub retry_after: Option<Duration>,
}

pub(crate) fn retry_hint(after: &Option<Duration>) -> String {
    after.map_or_else(|| " until an operator resets it".into(), |after| format!("; try again in {after:?}"))
}

/// `Some` in the low bit: closed, and calls need no lock to pass.
const CLOSED: u64 = 1;

struct Shared {
    name: Arc<str>,
    core: Mutex<Core>,
    /// `generation << 1 | CLOSED`, so that a call through a closed breaker takes the lock once, for its verdict.
    pass: AtomicU64,
    /// Whether calls in flight are counted, which needs the lock on the way in too.
    counts_in_flight: bool,
    failure_kinds: Vec<ErrorKind>,
    ignored_kinds: Vec<ErrorKind>,
    clock: Arc<dyn Clock>,
    listeners: Vec<Listener>,
}

/// A circuit breaker over a count window. Clones share the state.
///
/// The way through a closed breaker is one atomic load before the call and one short lock after it, without allocation
/// and without reading the clock.
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Shared>);

impl CircuitBreaker {
    /// A breaker that opens when `failure_threshold` of the last `max(20, 2 × failure_threshold)` calls failed; everything
    /// else as [`BreakerBuilder`] has it by default, on the system clock.
    ///
    /// # Panics
    /// If `name` is empty or `failure_threshold` is zero or above 32,768. Use [`builder`](Self::builder) for values that
    /// are not constants.
    #[must_use]
    pub fn new(name: &str, failure_threshold: u32) -> Self {
        match Self::builder(name).failure_threshold(failure_threshold).build() {
            Ok(breaker) => breaker,
            Err(error) => panic!("{error}"),
        }
    }

    /// The settings of a breaker, to be changed before it is built.
    #[must_use]
    pub fn builder(name: &str) -> BreakerBuilder {
        BreakerBuilder::new(name)
    }

    fn from_parts(settings: BreakerBuilder, rules: machine::Rules, window: u32) -> Self {
        let counts_in_flight = rules.abandoned == Abandoned::AsFailureWhenOnly;
        Self(Arc::new(Shared {
            core: Mutex::new(Core::new(settings.name.clone(), rules, window)),
            name: settings.name,
            pass: AtomicU64::new(CLOSED),
            counts_in_flight,
            failure_kinds: settings.failure_kinds,
            ignored_kinds: settings.ignored_kinds,
            clock: settings.clock,
            listeners: settings.listeners,
        }))
    }

    /// Makes a call through the breaker. A panic of `call` is a failure and goes on unchanged.
    ///
    /// # Errors
    /// `CallError::BreakerOpen` if the call was refused: `call` was not polled. `CallError::Inner` is the call's own
    /// error, recorded as its [`kind`](Classify::kind) says.
    ///
    /// # Cancel safety
    /// Dropping the future drops `call`; the [`Abandoned`] policy says what the breaker makes of it.
    pub async fn call<T, E: Classify>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        let judge = |result: &Result<T, E>| Some(self.judge(result.as_ref().err()));
        self.run(call, judge).await?.map_err(CallError::Inner)
    }

    /// Makes a call of any result through the breaker and lets `judge` say what the result means; `None` treats it as an
    /// abandoned call.
    ///
    /// # Errors
    /// `Rejected` if the call was refused: `call` was not polled.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn run<F: Future>(
        &self,
        call: F,
        judge: impl FnOnce(&F::Output) -> Option<Verdict>,
    ) -> Result<F::Output, Rejected> {
        let mut permit = self.try_acquire()?;
        permit.holder = Holder::Waiting;
        // Declared after the permit, so that a dropped call is gone before its permit goes back.
        let mut call = pin!(call);
        let output = poll_fn(|cx| {
            permit.holder = Holder::Polling;
            let polled = call.as_mut().poll(cx);
            permit.holder = Holder::Waiting;
            polled
        })
        .await;
        match judge(&output) {
            Some(verdict) => permit.settle(verdict),
            None => drop(permit),
        }
        Ok(output)
    }

    /// What an error (`None`: a result) says about the callee, by the breaker's settings.
    pub fn judge<E: Classify>(&self, error: Option<&E>) -> Verdict {
        let Some(error) = error else { return Verdict::Success };
        let kind = error.kind();
        if error.is_local_rejection() || self.0.ignored_kinds.contains(&kind) {
            Verdict::Ignore
        } else if self.0.failure_kinds.contains(&kind) {
            Verdict::Failure
        } else {
            Verdict::Success
        }
    }

    /// Asks to make one call, synchronously.
    ///
    /// # Errors
    /// `Rejected`, with the wait that makes sense.
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejected> {
        let pass = self.0.pass.load(Ordering::Acquire);
        if pass & CLOSED != 0 && !self.0.counts_in_flight {
            return Ok(Permit::new(self, pass >> 1));
        }
        match self.locked(|core, clock| core.acquire(clock)) {
            Ok(generation) => Ok(Permit::new(self, generation)),
            Err(retry_after) => Err(Rejected { name: self.0.name.clone(), retry_after }),
        }
    }

    fn settle(&self, generation: u64, end: End) {
        self.locked(|core, clock| core.settle(generation, end, clock));
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The state now. An open time that is over still reads `Open` until a call asks.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.0.core.lock().state()
    }

    /// The figures now, all of one moment.
    #[must_use]
    pub fn snapshot(&self) -> BreakerSnapshot {
        let core = self.0.core.lock();
        let (window_calls, window_failures) = core.window();
        BreakerSnapshot {
            state: core.state(),
            generation: core.generation(),
            window_calls,
            window_failures,
            rejected: core.rejected,
            late_results: core.late_results,
            abandoned: core.abandoned,
            events_dropped: core.events.dropped,
            listener_panics: core.events.panics,
        }
    }

    /// Closes it with an empty window, from any state. Calls in flight no longer count.
    pub fn reset(&self) {
        self.locked(|core, clock| core.force(Force::Reset, clock));
    }

    /// Refuses all calls until [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.locked(|core, clock| core.force(Force::Open, clock));
    }

    /// Lets all calls pass and records nothing until [`reset`](Self::reset).
    pub fn disable(&self) {
        self.locked(|core, clock| core.force(Force::Disable, clock));
    }

    /// Lets all calls pass and records them until [`reset`](Self::reset); see [`BreakerEventKind::ThresholdReached`].
    pub fn metrics_only(&self) {
        self.locked(|core, clock| core.force(Force::MetricsOnly, clock));
    }

    fn locked<T>(&self, change: impl FnOnce(&mut Core, &dyn Clock) -> T) -> T {
        let mut core = self.0.core.lock();
        let before = core.generation();
        let result = change(&mut core, &*self.0.clock);
        if core.generation() != before {
            let closed = if core.state() == BreakerState::Closed { CLOSED } else { 0 };
            self.0.pass.store(core.generation() << 1 | closed, Ordering::Release);
        }
        let deliver = !core.events.is_empty() && !core.events.delivering;
        if deliver {
            core.events.delivering = true;
        }
        drop(core);
        if deliver {
            self.deliver();
        }
        result
    }

    /// Called by whoever set `delivering`; ends when no event waits, so the order is that of the changes.
    fn deliver(&self) {
        loop {
            let event = {
                let mut core = self.0.core.lock();
                let event = core.events.pop();
                core.events.delivering = event.is_some();
                event
            };
            let Some(event) = event else { return };
            for listener in &self.0.listeners {
                if catch_unwind(AssertUnwindSafe(|| listener(&event))).is_err() {
                    self.0.core.lock().events.panics += 1;
                }
            }
        }
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.0.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
