//! The layers around a call, in the one order that works: overall deadline, retry, breaker, attempt timeout, call.

mod builder;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use infra_types::{Clock, ErrorKind, Monotonic, OrderId};

pub use self::builder::PolicyBuilder;
use crate::{
    breaker::CircuitBreaker,
    classify::Classify,
    effect::{AtMostOnce, Effect, Repeatable},
    error::CallError,
    outcome::{Outcome, Submission},
    random::RandomSource,
    retry::{Decision, Retry, StopReason},
    timeout::until,
};

/// What a call may know about the attempt it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The first is 1.
    pub number: u32,
    /// When the attempt will be dropped if it has no result, by the policy's clock.
    pub give_up_at: Option<Monotonic>,
}

/// A guarded call that failed for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError<E> {
    /// The last error.
    pub error: CallError<E>,
    /// How many attempts were made, those included that the breaker refused.
    pub attempts: u32,
    /// What became of the request over *all* attempts: unknown as soon as one of them was, unless the callee then said
    /// that it was applied.
    pub outcome: Outcome,
    /// Why there was no further attempt.
    pub stopped: StopReason,
}

impl<E: Classify> PolicyError<E> {
    /// What to do next: the last error's kind, but `Ambiguous` if an earlier attempt may have taken effect.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.outcome {
            Outcome::Unknown if self.error.kind().had_no_effect() => ErrorKind::Ambiguous,
            _ => self.error.kind(),
        }
    }

    /// The wait that the callee or the breaker asked for last.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.error.retry_after()
    }
}

impl<E: fmt::Display> fmt::Display for PolicyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempts: {}; {})", self.error, self.attempts, self.stopped.as_str())
    }
}

impl<E: std::error::Error + 'static> std::error::Error for PolicyError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The layers around a call. Clones share the breaker and the budget.
///
/// The limiter belongs between retry and breaker, the bulkhead between attempt timeout and call; neither is here yet.
#[derive(Clone)]
pub struct Policy {
    name: Arc<str>,
    deadline: Option<Duration>,
    retry: Option<Retry>,
    breaker: Option<CircuitBreaker>,
    attempt_timeout: Option<Duration>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn RandomSource>,
}

/// The overall deadline of one call: its length, and its end on the clock.
type Deadline = Option<(Duration, Monotonic)>;

impl Policy {
    /// The layers of a policy, to be named before it is built.
    #[must_use]
    pub fn builder(name: &str) -> PolicyBuilder {
        PolicyBuilder::new(name)
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The breaker, if the policy has one.
    #[must_use]
    pub fn breaker(&self) -> Option<&CircuitBreaker> {
        self.breaker.as_ref()
    }

    /// Makes a call that may be repeated, as often as the policy says. `call` is asked for a new future for each attempt.
    ///
    /// # Errors
    /// `PolicyError` with the last error, what became of the request, and why it was not tried again.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt in flight and makes no further one.
    pub async fn call<T, E, Fut>(
        &self,
        effect: impl Repeatable,
        mut call: impl FnMut(Attempt) -> Fut,
    ) -> Result<T, PolicyError<E>>
    where
        E: Classify,
        Fut: Future<Output = Result<T, E>>,
    {
        // The effect did its work when the call compiled.
        let _ = effect.name();
        let deadline = self.deadline();
        if let Some(budget) = self.retry.as_ref().and_then(|retry| retry.budget.as_ref()) {
            budget.deposit();
        }
        let (mut attempts, mut outcome) = (0u32, Outcome::NotSent);
        loop {
            attempts = attempts.saturating_add(1);
            let error = match self.attempt(attempts, deadline, &mut call).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            outcome = outcome.and_then(error.outcome());
            let stopped = match self.decide(attempts, &error, deadline) {
                Decision::Stop(reason) => reason,
                Decision::After(delay) => {
                    self.clock.sleep(delay).await;
                    // A late wake-up must not start an attempt that the deadline no longer allows.
                    match self.remaining(deadline) {
                        Some(left) if left.is_zero() => StopReason::Deadline,
                        _ => continue,
                    }
                }
            };
            return Err(PolicyError { error, attempts, outcome, stopped });
        }
    }

    /// Makes one attempt, through the same deadline, breaker and timeout: for calls that must not be repeated.
    ///
    /// # Errors
    /// `PolicyError`; its `outcome` says whether the request may have taken effect.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt; what it did is then unknown, to you as well.
    pub async fn call_once<T, E, Fut>(
        &self,
        effect: AtMostOnce,
        call: impl FnOnce(Attempt) -> Fut,
    ) -> Result<T, PolicyError<E>>
    where
        E: Classify,
        Fut: Future<Output = Result<T, E>>,
    {
        let _ = effect.name();
        self.attempt(1, self.deadline(), call).await.map_err(|error| {
            let outcome = error.outcome();
            PolicyError { error, attempts: 1, outcome, stopped: StopReason::SingleAttempt }
        })
    }

    /// Sends an order once and says what became of it. An order whose answer is missing comes back as
    /// [`Submission::Unknown`] with its client order id: reconcile it before anything else.
    ///
    /// # Cancel safety
    /// As [`call_once`](Self::call_once): if you drop the future, treat the order as unknown.
    pub async fn submit<T, E, Fut>(&self, id: &OrderId, call: impl FnOnce(Attempt) -> Fut) -> Submission<T, E>
    where
        E: Classify,
        Fut: Future<Output = Result<T, E>>,
    {
        match self.call_once(AtMostOnce, call).await {
            Ok(value) => Submission::Applied(value),
            Err(PolicyError { error, outcome, .. }) => match outcome {
                Outcome::NotSent => Submission::NotSent(error),
                Outcome::Rejected => Submission::Rejected(error),
                // "Duplicate id" proves that the order is there but does not show it: the query will.
                Outcome::Applied | Outcome::Unknown => Submission::Unknown { id: id.clone(), error },
            },
        }
    }

    /// Breaker, attempt timeout, call.
    async fn attempt<T, E, Fut>(
        &self,
        number: u32,
        deadline: Deadline,
        call: impl FnOnce(Attempt) -> Fut,
    ) -> Result<T, CallError<E>>
    where
        E: Classify,
        Fut: Future<Output = Result<T, E>>,
    {
        let guarded = async {
            let timeout = self.attempt_timeout.map(|after| (after, self.clock.now() + after));
            // At equal times the attempt had all the time it may have, so it is the callee that was slow.
            let (give_up_at, ended) = match (timeout, deadline) {
                (Some((after, at)), Some((_, end))) if at <= end => (Some(at), CallError::Timeout { after }),
                (Some((after, at)), None) => (Some(at), CallError::Timeout { after }),
                (_, Some((after, end))) => (Some(end), CallError::DeadlineExceeded { after }),
                (None, None) => (None, CallError::Timeout { after: Duration::MAX }),
            };
            match until(&*self.clock, give_up_at, call(Attempt { number, give_up_at })).await {
                Some(result) => result.map_err(CallError::Inner),
                None => Err(ended),
            }
        };
        match &self.breaker {
            None => guarded.await,
            Some(breaker) => breaker.run(guarded, |result| judge(breaker, result)).await?,
        }
    }

    fn deadline(&self) -> Deadline {
        self.deadline.map(|after| (after, self.clock.now() + after))
    }

    fn remaining(&self, deadline: Deadline) -> Option<Duration> {
        deadline.map(|(_, end)| end.since(self.clock.now()))
    }

    fn decide<E: Classify>(&self, attempt: u32, error: &CallError<E>, deadline: Deadline) -> Decision {
        match &self.retry {
            None => Decision::Stop(StopReason::SingleAttempt),
            Some(retry) => retry.decide(attempt, error, self.remaining(deadline), self.random.next_u64()),
        }
    }
}

/// The overall deadline is the caller's, so an attempt that it cuts is abandoned and not the callee's failure.
fn judge<T, E: Classify>(breaker: &CircuitBreaker, result: &Result<T, CallError<E>>) -> Option<crate::Verdict> {
    match result {
        Err(CallError::DeadlineExceeded { .. }) => None,
        // The attempt timeout is the callee's failure whatever kinds the breaker was told to watch.
        Err(CallError::Timeout { .. }) => Some(crate::Verdict::Failure),
        other => Some(breaker.judge(other.as_ref().err())),
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .field("breaker", &self.breaker)
            .field("attempt_timeout", &self.attempt_timeout)
            .finish_non_exhaustive()
    }
}
