//! The state machine, without lock and without callbacks.

use std::{sync::Arc, time::Duration};

use infra_types::{Clock, Monotonic};

use super::{
    event::{BreakerEvent, BreakerEventKind, BreakerState, EventQueue},
    window::CountWindow,
};

/// What a call says about the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The callee is well; also when it answered with an error that is the caller's fault.
    Success,
    /// The callee is ill.
    Failure,
    /// No evidence either way: not recorded, the permit goes back.
    Ignore,
}

/// What a call means that was dropped before it had a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Abandoned {
    /// Nothing: the caller lost interest.
    #[default]
    Ignore,
    /// A failure: for callers that only drop what hangs.
    AsFailure,
    /// A failure if no other call was in flight: the losers of a race are dropped in good health, a call that hangs alone
    /// is not.
    AsFailureWhenOnly,
}

#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) failure_threshold: Option<u32>,
    pub(super) failure_rate_percent: Option<u32>,
    pub(super) min_calls: u32,
    pub(super) open_for: Duration,
    pub(super) half_open_permits: u32,
    pub(super) half_open_successes: u32,
    pub(super) half_open_wait_max: Duration,
    pub(super) abandoned: Abandoned,
}

/// How a permit ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Verdict(Verdict),
    Panicked,
    Dropped,
}

#[derive(Debug, Clone, Copy)]
struct Probes {
    in_flight: u32,
    succeeded: u32,
    failed: u32,
    decide_by: Monotonic,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Closed,
    Open { until: Monotonic },
    HalfOpen(Probes),
    ForcedOpen,
    Disabled,
    MetricsOnly { above: bool },
}

impl Mode {
    fn state(&self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen(_) => BreakerState::HalfOpen,
            Self::ForcedOpen => BreakerState::ForcedOpen,
            Self::Disabled => BreakerState::Disabled,
            Self::MetricsOnly { .. } => BreakerState::MetricsOnly,
        }
    }
}

/// What an operator sets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Force {
    Reset,
    Open,
    Disable,
    MetricsOnly,
}

#[derive(Debug)]
pub(super) struct Core {
    name: Arc<str>,
    rules: Rules,
    mode: Mode,
    generation: u64,
    window: CountWindow,
    /// Calls of this generation without verdict; kept only when the abandoned-call policy asks for it.
    in_flight: u32,
    pub(super) rejected: u64,
    pub(super) late_results: u64,
    pub(super) abandoned: u64,
    pub(super) events: EventQueue,
}

impl Core {
    pub(super) fn new(name: Arc<str>, rules: Rules, window: u32) -> Self {
        Self {
            name,
            rules,
            mode: Mode::Closed,
            generation: 0,
            window: CountWindow::new(window),
            in_flight: 0,
            rejected: 0,
            late_results: 0,
            abandoned: 0,
            events: EventQueue::new(),
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.mode.state()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn window(&self) -> (u32, u32) {
        (self.window.calls(), self.window.failures())
    }

    /// The generation of the permit, or the wait to suggest (`None` if only an operator can end it).
    pub(super) fn acquire(&mut self, clock: &dyn Clock) -> Result<u64, Option<Duration>> {
        self.end_overdue(clock);
        let wait = match &mut self.mode {
            Mode::Closed | Mode::MetricsOnly { .. } | Mode::Disabled => {
                self.in_flight += 1;
                return Ok(self.generation);
            }
            Mode::HalfOpen(probes) => {
                if probes.in_flight + probes.succeeded + probes.failed < self.rules.half_open_permits {
                    probes.in_flight += 1;
                    return Ok(self.generation);
                }
                Some(probes.decide_by.since(clock.now()))
            }
            Mode::Open { until } => Some(until.since(clock.now())),
            Mode::ForcedOpen => None,
        };
        self.rejected += 1;
        Err(wait)
    }

    /// Time alone ends an open time, and a half-open time in which a probe never came back.
    fn end_overdue(&mut self, clock: &dyn Clock) {
        if let Mode::HalfOpen(probes) = &mut self.mode {
            let now = clock.now();
            if now < probes.decide_by {
                return;
            }
            if probes.in_flight == 0 {
                // Nothing is being waited for: the round goes on, with a new wait for its next probe.
                probes.decide_by = now + self.rules.half_open_wait_max;
                return;
            }
            // Open since the wait ended, not since somebody looked.
            let until = probes.decide_by + self.rules.open_for;
            self.change(Mode::Open { until }, now);
        }
        if let Mode::Open { until } = self.mode {
            let now = clock.now();
            if now >= until {
                let decide_by = now + self.rules.half_open_wait_max;
                self.change(Mode::HalfOpen(Probes { in_flight: 0, succeeded: 0, failed: 0, decide_by }), now);
            }
        }
    }

    pub(super) fn settle(&mut self, generation: u64, end: End, clock: &dyn Clock) {
        // A probe that answers after the half-open wait is late even if nobody called in between.
        if matches!(self.mode, Mode::HalfOpen(_)) && generation == self.generation {
            self.end_overdue(clock);
        }
        if generation != self.generation {
            self.late_results += u64::from(!matches!(end, End::Dropped));
            return;
        }
        let left = match &mut self.mode {
            Mode::HalfOpen(probes) => &mut probes.in_flight,
            _ => &mut self.in_flight,
        };
        *left = left.saturating_sub(1);
        let others = *left > 0;
        let failed = match end {
            End::Verdict(Verdict::Success) => false,
            End::Verdict(Verdict::Failure) | End::Panicked => true,
            End::Verdict(Verdict::Ignore) => return,
            End::Dropped => {
                self.abandoned += 1;
                match self.rules.abandoned {
                    Abandoned::AsFailure => true,
                    Abandoned::AsFailureWhenOnly if !others => true,
                    Abandoned::Ignore | Abandoned::AsFailureWhenOnly => return,
                }
            }
        };
        self.record(failed, clock);
    }

    fn record(&mut self, failed: bool, clock: &dyn Clock) {
        match &mut self.mode {
            Mode::Closed => {
                self.window.push(failed);
                if self.is_above() {
                    let now = clock.now();
                    self.change(Mode::Open { until: now + self.rules.open_for }, now);
                }
            }
            Mode::MetricsOnly { above } => {
                let was_above = *above;
                self.window.push(failed);
                let is_above = self.is_above();
                self.mode = Mode::MetricsOnly { above: is_above };
                if is_above && !was_above {
                    self.tell(BreakerEventKind::ThresholdReached, clock.now());
                }
            }
            Mode::HalfOpen(probes) => {
                let counter = if failed { &mut probes.failed } else { &mut probes.succeeded };
                *counter += 1;
                let Probes { succeeded, failed, .. } = *probes;
                let (permits, needed) = (self.rules.half_open_permits, self.rules.half_open_successes);
                if failed > permits - needed {
                    let now = clock.now();
                    self.change(Mode::Open { until: now + self.rules.open_for }, now);
                } else if succeeded + failed == permits {
                    self.change(Mode::Closed, clock.now());
                }
            }
            // An open breaker gives no permit of its generation; the other two record nothing.
            Mode::Open { .. } | Mode::ForcedOpen | Mode::Disabled => {}
        }
    }

    fn is_above(&self) -> bool {
        let (calls, failures) = self.window();
        // Below min_calls there is no rate.
        let rate = self.rules.failure_rate_percent.filter(|_| calls >= self.rules.min_calls);
        self.rules.failure_threshold.is_some_and(|threshold| failures >= threshold)
            || rate.is_some_and(|percent| u64::from(failures) * 100 >= u64::from(percent) * u64::from(calls))
    }

    pub(super) fn force(&mut self, force: Force, clock: &dyn Clock) {
        let mode = match force {
            Force::Reset => Mode::Closed,
            Force::Open => Mode::ForcedOpen,
            Force::Disable => Mode::Disabled,
            Force::MetricsOnly => Mode::MetricsOnly { above: false },
        };
        self.change(mode, clock.now());
    }

    /// The only place where a generation ends.
    fn change(&mut self, to: Mode, now: Monotonic) {
        let (from, next) = (self.mode.state(), to.state());
        if from != next {
            self.tell(BreakerEventKind::StateChanged { from, to: next }, now);
        }
        self.mode = to;
        self.generation += 1;
        self.in_flight = 0;
        self.window.clear();
    }

    fn tell(&mut self, kind: BreakerEventKind, at: Monotonic) {
        let (calls, failures) = match self.mode {
            Mode::HalfOpen(probes) => (probes.succeeded + probes.failed, probes.failed),
            _ => self.window(),
        };
        self.events.push(BreakerEvent { name: self.name.clone(), at, kind, failures, calls });
    }
}
