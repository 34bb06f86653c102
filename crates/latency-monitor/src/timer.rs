//! Start and end of one operation.

use std::time::Duration;

use infra_types::Monotonic;

use crate::recorder::{Outcome, Recorder};

/// Measures from [`Recorder::start`] until it is told how the operation ended.
///
/// Dropped without a word, by `?`, a panic or a cancelled future, it records a failure.
#[must_use = "a timer that is dropped at once records a failure"]
#[derive(Debug)]
pub struct Timer<'a> {
    recorder: Option<&'a Recorder>,
    started: Monotonic,
}

impl<'a> Timer<'a> {
    pub(crate) fn new(recorder: &'a Recorder, started: Monotonic) -> Self {
        Self { recorder: Some(recorder), started }
    }

    /// Records an operation that went well; gives its duration.
    pub fn finish(self) -> Duration {
        self.stop(Outcome::Ok)
    }

    /// Records an operation that failed; gives its duration.
    pub fn fail(self) -> Duration {
        self.stop(Outcome::Failed)
    }

    /// Records nothing.
    pub fn discard(mut self) {
        self.recorder = None;
    }

    /// Records an operation that ended as `outcome` says; gives its duration.
    pub fn stop(mut self, outcome: Outcome) -> Duration {
        self.end(outcome)
    }

    fn end(&mut self, outcome: Outcome) -> Duration {
        let Some(recorder) = self.recorder.take() else { return Duration::ZERO };
        let took = recorder.now().since(self.started);
        match outcome {
            Outcome::Ok => recorder.record(took),
            Outcome::Failed => recorder.record_failed(took),
        }
        took
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.end(Outcome::Failed);
    }
}
