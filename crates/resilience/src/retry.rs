//! Whether to try again, and after how long: a pure decision, so that it can be tested and used without a runtime.

use std::{sync::Arc, time::Duration};

use infra_types::{Backoff, ErrorKind, InvalidValue};

use crate::{budget::RetryBudget, classify::Classify, error::CallError};

/// Why a call was not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The call may be made once only, or the policy has no retry.
    SingleAttempt,
    /// Trying again would not change this error.
    NotRetryable,
    /// `max_attempts` were made.
    AttemptsExhausted,
    /// The next attempt would start at or after the deadline.
    Deadline,
    /// The callee asked for a longer wait than this policy is willing to make; see `retry_after()` of the error.
    RetryAfterTooLong,
    /// The shared budget had no retry left.
    BudgetEmpty,
    /// What the attempt did is unknown, and this policy wants that found out first.
    UnknownOutcome,
}

impl StopReason {
    /// The reason as words for a log line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleAttempt => "one attempt allowed",
            Self::NotRetryable => "a retry would not help",
            Self::AttemptsExhausted => "attempts exhausted",
            Self::Deadline => "deadline reached",
            Self::RetryAfterTooLong => "asked to wait longer than allowed",
            Self::BudgetEmpty => "retry budget empty",
            Self::UnknownOutcome => "outcome unknown, to be reconciled first",
        }
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this long.
    After(Duration),
    /// Give the error to the caller.
    Stop(StopReason),
}

/// When and how often a repeatable call is tried again. Defaults: 3 attempts, `Backoff::default()`, `Retry-After` up to
/// 60 s, no budget; retries `Transient Unavailable Ambiguous`, and any error with a `Retry-After`.
#[derive(Debug, Clone)]
pub struct Retry {
    max_attempts: u32,
    backoff: Backoff,
    retry_after_max: Duration,
    kinds: Vec<ErrorKind>,
    stop_on_unknown: bool,
    pub(crate) budget: Option<Arc<RetryBudget>>,
}

impl Default for Retry {
    fn default() -> Self {
        Self::attempts(3)
    }
}

impl Retry {
    /// At most `max_attempts`, the first call included; zero is refused when the policy is built.
    #[must_use]
    pub fn attempts(max_attempts: u32) -> Self {
        Self {
            max_attempts,
            backoff: Backoff::default(),
            retry_after_max: Duration::from_secs(60),
            kinds: vec![ErrorKind::Transient, ErrorKind::Unavailable, ErrorKind::Ambiguous],
            stop_on_unknown: false,
            budget: None,
        }
    }

    /// The delays between attempts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest wait that a callee may ask for; a longer one ends the call with the hint in its error.
    #[must_use]
    pub fn retry_after_max(mut self, longest: Duration) -> Self {
        self.retry_after_max = longest;
        self
    }

    /// Which errors are tried again, instead of the default. An error that is not `Permanent` or `Invalid` and names a
    /// `Retry-After` always is: the callee said when it will work.
    #[must_use]
    pub fn retry_on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Stops when an attempt may have taken effect, even if the call could be repeated: for orders, where asking by
    /// client order id is better than sending the id again.
    #[must_use]
    pub fn stop_on_unknown(mut self) -> Self {
        self.stop_on_unknown = true;
        self
    }

    /// Takes every retry out of `budget`.
    #[must_use]
    pub fn budget(mut self, budget: Arc<RetryBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// What to do after attempt number `attempt` (the first is 1) failed with `error`, with `remaining` time to the
    /// deadline and 64 random bits. Takes a retry out of the budget exactly if it answers `After`. O(1).
    pub fn decide<E: Classify>(
        &self,
        attempt: u32,
        error: &CallError<E>,
        remaining: Option<Duration>,
        random: u64,
    ) -> Decision {
        if matches!(error, CallError::DeadlineExceeded { .. }) {
            return Decision::Stop(StopReason::Deadline);
        }
        if self.stop_on_unknown && error.outcome().may_be_live() {
            return Decision::Stop(StopReason::UnknownOutcome);
        }
        let hint = error.retry_after();
        if !self.is_retryable(error, hint) {
            return Decision::Stop(StopReason::NotRetryable);
        }
        if attempt >= self.max_attempts {
            return Decision::Stop(StopReason::AttemptsExhausted);
        }
        if hint.is_some_and(|hint| hint > self.retry_after_max) {
            return Decision::Stop(StopReason::RetryAfterTooLong);
        }
        let delay = self.backoff.delay(attempt, random).max(hint.unwrap_or_default());
        if remaining.is_some_and(|remaining| delay >= remaining) {
            return Decision::Stop(StopReason::Deadline);
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.try_withdraw()) {
            return Decision::Stop(StopReason::BudgetEmpty);
        }
        Decision::After(delay)
    }

    fn is_retryable<E: Classify>(&self, error: &CallError<E>, hint: Option<Duration>) -> bool {
        let kind = error.kind();
        match error {
            // Without a hint an operator holds the breaker open: trying again would only make noise.
            CallError::BreakerOpen { .. } => hint.is_some(),
            _ if hint.is_some() && !matches!(kind, ErrorKind::Permanent | ErrorKind::Invalid) => true,
            _ => self.kinds.contains(&kind),
        }
    }

    pub(crate) fn problems(&self) -> Vec<InvalidValue> {
        let mut problems = Vec::new();
        if self.max_attempts == 0 {
            problems.push(InvalidValue::new("max attempts", "must be at least 1: the first call counts"));
        }
        problems
    }
}
