//! Storing events. Which groups want one is found here, with the crate's own matcher, on the groups as they were last seen; the
//! script refuses if they have changed since.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use infra_backends::{Access, RedisScript};
use infra_types::{ErrorKind, Timestamp, Topic};
use redis::Value as Reply;

use super::{Store, scripts, wire};
use crate::{
    BusError, Pattern,
    broker::{Append, Appended},
};

/// Events and bytes of one script at most: it holds up everybody else.
pub(super) const EVENTS_MAX: usize = 256;
pub(super) const BYTES_MAX: usize = 4 << 20;
/// Bytes of one row of events, unless one is larger by itself.
const ROW_BYTES_MAX: usize = 64 << 10;
/// With limits below this each event is stored by itself, so that they hold to the event; `lua/lay.lua` knows it too.
const SMALL: u64 = 1_024;
/// How often the groups may change under one write.
const TRIES: u32 = 10;

/// The groups as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Empty: never seen.
    version: String,
    known: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: String,
    number: String,
    pattern: Pattern,
}

impl Groups {
    /// Which groups want the event: a 0 or 1 for each, and the numbers of those that do, between commas.
    fn wanting(&self, event: &Append) -> (Vec<u8>, String) {
        let (mut wanted, mut numbers) = (Vec::with_capacity(self.known.len()), String::from(","));
        for group in &self.known {
            let wants = group.pattern.matches(&event.envelope.topic);
            wanted.push(if wants { b'1' } else { b'0' });
            if wants {
                numbers.push_str(&group.number);
                numbers.push(',');
            }
        }
        (wanted, numbers)
    }

    fn read(mut items: std::vec::IntoIter<Reply>) -> Result<Self, BusError> {
        let version = wire::text(items.next())?;
        let mut known = Vec::new();
        let mut fields = wire::array(items.next())?.into_iter();
        while let Some(name) = fields.next() {
            let (name, stored) = (wire::text(Some(name))?, wire::text(fields.next())?);
            let (number, pattern) = stored.split_once('\n').ok_or_else(wire::unreadable)?;
            known.push(Group { name, number: number.to_owned(), pattern: Pattern::new(pattern)? });
        }
        // The one that is named in a refusal should not depend on the order of a hash.
        known.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { version, known })
    }
}

impl Store {
    pub(super) async fn append_all(&self, events: &[Append]) -> Vec<Result<Appended, BusError>> {
        let mut answers = Vec::with_capacity(events.len());
        while answers.len() < events.len() {
            let rest = &events[answers.len()..];
            let part = &rest[..part(rest)];
            match self.append_part(part).await {
                Ok(stored) => answers.extend(stored),
                Err(e) => {
                    // What comes later must not overtake what may be missing.
                    let not_sent = BusError::Backend {
                        message: "an earlier part of the batch failed, so this one was not sent: try again".into(),
                        kind: ErrorKind::Transient,
                    };
                    answers.extend(part.iter().map(|_| Err(e.clone())));
                    answers.resize_with(events.len(), || Err(not_sent.clone()));
                }
            }
        }
        answers
    }

    /// Whether the quick way may be tried.
    fn fits_rows(&self, events: &[Append]) -> bool {
        let mut ids = HashSet::with_capacity(events.len());
        let is_small = self.limits.history_max < SMALL || self.limits.dedup_window < SMALL;
        !is_small && events.iter().all(|event| !event.is_priority && ids.insert(event.envelope.id.as_str()))
    }

    async fn append_part(&self, events: &[Append]) -> Result<Vec<Result<Appended, BusError>>, BusError> {
        self.ready().await?;
        let seen = self.newest_seen.load(Ordering::SeqCst);
        let mut in_rows = self.fits_rows(events);
        for _ in 0..TRIES {
            let groups = self.groups.load();
            if in_rows {
                // Both scripts take the same.
                let make = |script: &RedisScript| {
                    let mut call = script.call(1);
                    call.arg(&self.base).arg(&groups.version);
                    call.arg(self.limits.backlog_max).arg(self.limits.history_max).arg(self.limits.dedup_window);
                    call.arg(groups.known.len());
                    for group in &groups.known {
                        call.arg(&group.number);
                    }
                    call.arg(&self.program).arg(u8::from(self.may_tell.load(Ordering::Relaxed)));
                    rows(&mut call, &groups, events);
                    call
                };
                let fast = make(&scripts::ROWS_FAST);
                let (mut word, mut rest) = wire::answer(self.script(&scripts::ROWS_FAST, &fast, Access::Write).await?)?;
                if word == "slow" {
                    let slow = make(&scripts::ROWS);
                    (word, rest) = wire::answer(self.script(&scripts::ROWS, &slow, Access::Write).await?)?;
                }
                match word.as_str() {
                    "ok" => {
                        let (first, evicted) = (wire::unsigned(rest.next())?, wire::unsigned(rest.next())?);
                        let last = first + events.len() as u64 - 1;
                        self.check_newest(seen + 1, last);
                        if wire::int(rest.next())? == 0 {
                            self.live.stored();
                        }
                        self.hand_over(first, events, rest.next()).await?;
                        let answer = |seq| {
                            Ok(Appended {
                                seq: Some(seq),
                                duplicate: false,
                                evicted: if seq == last { evicted } else { 0 },
                            })
                        };
                        return Ok((first..=last).map(answer).collect());
                    }
                    "groups" => self.groups.store(Arc::new(Groups::read(rest)?)),
                    "single" => in_rows = false,
                    _ => return Err(wire::unreadable()),
                }
                continue;
            }
            let mut call = scripts::APPEND.call(1);
            call.arg(&self.base).arg(&groups.version);
            call.arg(self.limits.backlog_max).arg(self.limits.history_max).arg(self.limits.dedup_window);
            call.arg(groups.known.len());
            for group in &groups.known {
                call.arg(&group.number);
            }
            for event in events {
                let (wanted, mut head) = groups.wanting(event);
                head.push(';');
                head.push_str(&wire::lane(event));
                call.arg(wanted).arg(event.envelope.id.as_str()).arg(head).arg(wire::body(&event.envelope));
            }
            let (word, mut rest) = wire::answer(self.script(&scripts::APPEND, &call, Access::Write).await?)?;
            match word.as_str() {
                "ok" => {
                    let answers = wire::array(rest.next())?;
                    if answers.len() != events.len() {
                        return Err(wire::unreadable());
                    }
                    let answers = answers.into_iter().map(|one| stored(one, &groups));
                    let answers = answers.collect::<Result<Vec<_>, _>>()?;
                    let new = answers.iter().flatten().filter(|a| !a.duplicate).filter_map(|a| a.seq);
                    if let Some(newest) = new.max() {
                        // Equal would be old as well: it is a new place.
                        self.check_newest(seen + 1, newest);
                        self.live.stored();
                    }
                    return Ok(answers);
                }
                "groups" => self.groups.store(Arc::new(Groups::read(rest)?)),
                _ => return Err(wire::unreadable()),
            }
        }
        let message = "the groups changed under each attempt; nothing was stored: try again".into();
        Err(BusError::Backend { message, kind: ErrorKind::Transient })
    }
}

impl Store {
    pub(super) async fn keep_back(
        &self,
        event: &Append,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Appended, BusError> {
        self.ready().await?;
        let mut call = scripts::DELAY.call(1);
        call.arg(&self.base).arg(self.limits.delayed_max).arg(wire::ceil_us(until)).arg(wire::floor_us(now));
        call.arg(self.source()).arg(event.envelope.id.as_str()).arg(event.envelope.topic.as_str());
        call.arg(wire::lane(event)).arg(wire::body(&event.envelope));
        let (word, mut rest) = wire::answer(self.script(&scripts::DELAY, &call, Access::Write).await?)?;
        match word.as_str() {
            "ok" => Ok(Appended { seq: None, duplicate: false, evicted: 0 }),
            "known" => {
                let seq = wire::unsigned(rest.next())?;
                Ok(Appended { seq: (seq > 0).then_some(seq), duplicate: true, evicted: 0 })
            }
            "full" => Err(BusError::DelayFull { waiting: wire::unsigned(rest.next())? }),
            _ => Err(wire::unreadable()),
        }
    }
}

/// Adds the ids, and the events in rows: those that follow each other and that the same groups want.
fn rows(call: &mut redis::Cmd, groups: &Groups, events: &[Append]) {
    let size = events.first().map_or(0, |event| event.envelope.id.as_str().len());
    let is_even = events.iter().all(|event| event.envelope.id.as_str().len() == size);
    let mut ids = Vec::with_capacity(events.len() * (size + 1));
    for event in events {
        if !ids.is_empty() {
            ids.push(b'\n');
        }
        ids.extend_from_slice(event.envelope.id.as_str().as_bytes());
    }
    call.arg(events.len()).arg(if is_even { size } else { 0 }).arg(ids);
    let mut wanting: Option<(&Topic, (Vec<u8>, String))> = None;
    let (mut lanes, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
    let flush =
        |call: &mut redis::Cmd, wanted: &(Vec<u8>, String), lanes: &mut Vec<String>, bodies: &mut Vec<Vec<u8>>| {
            let mut head = wanted.1.clone().into_bytes();
            head.push(b';');
            call.arg(&wanted.0).arg(lanes.len());
            if let ([lane], [body]) = (lanes.as_slice(), bodies.as_slice()) {
                head.extend_from_slice(lane.as_bytes());
                call.arg(head).arg(body.as_slice());
            } else {
                head.extend_from_slice(&wire::pack(lanes));
                call.arg(head).arg(wire::pack(bodies));
            }
            lanes.clear();
            bodies.clear();
        };
    for event in events {
        let topic = &event.envelope.topic;
        if wanting.as_ref().is_none_or(|(of, _)| *of != topic) {
            let new = groups.wanting(event);
            if let Some((_, old)) = &wanting
                && *old != new
                && !lanes.is_empty()
            {
                flush(call, old, &mut lanes, &mut bodies);
                bytes = 0;
            }
            wanting = Some((topic, new));
        }
        let Some((_, wanted)) = &wanting else { continue };
        let body = wire::body(&event.envelope);
        if !lanes.is_empty() && (lanes.len() == wire::ROW_MAX || bytes + body.len() > ROW_BYTES_MAX) {
            flush(call, wanted, &mut lanes, &mut bodies);
            bytes = 0;
        }
        bytes += body.len();
        lanes.push(wire::lane(event));
        bodies.push(body);
    }
    if let Some((_, wanted)) = &wanting {
        flush(call, wanted, &mut lanes, &mut bodies);
    }
}

/// How many events go into one script.
fn part(events: &[Append]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(EVENTS_MAX).take_while(|event| {
        bytes += event.envelope.data.len();
        bytes <= BYTES_MAX
    });
    fits.count().max(1)
}

fn stored(answer: Reply, groups: &Groups) -> Result<Result<Appended, BusError>, BusError> {
    let mut items = wire::array(Some(answer))?.into_iter();
    let (seq, second, evicted) =
        (wire::int(items.next())?, wire::unsigned(items.next())?, wire::unsigned(items.next())?);
    if let Ok(seq) = u64::try_from(seq) {
        // Place 0: it is delayed.
        return Ok(Ok(Appended { seq: (seq > 0).then_some(seq), duplicate: second == 1, evicted }));
    }
    let nth = usize::try_from(-seq - 1).map_err(|_| wire::unreadable())?;
    let full = groups.known.get(nth).ok_or_else(wire::unreadable)?;
    Ok(Err(BusError::BacklogFull { group: full.name.clone(), pending: second }))
}
