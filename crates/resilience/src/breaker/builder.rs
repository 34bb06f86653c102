//! The settings of a breaker, checked together.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{Clock, ErrorKind, InvalidValue, SystemClock};

use super::{
    CircuitBreaker, Listener,
    event::BreakerEvent,
    machine::{Abandoned, Rules},
};
use crate::error::InvalidConfig;

/// The largest count window: one bit a call, 8 KiB.
const WINDOW_MAX: u32 = 65_536;

/// The settings of a [`CircuitBreaker`]. Defaults: 5 failures among the last 20 calls open it for 30 s; one probe, which
/// must succeed; a half-open wait as long as the open time; abandoned calls are ignored.
pub struct BreakerBuilder {
    pub(super) name: Arc<str>,
    failure_threshold: Option<u32>,
    failure_rate_percent: Option<u32>,
    window: Option<u32>,
    min_calls: Option<u32>,
    open_for: Duration,
    half_open_permits: u32,
    half_open_successes: Option<u32>,
    half_open_wait_max: Option<Duration>,
    abandoned: Abandoned,
    pub(super) failure_kinds: Vec<ErrorKind>,
    pub(super) ignored_kinds: Vec<ErrorKind>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) listeners: Vec<Listener>,
}

impl BreakerBuilder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            failure_threshold: None,
            failure_rate_percent: None,
            window: None,
            min_calls: None,
            open_for: Duration::from_secs(30),
            half_open_permits: 1,
            half_open_successes: None,
            half_open_wait_max: None,
            abandoned: Abandoned::default(),
            failure_kinds: vec![ErrorKind::Transient, ErrorKind::Unavailable, ErrorKind::Ambiguous, ErrorKind::Corrupt],
            ignored_kinds: vec![ErrorKind::LimitExceeded],
            clock: SystemClock::shared(),
            listeners: Vec::new(),
        }
    }

    /// Opens when this many of the last [`window`](Self::window) calls failed (default 5, unless a rate is set).
    #[must_use]
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = Some(failures);
        self
    }

    /// Opens when at least `percent` of the last [`window`](Self::window) calls failed, once there were
    /// [`min_calls`](Self::min_calls). With a threshold as well, whichever comes first.
    #[must_use]
    pub fn failure_rate_percent(mut self, percent: u32) -> Self {
        self.failure_rate_percent = Some(percent);
        self
    }

    /// How many calls back the breaker looks (default 20, or twice the threshold if that is more).
    #[must_use]
    pub fn window(mut self, calls: u32) -> Self {
        self.window = Some(calls);
        self
    }

    /// Below this many calls in the window there is no failure rate (default 10, or the window if that is less). Does not
    /// touch the half-open state, which always asks for its own number of probes.
    #[must_use]
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = Some(calls);
        self
    }

    /// How long calls are refused before the first probe.
    #[must_use]
    pub fn open_for(mut self, open_for: Duration) -> Self {
        self.open_for = open_for;
        self
    }

    /// How many calls may probe the callee in half-open. It decides when all have a verdict, or as soon as it cannot
    /// close any more.
    #[must_use]
    pub fn half_open_permits(mut self, permits: u32) -> Self {
        self.half_open_permits = permits;
        self
    }

    /// How many of the probes must succeed to close (default: all).
    #[must_use]
    pub fn half_open_successes(mut self, successes: u32) -> Self {
        self.half_open_successes = Some(successes);
        self
    }

    /// How long half-open waits for probes that do not come back before it opens again (default: the open time). While
    /// no probe is out there is nothing to wait for, and half-open goes on.
    #[must_use]
    pub fn half_open_wait_max(mut self, wait: Duration) -> Self {
        self.half_open_wait_max = Some(wait);
        self
    }

    /// What a call means that was dropped without a result.
    #[must_use]
    pub fn abandoned(mut self, policy: Abandoned) -> Self {
        self.abandoned = policy;
        self
    }

    /// Which errors are failures, instead of `Transient Unavailable Ambiguous Corrupt`. An error that is neither here
    /// nor ignored is a success: the callee is well enough to refuse.
    #[must_use]
    pub fn failure_on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.failure_kinds = kinds.into_iter().collect();
        self
    }

    /// Which errors are no evidence, instead of `LimitExceeded`. Wins over [`failure_on`](Self::failure_on).
    #[must_use]
    pub fn ignore_on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.ignored_kinds = kinds.into_iter().collect();
        self
    }

    /// The clock, instead of the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a listener. It is called outside the breaker's lock, in the order of events, on the thread of some call; it
    /// must not block. Its panic is counted and changes nothing else.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&BreakerEvent) + Send + Sync + 'static) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    fn rules(&self) -> (Rules, u32) {
        let failure_threshold = match (self.failure_threshold, self.failure_rate_percent) {
            (None, None) => Some(5),
            (threshold, _) => threshold,
        };
        let window = self.window.unwrap_or_else(|| failure_threshold.map_or(20, |t| t.saturating_mul(2).max(20)));
        let rules = Rules {
            failure_threshold,
            failure_rate_percent: self.failure_rate_percent,
            min_calls: self.min_calls.unwrap_or(window.min(10)),
            open_for: self.open_for,
            half_open_permits: self.half_open_permits,
            half_open_successes: self.half_open_successes.unwrap_or(self.half_open_permits),
            half_open_wait_max: self.half_open_wait_max.unwrap_or(self.open_for),
            abandoned: self.abandoned,
        };
        (rules, window)
    }

    /// Makes the breaker.
    ///
    /// # Errors
    /// `InvalidConfig` with every mistake.
    pub fn build(self) -> Result<CircuitBreaker, InvalidConfig> {
        let (rules, window) = self.rules();
        let mut problems = Vec::new();
        let mut must = |holds: bool, what: &'static str, rule: &str| {
            if !holds {
                problems.push(InvalidValue::new(what, rule));
            }
        };
        must(!self.name.is_empty(), "breaker name", "must not be empty: logs and metrics need it");
        must((1..=WINDOW_MAX).contains(&window), "window", "must be 1 to 65536 calls");
        let threshold = rules.failure_threshold;
        must(threshold != Some(0), "failure threshold", "must be at least 1");
        must(threshold.is_none_or(|t| t <= window), "failure threshold", "must fit the window, or it is never reached");
        let percent = rules.failure_rate_percent;
        must(percent.is_none_or(|p| (1..=100).contains(&p)), "failure rate", "must be 1 to 100 percent");
        must(rules.min_calls >= 1, "min calls", "must be at least 1");
        must(rules.min_calls <= window, "min calls", "must fit the window, or the rate never counts");
        must(!rules.open_for.is_zero(), "open time", "must be above zero");
        must(rules.half_open_permits >= 1, "half-open permits", "must be at least 1, or it never closes");
        let successes = 1..=rules.half_open_permits.max(1);
        must(
            rules.half_open_permits == 0 || successes.contains(&rules.half_open_successes),
            "half-open successes",
            "must be at least 1 and at most the permits",
        );
        must(!rules.half_open_wait_max.is_zero(), "half-open wait", "must be above zero");
        if problems.is_empty() {
            Ok(CircuitBreaker::from_parts(self, rules, window))
        } else {
            Err(InvalidConfig { name: self.name, problems })
        }
    }
}

impl fmt::Debug for BreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rules, window) = self.rules();
        f.debug_struct("BreakerBuilder")
            .field("name", &self.name)
            .field("rules", &rules)
            .field("window", &window)
            .finish_non_exhaustive()
    }
}
