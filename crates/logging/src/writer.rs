//! The thread between a queue and its sink.

use std::{
    io::{self, Write as _},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use infra_types::{Clock, Monotonic};
use parking_lot::Mutex;
use tracing::Level;

use crate::{
    error::LogError,
    layer::Form,
    queue::{Batch, Queue},
    record::{Record, Value},
    sink::{Fate, Sink},
};

/// How a sink is doing.
#[derive(Debug, Clone, Default)]
pub(crate) struct SinkState {
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) rotations: u64,
    /// What was wrong with the last write, if anything.
    pub(crate) problem: Option<String>,
    /// When a line was last dropped or lost.
    pub(crate) last_loss: Option<Monotonic>,
}

/// A running writer.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) state: Arc<Mutex<SinkState>>,
    pub(crate) name: &'static str,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works on.
pub(crate) struct Task {
    pub(crate) queue: Arc<Queue>,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) form: Form,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) problem: Option<String>,
}

/// A batch that grew beyond this gives its memory back.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

impl Writer {
    pub(crate) fn spawn(name: &'static str, mut task: Task) -> Result<Self, LogError> {
        let queue = task.queue.clone();
        let state = Arc::new(Mutex::new(SinkState { problem: task.problem.take(), ..SinkState::default() }));
        let shared = state.clone();
        let thread =
            Builder::new().name(format!("log-{name}")).spawn(move || run(task, &shared)).map_err(LogError::Thread)?;
        Ok(Self { queue, state, name, thread: Some(thread) })
    }

    /// Writes what is queued and ends the thread; leaves it behind if its sink is stuck.
    pub(crate) fn close(&mut self, patience: Duration) -> bool {
        let done = self.queue.close(patience);
        if let Some(thread) = self.thread.take()
            && done
        {
            return thread.join().is_ok();
        }
        done
    }
}

fn run(mut task: Task, state: &Mutex<SinkState>) {
    let mut batch = Batch::default();
    let mut unannounced = Losses::default();
    loop {
        let taken = task.queue.take(&mut batch);
        let fate = if batch.ends.is_empty() { None } else { Some(task.sink.write(&batch)) };
        let lost = fate.as_ref().map_or(0, |fate| batch.ends.len() - fate.written) as u64;
        if let Some(fate) = &fate {
            rescue(&batch, fate.written);
            note(state, &task, fate, fate.written as u64, lost);
        }
        unannounced.dropped += taken.dropped;
        unannounced.lost += lost;
        if taken.dropped > 0 {
            state.lock().last_loss = Some(task.clock.now());
        }
        // Once the sink works again, or at least as well as we can tell.
        if unannounced.any() && lost == 0 {
            let fate = announce(&mut task, &unannounced);
            note(state, &task, &fate, 0, 0);
            if fate.problem.is_none() {
                unannounced = Losses::default();
            }
        }
        batch.clear();
        if batch.bytes.capacity() > KEEP_BYTES_MAX {
            batch = Batch::default();
        }
        task.queue.wrote(taken);
        if taken.last {
            return;
        }
    }
}

#[derive(Default)]
struct Losses {
    dropped: u64,
    lost: u64,
}

impl Losses {
    fn any(&self) -> bool {
        self.dropped + self.lost > 0
    }
}

fn note(state: &Mutex<SinkState>, task: &Task, fate: &Fate, written: u64, lost: u64) {
    let mut state = state.lock();
    state.written += written;
    state.lost += lost;
    state.rotations += fate.rotations;
    state.problem.clone_from(&fate.problem);
    if lost > 0 {
        state.last_loss = Some(task.clock.now());
    }
}

/// Puts a line into the log that says what is missing from it.
fn announce(task: &mut Task, losses: &Losses) -> Fate {
    let record = Record {
        at: task.clock.wall(),
        level: Level::WARN,
        target: "infra_logging",
        message: "log lines are missing here: dropped because the queue was full, lost because writing failed"
            .to_owned(),
        fields: vec![("dropped", Value::U64(losses.dropped)), ("lost", Value::U64(losses.lost))],
        context: Vec::new(),
        spans: Vec::new(),
    };
    let mut line = Vec::new();
    task.form.write(&mut line, &record);
    let mut batch = Batch::default();
    batch.push(&line, false);
    task.sink.write(&batch)
}

/// ERRORs that their sink did not take go to standard error, as the last place where a person may find them.
fn rescue(batch: &Batch, written: usize) {
    for (n, end) in batch.ends.iter().enumerate().skip(written).filter(|(_, end)| end.error) {
        let start = if n == 0 { 0 } else { batch.ends[n - 1].at };
        // If that fails as well there is nowhere left to say so.
        drop(io::stderr().write_all(&batch.bytes[start..end.at]));
    }
}
