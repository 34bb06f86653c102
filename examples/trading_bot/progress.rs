//! What a person sees while it runs.

use std::{io::Write, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infra_types::{Clock, Monotonic, SystemClock};
use parking_lot::Mutex;

/// Highlights in a second, at most.
const HIGHLIGHTS_MAX: u32 = 10;

/// A bar on the terminal, and now and then a line above it.
pub(crate) struct Progress {
    bar: ProgressBar,
    window: Mutex<(Monotonic, u32)>,
}

impl Progress {
    /// A bar of `total` events, of which `done` were handled by an earlier run.
    pub(crate) fn new(total: u64, done: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        let style = "{elapsed_precise} [{bar:40}] {pos}/{len} events {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_position(done);
        Self { bar, window: Mutex::new((SystemClock.now(), 0)) }
    }

    /// Moves the bar.
    pub(crate) fn at(&self, events: u64) {
        if events.is_multiple_of(64) {
            self.bar.set_position(events);
        }
    }

    /// A line worth reading, unless there were ten in this second.
    pub(crate) fn highlight(&self, line: impl FnOnce() -> String) {
        let mut window = self.window.lock();
        let now = SystemClock.now();
        if now.since(window.0) >= Duration::from_secs(1) {
            *window = (now, 0);
        }
        if window.1 < HIGHLIGHTS_MAX {
            window.1 += 1;
            self.say(&line());
        }
    }

    /// A line that is always said.
    pub(crate) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            // A reader who went away is no reason to stop trading.
            let _ = writeln!(std::io::stderr(), "{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self, events: u64) {
        self.bar.set_position(events);
        self.bar.finish_and_clear();
    }
}
