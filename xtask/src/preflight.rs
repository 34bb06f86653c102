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
    /// Megabytes that a whole run may write: free where the workspace is, or in its target directory already. None if `df` does not say.
    pub room_mb: Option<u64>,
}

/// Megabytes that everything of a whole run takes, measured, and a third more.
const ROOM_MB: u64 = 8_000;

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
            room_mb: ask(&["df", "-Pm", "."]).as_deref().and_then(free_mb).map(|free| {
                let built = ask(&["du", "-sm", "target"]);
                free + built.as_deref().and_then(|said| said.split_whitespace().next()?.parse().ok()).unwrap_or(0)
            }),
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
        if let Some(room) = self.room_mb.filter(|room| *room < ROOM_MB) {
            missing.push(format!("room on the disk: {room} MB are free for the build, {ROOM_MB} MB are needed"));
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

/// What `df -Pm` says is free: the fourth word of its second line.
fn free_mb(said: &str) -> Option<u64> {
    said.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
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
        Machine { rustc, c_compiler: true, rustfmt: true, clippy: true, nextest: false, room_mb: Some(ROOM_MB) }
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
    fn a_full_disk_is_named_before_anything_is_built() {
        let line = Machine { room_mb: Some(17), ..complete() }.lacks("1.94").expect("a full disk");
        assert!(line.contains("17 MB are free") && line.contains("8000 MB are needed"), "{line}");
        assert_eq!(Machine { room_mb: None, ..complete() }.lacks("1.94"), None);
        let said = "Filesystem     1048576-blocks  Used Available Capacity Mounted on\n/dev/vda               257932 13312     80896      15% /\n";
        assert_eq!((free_mb(said), free_mb("df: no such file")), (Some(80_896), None));
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
