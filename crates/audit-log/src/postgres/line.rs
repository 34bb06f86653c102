//! The appends of this process, in line: whoever waits shares the next commit.
//!
//! All processes wait for one row anyway. If every caller went there alone, each would hold a connection of the pool while it waits,
//! and each would pay for a commit. So one task at a time takes what has gathered and appends it as one group; it ends when nobody
//! is left. It runs by itself, so a caller that stops waiting leaves nothing half done and nobody else in doubt.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use infra_backends::{BackendError, Postgres};
use infra_types::ErrorKind;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::append::Appender;
use crate::{
    codec::Prepared,
    error::AuditError,
    log::{BATCH_EVENTS_MAX, Receipt},
};

/// Events that may wait; more are kept back at the entrance.
const EVENTS_MAX: usize = 4 * BATCH_EVENTS_MAX;
/// Bytes of one group, unless a single batch has more.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

type Answer = Result<Vec<Receipt>, AuditError>;

/// A batch that waits, with all that must last until it is answered.
#[derive(Debug)]
struct Waiting {
    batch: Vec<Prepared>,
    since: Instant,
    reply: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
    /// Closing the log waits for it.
    _open: OwnedRwLockReadGuard<bool>,
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
    room: Arc<Semaphore>,
    queue: Mutex<Queue>,
    appender: tokio::sync::Mutex<Appender>,
    /// How many groups ended without an answer, and for how many of them somebody has looked since.
    lost: AtomicU64,
    settled: AtomicU64,
}

impl Line {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self {
            postgres,
            room: Arc::new(Semaphore::new(EVENTS_MAX)),
            queue: Mutex::default(),
            appender: tokio::sync::Mutex::default(),
            lost: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    /// How many groups were lost so far, if nobody has looked since the last of them.
    pub(super) fn unsettled(&self) -> Option<u64> {
        let lost = self.lost.load(Ordering::Acquire);
        (lost > self.settled.load(Ordering::Acquire)).then_some(lost)
    }

    /// Somebody has looked after so many were lost.
    pub(super) fn settle(&self, lost: u64) {
        self.settled.fetch_max(lost, Ordering::AcqRel);
    }

    /// Appends a batch that is not empty.
    pub(super) async fn append(self: &Arc<Self>, batch: Vec<Prepared>, open: OwnedRwLockReadGuard<bool>) -> Answer {
        let events = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = timeout(self.patience(), Arc::clone(&self.room).acquire_many_owned(events)).await;
        let Ok(Ok(room)) = room else { return Err(BackendError::Busy.into()) };
        let (reply, answer) = oneshot::channel();
        // Tokio's time, as the deadline of the statement is: how long it waits is no matter of the decision clock.
        let waiting = Waiting { batch, since: Instant::now(), reply, _room: room, _open: open };
        let must_serve = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(waiting);
            !std::mem::replace(&mut queue.is_served, true)
        };
        if must_serve {
            let shift = Shift { line: Arc::clone(self), in_flight: AtomicBool::new(false), is_over: false };
            tokio::spawn(shift.serve());
        }
        answer.await.unwrap_or_else(|_| Err(AuditError::Ambiguous { reason: "the task that appends was ended".into() }))
    }

    fn patience(&self) -> std::time::Duration {
        self.postgres.config().operation_timeout
    }

    /// The oldest batches, as many as fit into a group; none ends the shift.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        let (mut events, mut bytes) = (0, 0);
        let fits = |waiting: &Waiting| {
            events += waiting.batch.len();
            bytes += waiting.batch.iter().map(|p| p.data.len()).sum::<usize>();
            events <= BATCH_EVENTS_MAX && bytes <= GROUP_BYTES_MAX
        };
        let fitting = queue.waiting.iter().map(fits).take_while(|fits| *fits).count();
        let count = fitting.max(1).min(queue.waiting.len());
        let group: Vec<_> = queue.waiting.drain(..count).collect();
        queue.is_served = !group.is_empty();
        (!group.is_empty()).then_some(group)
    }
}

/// A task that serves the line.
struct Shift {
    line: Arc<Line>,
    in_flight: AtomicBool,
    is_over: bool,
}

impl Shift {
    async fn serve(mut self) {
        let line = Arc::clone(&self.line);
        let mut appender = line.appender.lock().await;
        while let Some(group) = line.next_group() {
            // Who has waited for as long as an operation may take is told so, before anything is sent.
            let (late, group): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|waiting| waiting.since.elapsed() >= line.patience());
            late.into_iter().for_each(|waiting| waiting.answer(Err(BackendError::Busy.into())));
            if line.unsettled().is_some() {
                group.into_iter().for_each(|waiting| waiting.answer(Err(AuditError::Unsettled)));
            } else if !group.is_empty() {
                self.append(&mut appender, group).await;
            }
        }
        self.is_over = true;
    }

    async fn append(&self, appender: &mut Appender, mut group: Vec<Waiting>) {
        let batches = Arc::new(group.iter_mut().map(|waiting| std::mem::take(&mut waiting.batch)).collect());
        self.in_flight.store(true, Ordering::Release);
        let answers = appender.commit(&self.line.postgres, batches).await;
        self.in_flight.store(false, Ordering::Release);
        match answers {
            Ok(answers) => group.into_iter().zip(answers).for_each(|(waiting, answer)| waiting.answer(answer)),
            Err(e) => {
                if matches!(e, AuditError::Ambiguous { .. }) {
                    self.line.lost.fetch_add(1, Ordering::AcqRel);
                }
                group.into_iter().for_each(|waiting| waiting.answer(Err(e.clone())));
            }
        }
    }
}

impl Drop for Shift {
    /// The runtime stops, or the task panicked: nobody may wait for a task that is gone.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.in_flight.load(Ordering::Acquire) {
            self.line.lost.fetch_add(1, Ordering::AcqRel);
        }
        let left: Vec<_> = {
            let mut queue = self.line.queue.lock();
            queue.is_served = false;
            queue.waiting.drain(..).collect()
        };
        let message = "the task that appends was ended before it came to this; nothing was written: try again";
        for waiting in left {
            waiting.answer(Err(AuditError::Backend { message: message.into(), kind: ErrorKind::Transient }));
        }
    }
}

impl Waiting {
    fn answer(self, answer: Answer) {
        // Nobody may be waiting any more.
        let _ = self.reply.send(answer);
    }
}
