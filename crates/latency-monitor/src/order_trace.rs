//! From the tick to the trade: one order's way, stage by stage.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{Clock, CorrelationId, Monotonic};

use crate::{
    error::LatencyError,
    monitor::LatencyMonitor,
    recorder::{Outcome, Recorder},
};

/// Where an order is on its way. Stages may be left out, never repeated or reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The market data that caused it arrived.
    TickReceived,
    /// The strategy decided.
    Signal,
    /// The gate let it through.
    Approved,
    /// It left for the venue.
    Sent,
    /// The venue has it.
    Acknowledged,
    /// The first fill arrived.
    Filled,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::TickReceived, Self::Signal, Self::Approved, Self::Sent, Self::Acknowledged, Self::Filled];

    /// Its name, which is also the name of the operation that holds the time it took to get there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TickReceived => "tick_received",
            Self::Signal => "signal",
            Self::Approved => "approved",
            Self::Sent => "sent",
            Self::Acknowledged => "acknowledged",
            Self::Filled => "filled",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug)]
struct Recorders {
    clock: Arc<dyn Clock>,
    stages: [Recorder; 6],
    tick_to_trade: Recorder,
    total: Recorder,
}

/// The figures that all order traces of one service go to: one operation for each [`Stage`] (the time since the stage
/// before), `tick_to_trade` (tick received to sent) and `total`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrderStages(Arc<Recorders>);

impl OrderStages {
    /// Registers the operations of `service`.
    #[must_use]
    pub fn register(monitor: &dyn LatencyMonitor, service: &str, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Recorders {
            clock,
            stages: Stage::ALL.map(|stage| monitor.register(service, stage.name())),
            tick_to_trade: monitor.register(service, "tick_to_trade"),
            total: monitor.register(service, "total"),
        }))
    }

    /// Starts a trace with the tick that has just arrived.
    pub fn tick(&self, correlation: CorrelationId) -> OrderTrace {
        self.begin_at(correlation, Stage::TickReceived, self.0.clock.now())
    }

    /// Starts a trace at another stage or with a reading taken before, of the same clock.
    pub fn begin_at(&self, correlation: CorrelationId, stage: Stage, at: Monotonic) -> OrderTrace {
        OrderTrace {
            stages: self.clone(),
            correlation,
            first: (stage, at),
            marks: [None; 6],
            last: (stage, at),
            open: true,
        }
    }
}

/// One order's trace. Dropped without [`finish`](Self::finish), its total counts as failed.
#[must_use = "a trace that is dropped at once counts as failed"]
#[derive(Debug)]
pub struct OrderTrace {
    stages: OrderStages,
    correlation: CorrelationId,
    first: (Stage, Monotonic),
    marks: [Option<Duration>; 6],
    last: (Stage, Monotonic),
    open: bool,
}

/// What a trace measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceReport {
    /// The id that logs, events and audit rows of this order share.
    pub correlation: CorrelationId,
    /// From the first stage to the last; the sum of [`stages`](Self::stages).
    pub total: Duration,
    marks: [Option<Duration>; 6],
}

impl TraceReport {
    /// Each stage that was marked, with the time since the stage before, in order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().filter_map(|stage| self.marks[stage as usize].map(|took| (stage, took)))
    }
}

impl OrderTrace {
    /// The id that this order's story goes by.
    #[must_use]
    pub fn correlation(&self) -> CorrelationId {
        self.correlation
    }

    /// Says that the order has just reached `stage`; gives the time since the stage before.
    ///
    /// # Errors
    /// [`LatencyError::StageOutOfOrder`]; nothing is recorded then.
    pub fn mark(&mut self, stage: Stage) -> Result<Duration, LatencyError> {
        let now = self.stages.0.clock.now();
        self.mark_at(stage, now)
    }

    /// As [`mark`](Self::mark), with a reading taken before, of the same clock.
    ///
    /// # Errors
    /// [`LatencyError::StageOutOfOrder`], and [`LatencyError::ClockWentBack`] if `at` is before the stage before;
    /// nothing is recorded then.
    pub fn mark_at(&mut self, stage: Stage, at: Monotonic) -> Result<Duration, LatencyError> {
        let (last, since) = self.last;
        if stage <= last {
            return Err(LatencyError::StageOutOfOrder { stage, last });
        }
        if at < since {
            return Err(LatencyError::ClockWentBack { stage, by: since.since(at) });
        }
        let took = at.since(since);
        let to = &self.stages.0;
        to.stages[stage as usize].record_for(self.correlation, took, Outcome::Ok);
        if stage == Stage::Sent && self.first.0 == Stage::TickReceived {
            to.tick_to_trade.record_for(self.correlation, at.since(self.first.1), Outcome::Ok);
        }
        self.marks[stage as usize] = Some(took);
        self.last = (stage, at);
        Ok(took)
    }

    /// Ends the trace at its last stage and records the total.
    pub fn finish(mut self) -> TraceReport {
        self.end(Outcome::Ok)
    }

    /// Ends the trace of an order that was refused, rejected or given up; its total counts as failed.
    pub fn fail(mut self) -> TraceReport {
        self.end(Outcome::Failed)
    }

    fn end(&mut self, outcome: Outcome) -> TraceReport {
        let total = self.last.1.since(self.first.1);
        if std::mem::take(&mut self.open) {
            self.stages.0.total.record_for(self.correlation, total, outcome);
        }
        TraceReport { correlation: self.correlation, total, marks: self.marks }
    }
}

impl Drop for OrderTrace {
    fn drop(&mut self) {
        if self.open {
            self.end(Outcome::Failed);
        }
    }
}
