//! What the rules' tests share: an error that says what it is told to, and futures polled by hand.
#![expect(dead_code, unreachable_pub, reason = "each test file uses its part of this module")]

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use infra_resilience::{Classify, Outcome};
use infra_types::{Clock, ErrorKind, ManualClock};

/// An error of a given kind, with the hint and outcome it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oops {
    pub kind: ErrorKind,
    pub hint: Option<Duration>,
    pub outcome: Option<Outcome>,
}

impl Oops {
    pub fn of(kind: ErrorKind) -> Self {
        Self { kind, hint: None, outcome: None }
    }

    pub fn after(self, hint: Duration) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub fn with(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }
}

pub const DOWN: Oops = Oops { kind: ErrorKind::Unavailable, hint: None, outcome: None };

impl Classify for Oops {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
    fn retry_after(&self) -> Option<Duration> {
        self.hint
    }
    fn outcome(&self) -> Outcome {
        // The default of the trait, unless the test says otherwise.
        self.outcome.unwrap_or_else(|| Classify::outcome(&self.kind))
    }
}

impl std::fmt::Display for Oops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "oops {:?}", self.kind)
    }
}

impl std::error::Error for Oops {}

pub fn clock() -> (ManualClock, Arc<dyn Clock>) {
    let clock = ManualClock::default();
    (clock.clone(), Arc::new(clock))
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A future polled by hand.
pub type Task<T> = Pin<Box<dyn Future<Output = T>>>;

pub fn poll<T>(task: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Poll<T> {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls, moving the clock a millisecond at a time, until the future is ready.
pub fn drive<T>(clock: &ManualClock, future: impl Future<Output = T>) -> T {
    drive_by(ms(1), clock, future)
}

/// Polls, moving the clock by `step` at a time, until the future is ready.
pub fn drive_by<T>(step: Duration, clock: &ManualClock, future: impl Future<Output = T>) -> T {
    let mut task = Box::pin(future);
    for _ in 0..100_000 {
        match poll(&mut task) {
            Poll::Ready(value) => return value,
            Poll::Pending => clock.advance(step),
        }
    }
    panic!("the future never became ready");
}

/// A result that is ready at once.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match poll(&mut Box::pin(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}
