//! Events in memory: the specification of what a broker does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use infra_types::{Clock, Envelope, EventId, Health, Timestamp};
use parking_lot::Mutex;

use crate::{
    Bus, BusConfig, BusError, BusInfo, DeadLetter, Limits, Pattern, StartFrom,
    broker::{Appended, Broker, Claim, Claimed, Claims, GroupSpec, Outcome, Progress, Seq, Settle, Settled},
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

#[derive(Debug)]
struct Stored {
    envelope: Arc<Envelope>,
    /// Groups that have not acknowledged it.
    outstanding: usize,
}

#[derive(Debug)]
struct Lock {
    consumer: Arc<str>,
    incarnation: Arc<str>,
    until: Timestamp,
    lease: Duration,
}

#[derive(Debug)]
struct Pending {
    key: Arc<str>,
    attempts: u32,
    next_at: Timestamp,
    lock: Option<Lock>,
    last_error: String,
}

#[derive(Debug)]
struct Group {
    pattern: Pattern,
    pending: BTreeMap<Seq, Pending>,
    /// The pending events of each key, in order.
    lanes: HashMap<Arc<str>, VecDeque<Seq>>,
    /// The first of each lane, claimed or not.
    heads: BTreeSet<Seq>,
    dead: VecDeque<DeadLetter>,
}

impl Group {
    fn push(&mut self, seq: Seq, key: &str) {
        let key: Arc<str> = self.lanes.get_key_value(key).map_or_else(|| key.into(), |(k, _)| k.clone());
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.is_empty() {
            self.heads.insert(seq);
        }
        lane.push_back(seq);
        let pending = Pending { key, attempts: 0, next_at: Timestamp::EPOCH, lock: None, last_error: String::new() };
        self.pending.insert(seq, pending);
    }

    fn remove(&mut self, seq: Seq) -> Option<Pending> {
        let pending = self.pending.remove(&seq)?;
        if let Some(lane) = self.lanes.get_mut(&pending.key) {
            // Nearly always it is the first.
            match lane.front() {
                Some(first) if *first == seq => _ = lane.pop_front(),
                _ => lane.retain(|s| *s != seq),
            }
            self.heads.remove(&seq);
            match lane.front() {
                Some(next) => _ = self.heads.insert(*next),
                None => _ = self.lanes.remove(&pending.key),
            }
        }
        Some(pending)
    }

    fn is_claimable(&self, seq: Seq, claim: &Claim) -> bool {
        self.pending
            .get(&seq)
            .is_some_and(|p| claim.is_due(p.next_at) && p.lock.as_ref().is_none_or(|l| claim.is_over(l.until, l.lease)))
    }

    /// The events to lend, in stored order: heads that are free, each followed by its lane as far as that is free.
    fn select(&self, claim: &Claim) -> (Vec<Seq>, bool) {
        let mut heads = self.heads.iter().copied().peekable();
        let mut followers: BinaryHeap<Reverse<(Seq, usize)>> = BinaryHeap::new();
        let mut chosen = Vec::new();
        while chosen.len() < claim.max {
            let follower = followers.peek().map(|f| f.0);
            let (seq, place) = match (heads.peek(), follower) {
                (Some(head), Some((seq, place))) if seq < *head => (seq, place),
                (Some(head), _) => (*head, 0),
                (None, Some(follower)) => follower,
                (None, None) => break,
            };
            if place == 0 {
                _ = heads.next()
            } else {
                _ = followers.pop()
            }
            let Some(pending) = self.pending.get(&seq) else { continue };
            if !claim.shards.takes(&pending.key) || !self.is_claimable(seq, claim) {
                continue;
            }
            if pending.lock.is_some() {
                // Its consumer died with it: alone, or not in this round.
                return if chosen.is_empty() { (vec![seq], true) } else { (chosen, false) };
            }
            chosen.push(seq);
            if let Some(next) = self.lanes.get(&pending.key).and_then(|lane| lane.get(place + 1)) {
                followers.push(Reverse((*next, place + 1)));
            }
        }
        (chosen, false)
    }

    fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let waits = self.heads.iter().filter_map(|seq| self.pending.get(seq)).map(|p| {
            let locked = p.lock.as_ref().map_or(Timestamp::EPOCH, |l| l.until);
            p.next_at.max(locked)
        });
        waits.filter(|at| *at > now).min()
    }

    /// The pending event, if it is still lent to this incarnation and attempt.
    fn held(&mut self, seq: Seq, attempt: u32, incarnation: &str) -> Option<&mut Pending> {
        let holds = |p: &Pending| {
            p.attempts == attempt && p.lock.as_ref().is_some_and(|l| l.incarnation.as_ref() == incarnation)
        };
        self.pending.get_mut(&seq).filter(|p| holds(p))
    }
}

#[derive(Debug, Default)]
struct State {
    newest: Seq,
    events: BTreeMap<Seq, Stored>,
    ids: HashMap<EventId, Seq>,
    /// Events that no group wanted.
    unrouted: BTreeSet<Seq>,
    /// Finished events whose ids are still recognised.
    finished: VecDeque<(Seq, EventId)>,
    groups: BTreeMap<Arc<str>, Group>,
}

impl State {
    fn group(&mut self, name: &str) -> Result<&mut Group, BusError> {
        self.groups.get_mut(name).ok_or_else(|| BusError::NoGroup { group: name.into() })
    }

    fn append(&mut self, envelope: Arc<Envelope>, limits: &Limits) -> Result<Appended, BusError> {
        if let Some(seq) = self.ids.get(&envelope.id) {
            return Ok(Appended { seq: *seq, duplicate: true, evicted: 0 });
        }
        let wanted: Vec<Arc<str>> =
            self.groups.iter().filter(|(_, g)| g.pattern.matches(&envelope.topic)).map(|(n, _)| n.clone()).collect();
        for name in &wanted {
            let pending = self.groups[name].pending.len() as u64;
            if pending >= limits.backlog_max {
                return Err(BusError::BacklogFull { group: name.as_ref().into(), pending });
            }
        }
        self.newest += 1;
        let seq = self.newest;
        for name in &wanted {
            self.group(name)?.push(seq, &envelope.key);
        }
        self.ids.insert(envelope.id.clone(), seq);
        let mut evicted = 0;
        if wanted.is_empty() {
            self.unrouted.insert(seq);
        }
        self.events.insert(seq, Stored { envelope, outstanding: wanted.len() });
        while self.unrouted.len() as u64 > limits.unrouted_max {
            if let Some(oldest) = self.unrouted.pop_first() {
                self.finish(oldest);
                evicted += 1;
            }
        }
        while self.finished.front().is_some_and(|(old, _)| old + limits.dedup_window <= seq) {
            if let Some((_, id)) = self.finished.pop_front() {
                self.ids.remove(&id);
            }
        }
        Ok(Appended { seq, duplicate: false, evicted })
    }

    /// Lets an event go that nobody needs; its id stays known for a while.
    fn finish(&mut self, seq: Seq) {
        if let Some(stored) = self.events.remove(&seq) {
            self.finished.push_back((seq, stored.envelope.id.clone()));
        }
    }

    /// One group less needs the event.
    fn done(&mut self, seq: Seq) {
        if let Some(stored) = self.events.get_mut(&seq) {
            stored.outstanding -= 1;
            if stored.outstanding == 0 {
                self.finish(seq);
            }
        }
    }

    /// Moves an event to the dead letters of a group; how many older ones made room.
    fn bury(&mut self, name: &str, seq: Seq, error: String, now: Timestamp, limits: &Limits) -> Result<u64, BusError> {
        let envelope = self.events.get(&seq).map(|stored| stored.envelope.clone());
        let group = self.group(name)?;
        let (Some(pending), Some(envelope)) = (group.remove(seq), envelope) else { return Ok(0) };
        group.dead.push_back(DeadLetter {
            group: name.into(),
            seq,
            id: envelope.id.to_string(),
            topic: envelope.topic.to_string(),
            envelope: Some(envelope.as_ref().clone()),
            error,
            attempts: pending.attempts,
            at: now,
        });
        let evicted = (group.dead.len() as u64).saturating_sub(limits.dead_letters_max);
        group.dead.drain(..evicted as usize);
        self.done(seq);
        Ok(evicted)
    }

    fn claim(&mut self, claim: &Claim, limits: &Limits) -> Result<Claims, BusError> {
        let mut claims = Claims::default();
        let (mut chosen, mut alone) = self.group(&claim.group)?.select(claim);
        while alone {
            let pending = chosen.first().and_then(|seq| Some((*seq, self.group(&claim.group).ok()?.pending.get(seq)?)));
            let Some((seq, pending)) = pending else { break };
            if pending.attempts < claim.crashes_max {
                break;
            }
            let error = died(pending.attempts, &pending.last_error);
            self.bury(&claim.group, seq, error, claim.now, limits)?;
            claims.dead_lettered += 1;
            (chosen, alone) = self.group(&claim.group)?.select(claim);
        }
        claims.alone = alone;
        for seq in chosen {
            let Some(envelope) = self.events.get(&seq).map(|stored| stored.envelope.clone()) else { continue };
            let group = self.group(&claim.group)?;
            let Some(pending) = group.pending.get_mut(&seq) else { continue };
            pending.attempts += 1;
            pending.lock = Some(Lock {
                consumer: claim.consumer.clone(),
                incarnation: claim.incarnation.clone(),
                until: claim.now.saturating_add(claim.lease),
                lease: claim.lease,
            });
            claims.events.push(Claimed { seq, envelope, attempt: pending.attempts });
        }
        if claims.events.len() < claim.max {
            claims.next_due = self.group(&claim.group)?.next_due(claim.now);
        }
        Ok(claims)
    }

    fn settle(&mut self, name: &str, incarnation: &str, now: Timestamp, end: Settle, limits: &Limits) -> Settled {
        let mut settled = Settled::default();
        let Some(pending) = self.groups.get_mut(name).and_then(|g| g.held(end.seq, end.attempt, incarnation)) else {
            settled.lost = 1;
            return settled;
        };
        match end.outcome {
            Outcome::Ack => {
                if let Ok(group) = self.group(name) {
                    group.remove(end.seq);
                }
                self.done(end.seq);
            }
            Outcome::Dead { error } => {
                settled.evicted = self.bury(name, end.seq, error, now, limits).unwrap_or(0);
            }
            Outcome::Retry { at, error } => {
                (pending.lock, pending.next_at, pending.last_error) = (None, at, error);
            }
            Outcome::Release => {
                pending.lock = None;
                pending.attempts -= 1;
            }
        }
        settled
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
            limits: self.limits,
        }
    }

    async fn append(&self, events: Vec<Arc<Envelope>>) -> Vec<Result<Appended, BusError>> {
        let mut state = self.state.lock();
        events.into_iter().map(|event| state.append(event, &self.limits)).collect()
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
        let mut group = Group {
            pattern: spec.pattern,
            pending: BTreeMap::new(),
            lanes: HashMap::new(),
            heads: BTreeSet::new(),
            dead: VecDeque::new(),
        };
        if spec.from == StartFrom::Earliest {
            for (seq, stored) in &mut state.events {
                if !group.pattern.matches(&stored.envelope.topic) {
                    continue;
                }
                stored.outstanding += 1;
                state.unrouted.remove(seq);
                group.push(*seq, &stored.envelope.key);
            }
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
        for lock in state.group(group)?.pending.values_mut().filter_map(|p| p.lock.as_mut()) {
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

    async fn backlog(&self, group: &str) -> Result<u64, BusError> {
        Ok(self.state.lock().group(group)?.pending.len() as u64)
    }

    async fn dead_letters(&self, group: &str, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        Ok(self.state.lock().group(group)?.dead.iter().take(limit).cloned().collect())
    }

    async fn health(&self) -> Health {
        Health::up("events are kept in memory")
    }
}
