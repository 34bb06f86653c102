//! The feature sets that are checked, and the proof that each one is what its name says.
//!
//! Each test runs where it can first fail, and not again where it would be the same program:
//!
//! | set | packages | because |
//! |---|---|---|
//! | none | all but the examples and the benches | everything that needs no driver; most of the tests |
//! | sqlite | those with the feature, and the examples, which need it | the rest is the same program as in none |
//! | redis, postgres | those with the feature | one driver alone must compile and work: that is what a user asks for |
//! | all | in full those that compose (`infra-factory`) or compare (`infra-benches`); of the others only test files that ask for two backends in `required-features` | what differs when backends meet |
//!
//! Doctests run in none and all: an example behind one backend is the same with the others on. Documentation is built once, with
//! everything on. Lints run in every set: an import that only one feature uses is a warning without it.
//!
//! So a test that needs two backends at once is a test file of its own with `required-features` (or a test of `infra-factory`):
//! behind `#[cfg(all(..))]` in another test file it would run in no set, so that is refused.
//!
//! Cargo unifies features over everything that it builds together: one dependency that turns SQLite on turns it on for
//! all, and the set `none` would silently test with a driver. So each set is read back from `cargo tree`.

use crate::files::{self, SourceFile};
use crate::layers::{BACKEND_FEATURES, DRIVERS};
use crate::process::CommandLine;
use crate::workspace::Workspace;

/// A feature set of the whole workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureSet {
    /// Memory alone.
    None,
    /// SQLite alone, in every crate that has it.
    Sqlite,
    /// Redis alone.
    Redis,
    /// PostgreSQL alone.
    Postgres,
    /// SQLite, Redis and PostgreSQL together.
    All,
}

/// Programs over a durable store: there is nothing of them to build without it.
const NEEDS_SQLITE: &[&str] = &["infra-examples"];
/// Its peers are drivers, so it is at home only where all are on.
const NEEDS_ALL: &[&str] = &["infra-benches"];
/// What it does depends on which backends are there, so its tests run again with all of them.
const COMPOSES: &[&str] = &["infra-factory"];

impl FeatureSet {
    /// Every set, in the order in which they are checked.
    pub const EVERY: [Self; 5] = [Self::None, Self::Sqlite, Self::Redis, Self::Postgres, Self::All];

    /// The word that ends the names of its steps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::All => "all",
        }
    }

    /// The features that it turns on.
    pub fn backends(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Sqlite => &["sqlite"],
            Self::Redis => &["redis"],
            Self::Postgres => &["postgres"],
            Self::All => BACKEND_FEATURES,
        }
    }

    /// Whether its tests start a server.
    pub fn needs_servers(self) -> bool {
        self.backends().iter().any(|backend| *backend != "sqlite")
    }

    /// The driver packages that it may build: the first of each pair must be there, the others may.
    fn drivers(self) -> &'static [(&'static str, &'static [&'static str])] {
        const SQLITE: (&str, &[&str]) = ("rusqlite", &["libsqlite3-sys"]);
        const REDIS: (&str, &[&str]) = ("redis", &[]);
        const POSTGRES: (&str, &[&str]) = ("sqlx-postgres", &["sqlx", "sqlx-core"]);
        match self {
            Self::None => &[],
            Self::Sqlite => &[SQLITE],
            Self::Redis => &[REDIS],
            Self::Postgres => &[POSTGRES],
            Self::All => &[SQLITE, REDIS, POSTGRES],
        }
    }

    /// The packages that are built for this set; none of them means the whole workspace.
    pub fn packages(self, workspace: &Workspace) -> Vec<&str> {
        let named = |names: &[&str], member: &str| names.contains(&member);
        let names = workspace.members.iter().filter(|member| {
            let has_one = self.backends().iter().any(|backend| member.features.contains_key(*backend));
            match self {
                Self::None => false,
                Self::Sqlite => has_one || named(NEEDS_SQLITE, &member.name),
                Self::Redis | Self::Postgres => has_one,
                Self::All => has_one || named(NEEDS_SQLITE, &member.name) || named(NEEDS_ALL, &member.name),
            }
        });
        names.map(|member| member.name.as_str()).collect()
    }

    /// The arguments that choose it in any cargo command.
    pub fn arguments(self, workspace: &Workspace) -> Vec<String> {
        self.arguments_for(workspace, &self.packages(workspace))
    }

    /// The same for some of its packages; for the whole workspace if none is named.
    pub fn arguments_for(self, workspace: &Workspace, packages: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = packages.iter().map(|name| format!("--package={name}")).collect();
        if packages.is_empty() {
            arguments.push("--workspace".to_owned());
        }
        arguments.push("--no-default-features".to_owned());
        if self == Self::None {
            let excluded = NEEDS_SQLITE.iter().chain(NEEDS_ALL).filter(|name| workspace.member(name).is_some());
            arguments.extend(excluded.map(|name| format!("--exclude={name}")));
        }
        let chosen = |name: &str| packages.is_empty() || packages.contains(&name);
        let on: Vec<String> =
            self.on(workspace).filter(|(name, _)| chosen(name)).map(|(n, b)| format!("{n}/{b}")).collect();
        if !on.is_empty() {
            arguments.push(format!("--features={}", on.join(",")));
        }
        arguments
    }

    /// What the step `test-all` runs in full, and the test files that it runs besides, by package.
    pub fn of_all(workspace: &Workspace) -> (Vec<&str>, Vec<(&str, Vec<&str>)>) {
        let whole: Vec<&str> =
            COMPOSES.iter().chain(NEEDS_ALL).copied().filter(|n| workspace.member(n).is_some()).collect();
        let gated = workspace.members.iter().filter(|member| !whole.contains(&member.name.as_str())).map(|member| {
            let tests = member.targets.iter().filter(|target| {
                let backends = target.required_features.iter().filter(|f| BACKEND_FEATURES.contains(&f.as_str()));
                target.is_test && backends.count() > 1
            });
            (member.name.as_str(), tests.map(|target| target.name.as_str()).collect::<Vec<_>>())
        });
        let gated = gated.filter(|(_, tests)| !tests.is_empty()).collect();
        (whole, gated)
    }

    /// The command that says which features are on. Its output is what [`verify`] reads.
    pub fn tree(self, workspace: &Workspace) -> CommandLine {
        let fixed = ["tree", "--edges=normal,build,dev", "--prefix=none", "--format={p}\t{f}"];
        CommandLine::cargo(fixed.map(str::to_owned).into_iter().chain(self.arguments(workspace)))
    }

    /// Member and feature for everything that it turns on.
    fn on(self, workspace: &Workspace) -> impl Iterator<Item = (&str, &'static str)> {
        let backends = self.backends();
        workspace.members.iter().flat_map(move |member| {
            let having = backends.iter().filter(|backend| member.features.contains_key(**backend));
            having.map(|backend| (member.name.as_str(), *backend))
        })
    }
}

/// Reads every set back.
///
/// # Errors
/// One sentence for each package that is on where it may not be, or off where it must be on.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let (mut problems, mut found) = (Vec::new(), Vec::new());
    for set in FeatureSet::EVERY {
        let tree = set.tree(workspace).output(&workspace.root).map_err(|error| vec![error])?;
        problems.extend(verify(set, &tree, workspace));
        found.push(format!("{} {}", set.name(), set.on(workspace).count()));
    }
    let (whole, _) = FeatureSet::of_all(workspace);
    for member in workspace.members.iter().filter(|member| !whole.contains(&member.name.as_str())) {
        let files = files::find(&workspace.root, &member.dir, ".rs").map_err(|error| vec![error])?;
        problems.extend(files.iter().flat_map(run_nowhere));
    }
    if problems.is_empty() { Ok(format!("features on: {}", found.join(", "))) } else { Err(problems) }
}

/// Tests of one file that would run in no set.
pub fn run_nowhere(file: &SourceFile) -> Vec<String> {
    if !file.path.components().any(|part| part.as_os_str() == "tests") {
        return Vec::new();
    }
    let two = |line: &str| {
        let named = BACKEND_FEATURES.iter().filter(|feature| line.contains(&format!("feature = \"{feature}\"")));
        line.contains("cfg(all(") && named.count() > 1
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| two(line));
    let say = |index| {
        format!("{}:{index}: no set runs this: name both in the target's required-features", file.path.display())
    };
    lines.map(|(index, _)| say(index + 1)).collect()
}

/// What is wrong with a set, given what `cargo tree` says of it.
pub fn verify(set: FeatureSet, tree: &str, workspace: &Workspace) -> Vec<String> {
    let word = set.name();
    let mut problems = Vec::new();
    let allowed = |name: &str| set.drivers().iter().any(|(first, more)| *first == name || more.contains(&name));
    for (name, features) in packages(tree) {
        // Peers to compare with are drivers of nobody.
        if set != FeatureSet::All && DRIVERS.contains(&name) && !allowed(name) {
            problems.push(format!("set {word} builds the driver {name}; `cargo tree -i {name}` says for whom"));
        }
        let strange = |feature: &&str| BACKEND_FEATURES.contains(feature) && !set.backends().contains(feature);
        for feature in features.split(',').filter(strange).filter(|_| name.starts_with("infra-")) {
            let who = "a dependency or dev-dependency of some member turns it on";
            problems.push(format!("set {word} has {name}/{feature} on: {who}"));
        }
    }
    for backend in set.backends() {
        if workspace.with_feature(backend).is_empty() {
            problems.push(format!("no member has the feature {backend}, so the set {word} tests nothing of it"));
        }
    }
    for (member, backend) in set.on(workspace) {
        if !packages(tree).any(|(name, on)| name == member && on.split(',').any(|feature| feature == backend)) {
            problems.push(format!("set {word} leaves {member}/{backend} off"));
        }
    }
    for (driver, _) in set.drivers() {
        if !packages(tree).any(|(name, _)| name == *driver) {
            problems.push(format!("set {word} does not build its driver {driver}"));
        }
    }
    problems.sort();
    problems.dedup();
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
mod tests;
