//! Where batches of lines end up.

use std::io::Write;

use crate::queue::Batch;

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// How many lines were written; those after them were not.
    pub(crate) written: usize,
    /// Why.
    pub(crate) problem: Option<String>,
    /// How many times a file was full.
    pub(crate) rotations: u64,
}

/// Where batches of lines end up. Never panics, never retries by itself: what it could not write is lost, and it says so.
pub(crate) trait Sink: Send {
    /// Writes all lines of `batch`, or a prefix of them.
    fn write(&mut self, batch: &Batch) -> Fate;
}

/// Standard error, or whatever a test put in its place.
pub(crate) struct Console(pub(crate) Box<dyn Write + Send>);

impl Sink for Console {
    fn write(&mut self, batch: &Batch) -> Fate {
        match self.0.write_all(&batch.bytes).and_then(|()| self.0.flush()) {
            Ok(()) => Fate { written: batch.ends.len(), ..Fate::default() },
            Err(e) => Fate { problem: Some(format!("console: {e}")), ..Fate::default() },
        }
    }
}
