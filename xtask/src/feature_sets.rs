//! The feature sets that are checked, and the proof that each one is what its name says.
//!
//! Cargo unifies features over everything that it builds together: one dependency that turns SQLite on turns it on for
//! all, and the set `none` would silently test with a driver. So the set is read back from `cargo tree`.

use crate::layers::{BACKEND_FEATURES, DRIVERS};
use crate::process::CommandLine;
use crate::workspace::Workspace;

/// A feature set of the whole workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSet {
    /// Memory alone.
    None,
    /// SQLite on, in every crate that has it.
    Sqlite,
}

/// These are programs over a durable store: without SQLite there is nothing of them to build.
const NEEDS_SQLITE: &[&str] = &["infra-examples", "infra-benches"];

impl FeatureSet {
    /// The arguments that choose it in any cargo command.
    pub fn arguments(self, workspace: &Workspace) -> Vec<String> {
        let mut arguments = vec!["--workspace".to_owned(), "--no-default-features".to_owned()];
        match self {
            Self::None => {
                let excluded = NEEDS_SQLITE.iter().filter(|name| workspace.members.iter().any(|m| m.name == **name));
                arguments.extend(excluded.map(|name| format!("--exclude={name}")));
            }
            Self::Sqlite => {
                let on: Vec<String> = workspace.with_feature("sqlite").iter().map(|n| format!("{n}/sqlite")).collect();
                if !on.is_empty() {
                    arguments.push(format!("--features={}", on.join(",")));
                }
            }
        }
        arguments
    }

    /// The command that says which features are on. Its output is what [`verify_none`] and [`verify_sqlite`] read.
    pub fn tree(self, workspace: &Workspace) -> CommandLine {
        let fixed = ["tree", "--edges=normal,build,dev", "--prefix=none", "--format={p}\t{f}"];
        CommandLine::cargo(fixed.map(str::to_owned).into_iter().chain(self.arguments(workspace)))
    }
}

/// Reads both sets back.
///
/// # Errors
/// One sentence for each package that is on where it may not be, or off where it must be on.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let tree = |set: FeatureSet| set.tree(workspace).output(&workspace.root).map_err(|error| vec![error]);
    let having = workspace.with_feature("sqlite");
    let mut problems = verify_none(&tree(FeatureSet::None)?);
    problems.extend(verify_sqlite(&tree(FeatureSet::Sqlite)?, &having));
    if problems.is_empty() { Ok(format!("sqlite: {}", having.join(", "))) } else { Err(problems) }
}

/// What is wrong with the set `none`, given what `cargo tree` says.
pub fn verify_none(tree: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, features) in packages(tree) {
        if DRIVERS.contains(&name) {
            problems.push(format!("set none builds the driver {name}; `cargo tree -i {name}` says for whom"));
        }
        let backends = features.split(',').filter(|feature| BACKEND_FEATURES.contains(feature));
        for feature in backends.filter(|_| name.starts_with("infra-")) {
            let who = "a dependency or dev-dependency of some member turns it on";
            problems.push(format!("set none has {name}/{feature} on: {who}"));
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// What is wrong with the set `sqlite`: `having` are the members that have the feature.
pub fn verify_sqlite(tree: &str, having: &[&str]) -> Vec<String> {
    if having.is_empty() {
        return vec!["no member has the feature sqlite, so the set sqlite tests nothing".to_owned()];
    }
    let on = |wanted: &str| packages(tree).any(|(name, on)| name == wanted && on.split(',').any(|f| f == "sqlite"));
    let off = having.iter().filter(|name| !on(name));
    let mut problems: Vec<String> = off.map(|name| format!("set sqlite leaves {name}/sqlite off")).collect();
    if !packages(tree).any(|(name, _)| DRIVERS.contains(&name)) {
        problems.push("set sqlite builds no driver".to_owned());
    }
    problems
}

/// Name and features of each line. A line that was shown before ends in ` (*)`.
fn packages(tree: &str) -> impl Iterator<Item = (&str, &str)> {
    tree.lines().filter_map(|line| {
        let (package, features) = line.split_once('\t')?;
        Some((package.split(' ').next()?, features.trim_end_matches(" (*)")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Member;

    const CLEAN: &str = "infra-state-store v0.1.0 (/w/crates/state-store)\tdefault\ntokio v1.51.0\trt,time\n";

    #[test]
    fn a_clean_set_none_passes() {
        assert_eq!(verify_none(CLEAN), Vec::<String>::new());
    }

    #[test]
    fn set_none_refuses_a_backend_feature() {
        for line in ["infra-state-store v0.1.0 (/w)\tdefault,sqlite", "infra-event-bus v0.1.0 (/w)\tredis (*)"] {
            let problems = verify_none(&format!("{CLEAN}{line}\n"));
            assert_eq!(problems.len(), 1, "{line}");
            assert!(problems[0].contains("set none has infra-"), "{problems:?}");
        }
    }

    #[test]
    fn set_none_refuses_a_driver_even_without_a_feature() {
        let problems = verify_none(&format!("{CLEAN}rusqlite v0.39.0\tbundled\nrusqlite v0.39.0\tbundled (*)\n"));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("driver rusqlite"), "{problems:?}");
    }

    #[test]
    fn a_foreign_feature_of_the_same_name_is_no_backend() {
        assert_eq!(verify_none("some-cache v1.0.0\tredis\n"), Vec::<String>::new());
    }

    #[test]
    fn set_sqlite_must_turn_it_on_everywhere() {
        let on = "infra-state-store v0.1.0 (/w)\tdefault,sqlite (*)\nrusqlite v0.39.0\tbundled\n";
        assert_eq!(verify_sqlite(on, &["infra-state-store"]), Vec::<String>::new());
        assert!(verify_sqlite(on, &["infra-state-store", "infra-event-bus"])[0].contains("leaves infra-event-bus"));
        assert!(verify_sqlite(CLEAN, &[])[0].contains("no member"));
        let without_driver = verify_sqlite("infra-state-store v0.1.0 (/w)\tsqlite\n", &["infra-state-store"]);
        assert_eq!(without_driver, ["set sqlite builds no driver"]);
    }

    #[test]
    fn arguments_name_every_member_that_has_the_feature() {
        let mut store = Member::new("infra-state-store");
        store.features.insert("sqlite".into(), vec![]);
        let members = vec![store, Member::new("infra-examples"), Member::new("infra-types")];
        let workspace = Workspace { root: "/w".into(), rust_version: "1.94".into(), members };
        let sqlite = FeatureSet::Sqlite.arguments(&workspace);
        assert_eq!(sqlite, ["--workspace", "--no-default-features", "--features=infra-state-store/sqlite"]);
        let none = FeatureSet::None.arguments(&workspace);
        assert_eq!(none, ["--workspace", "--no-default-features", "--exclude=infra-examples"]);
    }
}
