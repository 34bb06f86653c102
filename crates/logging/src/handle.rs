//! What is left in the hands of whoever set up the log.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{Clock, Health, Secret};
use parking_lot::Mutex;
use tracing_subscriber::{Registry, filter::Targets, reload};

use crate::{
    error::LogError,
    level,
    queue::Queue,
    scrub::Scrubber,
    writer::{SinkState, Writer},
};

/// For how long a loss shows in the health.
const LOSS_SHOWS: Duration = Duration::from_secs(60);

/// How long the guard waits for a stuck output when it is dropped.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Counts of all outputs together; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Lines written.
    pub written: u64,
    /// Lines that found their queue full or closed.
    pub dropped: u64,
    /// Those of `dropped` that were ERRORs: their output was stuck for longer than they may wait, or the guard was gone.
    pub errors_dropped: u64,
    /// Lines that an output did not take: a full disk, a broken pipe. ERRORs among them went to standard error.
    pub lost: u64,
    /// How often a file was full and the next one begun.
    pub rotations: u64,
}

#[derive(Debug, Clone)]
struct Watched {
    name: &'static str,
    queue: Arc<Queue>,
    state: Arc<Mutex<SinkState>>,
}

/// Changes and watches a running log. Cheap to clone; does not keep the log running.
#[derive(Clone)]
pub struct LogHandle {
    outputs: Arc<[Watched]>,
    level: reload::Handle<Targets, Registry>,
    scrubber: Arc<Scrubber>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Changes what is logged from now on, e.g. to `info,infra_risk_engine=debug`.
    ///
    /// # Errors
    /// [`LogError::InvalidLevel`] if it cannot be read (nothing changes), [`LogError::Gone`].
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let targets = level::parse(level)?;
        self.level.reload(targets).map_err(|_| LogError::Gone)
    }

    /// Hides a live secret in every line from now on: as it is, as `{:?}` prints it and as JSON escapes it. Lines that
    /// were logged before stay as they are.
    ///
    /// # Errors
    /// [`LogError::UnfitSecret`] if it has fewer than 4 bytes or more than 16 KiB, or 1,024 are registered.
    pub fn register_secret(&self, secret: &Secret<String>) -> Result<(), LogError> {
        self.scrubber.register(secret)
    }

    /// Waits until all lines logged before are with the operating system or counted as lost; `false` if that took an
    /// output longer than `patience`.
    /// Blocks the thread: in a task, call it through `spawn_blocking`.
    pub fn flush(&self, patience: Duration) -> bool {
        // All of them, also behind one that is stuck.
        self.outputs.iter().filter(|output| !output.queue.flush(patience)).count() == 0
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.outputs.iter().fold(LogStats::default(), |sum, output| {
            let (dropped, errors_dropped) = output.queue.dropped();
            let state = output.state.lock();
            LogStats {
                written: sum.written + state.written,
                dropped: sum.dropped + dropped,
                errors_dropped: sum.errors_dropped + errors_dropped,
                lost: sum.lost + state.lost,
                rotations: sum.rotations + state.rotations,
            }
        })
    }

    /// Degraded while an output fails or has lost a line within the last minute, down while every output fails.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = self.clock.now();
        let mut failing = 0;
        let mut problems = Vec::new();
        for output in self.outputs.iter() {
            let state = output.state.lock().clone();
            if let Some(problem) = state.problem {
                failing += 1;
                problems.push(problem);
            } else if state.last_loss.is_some_and(|at| now.since(at) < LOSS_SHOWS) {
                problems.push(format!("{}: lost lines within the last minute", output.name));
            }
        }
        let stats = self.stats();
        let detail = format!("{} lines written, {} dropped, {} lost", stats.written, stats.dropped, stats.lost);
        if problems.is_empty() {
            return Health::up(detail);
        }
        let detail = format!("{}; {detail}", problems.join("; "));
        if failing == self.outputs.len() { Health::down(detail) } else { Health::degraded(detail) }
    }
}

/// Keeps the log running. Dropping it writes what is queued, waiting up to 5 s for a stuck output; what is logged
/// afterwards is dropped and counted.
#[must_use = "the log ends when its guard is dropped; keep it until the end of main"]
#[derive(Debug)]
pub struct LogGuard {
    writers: Vec<Writer>,
    handle: LogHandle,
}

impl LogGuard {
    pub(crate) fn new(
        writers: Vec<Writer>,
        level: reload::Handle<Targets, Registry>,
        scrubber: Arc<Scrubber>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let watched = |w: &Writer| Watched { name: w.name, queue: w.queue.clone(), state: w.state.clone() };
        let outputs = writers.iter().map(watched).collect();
        Self { writers, handle: LogHandle { outputs, level, scrubber, clock } }
    }

    /// A handle to change and watch the log with.
    #[must_use]
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        for writer in &mut self.writers {
            writer.close(CLOSE_WAIT);
        }
    }
}
