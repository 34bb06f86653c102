//! A group in memory: what it has still to do, by key.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use infra_types::Timestamp;

use crate::{
    DeadLetter, Pattern,
    broker::{Append, Claim, Seq},
};

#[derive(Debug)]
pub(super) struct Lock {
    pub(super) consumer: Arc<str>,
    pub(super) incarnation: Arc<str>,
    pub(super) until: Timestamp,
    pub(super) lease: Duration,
}

#[derive(Debug)]
pub(super) struct Pending {
    key: Arc<str>,
    pub(super) is_priority: bool,
    /// It failed and left its lane, so that the others of its key go on.
    is_aside: bool,
    pub(super) attempts: u32,
    pub(super) next_at: Timestamp,
    pub(super) lock: Option<Lock>,
    pub(super) last_error: String,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) pattern: Pattern,
    pub(super) pending: BTreeMap<Seq, Pending>,
    /// The pending events of each key, in order; those with priority apart.
    lanes: [HashMap<Arc<str>, VecDeque<Seq>>; 2],
    /// The first of each lane and whatever left its lane, claimed or not; those with priority apart.
    heads: [BTreeSet<Seq>; 2],
    /// A delayed event found it full: later ones wait behind that one until the walk begins anew.
    pub(super) holds_delayed: bool,
    /// The runs that took consumers' names last.
    pub(super) names: BTreeMap<Arc<str>, Arc<str>>,
    /// With whether they had priority.
    pub(super) dead: BTreeMap<Seq, (DeadLetter, bool)>,
}

impl Group {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self {
            pattern,
            pending: BTreeMap::new(),
            lanes: Default::default(),
            heads: Default::default(),
            holds_delayed: false,
            names: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    pub(super) fn push(&mut self, seq: Seq, event: &Append) {
        let (key, part) = (event.envelope.key.as_str(), usize::from(event.is_priority));
        let lanes = &mut self.lanes[part];
        let key: Arc<str> = lanes.get_key_value(key).map_or_else(|| key.into(), |(k, _)| k.clone());
        let lane = lanes.entry(key.clone()).or_default();
        if lane.is_empty() {
            self.heads[part].insert(seq);
        }
        lane.push_back(seq);
        let pending = Pending {
            key,
            is_priority: event.is_priority,
            is_aside: false,
            attempts: 0,
            next_at: Timestamp::EPOCH,
            lock: None,
            last_error: String::new(),
        };
        self.pending.insert(seq, pending);
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Pending> {
        self.leave_lane(seq);
        let pending = self.pending.remove(&seq)?;
        self.heads[usize::from(pending.is_priority)].remove(&seq);
        Some(pending)
    }

    /// Lets the next of its key step forward.
    fn leave_lane(&mut self, seq: Seq) {
        let Some(pending) = self.pending.get(&seq).filter(|pending| !pending.is_aside) else { return };
        let part = usize::from(pending.is_priority);
        let Some(lane) = self.lanes[part].get_mut(&pending.key) else { return };
        // Nearly always it is the first.
        match lane.front() {
            Some(first) if *first == seq => _ = lane.pop_front(),
            _ => lane.retain(|s| *s != seq),
        }
        self.heads[part].remove(&seq);
        match lane.front() {
            Some(next) => _ = self.heads[part].insert(*next),
            None => _ = self.lanes[part].remove(&pending.key),
        }
    }

    /// From now on its key does not wait for it.
    pub(super) fn step_aside(&mut self, seq: Seq) {
        self.leave_lane(seq);
        if let Some(pending) = self.pending.get_mut(&seq) {
            pending.is_aside = true;
            self.heads[usize::from(pending.is_priority)].insert(seq);
        }
    }

    fn is_claimable(&self, seq: Seq, claim: &Claim) -> bool {
        self.pending
            .get(&seq)
            .is_some_and(|p| claim.is_due(p.next_at) && p.lock.as_ref().is_none_or(|l| claim.is_over(l.until, l.lease)))
    }

    /// The events to lend: those with priority, then the others. The last answer says that the only one comes alone.
    pub(super) fn select(&self, claim: &Claim) -> (Vec<Seq>, bool) {
        let mut chosen = Vec::new();
        for part in [1, 0] {
            if self.select_of(part, claim, &mut chosen) {
                return (chosen, true);
            }
        }
        (chosen, false)
    }

    /// In stored order: heads that are free, each followed by its lane as far as that is free.
    fn select_of(&self, part: usize, claim: &Claim, chosen: &mut Vec<Seq>) -> bool {
        let mut heads = self.heads[part].iter().copied().peekable();
        let mut followers: BinaryHeap<Reverse<(Seq, usize)>> = BinaryHeap::new();
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
            if !claim.shards.takes(&pending.key, pending.is_priority) || !self.is_claimable(seq, claim) {
                continue;
            }
            if pending.lock.is_some() {
                // Its consumer died with it: alone, or not in this round.
                if chosen.is_empty() {
                    chosen.push(seq);
                    return true;
                }
                return false;
            }
            chosen.push(seq);
            if pending.is_aside {
                continue;
            }
            if let Some(next) = self.lanes[part].get(&pending.key).and_then(|lane| lane.get(place + 1)) {
                followers.push(Reverse((*next, place + 1)));
            }
        }
        false
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let heads = self.heads.iter().flatten();
        let waits = heads.filter_map(|seq| self.pending.get(seq)).map(|p| {
            let locked = p.lock.as_ref().map_or(Timestamp::EPOCH, |l| l.until);
            p.next_at.max(locked)
        });
        waits.filter(|at| *at > now).min()
    }

    /// The pending event, if it is still lent to this incarnation and attempt.
    pub(super) fn held(&mut self, seq: Seq, attempt: u32, incarnation: &str) -> Option<&mut Pending> {
        let holds = |p: &Pending| {
            p.attempts == attempt && p.lock.as_ref().is_some_and(|l| l.incarnation.as_ref() == incarnation)
        };
        self.pending.get_mut(&seq).filter(|p| holds(p))
    }
}
