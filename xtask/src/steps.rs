//! The steps of `cargo xtask test`, in order: what takes a second comes before what takes minutes.
//!
//! Which set runs what, and why, stands in [`feature_sets`]. All cargo commands share the one target folder.

use crate::feature_sets::{self, FeatureSet};
use crate::preflight::{self, Machine};
use crate::process::CommandLine;
use crate::workspace::Workspace;
use crate::{hygiene, layers, servers, sizes};

/// The first step; the others make no sense without it.
pub const PREFLIGHT: &str = "preflight";
/// Runs whenever a step that needs servers does, and before it.
pub const SERVERS: &str = "servers";

/// The names of all steps, in order.
pub const NAMES: &[&str] = &[
    PREFLIGHT,
    SERVERS,
    "fmt",
    "hygiene",
    "layers",
    "sizes",
    "features",
    "clippy-none",
    "clippy-sqlite",
    "clippy-redis",
    "clippy-postgres",
    "clippy-all",
    "test-none",
    "doctest-none",
    "test-sqlite",
    "test-redis",
    "test-postgres",
    "test-all",
    "doctest-all",
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
    /// One after the other, all of them even if one fails.
    Commands(Vec<CommandLine>),
}

impl Step {
    /// Does it, and says how it went.
    ///
    /// # Errors
    /// What is wrong; a cargo command has printed its reasons before.
    pub fn run(&self, workspace: &Workspace) -> Outcome {
        match &self.work {
            Work::Check(check) => check(workspace),
            Work::Commands(commands) => {
                let ended = commands.iter().map(|command| command.run(&workspace.root));
                let errors: Vec<String> = ended.filter_map(Result::err).collect();
                if errors.is_empty() { Ok(String::new()) } else { Err(errors) }
            }
        }
    }

    /// The command that does this step alone.
    pub fn rerun(&self) -> String {
        match &self.work {
            Work::Check(_) => format!("cargo xtask test --only {}", self.name),
            Work::Commands(commands) => commands.iter().map(CommandLine::shell).collect::<Vec<_>>().join(" && "),
        }
    }

    /// Whether it starts a server.
    pub fn needs_servers(&self) -> bool {
        (self.name.starts_with("test-") || self.name.starts_with("doctest-")) && set_of(self.name).needs_servers()
    }
}

/// All steps, in the order of [`NAMES`].
pub fn all(workspace: &Workspace) -> Vec<Step> {
    let nextest = Machine::look(&workspace.root).nextest;
    NAMES.iter().map(|name| step(name, workspace, nextest)).collect()
}

/// Those that are named, all if none is, and what they need.
pub fn choose(workspace: &Workspace, only: &[String]) -> Vec<Step> {
    let steps = all(workspace);
    let named = |step: &Step| only.is_empty() || only.iter().any(|name| name == step.name);
    let servers = steps.iter().any(|step| named(step) && step.needs_servers());
    steps.into_iter().filter(|step| named(step) || (servers && step.name == SERVERS)).collect()
}

/// Formats the workspace.
pub fn tidy() -> Step {
    let work = Work::Commands(vec![CommandLine::cargo(["fmt", "--all"])]);
    Step { name: "tidy", about: "formats the workspace", work }
}

/// The set that the name of a step ends with.
fn set_of(step: &str) -> FeatureSet {
    let set = FeatureSet::EVERY.into_iter().find(|set| step.rsplit('-').next() == Some(set.name()));
    set.unwrap_or(FeatureSet::All)
}

fn step(name: &'static str, workspace: &Workspace, nextest: bool) -> Step {
    let set = set_of(name);
    let command = |before: &[&str], chosen: Vec<String>, after: &[&str]| {
        let words = before.iter().map(|&word| word.to_owned()).chain(chosen);
        CommandLine::cargo(words.chain(after.iter().map(|&word| word.to_owned())))
    };
    let cargo = |before: &[&str], after: &[&str]| command(before, set.arguments(workspace), after);
    let (about, work) = match name {
        PREFLIGHT => ("what this machine lacks", Work::Check(preflight::check)),
        SERVERS => ("redis-server and PostgreSQL, installed if they are missing", Work::Check(servers::check)),
        "hygiene" => ("no skipped test, no allowed lint, every dependency has its reason", Work::Check(hygiene::check)),
        "layers" => ("who may depend on whom", Work::Check(check_layers)),
        "sizes" => ("lines per crate, sizes of files", Work::Check(sizes::check)),
        "features" => ("the feature sets are what they say they are", Work::Check(feature_sets::check)),
        "fmt" => ("formatting", Work::Commands(vec![CommandLine::cargo(["fmt", "--all", "--check"])])),
        "test-all" => {
            let (whole, gated) = FeatureSet::of_all(workspace);
            let whole = (!whole.is_empty()).then(|| (whole, Vec::new()));
            let gated = gated.into_iter().map(|(package, tests)| (vec![package], tests));
            let commands = whole.into_iter().chain(gated).map(|(packages, tests)| {
                let tests: Vec<String> = tests.iter().map(|test| format!("--test={test}")).collect();
                let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
                let (before, after) = test_words(nextest, &tests);
                command(before, set.arguments_for(workspace, &packages), &after)
            });
            ("tests of what composes, and of two backends at once", Work::Commands(commands.collect()))
        }
        _ if name.starts_with("clippy-") => {
            let command = cargo(&["clippy"], &["--all-targets", "--", "-D", "warnings"]);
            ("lints, all targets", Work::Commands(vec![command]))
        }
        _ if name.starts_with("test-") => {
            let (before, after) = test_words(nextest, &[]);
            ("unit and integration tests", Work::Commands(vec![cargo(before, &after)]))
        }
        _ if name.starts_with("doctest-") => {
            let command = cargo(&["test", "--doc"], &["--no-fail-fast"]);
            ("examples in the documentation", Work::Commands(vec![command]))
        }
        _ => {
            let command = command(&["doc", "--no-deps"], set.arguments_for(workspace, &[]), &[]);
            ("documentation without warnings", Work::Commands(vec![command.env("RUSTDOCFLAGS", "-D warnings")]))
        }
    };
    Step { name, about, work }
}

/// The words before and after the choice of packages; no `tests` are all of them.
fn test_words<'a>(nextest: bool, tests: &[&'a str]) -> (&'static [&'static str], Vec<&'a str>) {
    // Without nextest named one by one: --all-targets would run the benches, and no choice would run the doctests twice.
    let targets: &[&str] = if nextest { &[] } else { &["--lib", "--bins", "--tests", "--examples"] };
    let targets = if tests.is_empty() { targets } else { tests };
    let before: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    (before, targets.iter().copied().chain(["--no-fail-fast"]).collect())
}

fn check_layers(workspace: &Workspace) -> Outcome {
    let breaches = layers::check(&workspace.members);
    if breaches.is_empty() { Ok(format!("{} members", workspace.members.len())) } else { Err(breaches) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Member, Target};

    fn workspace() -> Workspace {
        let mut store = Member::new("infra-state-store");
        for backend in ["sqlite", "redis", "postgres"] {
            store.features.insert(backend.into(), vec![]);
        }
        let target = |name: &str| Target {
            name: name.into(),
            is_test: true,
            source: "/w/t.rs".into(),
            required_features: vec!["redis".into(), "postgres".into()],
        };
        store.targets = vec![target("both")];
        Workspace { root: "/w".into(), rust_version: "1.94".into(), members: vec![Member::new("infra-factory"), store] }
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
        let features = "infra-state-store/sqlite,infra-state-store/redis,infra-state-store/postgres";
        assert!(doc.ends_with(&format!("--features={features}")), "{doc}");
    }

    #[test]
    fn a_check_is_repeated_by_name() {
        assert_eq!(rerun("hygiene", true), "cargo xtask test --only hygiene");
    }

    #[test]
    fn tests_run_under_nextest_where_it_is_installed() {
        assert!(rerun("test-none", true).starts_with("cargo nextest run --workspace"));
        assert!(rerun("test-sqlite", true).starts_with("cargo nextest run --package=infra-state-store"));
        assert!(rerun("test-sqlite", false).starts_with("cargo test --package=infra-state-store"));
        assert!(!rerun("test-none", false).contains("sqlite"));
    }

    #[test]
    fn set_all_runs_what_composes_and_then_what_needs_two_backends() {
        let features = "infra-state-store/sqlite,infra-state-store/redis,infra-state-store/postgres";
        let factory = "cargo nextest run --package=infra-factory --no-default-features --no-fail-fast";
        let store = format!("--package=infra-state-store --no-default-features --features={features} --test=both");
        assert_eq!(rerun("test-all", true), format!("{factory} && cargo nextest run {store} --no-fail-fast"));
        assert!(rerun("test-all", false).ends_with(&format!("&& cargo test {store} --no-fail-fast")));
    }

    #[test]
    fn servers_are_looked_for_only_where_they_are_needed() {
        let chosen = |name: &str| {
            let steps = choose(&workspace(), &[name.to_owned()]);
            steps.iter().map(|step| step.name).collect::<Vec<_>>()
        };
        for name in ["test-redis", "test-postgres", "test-all", "doctest-all"] {
            assert_eq!(chosen(name), [SERVERS, name]);
        }
        for name in ["test-none", "test-sqlite", "clippy-redis", "rustdoc", SERVERS] {
            assert_eq!(chosen(name), [name]);
        }
        assert_eq!(choose(&workspace(), &[]).len(), NAMES.len());
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
