//! Says what a machine lacks, in one line, before anything is built.

use std::path::Path;

use crate::process::CommandLine;
use crate::workspace::Workspace;

/// What the machine has.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The answer of `rustc --version`.
    pub rustc: Option<String>,
    /// Whether a C compiler runs.
    pub c_compiler: bool,
    /// Whether `cargo fmt` runs.
    pub rustfmt: bool,
    /// Whether `cargo clippy` runs.
    pub clippy: bool,
    /// Whether `cargo nextest` runs; it is not required.
    pub nextest: bool,
}

impl Machine {
    /// Asks each program for its version.
    pub fn look(dir: &Path) -> Self {
        let ask = |words: &[&str]| {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            CommandLine { env: Vec::new(), words }.output(dir).ok()
        };
        Self {
            rustc: ask(&["rustc", "--version"]),
            c_compiler: ["cc", "gcc", "clang"].iter().any(|name| ask(&[name, "--version"]).is_some()),
            rustfmt: ask(&["cargo", "fmt", "--version"]).is_some(),
            clippy: ask(&["cargo", "clippy", "--version"]).is_some(),
            nextest: ask(&["cargo", "nextest", "--version"]).is_some(),
        }
    }

    /// What is missing to check a workspace that needs this compiler, in one line.
    pub fn lacks(&self, rust_version: &str) -> Option<String> {
        let mut missing = Vec::new();
        match self.rustc.as_deref() {
            None => missing.push("rustc (install it from https://rustup.rs)".to_owned()),
            Some(said) if version(said) < version(rust_version) => {
                missing.push(format!("rustc {rust_version} or newer, this is {} (rustup update)", said.trim()));
            }
            Some(_) => {}
        }
        if !self.c_compiler {
            missing.push("a C compiler, which builds SQLite (apt-get install build-essential)".to_owned());
        }
        if !self.rustfmt {
            missing.push("rustfmt (rustup component add rustfmt)".to_owned());
        }
        if !self.clippy {
            missing.push("clippy (rustup component add clippy)".to_owned());
        }
        if missing.is_empty() { None } else { Some(format!("this machine lacks {}", missing.join("; "))) }
    }
}

/// Looks at this machine.
///
/// # Errors
/// One line that names everything that is missing.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let machine = Machine::look(&workspace.root);
    match machine.lacks(&workspace.rust_version) {
        Some(line) => Err(vec![line]),
        None if machine.nextest => Ok("tests run under nextest".to_owned()),
        None => Ok("tests run under cargo test, which does not end a hanging test; nextest would".to_owned()),
    }
}

/// The numbers of the first word that looks like a version: `rustc 1.95.0-beta.2 (…)` is 1, 95.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Machine {
        let rustc = Some("rustc 1.95.0 (f2d3ce0bd 2026-03-21)\n".to_owned());
        Machine { rustc, c_compiler: true, rustfmt: true, clippy: true, nextest: false }
    }

    #[test]
    fn a_complete_machine_lacks_nothing_even_without_nextest() {
        assert_eq!(complete().lacks("1.94"), None);
        assert_eq!(complete().lacks("1.95.0"), None);
    }

    #[test]
    fn an_old_or_strange_compiler_is_named() {
        for said in ["rustc 1.93.1 (abc 2026-01-01)", "rustc 1.9.0", "rustc unknown"] {
            let machine = Machine { rustc: Some(said.to_owned()), ..complete() };
            let line = machine.lacks("1.94").expect(said);
            assert!(line.contains("rustc 1.94 or newer") && line.contains(said), "{line}");
        }
        let nightly = Machine { rustc: Some("rustc 1.97.0-nightly (abc)".to_owned()), ..complete() };
        assert_eq!(nightly.lacks("1.94"), None);
    }

    #[test]
    fn everything_missing_is_one_line() {
        let line = Machine::default().lacks("1.94").expect("an empty machine");
        assert_eq!(line.lines().count(), 1);
        for word in ["rustup.rs", "C compiler", "rustfmt", "clippy"] {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}
