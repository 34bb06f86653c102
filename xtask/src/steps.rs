//! The steps of `cargo xtask test`, in order: what takes a second comes before what takes minutes.
//!
//! All cargo commands share the one target folder. External packages have the same features in both sets, near enough,
//! so that the second set compiles little more than the workspace itself.

use crate::feature_sets::{self, FeatureSet};
use crate::preflight::{self, Machine};
use crate::process::CommandLine;
use crate::workspace::Workspace;
use crate::{hygiene, layers, sizes};

/// The first step; the others make no sense without it.
pub const PREFLIGHT: &str = "preflight";

/// The names of all steps, in order.
pub const NAMES: &[&str] = &[
    PREFLIGHT,
    "fmt",
    "hygiene",
    "layers",
    "sizes",
    "features",
    "clippy-none",
    "clippy-sqlite",
    "test-none",
    "doctest-none",
    "test-sqlite",
    "doctest-sqlite",
    "rustdoc",
];

/// A word about what was found, or what is wrong, one sentence each.
pub type Outcome = Result<String, Vec<String>>;

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// What it holds.
    pub about: &'static str,
    work: Work,
}

#[derive(Debug, Clone)]
enum Work {
    Check(fn(&Workspace) -> Outcome),
    Command(CommandLine),
}

impl Step {
    /// Does it, and says how it went.
    ///
    /// # Errors
    /// What is wrong; a cargo command has printed its reasons before.
    pub fn run(&self, workspace: &Workspace) -> Outcome {
        match &self.work {
            Work::Check(check) => check(workspace),
            Work::Command(command) => command.run(&workspace.root).map(|()| String::new()).map_err(|error| vec![error]),
        }
    }

    /// The command that does this step alone.
    pub fn rerun(&self) -> String {
        match &self.work {
            Work::Check(_) => format!("cargo xtask test --only {}", self.name),
            Work::Command(command) => command.shell(),
        }
    }
}

/// All steps, in the order of [`NAMES`].
pub fn all(workspace: &Workspace) -> Vec<Step> {
    let nextest = Machine::look(&workspace.root).nextest;
    NAMES.iter().map(|name| step(name, workspace, nextest)).collect()
}

/// Formats the workspace.
pub fn tidy() -> Step {
    Step { name: "tidy", about: "formats the workspace", work: Work::Command(CommandLine::cargo(["fmt", "--all"])) }
}

fn step(name: &'static str, workspace: &Workspace, nextest: bool) -> Step {
    let set = if name.ends_with("-none") { FeatureSet::None } else { FeatureSet::Sqlite };
    let cargo = |before: &[&str], after: &[&str]| {
        let words = before.iter().map(|&word| word.to_owned()).chain(set.arguments(workspace));
        CommandLine::cargo(words.chain(after.iter().map(|&word| word.to_owned())))
    };
    let (about, work) = match name {
        PREFLIGHT => ("what this machine lacks", Work::Check(preflight::check)),
        "hygiene" => ("no skipped test, no allowed lint, every dependency has its reason", Work::Check(hygiene::check)),
        "layers" => ("who may depend on whom", Work::Check(check_layers)),
        "sizes" => ("lines per crate, sizes of files", Work::Check(sizes::check)),
        "features" => ("the feature sets are what they say they are", Work::Check(feature_sets::check)),
        "fmt" => ("formatting", Work::Command(CommandLine::cargo(["fmt", "--all", "--check"]))),
        "clippy-none" | "clippy-sqlite" => {
            let command = cargo(&["clippy"], &["--all-targets", "--", "-D", "warnings"]);
            ("lints, all targets", Work::Command(command))
        }
        "test-none" | "test-sqlite" if nextest => {
            ("unit and integration tests", Work::Command(cargo(&["nextest", "run"], &["--no-fail-fast"])))
        }
        "test-none" | "test-sqlite" => {
            // Named one by one because --all-targets would run the benches and no choice would run the doctests twice.
            let targets = ["--lib", "--bins", "--tests", "--examples", "--no-fail-fast"];
            ("unit and integration tests", Work::Command(cargo(&["test"], &targets)))
        }
        "doctest-none" | "doctest-sqlite" => {
            ("examples in the documentation", Work::Command(cargo(&["test", "--doc"], &["--no-fail-fast"])))
        }
        _ => {
            let command = cargo(&["doc", "--no-deps"], &[]).env("RUSTDOCFLAGS", "-D warnings");
            ("documentation without warnings", Work::Command(command))
        }
    };
    Step { name, about, work }
}

fn check_layers(workspace: &Workspace) -> Outcome {
    let breaches = layers::check(&workspace.members);
    if breaches.is_empty() { Ok(format!("{} members", workspace.members.len())) } else { Err(breaches) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Member;

    fn workspace() -> Workspace {
        let mut store = Member::new("infra-state-store");
        store.features.insert("sqlite".into(), vec![]);
        Workspace { root: "/w".into(), rust_version: "1.94".into(), members: vec![store] }
    }

    fn rerun(name: &'static str, nextest: bool) -> String {
        step(name, &workspace(), nextest).rerun()
    }

    #[test]
    fn a_step_that_is_a_command_is_repeated_by_it() {
        assert_eq!(
            rerun("clippy-none", true),
            "cargo clippy --workspace --no-default-features --all-targets -- -D warnings"
        );
        let doc = rerun("rustdoc", true);
        assert!(doc.starts_with("RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --workspace"), "{doc}");
        assert!(doc.ends_with("--features=infra-state-store/sqlite"), "{doc}");
    }

    #[test]
    fn a_check_is_repeated_by_name() {
        assert_eq!(rerun("hygiene", true), "cargo xtask test --only hygiene");
    }

    #[test]
    fn tests_run_under_nextest_where_it_is_installed() {
        assert!(rerun("test-sqlite", true).starts_with("cargo nextest run --workspace"));
        assert!(rerun("test-sqlite", false).starts_with("cargo test --workspace"));
        assert!(!rerun("test-none", false).contains("sqlite"));
    }

    #[test]
    fn every_name_has_a_step_of_its_own() {
        let mut reruns: Vec<String> = NAMES.iter().map(|name| rerun(name, true)).collect();
        reruns.sort();
        reruns.dedup();
        assert_eq!(reruns.len(), NAMES.len());
    }

    #[test]
    fn a_failing_check_fails_its_step() {
        let stranger = Workspace { members: vec![Member::new("infra-common")], ..workspace() };
        let outcome = step("layers", &stranger, true).run(&stranger);
        assert!(outcome.expect_err("no layer")[0].contains("infra-common"));
    }
}
