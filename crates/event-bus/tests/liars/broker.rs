//! A broker that lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_event_bus::{
    BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Pattern, StartFrom,
    broker::{
        Append, Appended, Broker, Claim, Claims, DUE_MAX, GroupNames, GroupSpec, Listener, Outcome, Page, Progress,
        Seq, Settle, Settled, Shards, Signal,
    },
};
use infra_types::{Envelope, EventId, Health, Timestamp};
use parking_lot::Mutex;

use super::lie::Lie;
use crate::shared_memory::SharedBroker;

/// What the liar remembers in place of the truth; of one process.
#[derive(Default)]
struct Memory {
    calls: u64,
    groups: BTreeSet<Arc<str>>,
    running: BTreeMap<String, BTreeSet<Seq>>,
    delayed: Vec<(Timestamp, Append)>,
    latest_delay: Timestamp,
    redriven: BTreeSet<Seq>,
    /// Places that are not to be seen yet.
    late: Vec<(Seq, u64)>,
    listener: Option<Listener>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// A broker that lies.
#[derive(Debug)]
pub(crate) struct LyingBroker {
    inner: SharedBroker,
    lie: Lie,
    /// Which process it is of, from 0, and how many there were.
    process: u64,
    processes: Arc<AtomicU64>,
    memory: Mutex<Memory>,
}

/// An event as stored by these liars carries more in its key than its publisher gave.
fn mark(event: &mut Envelope, mark: impl fmt::Display) {
    event.key = format!("{mark}|{}", event.key);
}

fn unmark(envelope: &mut Arc<Envelope>) {
    let mut event = envelope.as_ref().clone();
    if let Some((_, key)) = event.key.split_once('|') {
        event.key = key.to_owned();
    }
    *envelope = Arc::new(event);
}

impl LyingBroker {
    pub(crate) fn new(lie: Lie) -> Self {
        let processes = Arc::new(AtomicU64::new(1));
        Self { inner: SharedBroker::new(), lie, process: 0, processes, memory: Mutex::default() }
    }

    /// Another process's, which tells the same lie.
    pub(crate) fn another(&self) -> Self {
        let inner = if self.lie == Lie::ClaimsToSurvive { SharedBroker::new() } else { self.inner.another() };
        let processes = self.processes.clone();
        let process = processes.fetch_add(1, Ordering::Relaxed);
        Self { inner, lie: self.lie, process, processes, memory: Mutex::default() }
    }

    /// Its process dies.
    pub(crate) fn die(&self) {
        self.inner.die();
    }

    fn twist(&self, append: Append) -> Append {
        let mut event = append.envelope.as_ref().clone();
        let mut is_priority = append.is_priority;
        let calls = {
            let mut memory = self.memory.lock();
            memory.calls += 1;
            memory.calls
        };
        match self.lie {
            // A lane for each event is no lane at all.
            Lie::RetryBreaksTheOrder => mark(&mut event, calls),
            Lie::KeysByProcess => mark(&mut event, self.process),
            Lie::KeysIgnoreCase => event.key = event.key.to_lowercase(),
            Lie::ForgetsIds => event.id = EventId::generate(),
            Lie::ForgetsIdsOfOtherProcesses if self.process > 0 => event.id = EventId::generate(),
            Lie::IgnoresPriority => is_priority = false,
            Lie::BinaryIsText => event.data = String::from_utf8_lossy(&event.data).into_owned().into(),
            Lie::LosesTrace => event.traceparent = None,
            _ => {}
        }
        Append { envelope: Arc::new(event), is_priority }
    }

    fn has_marks(&self) -> bool {
        matches!(self.lie, Lie::RetryBreaksTheOrder | Lie::KeysByProcess)
    }

    /// The attempts that a liar adds to those of an event.
    fn added(&self, seq: Seq) -> u32 {
        if self.memory.lock().redriven.contains(&seq) { 2 } else { 0 }
    }

    /// Appends what this process remembers and that is due.
    async fn release(&self, now: Timestamp) {
        let mut room = DUE_MAX;
        let mut takes = |at: &mut (Timestamp, Append)| {
            let is_due = at.0 <= now && room > 0;
            room -= usize::from(is_due);
            is_due
        };
        let due: Vec<_> = self.memory.lock().delayed.extract_if(.., |event| takes(event)).collect();
        if due.is_empty() {
            return;
        }
        let answers = self.inner.append(due.iter().map(|(_, event)| event.clone()).collect()).await;
        let left = due.into_iter().zip(answers).filter_map(|(event, answer)| answer.err().map(|_| event));
        self.memory.lock().delayed.splice(..0, left.collect::<Vec<_>>());
    }

    /// Claims and acknowledges what every group has to do.
    async fn acknowledge_everything(&self) {
        let groups = self.memory.lock().groups.clone();
        for group in groups {
            let claim = Claim {
                group: group.clone(),
                consumer: "liar".into(),
                incarnation: "liar".into(),
                now: Timestamp::EPOCH,
                lease: Duration::from_secs(1),
                horizon: Duration::from_secs(1),
                max: 64,
                crashes_max: 3,
                shards: Shards { count: 1, open: u64::MAX },
            };
            let Ok(claims) = self.inner.claim(claim).await else { continue };
            let ends = claims.events.iter().map(|e| Settle { seq: e.seq, attempt: e.attempt, outcome: Outcome::Ack });
            let _ = self.inner.settle(&group, "liar", Timestamp::EPOCH, ends.collect()).await;
        }
    }

    async fn newest(&self) -> Seq {
        self.inner.history(Seq::MAX, 1).await.map_or(0, |page| page.newest)
    }
}

#[async_trait]
impl Broker for LyingBroker {
    fn info(&self) -> BusInfo {
        self.inner.info()
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        let events = events.into_iter().map(|event| self.twist(event)).collect();
        let mut answers = self.inner.append(events).await;
        for answer in &mut answers {
            match (self.lie, answer) {
                (Lie::BacklogSwallows, answer @ Err(BusError::BacklogFull { .. })) => {
                    *answer = Ok(Appended { seq: Some(1), duplicate: false, evicted: 0 });
                }
                (Lie::EvictsInSilence, Ok(appended)) => appended.evicted = 0,
                (Lie::HistorySkipsLateCommits, Ok(Appended { seq: Some(seq), .. })) if *seq % 3 == 0 => {
                    self.memory.lock().late.push((*seq, *seq + 2));
                }
                _ => {}
            }
        }
        answers
    }

    async fn delay(&self, event: Append, mut until: Timestamp, now: Timestamp) -> Result<Appended, BusError> {
        let mut event = self.twist(event);
        match self.lie {
            Lie::DelayIsIgnored => return self.inner.append(vec![event]).await.remove(0),
            Lie::DelayDiesWithTheProcess | Lie::FullGroupsHoldUpDelays => {
                self.memory.lock().delayed.push((until, event));
                return Ok(Appended { seq: None, duplicate: false, evicted: 0 });
            }
            Lie::DelayForgetsIds => {
                event.envelope = Arc::new(event.envelope.as_ref().clone().with_id(EventId::generate()));
            }
            Lie::DelaysInTheOrderOfTheirCalls => {
                let mut memory = self.memory.lock();
                memory.latest_delay = memory.latest_delay.max(until);
                until = memory.latest_delay;
            }
            _ => {}
        }
        match self.inner.delay(event, until, now).await {
            Err(BusError::DelayFull { .. }) if self.lie == Lie::DelaySwallows => {
                Ok(Appended { seq: None, duplicate: false, evicted: 0 })
            }
            answer => answer,
        }
    }

    async fn open_group(&self, mut spec: GroupSpec) -> Result<(), BusError> {
        self.memory.lock().groups.insert(spec.name.clone());
        if self.lie == Lie::EarliestIsNew {
            spec.from = StartFrom::New;
        }
        if self.lie == Lie::LikePatterns {
            spec.pattern = Pattern::new(spec.pattern.as_str().replace('%', "*").replace('_', "?"))?;
        }
        self.inner.open_group(spec).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        if self.lie == Lie::TakesNothingOver {
            return Ok(0);
        }
        self.inner.take_over(group, consumer, incarnation).await
    }

    async fn claim(&self, mut claim: Claim) -> Result<Claims, BusError> {
        self.release(claim.now).await;
        if self.lie == Lie::WaitsForAClockThatSteppedBack {
            claim.horizon = Duration::MAX;
        }
        let group = claim.group.to_string();
        let mut claims = match self.inner.claim(claim.clone()).await {
            Err(BusError::Displaced { .. }) if self.lie == Lie::NamesAreShared => {
                self.inner.claim(Claim { consumer: "nobody".into(), ..claim }).await?
            }
            answer => answer?,
        };
        let running = claims.events.iter().map(|claimed| claimed.seq);
        self.memory.lock().running.entry(group).or_default().extend(running);
        for claimed in &mut claims.events {
            claimed.attempt += self.added(claimed.seq);
            if self.has_marks() {
                unmark(&mut claimed.envelope);
            }
        }
        Ok(claims)
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        mut ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        if let Some(running) = self.memory.lock().running.get_mut(group) {
            ends.iter().for_each(|end| _ = running.remove(&end.seq));
        }
        if self.lie == Lie::ReleaseIsForgotten {
            ends.retain(|end| end.outcome != Outcome::Release);
        }
        for end in &mut ends {
            end.attempt -= self.added(end.seq);
            end.outcome = match (self.lie, end.outcome.clone()) {
                (Lie::RetriesAtOnce, Outcome::Retry { error, steps_aside, .. }) => {
                    Outcome::Retry { at: now, error, steps_aside }
                }
                (Lie::SkipBlocks, Outcome::Retry { at, error, .. }) => Outcome::Retry { at, error, steps_aside: false },
                (Lie::ForgetsAttempts, Outcome::Retry { .. }) => Outcome::Release,
                (Lie::DeadLetterLosesTheError, Outcome::Dead { .. }) => Outcome::Dead { error: String::new() },
                (Lie::DeadLettersVanish, Outcome::Dead { .. }) => Outcome::Ack,
                (_, honest) => honest,
            };
        }
        let mut settled = self.inner.settle(group, incarnation, now, ends).await?;
        if self.lie == Lie::LostLeasesAreNotCounted {
            settled.lost = 0;
        }
        Ok(settled)
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        mut claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        if self.lie == Lie::NeverExtends {
            return Ok(());
        }
        claims.iter_mut().for_each(|(seq, attempt)| *attempt -= self.added(*seq));
        self.inner.extend(group, incarnation, until, claims).await
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        self.inner.progress(group, through).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        let mut status = self.inner.status(group).await?;
        match self.lie {
            Lie::StatusForgetsWhatRuns => {
                let running = self.memory.lock().running.get(group).map_or(0, BTreeSet::len);
                status.pending = status.pending.saturating_sub(running as u64);
            }
            Lie::StatusForgetsTheDead => status.dead_letters = 0,
            _ => {}
        }
        Ok(status)
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        let after = if self.lie == Lie::GroupsHaveOnePage { "" } else { after };
        self.inner.groups(after, limit).await
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.inner.delayed(after, limit).await
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        if self.lie == Lie::CancelKeeps {
            let delayed = self.inner.delayed(None, usize::MAX).await?;
            return Ok(delayed.iter().any(|event| event.id == id.as_str()));
        }
        self.inner.cancel_delayed(id).await
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let after = if self.lie == Lie::LettersOverlap { after.saturating_sub(1) } else { after };
        let mut letters = self.inner.dead_letters(group, after, limit).await?;
        if self.has_marks() {
            for envelope in letters.iter_mut().filter_map(|letter| letter.envelope.as_mut()) {
                let mut shared = Arc::new(envelope.clone());
                unmark(&mut shared);
                *envelope = shared.as_ref().clone();
            }
        }
        Ok(letters)
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        match self.lie {
            Lie::RedriveIsPublish => {
                let there = self.inner.dead_letters(group, 0, usize::MAX).await?;
                let mut moved = 0;
                for letter in there.into_iter().filter(|letter| letters.contains(&letter.seq)) {
                    let Some(envelope) = letter.envelope else { continue };
                    let envelope = Arc::new(envelope.with_id(EventId::generate()));
                    self.inner.append(vec![Append { envelope, is_priority: false }]).await.remove(0)?;
                    moved += self.inner.purge(group, &[letter.seq]).await?;
                }
                Ok(moved)
            }
            Lie::RedriveKeepsAttempts => {
                let before = self.newest().await;
                let moved = self.inner.redrive(group, letters).await?;
                self.memory.lock().redriven.extend(before + 1..=before + moved);
                Ok(moved)
            }
            // What has no room is thrown away.
            Lie::RedriveRefusesNothing => match self.inner.redrive(group, letters).await {
                Err(BusError::BacklogFull { .. }) => self.inner.purge(group, letters).await,
                answer => answer,
            },
            _ => self.inner.redrive(group, letters).await,
        }
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        match self.lie {
            Lie::PurgeKeeps => Ok(letters.len() as u64),
            Lie::PurgeTakesAll => {
                let all = self.inner.dead_letters(group, 0, usize::MAX).await?;
                self.inner.purge(group, &all.iter().map(|letter| letter.seq).collect::<Vec<_>>()).await
            }
            _ => self.inner.purge(group, letters).await,
        }
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        if self.lie == Lie::ReplayAcknowledges {
            self.acknowledge_everything().await;
        }
        let mut page = self.inner.history(after, limit).await?;
        if self.lie == Lie::ReplayFollows {
            page.newest = Seq::MAX - 1;
        }
        if self.lie == Lie::ReplaysBackwards {
            let (places, mut events): (Vec<_>, Vec<_>) =
                page.records.iter().map(|record| (record.seq, record.envelope.clone())).unzip();
            events.reverse();
            page.records.iter_mut().zip(places.into_iter().zip(events)).for_each(|(record, (seq, envelope))| {
                (record.seq, record.envelope) = (seq, envelope);
            });
        }
        // A place shows only once two more were given.
        self.memory.lock().late.retain(|(_, visible_from)| *visible_from > page.newest);
        let late: BTreeSet<_> = self.memory.lock().late.iter().map(|(seq, _)| *seq).collect();
        page.records.retain(|record| !late.contains(&record.seq));
        if self.has_marks() {
            page.records.iter_mut().filter_map(|record| record.envelope.as_mut()).for_each(unmark);
        }
        Ok(page)
    }

    async fn send_live(&self, event: &Append) -> Result<(), BusError> {
        let own = self.memory.lock().listener.clone().filter(|_| self.lie == Lie::EchoesLive);
        if let Some(listener) = own {
            listener(Signal::Live(event.envelope.clone())).await;
        }
        let calls = {
            let mut memory = self.memory.lock();
            memory.calls += 1;
            memory.calls
        };
        if self.lie == Lie::LosesLiveInSilence && calls.is_multiple_of(50) {
            return Ok(());
        }
        self.inner.send_live(event).await
    }

    async fn listen(&self, listener: Listener) {
        self.memory.lock().listener = Some(listener.clone());
        if self.lie == Lie::InventsGaps {
            listener(Signal::Gap { reason: "no reason".into() }).await;
        }
        self.inner.listen(listener).await;
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
