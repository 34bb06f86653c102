//! The long counts: programs that try a promise so often that no test has the time.
//!
//! Such a program is an example `prove_NAME` of the package whose promise it tries (`crates/*/examples/prove_NAME.rs`; the backends
//! that it needs are its `required-features`). It takes `--batches N --seed S` and the like, prints its figures as a small table,
//! and ends with another exit code than 0 if a promise was broken. The first line of its documentation says what it proves; a line
//! that starts with `Takes about` says how long, with the numbers that it has without arguments. `cargo xtask test` compiles it as it
//! compiles every example.

use std::fs;

use crate::feature_sets::FeatureSet;
use crate::process::CommandLine;
use crate::report::say;
use crate::servers;
use crate::workspace::{Target, Workspace};

/// What the names of these programs start with.
const PREFIX: &str = "prove_";
/// How the line about the time starts.
const TAKES: &str = "Takes about";

/// One such program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The name of the example, with its prefix.
    pub name: String,
    /// The first line of its documentation.
    pub about: String,
    /// How long it takes.
    pub takes: String,
    /// Whether it starts a server.
    pub needs_servers: bool,
    package: String,
    features: Vec<String>,
}

impl Proof {
    /// The command that builds it.
    pub fn build(&self) -> CommandLine {
        self.cargo("build", &[])
    }

    /// The command that runs it.
    pub fn run(&self, arguments: &[String]) -> CommandLine {
        self.cargo("run", arguments)
    }

    fn cargo(&self, verb: &str, arguments: &[String]) -> CommandLine {
        let mut words = vec![verb.to_owned(), "--release".to_owned(), format!("--package={}", self.package)];
        words.push(format!("--example={}", self.name));
        words.push("--no-default-features".to_owned());
        if !self.features.is_empty() {
            words.push(format!("--features={}", self.features.join(",")));
        }
        if !arguments.is_empty() {
            words.push("--".to_owned());
            words.extend(arguments.iter().cloned());
        }
        CommandLine::cargo(words)
    }
}

/// All of them, by package and name.
///
/// # Errors
/// One sentence for each one that does not say what it proves or how long it takes.
pub fn find(workspace: &Workspace) -> Result<Vec<Proof>, Vec<String>> {
    let (mut proofs, mut problems) = (Vec::new(), Vec::new());
    for member in &workspace.members {
        for target in member.targets.iter().filter(|target| !target.is_test && target.name.starts_with(PREFIX)) {
            let text = fs::read_to_string(&target.source).unwrap_or_default();
            match read(&member.name, target, &text) {
                Ok(proof) => proofs.push(proof),
                Err(problem) => problems.push(problem),
            }
        }
    }
    if problems.is_empty() { Ok(proofs) } else { Err(problems) }
}

/// Reads what the program says of itself.
fn read(package: &str, target: &Target, text: &str) -> Result<Proof, String> {
    let mut documentation = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let name = target.name.clone();
    let about =
        documentation.next().ok_or_else(|| format!("{name} does not say what it proves: start with `//! ..`"))?;
    let takes = documentation.find_map(|line| line.strip_prefix(TAKES)).map(|time| time.trim().trim_end_matches('.'));
    let takes = takes.ok_or_else(|| format!("{name} does not say how long it takes: add a line `//! {TAKES} ..`"))?;
    let server_features = FeatureSet::EVERY.into_iter().filter(|set| set.needs_servers()).map(FeatureSet::name);
    let servers: Vec<&str> = server_features.collect();
    Ok(Proof {
        name,
        about: about.to_owned(),
        takes: takes.to_owned(),
        needs_servers: target.required_features.iter().any(|feature| servers.contains(&feature.as_str())),
        package: package.to_owned(),
        features: target.required_features.clone(),
    })
}

/// Builds and runs those that are named, all if none is; each gets `arguments`.
///
/// # Errors
/// What cannot be run, or which of them broke; the others have run nevertheless.
pub fn run(workspace: &Workspace, only: &[String], arguments: &[String]) -> Result<String, String> {
    let mut proofs = find(workspace).map_err(|problems| problems.join("\n"))?;
    if proofs.is_empty() && only.is_empty() {
        return Ok(format!("nothing to run: no package has an example {PREFIX}NAME yet"));
    }
    for name in only {
        let full = full_name(name);
        if !proofs.iter().any(|proof| proof.name == full) {
            let known: Vec<&str> = proofs.iter().map(|proof| proof.name.as_str()).collect();
            return Err(format!(
                "there is no {full}; there is {}",
                if known.is_empty() { "none".into() } else { known.join(", ") }
            ));
        }
    }
    proofs.retain(|proof| only.is_empty() || only.iter().any(|name| proof.name == full_name(name)));
    for proof in &proofs {
        say(format_args!("{:<28} about {:<14} {}", proof.name, proof.takes, proof.about));
    }
    if proofs.iter().any(|proof| proof.needs_servers) {
        servers::check(workspace).map_err(|problems| problems.join("\n"))?;
    }
    for proof in &proofs {
        proof.build().run(&workspace.root).map_err(|error| format!("{} does not build: {error}", proof.name))?;
    }
    let mut broken = Vec::new();
    for (index, proof) in proofs.iter().enumerate() {
        let command = proof.run(arguments);
        say(format_args!(
            "\n== [{}/{}] {} (about {})\n   {}",
            index + 1,
            proofs.len(),
            proof.name,
            proof.takes,
            command.shell()
        ));
        if let Err(error) = command.run(&workspace.root) {
            broken.push(format!("{}: {error}; again with: {}", proof.name, command.shell()));
        }
    }
    if broken.is_empty() { Ok(format!("\n{} held", proofs.len())) } else { Err(broken.join("\n")) }
}

fn full_name(name: &str) -> String {
    if name.starts_with(PREFIX) { name.to_owned() } else { format!("{PREFIX}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Member;

    fn target(features: &[&str]) -> Target {
        Target {
            name: "prove_batches".into(),
            is_test: false,
            source: "/nowhere/prove_batches.rs".into(),
            required_features: features.iter().map(|&feature| feature.to_owned()).collect(),
        }
    }

    #[test]
    fn a_program_says_what_it_proves_and_how_long_it_takes() {
        let text = "//! Kills the client 500 times.\n//!\n//! Takes about 6 minutes.\nfn main() {}\n";
        let proof = read("infra-state-store", &target(&["redis"]), text).expect("complete");
        assert_eq!((proof.about.as_str(), proof.takes.as_str()), ("Kills the client 500 times.", "6 minutes"));
        assert!(proof.needs_servers);
        let arguments = ["--batches".to_owned(), "9".to_owned()];
        let expected = "cargo run --release --package=infra-state-store --example=prove_batches --no-default-features \
                        --features=redis -- --batches 9";
        assert_eq!(proof.run(&arguments).shell(), expected);
        assert!(!read("p", &target(&["sqlite"]), text).expect("complete").needs_servers);
    }

    #[test]
    fn one_that_says_too_little_is_refused() {
        assert!(read("p", &target(&[]), "fn main() {}").expect_err("no words").contains("what it proves"));
        assert!(read("p", &target(&[]), "//! Kills.\nfn main() {}").expect_err("no time").contains("how long"));
    }

    #[test]
    fn only_examples_of_that_name_are_found() {
        let mut member = Member::new("infra-state-store");
        member.targets = vec![Target { is_test: true, ..target(&[]) }, Target { name: "tour".into(), ..target(&[]) }];
        let workspace = Workspace { root: "/w".into(), rust_version: "1.94".into(), members: vec![member] };
        assert_eq!(find(&workspace), Ok(vec![]));
        assert!(run(&workspace, &[], &[]).expect("nothing").contains("no package"));
        assert!(run(&workspace, &["batches".into()], &[]).expect_err("unknown").contains("there is no prove_batches"));
    }
}
