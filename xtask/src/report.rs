//! What a person sees while the steps run, and the table at the end.

use std::fmt;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use crate::steps::{Outcome, Step};

/// A whole run on two cores may take so long; more is said, and does not fail the run: machines differ.
pub const BUDGET: Duration = Duration::from_secs(30 * 60);

/// Prints headers and keeps the times.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    step_started: Instant,
    colour: bool,
    rows: Vec<Row>,
}

/// How one step went.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Whether it passed.
    pub passed: bool,
    /// The command that does it alone.
    pub rerun: String,
}

impl Report {
    /// Starts the clock. Colour is used on a terminal only.
    pub fn start() -> Self {
        Self { started: now(), step_started: now(), colour: stdout().is_terminal(), rows: Vec::new() }
    }

    /// Prints the header of a step.
    pub fn begin(&mut self, number: usize, of: usize, step: &Step) {
        self.step_started = now();
        let elapsed = (self.step_started - self.started).as_secs_f64();
        let head = format!("== [{number}/{of}] {}: {} (after {elapsed:.1} s)", step.name, step.about);
        say(format_args!("\n{}\n   {}", self.paint("1", &head), step.rerun()));
    }

    /// Prints how a step went and notes it.
    pub fn end(&mut self, step: &Step, outcome: Outcome) {
        let row =
            Row { name: step.name, took: now() - self.step_started, passed: outcome.is_ok(), rerun: step.rerun() };
        let seconds = row.took.as_secs_f64();
        match outcome {
            Ok(note) if note.is_empty() => say(format_args!("   {} in {seconds:.1} s", self.paint("32", "ok"))),
            Ok(note) => say(format_args!("   {} in {seconds:.1} s: {note}", self.paint("32", "ok"))),
            Err(problems) => {
                for problem in problems {
                    say(format_args!("   - {problem}"));
                }
                say(format_args!("   {} in {seconds:.1} s; again with: {}", self.paint("31", "FAILED"), row.rerun));
            }
        }
        self.rows.push(row);
    }

    /// Prints the table. True if every step passed.
    pub fn finish(&self) -> bool {
        let total = now() - self.started;
        say(format_args!("\n{}", table(&self.rows, total)));
        let passed = self.rows.iter().all(|row| row.passed);
        say(format_args!("{}", if passed { self.paint("32", "passed") } else { self.paint("31", "FAILED") }));
        passed
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Step, seconds, verdict; below them the commands that repeat what failed.
pub fn table(rows: &[Row], total: Duration) -> String {
    let mut text = format!("{:<16}{:>10}  result\n", "step", "seconds");
    for row in rows {
        let result = if row.passed { "pass" } else { "FAIL" };
        text += &format!("{:<16}{:>10.1}  {result}\n", row.name, row.took.as_secs_f64());
    }
    text += &format!("{:<16}{:>10.1}\n", "total", total.as_secs_f64());
    for row in rows.iter().filter(|row| !row.passed) {
        text += &format!("{} again: {}\n", row.name, row.rerun);
    }
    if total > BUDGET {
        text += &format!("note: the budget of a run is {} minutes on two cores\n", BUDGET.as_secs() / 60);
    }
    text
}

/// Prints a line. A reader who has seen enough, as in `cargo xtask list | head`, is no reason to panic.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(stdout(), "{line}");
}

#[expect(clippy::disallowed_methods, reason = "a build tool times its own steps and decides nothing by it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, passed: bool) -> Row {
        Row { name, took: Duration::from_millis(1_250), passed, rerun: format!("cargo {name}") }
    }

    #[test]
    fn the_table_names_seconds_verdicts_and_what_to_repeat() {
        let text = table(&[row("fmt", true), row("rustdoc", false)], Duration::from_secs(3));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["fmt", "1.2", "pass"]);
        assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["rustdoc", "1.2", "FAIL"]);
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["total", "3.0"]);
        assert_eq!(lines[4..], ["rustdoc again: cargo rustdoc"]);
    }

    #[test]
    fn a_run_over_the_budget_says_so() {
        assert!(!table(&[], BUDGET).contains("budget"));
        assert!(table(&[], BUDGET + Duration::from_secs(1)).contains("30 minutes"));
    }

    #[test]
    fn colour_is_for_terminals() {
        let mut report = Report::start();
        report.colour = false;
        assert_eq!(report.paint("31", "x"), "x");
        report.colour = true;
        assert_eq!(report.paint("31", "x"), "\x1b[31mx\x1b[0m");
    }
}
