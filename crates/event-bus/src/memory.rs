//! Events in memory: the specification of what a broker does.

mod group;
mod state;

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use infra_types::{Clock, EventId, Health, Timestamp};
use parking_lot::Mutex;

use self::{group::Group, state::State};
use crate::{
    Bus, BusConfig, BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Limits, StartFrom,
    broker::{
        Append, Appended, Broker, Claim, Claims, GroupNames, GroupSpec, NAMES_MAX, Page, Progress, Seq, Settle, Settled,
    },
};

/// A bus whose events live and die with the process.
pub type MemoryEventBus = Bus<MemoryBroker>;

impl MemoryEventBus {
    /// A bus with the default [`BusConfig`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_config(clock, BusConfig::default())
    }

    /// A bus.
    #[must_use]
    pub fn with_config(clock: Arc<dyn Clock>, config: BusConfig) -> Self {
        Self::with_broker(MemoryBroker::new(config.limits), clock, config)
    }
}

/// The error of an event whose consumers died with it.
pub(crate) fn died(times: u32, last_error: &str) -> String {
    let last = if last_error.is_empty() { String::new() } else { format!("; before that: {last_error}") };
    format!("its consumer died or lost its lease while handling it, {times} attempts{last}")
}

/// Keeps events in memory, behind one lock that is never held across an await.
#[derive(Debug)]
pub struct MemoryBroker {
    state: Mutex<State>,
    limits: Limits,
}

impl MemoryBroker {
    /// An empty store.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { state: Mutex::default(), limits }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn info(&self) -> BusInfo {
        BusInfo {
            backend: "memory",
            survives_process: false,
            survives_power_cut: false,
            shared_between_processes: false,
            live_between_processes: false,
            limits: self.limits,
        }
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        let mut state = self.state.lock();
        events.into_iter().map(|event| state.append(event, &self.limits)).collect()
    }

    async fn delay(&self, event: Append, until: Timestamp, _now: Timestamp) -> Result<Appended, BusError> {
        self.state.lock().delay(event, until, &self.limits)
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        let state = &mut *self.state.lock();
        if let Some(group) = state.groups.get(&spec.name) {
            if group.pattern == spec.pattern {
                return Ok(());
            }
            let (stored, asked) = (group.pattern.to_string(), spec.pattern.to_string());
            return Err(BusError::GroupDiffers { group: spec.name.as_ref().into(), stored, asked });
        }
        let mut group = Group::new(spec.pattern);
        if spec.from == StartFrom::Earliest {
            state.begin_with_history(&mut group);
        }
        state.groups.insert(spec.name, group);
        Ok(())
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        let state = &mut *self.state.lock();
        let Some(removed) = state.groups.remove(group) else { return Ok(false) };
        removed.pending.keys().for_each(|seq| state.done(*seq));
        Ok(true)
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        let mut state = self.state.lock();
        let mut taken = 0;
        let group = state.group(group)?;
        group.names.insert(consumer.into(), incarnation.into());
        if group.names.len() > NAMES_MAX {
            let other = group.names.keys().find(|name| name.as_ref() != consumer).cloned();
            other.map(|name| group.names.remove(&name));
        }
        for lock in group.pending.values_mut().filter_map(|p| p.lock.as_mut()) {
            if lock.consumer.as_ref() == consumer && lock.incarnation.as_ref() != incarnation {
                lock.until = Timestamp::EPOCH;
                taken += 1;
            }
        }
        Ok(taken)
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        self.state.lock().claim(&claim, &self.limits)
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        let mut state = self.state.lock();
        state.group(group)?;
        let mut all = Settled::default();
        for end in ends {
            let one = state.settle(group, incarnation, now, end, &self.limits);
            all.lost += one.lost;
            all.evicted += one.evicted;
        }
        Ok(all)
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        let mut state = self.state.lock();
        let group = state.group(group)?;
        for (seq, attempt) in claims {
            if let Some(lock) = group.held(seq, attempt, incarnation).and_then(|p| p.lock.as_mut()) {
                lock.until = until;
            }
        }
        Ok(())
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        let mut state = self.state.lock();
        let through = through.unwrap_or(state.newest);
        let oldest = state.group(group)?.pending.first_key_value().map(|(seq, _)| *seq);
        Ok(Progress { through, is_pending: oldest.is_some_and(|seq| seq <= through) })
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        let mut state = self.state.lock();
        let found = state.group(group)?;
        let (pending, dead_letters) = (found.pending.len() as u64, found.dead.len() as u64);
        Ok(GroupStatus { pending, oldest: state.oldest_of(group), dead_letters })
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        let state = self.state.lock();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let names = |(name, group): (&Arc<str>, &Group)| GroupNames {
            name: name.to_string(),
            pattern: group.pattern.to_string(),
            consumers: group.names.keys().map(ToString::to_string).collect(),
        };
        Ok(state.groups.range::<str, _>(behind).take(limit).map(names).collect())
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        Ok(self.state.lock().delayed_after(after, limit))
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        Ok(self.state.lock().cancel_delayed(id))
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let mut state = self.state.lock();
        let letters = state.group(group)?.dead.range(after.saturating_add(1)..);
        Ok(letters.take(limit).map(|(_, (letter, _))| letter.clone()).collect())
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        self.state.lock().redrive(group, letters, &self.limits)
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let mut state = self.state.lock();
        let dead = &mut state.group(group)?.dead;
        Ok(letters.iter().filter(|seq| dead.remove(seq).is_some()).count() as u64)
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        Ok(self.state.lock().page(after, limit))
    }

    async fn health(&self) -> Health {
        Health::up("events are kept in memory")
    }
}
