//! Everything that a bus keeps in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use infra_types::{EventId, Timestamp, Topic};

use super::{
    died,
    group::{Group, Lock},
};
use crate::{
    BusError, DeadLetter, DelayPlace, DelayedEvent, Limits,
    broker::{
        Append, Appended, Claim, Claimed, Claims, DUE_MAX, Outcome, Page, REST, Record, Seq, Settle, Settled, TRIM_MAX,
    },
};

#[derive(Debug)]
struct Stored {
    event: Append,
    /// Groups that have not acknowledged it.
    outstanding: usize,
    /// Whether a group ever wanted it.
    was_wanted: bool,
    /// Put back to work for one group: it leaves with that group's acknowledgement, and its id is that of another.
    is_copy: bool,
}

/// A walk along the due events, a part in each claim, that found some whose groups are full. It goes on behind them, so that they hold up nobody,
/// and begins anew when it is at its end and [`REST`] is over.
#[derive(Debug, Clone, Copy)]
struct Walk {
    began: Timestamp,
    /// The last one that it left.
    at: (Timestamp, u64),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) newest: Seq,
    events: BTreeMap<Seq, Stored>,
    /// The places of those that are known; none while they are delayed.
    ids: HashMap<EventId, Option<Seq>>,
    /// Events by when they shall be appended, then by the order of their delay.
    delayed: BTreeMap<(Timestamp, u64), Append>,
    next_delay: u64,
    walk: Option<Walk>,
    /// Events that no group needs (any more).
    history: BTreeSet<Seq>,
    /// Events that are gone and whose ids are still recognised.
    finished: BTreeMap<Seq, EventId>,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
}

impl State {
    pub(super) fn group(&mut self, name: &str) -> Result<&mut Group, BusError> {
        self.groups.get_mut(name).ok_or_else(|| BusError::NoGroup { group: name.into() })
    }

    pub(super) fn append(&mut self, event: Append, limits: &Limits) -> Result<Appended, BusError> {
        match self.ids.get(&event.envelope.id) {
            Some(seq) => Ok(Appended { seq: *seq, duplicate: true, evicted: 0 }),
            None => self.lay_out(event, limits),
        }
    }

    /// The first group that wants the topic and has no room, and how many events wait in it.
    fn full(&self, topic: &Topic, limits: &Limits) -> Option<(Arc<str>, u64)> {
        let wanting = self.groups.iter().filter(|(_, group)| group.pattern.matches(topic));
        let mut counts = wanting.map(|(name, group)| (name, group.pending.len() as u64));
        counts.find(|(_, pending)| *pending >= limits.backlog_max).map(|(name, pending)| (name.clone(), pending))
    }

    fn lay_out(&mut self, event: Append, limits: &Limits) -> Result<Appended, BusError> {
        let topic = &event.envelope.topic;
        let wanted: Vec<Arc<str>> =
            self.groups.iter().filter(|(_, g)| g.pattern.matches(topic)).map(|(n, _)| n.clone()).collect();
        if let Some((group, pending)) = self.full(topic, limits) {
            return Err(BusError::BacklogFull { group: group.as_ref().into(), pending });
        }
        self.newest += 1;
        let seq = self.newest;
        for name in &wanted {
            self.group(name)?.push(seq, &event);
        }
        self.ids.insert(event.envelope.id.clone(), Some(seq));
        if wanted.is_empty() {
            self.history.insert(seq);
        }
        let stored = Stored { event, outstanding: wanted.len(), was_wanted: !wanted.is_empty(), is_copy: false };
        self.events.insert(seq, stored);
        let evicted = self.trim(limits);
        while let Some(oldest) =
            self.finished.first_entry().filter(|e| e.key().saturating_add(limits.dedup_window) <= seq)
        {
            self.ids.remove(&oldest.remove());
        }
        Ok(Appended { seq: Some(seq), duplicate: false, evicted })
    }

    /// Lets the oldest of the history go; how many of them no group had ever wanted.
    fn trim(&mut self, limits: &Limits) -> u64 {
        let mut evicted = 0;
        for _ in 0..TRIM_MAX {
            if self.history.len() as u64 <= limits.history_max {
                break;
            }
            if let Some(stored) = self.history.pop_first().and_then(|seq| Some((seq, self.events.remove(&seq)?))) {
                evicted += u64::from(!stored.1.was_wanted);
                self.finished.insert(stored.0, stored.1.event.envelope.id.clone());
            }
        }
        evicted
    }

    pub(super) fn delay(&mut self, event: Append, until: Timestamp, limits: &Limits) -> Result<Appended, BusError> {
        if let Some(seq) = self.ids.get(&event.envelope.id) {
            return Ok(Appended { seq: *seq, duplicate: true, evicted: 0 });
        }
        let waiting = self.delayed.len() as u64;
        if waiting >= limits.delayed_max {
            return Err(BusError::DelayFull { waiting });
        }
        self.ids.insert(event.envelope.id.clone(), None);
        self.delayed.insert((until, self.next_delay), event);
        self.next_delay += 1;
        Ok(Appended { seq: None, duplicate: false, evicted: 0 })
    }

    pub(super) fn delayed_after(&self, after: Option<DelayPlace>, limit: usize) -> Vec<DelayedEvent> {
        let behind = after.map_or(Bound::Unbounded, |after| Bound::Excluded((after.until, after.number)));
        let one = |((until, number), event): (&(Timestamp, u64), &Append)| DelayedEvent {
            place: DelayPlace { until: *until, number: *number },
            id: event.envelope.id.to_string(),
            topic: event.envelope.topic.to_string(),
            key: event.envelope.key.clone(),
        };
        self.delayed.range((behind, Bound::Unbounded)).take(limit).map(one).collect()
    }

    pub(super) fn cancel_delayed(&mut self, id: &EventId) -> bool {
        let found = self.delayed.iter().find(|(_, event)| event.envelope.id == *id).map(|(at, _)| *at);
        let Some(at) = found else { return false };
        self.delayed.remove(&at);
        self.ids.remove(id);
        true
    }

    /// The next part of the due ones.
    fn due(&self, now: Timestamp, walk: Option<Walk>) -> Vec<(Timestamp, u64)> {
        let behind = walk.map_or(Bound::Unbounded, |walk| Bound::Excluded(walk.at));
        // The walk may be ahead of a clock that stepped back.
        let all = self.delayed.range((behind, Bound::Unbounded)).map(|(at, _)| *at);
        all.take_while(|(until, _)| *until <= now).take(DUE_MAX).collect()
    }

    /// Appends what was delayed until now; when to look again.
    fn release(&mut self, now: Timestamp, limits: &Limits, claims: &mut Claims) -> Option<Timestamp> {
        let mut due = self.due(now, self.walk);
        if due.len() < DUE_MAX && self.walk.is_some_and(|walk| now >= walk.began.saturating_add(REST)) {
            self.walk = None;
            self.groups.values_mut().for_each(|group| group.holds_delayed = false);
            due = self.due(now, None);
        }
        for at in &due {
            let Some(event) = self.delayed.get(at).cloned() else { continue };
            let topic = &event.envelope.topic;
            let full = self.full(topic, limits).map(|(name, _)| name);
            // Behind one that its group had no room for, also if there is room by now: nothing overtakes on the way to a group.
            let is_behind = self.groups.values().any(|g| g.holds_delayed && g.pattern.matches(topic));
            if full.is_some() || is_behind {
                self.walk = Some(Walk { began: self.walk.map_or(now, |walk| walk.began), at: *at });
                if let Some(group) = full.and_then(|name| self.groups.get_mut(&name)) {
                    group.holds_delayed = true;
                }
            } else if let Ok(appended) = self.lay_out(event, limits) {
                self.delayed.remove(at);
                claims.released += 1;
                claims.evicted += appended.evicted;
            }
        }
        if due.len() == DUE_MAX {
            return Some(now);
        }
        let later = self.delayed.range((now, u64::MAX)..).map(|((at, _), _)| *at).find(|at| *at > now);
        let anew = self.walk.map(|walk| walk.began.saturating_add(REST));
        [later, anew].into_iter().flatten().min()
    }

    /// One group less needs the event.
    pub(super) fn done(&mut self, seq: Seq) {
        let Some(stored) = self.events.get_mut(&seq) else { return };
        stored.outstanding -= 1;
        if stored.outstanding == 0 {
            if stored.is_copy {
                self.events.remove(&seq);
            } else {
                self.history.insert(seq);
            }
        }
    }

    /// Gives a new group everything that is kept and that it wants.
    pub(super) fn begin_with_history(&mut self, group: &mut Group) {
        for (seq, stored) in &mut self.events {
            if stored.is_copy || !group.pattern.matches(&stored.event.envelope.topic) {
                continue;
            }
            stored.outstanding += 1;
            stored.was_wanted = true;
            self.history.remove(seq);
            group.push(*seq, &stored.event);
        }
    }

    /// Moves an event to the dead letters of a group; how many older ones made room.
    fn bury(&mut self, name: &str, seq: Seq, error: String, now: Timestamp, limits: &Limits) -> Result<u64, BusError> {
        let envelope = self.events.get(&seq).map(|stored| stored.event.envelope.clone());
        let group = self.group(name)?;
        let (Some(pending), Some(envelope)) = (group.remove(seq), envelope) else { return Ok(0) };
        let letter = DeadLetter {
            group: name.into(),
            seq,
            id: envelope.id.to_string(),
            topic: envelope.topic.to_string(),
            envelope: Some(envelope.as_ref().clone()),
            error,
            attempts: pending.attempts,
            at: now,
        };
        group.dead.insert(seq, (letter, pending.is_priority));
        let mut evicted = 0;
        while group.dead.len() as u64 > limits.dead_letters_max {
            group.dead.pop_first();
            evicted += 1;
        }
        self.done(seq);
        Ok(evicted)
    }

    pub(super) fn redrive(&mut self, name: &str, letters: &[Seq], limits: &Limits) -> Result<u64, BusError> {
        let group = self.groups.get_mut(name).ok_or_else(|| BusError::NoGroup { group: name.into() })?;
        let there = letters.iter().filter(|seq| group.dead.contains_key(seq)).count() as u64;
        let pending = group.pending.len() as u64;
        if pending + there > limits.backlog_max {
            return Err(BusError::BacklogFull { group: name.into(), pending });
        }
        let mut moved = 0;
        for letter in letters {
            let Some((letter, is_priority)) = group.dead.remove(letter) else { continue };
            let Some(envelope) = letter.envelope else { continue };
            self.newest += 1;
            let event = Append { envelope: Arc::new(envelope), is_priority };
            group.push(self.newest, &event);
            let stored = Stored { event, outstanding: 1, was_wanted: true, is_copy: true };
            self.events.insert(self.newest, stored);
            moved += 1;
        }
        Ok(moved)
    }

    pub(super) fn claim(&mut self, claim: &Claim, limits: &Limits) -> Result<Claims, BusError> {
        let group = self.group(&claim.group)?;
        if group.names.get(&claim.consumer).is_some_and(|run| *run != claim.incarnation) {
            return Err(claim.displaced());
        }
        let mut claims = Claims::default();
        let next_delay = self.release(claim.now, limits, &mut claims);
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
            let Some(event) = self.events.get(&seq).map(|stored| stored.event.clone()) else { continue };
            let group = self.group(&claim.group)?;
            let Some(pending) = group.pending.get_mut(&seq) else { continue };
            pending.attempts += 1;
            pending.lock = Some(Lock {
                consumer: claim.consumer.clone(),
                incarnation: claim.incarnation.clone(),
                until: claim.now.saturating_add(claim.lease),
                lease: claim.lease,
            });
            let (envelope, is_priority) = (event.envelope, event.is_priority);
            claims.events.push(Claimed { seq, envelope, attempt: pending.attempts, is_priority });
        }
        if claims.events.len() < claim.max {
            let next = self.group(&claim.group)?.next_due(claim.now);
            claims.next_due = [next, next_delay].into_iter().flatten().min();
        }
        Ok(claims)
    }

    pub(super) fn settle(
        &mut self,
        name: &str,
        incarnation: &str,
        now: Timestamp,
        end: Settle,
        limits: &Limits,
    ) -> Settled {
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
            Outcome::Retry { at, error, steps_aside } => {
                (pending.lock, pending.next_at, pending.last_error) = (None, at, error);
                if steps_aside && let Ok(group) = self.group(name) {
                    group.step_aside(end.seq);
                }
            }
            Outcome::Release => {
                pending.lock = None;
                pending.attempts -= 1;
            }
        }
        settled
    }

    pub(super) fn oldest_of(&self, name: &str) -> Option<Timestamp> {
        let (seq, _) = self.groups.get(name)?.pending.first_key_value()?;
        Some(self.events.get(seq)?.event.envelope.time)
    }

    pub(super) fn page(&self, after: Seq, limit: usize) -> Page {
        let kept = self.events.range(after.saturating_add(1)..).filter(|(_, stored)| !stored.is_copy).take(limit);
        let record =
            |(seq, stored): (&Seq, &Stored)| Record { seq: *seq, envelope: Some(stored.event.envelope.clone()) };
        Page { records: kept.map(record).collect(), newest: self.newest }
    }
}
