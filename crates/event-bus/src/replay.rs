//! Handling once more what is kept.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use infra_types::{EventId, ManualClock, Timestamp};

use crate::{
    BusError, Delivered, Handler, Pattern,
    broker::{Broker, PAGE_MAX, Record, Seq},
    engine::{call::call, core::Core},
};

/// Where a replay begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFrom {
    /// With the oldest event that is kept.
    Earliest,
    /// With this event.
    Id(EventId),
    /// With the first event in stored order whose `time` is not before this; all that follow in stored order come as well.
    Time(Timestamp),
    /// With the last so many that the pattern takes.
    Last(usize),
    /// The latest of each topic and key only.
    LastPerKey,
}

/// A replay to be.
#[derive(Clone)]
pub struct Replay {
    /// Which topics.
    pub pattern: Pattern,
    /// Where it begins.
    pub from: ReplayFrom,
    /// How long one handling may take by the bus's clock. Default 30 s.
    pub timeout: Duration,
    /// Is moved forward to each event's `time` before the event is handled, so that decisions are made at the time of the event.
    pub clock: Option<ManualClock>,
    /// What to do with each event. An error is counted, and the replay goes on.
    pub handler: Arc<dyn Handler>,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("pattern", &self.pattern).field("from", &self.from).finish_non_exhaustive()
    }
}

impl Replay {
    /// A replay without a clock of its own.
    #[must_use]
    pub fn new(pattern: Pattern, from: ReplayFrom, handler: Arc<dyn Handler>) -> Self {
        Self { pattern, from, timeout: Duration::from_secs(30), clock: None, handler }
    }

    /// Moves `clock` forward to each event's `time` before the event is handled; it never moves back.
    #[must_use]
    pub fn on_clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets how long one handling may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Handlings that succeeded.
    pub handled: u64,
    /// Handlings that failed, panicked or ran out of time.
    pub failed: u64,
    /// Kept events that cannot be read and were passed over.
    pub unreadable: u64,
    /// What came may not be all that was asked for: events before the first one were stored once and are not kept any more, or places are
    /// missing between two (also those that redriven dead letters took), or events went while the replay ran.
    pub has_gap: bool,
}

/// Which events to handle, found by a first look through what is kept.
enum Choice {
    From(Seq),
    These(Vec<Seq>),
}

impl Choice {
    fn takes(&self, seq: Seq) -> bool {
        match self {
            Self::From(first) => seq >= *first,
            Self::These(chosen) => chosen.binary_search(&seq).is_ok(),
        }
    }

    /// Whether fewer came than were chosen.
    fn is_short_of(&self, taken: usize) -> bool {
        match self {
            Self::From(_) => false,
            Self::These(chosen) => taken < chosen.len(),
        }
    }

    fn first(&self) -> Seq {
        match self {
            Self::From(first) => *first,
            Self::These(chosen) => chosen.first().copied().unwrap_or(Seq::MAX),
        }
    }
}

/// Goes through what is kept up to `newest`, page by page, until `see` has had enough.
async fn walk(
    broker: &dyn Broker,
    mut after: Seq,
    newest: Seq,
    mut see: impl FnMut(&Record) -> bool,
) -> Result<(), BusError> {
    loop {
        let page = broker.history(after, PAGE_MAX).await?;
        for record in &page.records {
            after = record.seq;
            if after > newest || !see(record) {
                return Ok(());
            }
        }
        if page.records.len() < PAGE_MAX {
            return Ok(());
        }
    }
}

impl Replay {
    pub(crate) async fn run(self, core: &Core) -> Result<Replayed, BusError> {
        if self.timeout.is_zero() {
            return Err(BusError::Invalid { rule: "timeout must be above zero".into() });
        }
        let broker = core.broker.as_ref();
        let start = broker.history(0, 1).await?;
        let newest = start.newest;
        let oldest = start.records.first().map_or(newest + 1, |record| record.seq);
        let choice = self.choose(broker, newest).await?;
        let mut done = Replayed { has_gap: oldest > 1 && self.reaches_back_to(&choice, oldest), ..Replayed::default() };
        let mut after = choice.first().saturating_sub(1);
        let (mut previous, mut taken) = (None, 0);
        while after < newest {
            let page = broker.history(after, PAGE_MAX).await?;
            let is_last = page.records.len() < PAGE_MAX;
            for record in page.records {
                if record.seq > newest {
                    after = newest;
                    break;
                }
                after = record.seq;
                done.has_gap |= previous.is_some_and(|previous| after != previous + 1);
                previous = Some(after);
                if choice.takes(after) {
                    taken += 1;
                    self.handle(core, record, &mut done).await;
                }
            }
            if is_last {
                break;
            }
        }
        done.has_gap |= choice.is_short_of(taken);
        Ok(done)
    }

    /// Whether events before `oldest`, which are gone, might have been asked for.
    fn reaches_back_to(&self, choice: &Choice, oldest: Seq) -> bool {
        match (&self.from, choice) {
            (ReplayFrom::Id(_), _) => false,
            // Fewer were found than asked for: the others may be gone.
            (ReplayFrom::Last(n), Choice::These(chosen)) => chosen.len() < *n,
            (ReplayFrom::LastPerKey, _) => true,
            (_, choice) => choice.first() <= oldest,
        }
    }

    async fn choose(&self, broker: &dyn Broker, newest: Seq) -> Result<Choice, BusError> {
        let takes = |record: &Record| record.envelope.clone().filter(|event| self.pattern.matches(&event.topic));
        match &self.from {
            ReplayFrom::Earliest => Ok(Choice::From(1)),
            ReplayFrom::Id(id) => {
                let mut found = None;
                let is = |record: &Record| record.envelope.as_ref().is_some_and(|event| event.id == *id);
                walk(broker, 0, newest, |record| {
                    found = is(record).then_some(record.seq);
                    found.is_none()
                })
                .await?;
                found.map(Choice::From).ok_or_else(|| BusError::Gone { id: id.to_string() })
            }
            ReplayFrom::Time(time) => {
                let mut found = None;
                walk(broker, 0, newest, |record| {
                    found = record.envelope.as_ref().is_some_and(|event| event.time >= *time).then_some(record.seq);
                    found.is_none()
                })
                .await?;
                Ok(Choice::From(found.unwrap_or(Seq::MAX)))
            }
            ReplayFrom::Last(n) => {
                let mut last = std::collections::VecDeque::new();
                walk(broker, 0, newest, |record| {
                    if takes(record).is_some() {
                        last.push_back(record.seq);
                        if last.len() > *n {
                            last.pop_front();
                        }
                    }
                    true
                })
                .await?;
                Ok(Choice::These(last.into()))
            }
            ReplayFrom::LastPerKey => {
                let mut last = HashMap::new();
                walk(broker, 0, newest, |record| {
                    if let Some(event) = takes(record) {
                        last.insert((event.topic.clone(), event.key.clone()), record.seq);
                    }
                    true
                })
                .await?;
                let mut chosen: Vec<Seq> = last.into_values().collect();
                chosen.sort_unstable();
                Ok(Choice::These(chosen))
            }
        }
    }

    async fn handle(&self, core: &Core, record: Record, done: &mut Replayed) {
        let Some(envelope) = record.envelope else {
            done.unreadable += 1;
            return;
        };
        if !self.pattern.matches(&envelope.topic) {
            return;
        }
        if let Some(clock) = &self.clock {
            clock.advance_to(envelope.time);
        }
        let event = Delivered { envelope, attempt: 1, is_replay: true };
        let (result, _) = call(&self.handler, event, &core.clock, self.timeout).await;
        match result {
            Ok(()) => done.handled += 1,
            Err(_) => done.failed += 1,
        }
        core.counters.replayed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
