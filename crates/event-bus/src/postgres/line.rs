//! The appends of this process, in line: whoever waits shares the next commit.
//!
//! All processes wait for one row anyway. If every caller went there alone, each would hold a connection of the pool while it waits, and each
//! would pay for a commit of its own. So one task at a time takes what has gathered and stores it with one statement; it ends when nobody is
//! left. It runs by itself, so a caller that stops waiting leaves nothing half done and nobody else in doubt.

use std::{collections::VecDeque, sync::Arc};

use infra_backends::{BackendError, Postgres};
use infra_types::ErrorKind;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::wire;
use crate::{
    BusError, Limits,
    broker::{Append, Appended},
};

/// Events that may wait; more are kept back at the entrance.
const WAITING_MAX: usize = 4_096;
/// Events and bytes of one statement, unless a single batch has more: it holds up everybody else.
const GROUP_EVENTS_MAX: usize = 512;
pub(super) const GROUP_BYTES_MAX: usize = 4 << 20;
/// Events that one batch may have.
pub(super) const BATCH_EVENTS_MAX: usize = 256;

type Answers = Vec<Result<Appended, BusError>>;

/// A batch that waits, with all that must last until it is answered.
#[derive(Debug)]
struct Waiting {
    batch: Vec<Append>,
    since: Instant,
    reply: oneshot::Sender<Result<Answers, BusError>>,
    _room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task serves it.
    is_served: bool,
}

#[derive(Debug)]
pub(super) struct Line {
    postgres: Postgres,
    channel: Arc<str>,
    limits: Limits,
    room: Arc<Semaphore>,
    queue: Mutex<Queue>,
    /// Held by the task that serves, so that there is one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Line {
    pub(super) fn new(postgres: Postgres, channel: Arc<str>, limits: Limits) -> Self {
        Self {
            postgres,
            channel,
            limits,
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Appends a batch of at most [`BATCH_EVENTS_MAX`] events.
    pub(super) async fn append(self: &Arc<Self>, batch: Vec<Append>) -> Result<Answers, BusError> {
        let events = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = timeout(self.patience(), Arc::clone(&self.room).acquire_many_owned(events)).await;
        let Ok(Ok(room)) = room else { return Err(BackendError::Busy.into()) };
        let (reply, answer) = oneshot::channel();
        // Tokio's time, as the deadline of the statement is: how long it waits is no matter of the bus's clock.
        let waiting = Waiting { batch, since: Instant::now(), reply, _room: room };
        let must_serve = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(waiting);
            !std::mem::replace(&mut queue.is_served, true)
        };
        if must_serve {
            let shift = Shift { line: Arc::clone(self), is_over: false };
            tokio::spawn(shift.serve());
        }
        answer.await.unwrap_or_else(|_| Err(BusError::Ambiguous { reason: "the task that appends was ended".into() }))
    }

    fn patience(&self) -> std::time::Duration {
        self.postgres.config().operation_timeout
    }

    /// The oldest batches, as many as fit into a statement; none ends the shift.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        let (mut events, mut bytes) = (0, 0);
        let fits = |waiting: &Waiting| {
            events += waiting.batch.len();
            bytes += waiting.batch.iter().map(|a| a.envelope.data.len()).sum::<usize>();
            events <= GROUP_EVENTS_MAX && bytes <= GROUP_BYTES_MAX
        };
        let fitting = queue.waiting.iter().map(fits).take_while(|fits| *fits).count();
        let count = fitting.max(1).min(queue.waiting.len());
        let group: Vec<_> = queue.waiting.drain(..count).collect();
        queue.is_served = !group.is_empty();
        (!group.is_empty()).then_some(group)
    }

    async fn store(&self, events: &[Append]) -> Result<Answers, BusError> {
        let rows = self.postgres.write(wire::append(&self.channel, &self.limits, events)).await?;
        wire::appended(wire::only(&rows)?, events.len())
    }
}

/// A task that serves the line.
struct Shift {
    line: Arc<Line>,
    is_over: bool,
}

impl Shift {
    async fn serve(mut self) {
        let line = Arc::clone(&self.line);
        let _turn = line.turn.lock().await;
        while let Some(group) = line.next_group() {
            // Who has waited for as long as an operation may take is told so, before anything is sent.
            let (late, mut group): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|waiting| waiting.since.elapsed() >= line.patience());
            late.into_iter().for_each(|waiting| waiting.answer(Err(BackendError::Busy.into())));
            if group.is_empty() {
                continue;
            }
            let counts: Vec<_> = group.iter().map(|waiting| waiting.batch.len()).collect();
            let events: Vec<_> = group.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.batch)).collect();
            let answers = line.store(&events).await;
            match answers {
                Ok(answers) => {
                    let mut answers = answers.into_iter();
                    for (waiting, count) in group.into_iter().zip(counts) {
                        waiting.answer(Ok(answers.by_ref().take(count).collect()));
                    }
                }
                Err(e) => group.into_iter().for_each(|waiting| waiting.answer(Err(e.clone()))),
            }
        }
        self.is_over = true;
    }
}

impl Drop for Shift {
    /// The runtime stops, or the task panicked: nobody may wait for a task that is gone. Those in flight see their channel close.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let left: Vec<_> = {
            let mut queue = self.line.queue.lock();
            queue.is_served = false;
            queue.waiting.drain(..).collect()
        };
        let message = "the task that appends was ended before it came to this; nothing was stored: try again";
        for waiting in left {
            waiting.answer(Err(BusError::Backend { message: message.into(), kind: ErrorKind::Transient }));
        }
    }
}

impl Waiting {
    fn answer(self, answer: Result<Answers, BusError>) {
        // Nobody may be waiting any more.
        let _ = self.reply.send(answer);
    }
}
