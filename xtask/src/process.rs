//! Runs other programs.

use std::path::Path;
use std::process::{Command, Stdio};

/// A command that a person can repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables to set.
    pub env: Vec<(&'static str, String)>,
    /// Program and arguments.
    pub words: Vec<String>,
}

impl CommandLine {
    /// `cargo` with these arguments.
    pub fn cargo<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut words = vec!["cargo".to_owned()];
        words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        Self { env: Vec::new(), words }
    }

    /// The same with a variable set.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// As one would type it into a shell.
    pub fn shell(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={}", quote(value)));
        env.chain(self.words.iter().map(|word| quote(word))).collect::<Vec<_>>().join(" ")
    }

    /// Runs it in `dir` with our own standard streams.
    ///
    /// # Errors
    /// How it ended, if not with success.
    pub fn run(&self, dir: &Path) -> Result<(), String> {
        let status = self.command(dir).status().map_err(|error| format!("{}: {error}", self.shell()))?;
        if status.success() { Ok(()) } else { Err(format!("{status}")) }
    }

    /// Runs it in `dir` and gives what it wrote to standard output.
    ///
    /// # Errors
    /// What it wrote to standard error, if it did not end with success.
    pub fn output(&self, dir: &Path) -> Result<String, String> {
        let output = self.command(dir).output().map_err(|error| format!("{}: {error}", self.shell()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("{}: {}", self.shell(), String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(dir).stdin(Stdio::null());
        // A whole run builds every package for several feature sets; what the compiler keeps to build a changed line again
        // sooner would be more than half of what it writes to the disk, and is never read.
        if std::env::var_os("CARGO_INCREMENTAL").is_none() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_pasted() {
        let doc = CommandLine::cargo(["doc", "--features", "a/b,c/b"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(doc.shell(), "RUSTDOCFLAGS='-D warnings' cargo doc --features a/b,c/b");
        assert_eq!(quote("it's {p}"), r"'it'\''s {p}'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_failure_is_reported_with_its_status_and_words() {
        let here = Path::new(".");
        let failing =
            CommandLine { env: vec![], words: ["sh", "-c", "echo lost >&2; exit 3"].map(String::from).to_vec() };
        assert!(failing.output(here).expect_err("exit 3").ends_with("lost"));
        assert!(failing.run(here).expect_err("exit 3").contains('3'));
        let missing = CommandLine { env: vec![], words: vec!["no-such-program-here".into()] };
        assert!(missing.run(here).expect_err("missing").contains("no-such-program-here"));
    }
}
