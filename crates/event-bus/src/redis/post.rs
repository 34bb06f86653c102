//! Single events that are published at once share a call: while one is on its way the others gather.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    Store,
    append::{BYTES_MAX, EVENTS_MAX},
};
use crate::{
    BusError,
    broker::{Append, Appended},
};

type Answers = Vec<Result<Appended, BusError>>;

#[derive(Debug)]
struct Letter {
    number: u64,
    events: Vec<Append>,
    tell: oneshot::Sender<Answers>,
}

/// What waits to be stored.
#[derive(Debug, Default)]
pub(super) struct Post(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    letters: VecDeque<Letter>,
    last: u64,
    /// A task works them off.
    is_worked: bool,
}

/// Somebody works the letters off, until it says that it is done or is dropped.
struct Working<'a> {
    post: &'a Post,
    is_done: bool,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            // Whoever waits hears that it was given up.
            let mut waiting = self.post.0.lock();
            waiting.is_worked = false;
            waiting.letters.clear();
        }
    }
}

/// Takes its letter back if its sender gives up before it is on its way.
struct Sent<'a>(&'a Post, u64);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.0.lock().letters.retain(|letter| letter.number != self.1);
    }
}

impl Post {
    /// Its end, where it is told what became of it, and whether nobody works the letters off.
    fn put(&self, events: Vec<Append>) -> (Sent<'_>, oneshot::Receiver<Answers>, bool) {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.0.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.letters.push_back(Letter { number, events, tell });
        let is_first = !std::mem::replace(&mut waiting.is_worked, true);
        (Sent(self, number), told, is_first)
    }

    /// As many as one call takes, in the order in which they came. If there are none nobody works on them any more.
    fn take(&self) -> Vec<Letter> {
        let mut waiting = self.0.lock();
        let (mut events, mut bytes) = (0, 0);
        // What came together is stored in one step.
        let fits = |letter: &&Letter| {
            events += letter.events.len();
            bytes += letter.events.iter().map(|event| event.envelope.data.len()).sum::<usize>();
            events <= EVENTS_MAX && bytes <= BYTES_MAX
        };
        let count = waiting.letters.iter().take_while(fits).count().max(1).min(waiting.letters.len());
        waiting.is_worked = count > 0;
        waiting.letters.drain(..count).collect()
    }
}

impl Store {
    /// Stores events together with those of others. A task of its own does it, so that what it lends reaches a consumer without waiting for
    /// whoever published it.
    pub(super) async fn append_together(self: &Arc<Self>, events: Vec<Append>) -> Answers {
        let count = events.len();
        let (_sent, told, is_first) = self.post.put(events);
        if is_first {
            tokio::spawn(self.clone().work_off());
        }
        told.await.unwrap_or_else(|_| given_up(count))
    }

    async fn work_off(self: Arc<Self>) {
        // If this task is dropped the next letter begins another.
        let mut working = Working { post: &self.post, is_done: false };
        loop {
            let letters = self.post.take();
            if letters.is_empty() {
                working.is_done = true;
                return;
            }
            let mut events: Vec<Append> = Vec::with_capacity(letters.iter().map(|letter| letter.events.len()).sum());
            let mut tell = Vec::with_capacity(letters.len());
            for letter in letters {
                tell.push((letter.events.len(), letter.tell));
                events.extend(letter.events);
            }
            let mut answers = self.append_all(&events).await.into_iter();
            for (count, tell) in tell {
                // Who has given up hears nothing.
                let _ = tell.send(answers.by_ref().take(count).collect());
            }
        }
    }
}

/// The task that took it along was dropped while it was on its way.
fn given_up(count: usize) -> Answers {
    let reason = "the call that it shared with others was given up".to_owned();
    vec![Err(BusError::Ambiguous { reason }); count]
}
