//! The layers of a policy, checked together.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{Clock, InvalidValue, SystemClock};

use super::Policy;
use crate::{
    breaker::{BreakerBuilder, CircuitBreaker},
    error::InvalidConfig,
    random::{RandomSource, SeededRandom},
    retry::Retry,
};

#[derive(Debug)]
enum BreakerLayer {
    None,
    Shared(CircuitBreaker),
    Own(Box<BreakerBuilder>),
}

/// The layers of a [`Policy`]. A layer that is not named is not there.
pub struct PolicyBuilder {
    name: Arc<str>,
    deadline: Option<Duration>,
    retry: Option<Retry>,
    breaker: BreakerLayer,
    attempt_timeout: Option<Duration>,
    clock: Arc<dyn Clock>,
    random: Option<Arc<dyn RandomSource>>,
}

impl PolicyBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            deadline: None,
            retry: None,
            breaker: BreakerLayer::None,
            attempt_timeout: None,
            clock: SystemClock::shared(),
            random: None,
        }
    }

    /// How long a call may take with all its attempts and waits.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Tries repeatable calls again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Sends every attempt through `breaker`, which keeps the clock it was built with.
    #[must_use]
    pub fn breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.breaker = BreakerLayer::Shared(breaker);
        self
    }

    /// Sends every attempt through a breaker of its own, built with the policy's clock; its mistakes are reported with
    /// the policy's.
    #[must_use]
    pub fn own_breaker(mut self, settings: BreakerBuilder) -> Self {
        self.breaker = BreakerLayer::Own(Box::new(settings));
        self
    }

    /// How long one attempt may take.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// The clock, instead of the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where jitter comes from, instead of a generator seeded by the operating system.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn RandomSource>) -> Self {
        self.random = Some(random);
        self
    }

    /// Makes the policy.
    ///
    /// # Errors
    /// `InvalidConfig` with every mistake of every layer.
    pub fn build(self) -> Result<Policy, InvalidConfig> {
        let mut problems = Vec::new();
        if self.name.is_empty() {
            problems.push(InvalidValue::new("policy name", "must not be empty: logs and metrics need it"));
        }
        if self.deadline.is_some_and(|d| d.is_zero()) {
            problems.push(InvalidValue::new("deadline", "must be above zero"));
        }
        if self.attempt_timeout.is_some_and(|t| t.is_zero()) {
            problems.push(InvalidValue::new("attempt timeout", "must be above zero"));
        }
        if let (Some(attempt), Some(deadline)) = (self.attempt_timeout, self.deadline)
            && attempt > deadline
        {
            problems.push(InvalidValue::new("attempt timeout", "must not be longer than the deadline"));
        }
        problems.extend(self.retry.iter().flat_map(Retry::problems));
        let breaker = match self.breaker {
            BreakerLayer::None => None,
            BreakerLayer::Shared(breaker) => Some(breaker),
            BreakerLayer::Own(settings) => match settings.clock(self.clock.clone()).build() {
                Ok(breaker) => Some(breaker),
                Err(refused) => {
                    problems.extend(refused.problems);
                    None
                }
            },
        };
        if !problems.is_empty() {
            return Err(InvalidConfig { name: self.name, problems });
        }
        Ok(Policy {
            name: self.name,
            deadline: self.deadline,
            retry: self.retry,
            breaker,
            attempt_timeout: self.attempt_timeout,
            clock: self.clock,
            random: self.random.unwrap_or_else(|| Arc::new(SeededRandom::from_os())),
        })
    }
}

impl fmt::Debug for PolicyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBuilder")
            .field("name", &self.name)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .field("breaker", &self.breaker)
            .field("attempt_timeout", &self.attempt_timeout)
            .finish_non_exhaustive()
    }
}
