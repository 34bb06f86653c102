//! What is behind the topic's lock: the log, who reads it and who waits for room.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use super::{
    log::{Chunk, Log},
    policy::{TopicMetrics, WhenFull},
    seat::Seat,
};

/// What has to happen once the lock is given up: in it foreign code runs, which may come back to this topic.
#[derive(Debug)]
pub(super) struct After<T> {
    /// Most often there is one, which then costs no allocation.
    waker: Option<Waker>,
    more: Vec<Waker>,
    discarded: Option<Waker>,
    freed: Vec<Arc<Chunk<T>>>,
}

impl<T> After<T> {
    pub(super) fn new() -> Self {
        Self { waker: None, more: Vec::new(), discarded: None, freed: Vec::new() }
    }

    fn wake(&mut self, waker: Waker) {
        match &self.waker {
            None => self.waker = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    /// Wakes whom it concerns; what is freed goes with `self`.
    #[inline]
    pub(super) fn run(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
            self.more.drain(..).for_each(Waker::wake);
        }
    }
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    /// Nobody listens, or it was dropped and counted.
    Gone,
    Full,
    Closed,
}

#[derive(Debug)]
struct Reader {
    seat: Arc<Seat>,
    /// There while it sleeps.
    waker: Option<Waker>,
    /// What the topic had dropped when it subscribed.
    dropped_before: u64,
}

/// A publisher that waits for room.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    /// Taken when it is woken.
    waker: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct State<T> {
    capacity: u64,
    when_full: WhenFull,
    log: Log<T>,
    /// Where the slowest reader was when they were last looked at.
    slowest: u64,
    /// Events below this number had room then, so they have it now.
    room_until: u64,
    readers: Vec<Option<Reader>>,
    sleeping: usize,
    /// In the order in which they came. Each has a right to one free place before anybody who comes later, so nobody starves;
    /// whoever finds more room than that does not have to queue, so a crowd that was full once does not go in single file
    /// for ever.
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
    pub(super) publishers: usize,
    pub(super) closed: bool,
    /// What was last made visible without the lock.
    pub(super) shown: u64,
    metrics: TopicMetrics,
    /// Dropped since the last event that was taken.
    gap: u64,
}

impl<T> State<T> {
    pub(super) fn new(capacity: u64, when_full: WhenFull) -> Self {
        Self {
            capacity,
            when_full,
            log: Log::new(capacity),
            slowest: 0,
            room_until: capacity,
            readers: Vec::new(),
            sleeping: 0,
            waiting: VecDeque::new(),
            next_ticket: 0,
            publishers: 1,
            closed: false,
            shown: 0,
            metrics: TopicMetrics::default(),
            gap: 0,
        }
    }

    pub(super) fn tail(&self) -> u64 {
        self.log.tail()
    }

    pub(super) fn metrics(&self) -> TopicMetrics {
        TopicMetrics { waiting: self.waiting.len(), ..self.metrics }
    }

    /// Takes the event out of `event`, unless there is no room for it behind those who wait already; what stays in there is
    /// dropped by the caller, without the lock. `ticket` is the publisher's own place among those who wait.
    #[inline]
    pub(super) fn offer(&mut self, event: &mut Option<T>, ticket: Option<u64>, after: &mut After<T>) -> Offered {
        if self.closed {
            return Offered::Closed;
        }
        if self.metrics.receivers == 0 {
            self.metrics.published += 1;
            self.metrics.unheard += 1;
            return Offered::Gone;
        }
        if !self.has_room(ticket) {
            return self.without_room();
        }
        if let Some(event) = event.take() {
            self.log.append(event, std::mem::take(&mut self.gap), self.metrics.receivers);
            self.metrics.published += 1;
        }
        if self.when_full == WhenFull::DropOldest {
            self.log.trim(self.oldest(), &mut after.freed);
        }
        if self.sleeping > 0 {
            self.wake_readers(after);
        }
        Offered::Taken
    }

    #[inline]
    fn has_room(&mut self, ticket: Option<u64>) -> bool {
        let ahead = if self.waiting.is_empty() { 0 } else { self.ahead_of(ticket) };
        if self.log.tail() + ahead < self.room_until || self.when_full == WhenFull::DropOldest {
            return true;
        }
        self.look_for_room();
        self.log.tail() + ahead < self.room_until
    }

    fn without_room(&mut self) -> Offered {
        if self.when_full == WhenFull::DropNewest {
            self.metrics.published += 1;
            self.metrics.dropped += 1;
            self.gap += 1;
            return Offered::Gone;
        }
        Offered::Full
    }

    pub(super) fn count_refused(&mut self) {
        self.metrics.refused += 1;
    }

    /// How many publishers have a right to room before this one.
    fn ahead_of(&self, ticket: Option<u64>) -> u64 {
        let place = ticket.and_then(|ticket| self.waiting.iter().position(|w| w.ticket == ticket));
        place.unwrap_or(self.waiting.len()) as u64
    }

    /// With `DropOldest`: the first event that is not too old.
    fn oldest(&self) -> u64 {
        self.log.tail().saturating_sub(self.capacity)
    }

    fn look_for_room(&mut self) {
        let positions = self.readers.iter().flatten().map(|r| r.seat.position());
        self.slowest = positions.min().unwrap_or(self.log.tail());
        self.room_until = self.slowest.saturating_add(self.capacity);
    }

    fn wake_readers(&mut self, after: &mut After<T>) {
        self.sleeping = 0;
        self.readers.iter_mut().flatten().filter_map(|r| r.waker.take()).for_each(|waker| after.wake(waker));
    }

    // ---- Publishers that wait.

    /// Puts the publisher behind the others, or leaves it where it is, until `waker` is woken. Gives its ticket.
    pub(super) fn queue(&mut self, ticket: Option<u64>, waker: &Waker, after: &mut After<T>) -> u64 {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.waiting.push_back(Waiting { ticket: self.next_ticket, waker: None });
            self.next_ticket
        });
        if let Some(own) = self.waiting.iter_mut().find(|w| w.ticket == ticket) {
            after.discarded = own.waker.replace(waker.clone());
        }
        // If room came since the offer was refused, this wakes the publisher itself.
        self.hand_out(after);
        ticket
    }

    /// The publisher waits no more, whether it was served or gave up.
    pub(super) fn leave(&mut self, ticket: u64, after: &mut After<T>) {
        if let Some(place) = self.waiting.iter().position(|w| w.ticket == ticket) {
            after.discarded = self.waiting.remove(place).and_then(|own| own.waker);
            self.hand_out(after);
        }
    }

    /// Wakes as many waiting publishers as there is room for, and has a reader say when there is more.
    fn hand_out(&mut self, after: &mut After<T>) {
        while !self.waiting.is_empty() {
            self.look_for_room();
            let nobody = self.has_ended() || self.metrics.receivers == 0;
            let free = if nobody { u64::MAX } else { self.room_until.saturating_sub(self.log.tail()) };
            let served = usize::try_from(free).unwrap_or(usize::MAX).min(self.waiting.len());
            self.waiting.iter_mut().take(served).filter_map(|w| w.waker.take()).for_each(|waker| after.wake(waker));
            if served == self.waiting.len() || self.ask_slowest() {
                return;
            }
        }
    }

    /// Has one reader that leaves no room say when it goes on; whoever else is as slow is asked after it. False if all of them
    /// went on meanwhile, so that nobody may sleep yet.
    fn ask_slowest(&self) -> bool {
        let slowest = self.slowest;
        self.readers.iter().flatten().any(|r| r.seat.position() == slowest && r.seat.ask() == slowest)
    }

    /// A reader that was asked has gone on.
    pub(super) fn answered(&mut self, reader: usize, after: &mut After<T>) {
        if let Some(reader) = &self.readers[reader] {
            reader.seat.answered();
        }
        self.hand_out(after);
    }

    // ---- Readers.

    /// A new reader, which begins with the next event.
    pub(super) fn subscribe(&mut self) -> Place {
        // So that it begins with a chunk of its own.
        self.log.seal(self.metrics.receivers);
        let (position, chunk) = (self.log.tail(), self.log.sealed_until());
        let seat = Arc::new(Seat::new(position));
        let reader = Reader { seat: seat.clone(), waker: None, dropped_before: self.metrics.dropped };
        let index = self.readers.iter().position(Option::is_none).unwrap_or(self.readers.len());
        if index == self.readers.len() {
            self.readers.push(None);
        }
        self.readers[index] = Some(reader);
        self.metrics.receivers += 1;
        Place { index, seat, position, chunk, lost: 0, not_mine: self.gap }
    }

    /// The reader is gone: nothing is kept for it, and nobody waits for it any more.
    pub(super) fn unsubscribe(&mut self, reader: usize, chunk: u64, after: &mut After<T>) {
        after.discarded = self.wake_up(reader);
        self.readers[reader] = None;
        self.metrics.receivers -= 1;
        self.log.forsake(chunk, self.metrics.receivers, &mut after.freed);
        if self.metrics.receivers == 0 {
            self.readers.clear();
            self.gap = 0;
        }
        self.hand_out(after);
    }

    /// What follows for a reader that is through with its chunk, which it gives back if it was the last one to read it. If
    /// nothing follows and there is a `waker`, the reader sleeps until something does.
    #[inline]
    pub(super) fn turn(
        &mut self,
        reader: &mut Place,
        empty: Option<Arc<Chunk<T>>>,
        waker: Option<&Waker>,
        after: &mut After<T>,
    ) -> Turn<T> {
        after.discarded = self.wake_up(reader.index);
        if let Some(empty) = empty {
            after.freed.extend(self.log.recycle(empty));
        }
        // With `DropOldest` the log may begin later than that.
        let (number, lost_until) = (reader.chunk.max(self.log.first()), self.log.start());
        let chunk = if number < self.log.sealed_until() {
            self.log.take(number)
        } else if self.metrics.receivers == 1 {
            self.log.take_open()
        } else {
            self.log.seal(self.metrics.receivers);
            self.log.take(number)
        };
        if let Some(chunk) = chunk {
            reader.chunk = number + 1;
            let lost = lost_until.saturating_sub(reader.position);
            if lost > 0 {
                reader.lost += lost;
                reader.position += lost;
                self.metrics.dropped += lost;
            }
            return Turn::Chunk(chunk);
        }
        if self.has_ended() {
            return Turn::Ended;
        }
        if let (Some(waker), Some(reader)) = (waker, &mut self.readers[reader.index]) {
            reader.waker = Some(waker.clone());
            self.sleeping += 1;
        }
        Turn::Nothing
    }

    /// The reader sleeps no more.
    fn wake_up(&mut self, reader: usize) -> Option<Waker> {
        let waker = self.readers[reader].as_mut().and_then(|r| r.waker.take());
        self.sleeping -= usize::from(waker.is_some());
        waker
    }

    /// A reader with `DropOldest` went past so many that it held already.
    pub(super) fn count_lost(&mut self, lost: u64) {
        self.metrics.dropped += lost;
    }

    /// How many events were dropped since this reader came.
    pub(super) fn dropped_since(&self, reader: usize) -> u64 {
        self.readers[reader].as_ref().map_or(0, |r| self.metrics.dropped - r.dropped_before)
    }

    // ---- The end.

    pub(super) fn has_ended(&self) -> bool {
        self.closed || self.publishers == 0
    }

    /// No more events; everybody who waits is woken to see it.
    pub(super) fn end(&mut self, after: &mut After<T>) {
        self.wake_readers(after);
        self.hand_out(after);
    }
}

/// Where a reader is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its number among the readers.
    pub(super) index: usize,
    /// The number of the next event that it takes.
    pub(super) position: u64,
    /// The number of the next chunk that it comes to.
    pub(super) chunk: u64,
    pub(super) seat: Arc<Seat>,
    /// How many events it lost right before that.
    pub(super) lost: u64,
    /// With `DropNewest`: how many were dropped right before its first event and before it came.
    pub(super) not_mine: u64,
}

/// What follows for a reader.
#[derive(Debug)]
pub(super) enum Turn<T> {
    Chunk(Arc<Chunk<T>>),
    Nothing,
    Ended,
}
