//! Single events that are published at once share a call: while one is on its way the others gather.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    RedisBroker,
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
pub(super) struct Post {
    waiting: Mutex<(u64, VecDeque<Letter>)>,
    /// Who holds this stores what waits.
    turn: tokio::sync::Mutex<()>,
}

/// Takes its letter back if its sender gives up before it is on its way.
struct Sent<'a>(&'a Post, u64);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().1.retain(|letter| letter.number != self.1);
    }
}

impl Post {
    fn put(&self, events: Vec<Append>) -> (Sent<'_>, oneshot::Receiver<Answers>) {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.0 += 1;
        let number = waiting.0;
        waiting.1.push_back(Letter { number, events, tell });
        (Sent(self, number), told)
    }

    /// As many as one call takes, in the order in which they came.
    fn take(&self) -> Vec<Letter> {
        let letters = &mut self.waiting.lock().1;
        let (mut events, mut bytes) = (0, 0);
        // What came together is stored in one step.
        let fits = |letter: &&Letter| {
            events += letter.events.len();
            bytes += letter.events.iter().map(|event| event.envelope.data.len()).sum::<usize>();
            events <= EVENTS_MAX && bytes <= BYTES_MAX
        };
        let count = letters.iter().take_while(fits).count().max(1).min(letters.len());
        letters.drain(..count).collect()
    }
}

impl RedisBroker {
    /// Stores events together with those of others.
    pub(super) async fn append_together(&self, events: Vec<Append>) -> Answers {
        let count = events.len();
        let (_sent, mut told) = self.post.put(events);
        loop {
            let turn = tokio::select! {
                biased;
                answers = &mut told => return answers.unwrap_or_else(|_| given_up(count)),
                turn = self.post.turn.lock() => turn,
            };
            // The one before may have taken it along.
            match told.try_recv() {
                Ok(answers) => return answers,
                Err(oneshot::error::TryRecvError::Closed) => return given_up(count),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let letters = self.post.take();
            let all: Vec<_> = letters.iter().flat_map(|letter| letter.events.iter().cloned()).collect();
            let mut answers = self.append_all(&all).await.into_iter();
            for letter in letters {
                // Who has given up hears nothing.
                let _ = letter.tell.send(answers.by_ref().take(letter.events.len()).collect());
            }
            drop(turn);
        }
    }
}

/// The one who took it along was dropped while it was on its way.
fn given_up(count: usize) -> Answers {
    let reason = "the call that it shared with others was given up".to_owned();
    vec![Err(BusError::Ambiguous { reason }); count]
}
