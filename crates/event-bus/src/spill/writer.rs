//! The thread that owns the file, and what is known about it elsewhere. Whoever waits at the same time shares one write and one sync.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{
    SpillConfig,
    frame::{Frame, Record},
    log::{Log, NotAppended, beside},
};
use crate::BusError;

/// Bytes after which a write does not wait for more company.
const GROUP_BYTES: u64 = 8 << 20;

/// What is known without asking the thread.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Events in the log or on their way into it, and their bytes.
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) is_closed: bool,
    /// Why nothing goes in or out any more.
    pub(super) failure: Option<BusError>,
    /// What draining last ran into; none after a success.
    pub(super) last_error: Option<BusError>,
    pub(super) spilled: u64,
    pub(super) drained: u64,
    pub(super) refused: u64,
    pub(super) not_spilled: u64,
    /// The number behind the last urgent event that was written.
    pub(super) urgent_end: u64,
}

impl State {
    fn check(&self) -> Result<(), BusError> {
        match &self.failure {
            _ if self.is_closed => Err(BusError::Closed),
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

/// Why an event is not in the log.
#[derive(Debug, Clone)]
pub(super) struct NotSpilled {
    pub(super) reason: String,
    /// A power cut may still bring it in.
    pub(super) may_return: bool,
}

/// Frames that were taken, from the first on.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) taken: usize,
    pub(super) written: oneshot::Receiver<Result<(), NotSpilled>>,
    /// Why the others were not.
    pub(super) full: Option<BusError>,
}

enum Job {
    Append { frames: Vec<Frame>, reply: oneshot::Sender<Result<(), NotSpilled>> },
    Read { reply: oneshot::Sender<Result<Vec<Record>, BusError>> },
    ReadUrgent { from: u64, reply: oneshot::Sender<Result<Vec<Record>, BusError>> },
    Drained { events: u64, bytes: u64, reply: oneshot::Sender<io::Result<()>> },
    Refuse { line: String, reply: oneshot::Sender<io::Result<()>> },
    Close { reply: oneshot::Sender<()> },
}

/// The way to the thread. It ends with the last of these, or by `close`.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something new is in the log.
    arrived: Notify,
    events_max: u64,
    bytes_max: u64,
}

impl Writer {
    /// Opens the log and starts its thread. Blocks.
    pub(super) fn open(config: &SpillConfig) -> Result<Self, BusError> {
        let log = Log::open(&config.path, config.sync)?;
        let urgent_end = log.urgent_end();
        let state = State { events: log.events(), bytes: log.bytes(), urgent_end, ..State::default() };
        let (events_max, bytes_max) = (config.events_max, config.bytes_max);
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Notify::new(), events_max, bytes_max });
        let (jobs, received) = channel();
        let refused = Refused { path: beside(&config.path, ".refused"), bytes_max };
        let thread = std::thread::Builder::new().name("bus-spill".into());
        let started = thread.spawn({
            let shared = shared.clone();
            move || run(log, &refused, &received, &shared)
        });
        match started {
            Ok(_) => Ok(Self { jobs, shared }),
            Err(e) => Err(BusError::Backend {
                message: format!("the thread of the spill log cannot be started: {e}"),
                kind: infra_types::ErrorKind::Unavailable,
            }),
        }
    }

    pub(super) fn with_state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.shared.state.lock())
    }

    /// Whether what is published now has to wait behind something.
    pub(super) fn is_busy(&self) -> Result<bool, BusError> {
        let state = self.shared.state.lock();
        state.check()?;
        Ok(state.events > 0)
    }

    /// Puts frames at the end, as many as fit; none if `only_behind` and the log is empty.
    pub(super) fn enqueue(&self, mut frames: Vec<Frame>, only_behind: bool) -> Result<Option<Queued>, BusError> {
        let mut state = self.shared.state.lock();
        state.check()?;
        if only_behind && state.events == 0 {
            return Ok(None);
        }
        let room = frames.iter().take_while(|frame| {
            let fits = state.events < self.shared.events_max && state.bytes + frame.size() <= self.shared.bytes_max;
            if fits {
                state.events += 1;
                state.bytes += frame.size();
            }
            fits
        });
        let taken = room.count();
        let missing = frames.len() - taken;
        state.not_spilled += missing as u64;
        let full = (missing > 0).then(|| BusError::SpillFull { events: state.events, bytes: state.bytes });
        frames.truncate(taken);
        let (reply, written) = oneshot::channel();
        // Under the lock, so that the order in the log is the order of the calls. The queue is as bounded as the log.
        if taken > 0 {
            let _ = self.jobs.send(Job::Append { frames, reply });
        }
        Ok(Some(Queued { taken, written, full }))
    }

    async fn ask<R>(&self, job: impl FnOnce(oneshot::Sender<R>) -> Job) -> Result<R, BusError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(job(reply));
        answer.await.map_err(|_| BusError::Closed)
    }

    pub(super) async fn read(&self) -> Result<Vec<Record>, BusError> {
        self.ask(|reply| Job::Read { reply }).await?
    }

    /// The oldest urgent events from a number on.
    pub(super) async fn read_urgent(&self, from: u64) -> Result<Vec<Record>, BusError> {
        self.ask(|reply| Job::ReadUrgent { from, reply }).await?
    }

    /// Notes that the oldest events are done with, and makes room for others.
    pub(super) async fn drained(&self, events: u64, bytes: u64) -> Result<io::Result<()>, BusError> {
        let noted = self.ask(|reply| Job::Drained { events, bytes, reply }).await?;
        self.shared.release(events, bytes);
        Ok(noted)
    }

    pub(super) async fn refuse(&self, line: String) -> Result<io::Result<()>, BusError> {
        self.ask(|reply| Job::Refuse { line, reply }).await
    }

    /// Waits until something was written.
    pub(super) async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }

    /// Writes what is on its way and lets go of the file.
    pub(super) async fn close(&self) {
        let _ = self.ask(|reply| Job::Close { reply }).await;
    }
}

impl Shared {
    fn release(&self, events: u64, bytes: u64) {
        let mut state = self.state.lock();
        state.events -= events;
        state.bytes -= bytes;
    }
}

fn run(mut log: Log, refused: &Refused, jobs: &Receiver<Job>, shared: &Shared) {
    let mut next = None;
    while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
        // Nobody listens any more where a reply cannot be given.
        match job {
            Job::Append { frames, reply } => next = append(&mut log, frames, reply, jobs, shared),
            Job::Read { reply } => drop(reply.send(log.read())),
            Job::ReadUrgent { from, reply } => drop(reply.send(log.read_urgent(from))),
            Job::Drained { events, bytes, reply } => drop(reply.send(log.drained(events, bytes))),
            Job::Refuse { line, reply } => drop(reply.send(refused.write(&line))),
            Job::Close { reply } => {
                // First the lock, then the answer: whoever waited may open the log again.
                drop(log);
                let _ = reply.send(());
                return;
            }
        }
    }
}

/// Writes these and all that wait behind them at once; the first job that is something else.
fn append(
    log: &mut Log,
    mut frames: Vec<Frame>,
    reply: oneshot::Sender<Result<(), NotSpilled>>,
    jobs: &Receiver<Job>,
    shared: &Shared,
) -> Option<Job> {
    let mut replies = vec![reply];
    let mut bytes: u64 = frames.iter().map(Frame::size).sum();
    let mut next = None;
    while bytes < GROUP_BYTES
        && let Ok(job) = jobs.try_recv()
    {
        let Job::Append { frames: more, reply } = job else {
            next = Some(job);
            break;
        };
        bytes += more.iter().map(Frame::size).sum::<u64>();
        frames.extend(more);
        replies.push(reply);
    }
    let events = frames.len() as u64;
    let answer = log.append(&mut frames).map_err(|NotAppended { error, may_return }| {
        shared.release(events, bytes);
        let reason = format!("the spill log cannot be written: {error}; make room or mend the disk");
        NotSpilled { reason, may_return }
    });
    {
        let mut state = shared.state.lock();
        let count = if answer.is_ok() { &mut state.spilled } else { &mut state.not_spilled };
        *count += events;
        state.urgent_end = state.urgent_end.max(log.urgent_end());
    }
    if answer.is_ok() {
        shared.arrived.notify_one();
    }
    replies.into_iter().for_each(|reply| drop(reply.send(answer.clone())));
    next
}

/// Where the events go that the store will not have: a line of JSON for each.
#[derive(Debug)]
struct Refused {
    path: PathBuf,
    bytes_max: u64,
}

impl Refused {
    fn write(&self, line: &str) -> io::Result<()> {
        append_line(&self.path, line, self.bytes_max)
    }
}

fn append_line(path: &Path, line: &str, bytes_max: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    if length.saturating_add(line.len() as u64) > bytes_max {
        let what = format!("{} is full: see what the store refuses, and move the file away", path.display());
        return Err(io::Error::other(what));
    }
    if let Err(e) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
        // Half a line would hide the next one.
        let _ = file.set_len(length);
        return Err(e);
    }
    Ok(())
}
