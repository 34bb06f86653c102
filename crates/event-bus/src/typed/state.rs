//! What is behind the topic's lock: the log, who reads it and who waits for room.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use super::{
    log::{Log, Segment},
    policy::{TopicMetrics, WhenFull},
    seat::Seat,
};

/// What has to happen once the lock is given up: in it foreign code runs, which may come back to this topic.
#[derive(Debug)]
pub(super) struct After<T> {
    first: Option<Waker>,
    more: Vec<Waker>,
    discarded: Option<Waker>,
    freed: Vec<Arc<Segment<T>>>,
}

impl<T> After<T> {
    pub(super) fn new() -> Self {
        Self { first: None, more: Vec::new(), discarded: None, freed: Vec::new() }
    }

    fn wake(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.more.push(waker);
        }
    }

    /// Wakes whom it concerns; what is freed goes with `self`.
    pub(super) fn run(self) {
        self.first.into_iter().chain(self.more).for_each(Waker::wake);
    }
}

/// What became of an offer. What was not taken comes back, to be dropped without the lock.
#[derive(Debug)]
pub(super) enum Offered<T> {
    Taken,
    /// Nobody listens, or it was dropped and counted.
    Gone(T),
    Full(T),
    Closed(T),
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
    /// Events below this number have room, as far as was known when the positions of the readers were last looked at.
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
    metrics: TopicMetrics,
    /// Dropped since the last event that was taken.
    gap: u64,
}

impl<T> State<T> {
    pub(super) fn new(capacity: u64, when_full: WhenFull, segment_len: u64) -> Self {
        Self {
            capacity,
            when_full,
            log: Log::new(segment_len),
            room_until: capacity,
            readers: Vec::new(),
            sleeping: 0,
            waiting: VecDeque::new(),
            next_ticket: 0,
            publishers: 1,
            closed: false,
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

    /// Takes the event, unless there is no room for it behind those who wait already. `ticket` is the publisher's own place
    /// among them.
    pub(super) fn offer(&mut self, event: T, ticket: Option<u64>, after: &mut After<T>) -> Offered<T> {
        if self.closed {
            return Offered::Closed(event);
        }
        if self.metrics.receivers == 0 {
            self.metrics.published += 1;
            self.metrics.unheard += 1;
            return Offered::Gone(event);
        }
        let ahead = if self.waiting.is_empty() { 0 } else { self.ahead_of(ticket) };
        if self.log.tail() + ahead >= self.room_until && self.when_full != WhenFull::DropOldest {
            self.look_for_room();
            if self.log.tail() + ahead >= self.room_until {
                return self.without_room(event);
            }
        }
        if self.log.turns() {
            let floor = self.floor();
            self.log.trim(floor, &mut after.freed);
        }
        self.log.append(event, std::mem::take(&mut self.gap));
        self.metrics.published += 1;
        if self.sleeping > 0 {
            self.wake_readers(after);
        }
        Offered::Taken
    }

    fn without_room(&mut self, event: T) -> Offered<T> {
        if self.when_full == WhenFull::DropNewest {
            self.metrics.published += 1;
            self.metrics.dropped += 1;
            self.gap += 1;
            return Offered::Gone(event);
        }
        Offered::Full(event)
    }

    pub(super) fn count_refused(&mut self) {
        self.metrics.refused += 1;
    }

    /// How many publishers have a right to room before this one.
    fn ahead_of(&self, ticket: Option<u64>) -> u64 {
        let place = ticket.and_then(|ticket| self.waiting.iter().position(|w| w.ticket == ticket));
        place.unwrap_or(self.waiting.len()) as u64
    }

    /// The first event that some reader still wants.
    fn floor(&self) -> u64 {
        let tail = self.log.tail();
        let slowest = self.readers.iter().flatten().map(|r| r.seat.position()).min().unwrap_or(tail);
        match self.when_full {
            WhenFull::DropOldest => slowest.max(tail.saturating_sub(self.capacity)),
            _ => slowest,
        }
    }

    fn look_for_room(&mut self) {
        self.room_until = self.floor() + self.capacity;
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
            let free = if self.closed || self.metrics.receivers == 0 { u64::MAX } else { self.free() };
            let served = usize::try_from(free).unwrap_or(usize::MAX).min(self.waiting.len());
            self.waiting.iter_mut().take(served).filter_map(|w| w.waker.take()).for_each(|waker| after.wake(waker));
            if served == self.waiting.len() || self.ask_slowest() {
                return;
            }
        }
    }

    fn free(&self) -> u64 {
        self.room_until.saturating_sub(self.log.tail())
    }

    /// Has one reader that leaves no room say when it goes on; whoever else is as slow is asked after it. False if all of them
    /// went on meanwhile, so that nobody may sleep yet.
    fn ask_slowest(&self) -> bool {
        let floor = self.room_until - self.capacity;
        self.readers.iter().flatten().any(|r| r.seat.position() == floor && r.seat.ask() == floor)
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
    pub(super) fn subscribe(&mut self) -> (usize, Arc<Seat>) {
        let seat = Arc::new(Seat::new(self.log.tail()));
        let reader = Reader { seat: seat.clone(), waker: None, dropped_before: self.metrics.dropped };
        let index = self.readers.iter().position(Option::is_none).unwrap_or(self.readers.len());
        if index == self.readers.len() {
            self.readers.push(None);
        }
        self.readers[index] = Some(reader);
        self.metrics.receivers += 1;
        (index, seat)
    }

    /// The reader is gone, and nobody waits for it any more.
    pub(super) fn unsubscribe(&mut self, reader: usize, after: &mut After<T>) {
        after.discarded = self.wake_up(reader);
        self.readers[reader] = None;
        self.metrics.receivers -= 1;
        if self.metrics.receivers == 0 {
            self.readers.clear();
            self.gap = 0;
            self.log.clear(&mut after.freed);
        }
        self.hand_out(after);
    }

    /// Lets a reader that found nothing from `position` on sleep until there is something. False if there is.
    pub(super) fn sleep(&mut self, reader: usize, position: u64, waker: &Waker, after: &mut After<T>) -> bool {
        if self.closed || self.publishers == 0 || self.log.tail() > position {
            return false;
        }
        after.discarded = self.wake_up(reader);
        if let Some(reader) = &mut self.readers[reader] {
            reader.waker = Some(waker.clone());
            self.sleeping += 1;
        }
        true
    }

    /// The reader sleeps no more.
    pub(super) fn wake_up(&mut self, reader: usize) -> Option<Waker> {
        let waker = self.readers[reader].as_mut().and_then(|r| r.waker.take());
        self.sleeping -= usize::from(waker.is_some());
        waker
    }

    /// The segment of the first event from `position` on that is still kept for this reader, and how many it lost before that.
    pub(super) fn page(&mut self, position: u64) -> Page<T> {
        let oldest = match self.when_full {
            WhenFull::DropOldest => self.log.tail().saturating_sub(self.capacity),
            _ => 0,
        };
        let lost = oldest.saturating_sub(position);
        self.metrics.dropped += lost;
        let (segment, end) = self.log.segment(position + lost).expect("what a reader may still read is in the window");
        Page { segment, end, lost }
    }

    /// How many events this reader lost that it was not told of yet, or ever.
    pub(super) fn lost(&self, reader: usize, position: u64) -> u64 {
        match (&self.when_full, &self.readers[reader]) {
            (WhenFull::DropOldest, _) => self.log.tail().saturating_sub(self.capacity).saturating_sub(position),
            (_, Some(reader)) => self.metrics.dropped - reader.dropped_before,
            (_, None) => 0,
        }
    }

    // ---- The end.

    /// No more events; everybody who waits is woken to see it.
    pub(super) fn end(&mut self, after: &mut After<T>) {
        self.wake_readers(after);
        self.hand_out(after);
    }
}

/// Where a reader goes on.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub(super) segment: Arc<Segment<T>>,
    /// The number after the segment's last event.
    pub(super) end: u64,
    /// How many events it lost on the way.
    pub(super) lost: u64,
}
