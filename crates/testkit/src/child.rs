//! A child process that a test kills.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

/// How a test binary that was started as a child knows what to do.
const ARGUMENT: &str = "INFRA_TESTKIT_CHILD";
/// What marks a line as said by the child, not by the test harness around it.
const MARK: &str = "child> ";
/// Lines that may wait to be read.
const LINES_MAX: usize = 65_536;

/// The child said nothing more, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildGone {
    /// It ended.
    Ended,
    /// The time was over.
    TimedOut,
}

/// A running child; ended with SIGKILL when dropped.
#[derive(Debug)]
pub struct KillableChild {
    process: Child,
    lines: Receiver<String>,
}

impl KillableChild {
    /// Starts `command` and listens to its stdout.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the child must start");
        let stdout = process.stdout.take().expect("stdout was asked for");
        // A child that says more than anybody reads waits, as it would on a pipe.
        let (said, lines) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            // A line that death cut short was not said.
            while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
                let whole = std::mem::take(&mut line);
                if said.send(whole.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                    break;
                }
            }
        });
        Self { process, lines }
    }

    /// Starts this test binary once more, to run only the test called `name` (with its module path), in which
    /// [`child_argument`] answers `argument`: one test plays both parts, and neither is ever skipped.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn this_test(name: &str, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        Self::spawn(this_test(name, argument.as_ref()))
    }

    /// As [`KillableChild::this_test`], with `dir` as the child's temporary directory.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn this_test_in(dir: &std::path::Path, name: &str, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut command = this_test(name, argument.as_ref());
        command.env("TMPDIR", dir);
        Self::spawn(command)
    }

    /// The next line that the child printed with [`say`]; other output is passed over.
    ///
    /// # Errors
    /// `Ended` once the child is gone and every line was read, `TimedOut` after `patience` without a line.
    pub fn next_line(&mut self, patience: Duration) -> Result<String, ChildGone> {
        loop {
            match self.lines.recv_timeout(patience) {
                // The harness writes the test's name without a line break, so the mark may stand anywhere.
                Ok(line) => match line.split_once(MARK) {
                    Some((_, said)) => return Ok(said.to_owned()),
                    None => continue,
                },
                Err(RecvTimeoutError::Disconnected) => return Err(ChildGone::Ended),
                Err(RecvTimeoutError::Timeout) => return Err(ChildGone::TimedOut),
            }
        }
    }

    /// Reads lines until one starts with `start`, and answers it.
    ///
    /// # Panics
    /// If the child ends or is silent for `patience` before that.
    pub fn wait_for(&mut self, start: &str, patience: Duration) -> String {
        loop {
            match self.next_line(patience) {
                Ok(line) if line.starts_with(start) => return line,
                Ok(_) => {}
                Err(gone) => panic!("no line {start:?} from the child: {gone:?}"),
            }
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the child with SIGKILL (no handler runs, nothing is flushed), waits for its end, and answers every line that it had
    /// said and nobody had read.
    pub fn kill(mut self) -> Vec<String> {
        self.end();
        let mut rest = Vec::new();
        while let Ok(line) = self.next_line(Duration::from_secs(10)) {
            rest.push(line);
        }
        rest
    }

    /// Waits for the child to end by itself; whether it ended well.
    ///
    /// # Panics
    /// If the system cannot wait for it.
    pub fn wait(mut self) -> bool {
        self.process.wait().expect("a child can be waited for").success()
    }

    fn end(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for KillableChild {
    fn drop(&mut self) {
        self.end();
    }
}

fn this_test(name: &str, argument: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own binary"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ARGUMENT, argument);
    command
}

/// What [`KillableChild::this_test`] was given, if this process is such a child.
#[must_use]
pub fn child_argument() -> Option<std::ffi::OsString> {
    std::env::var_os(ARGUMENT)
}

/// Prints a line that the parent's [`KillableChild::next_line`] sees, at once.
///
/// # Panics
/// If stdout is closed: the parent is gone.
pub fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").and_then(|()| out.flush()).expect("the parent must listen");
}
