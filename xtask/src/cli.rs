//! The command line, read by hand: nine commands and one option need no parser library.

use crate::steps;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: cargo xtask COMMAND

commands:
  test [--only STEP]...  everything a change needs; at most 30 minutes on two cores
  ci                     the same as test
  list                   the steps of test, with the command that each one runs
  layers                 who may depend on whom (the same as test --only layers)
  sizes                  lines and file sizes per crate (the same as test --only sizes)
  servers                installs redis-server and PostgreSQL if they are missing (the same as test --only servers)
  prove [--only NAME]... [-- ARGUMENT...]
                         the long counts: every example prove_NAME, in release; the arguments go to each of them
  bench                  runs the benches and writes docs/benchmarks.md; a few minutes
  tidy                   formats the workspace; the only command that writes source files

options:
  --only STEP            run this step alone (and `servers`, if it needs them); may be repeated
  -h, --help             this text

exit code: 0 passed, 1 a step failed, 2 a mistake on the command line";

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the benches and write their page.
    Bench,
    /// Print [`USAGE`].
    Help,
    /// Print the steps.
    List,
    /// Run the long counts.
    Prove {
        /// Names of programs, not checked yet.
        only: Vec<String>,
        /// What each of them is given.
        arguments: Vec<String>,
    },
    /// Run the steps; all of them if `only` is empty.
    Test {
        /// Names of steps, each one known to exist.
        only: Vec<String>,
    },
    /// Format the workspace.
    Tidy,
}

/// Reads the arguments that follow `cargo xtask`.
///
/// # Errors
/// A sentence that names the argument that is not understood, and what would be.
pub fn parse(arguments: &[String]) -> Result<Invocation, String> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err("a command is missing".to_owned());
    };
    let mut ours = arguments.iter().take_while(|argument| *argument != "--");
    if ours.any(|argument| argument == "--help" || argument == "-h") || command == "help" {
        return Ok(Invocation::Help);
    }
    match command.as_str() {
        "test" | "ci" => {
            let only = parse_only(rest)?;
            match only.iter().find(|name| !steps::NAMES.contains(&name.as_str())) {
                None => Ok(Invocation::Test { only }),
                Some(name) => Err(format!("unknown step `{name}`; the steps are {}", steps::NAMES.join(", "))),
            }
        }
        "prove" => {
            let (ours, arguments) = match rest.iter().position(|argument| argument == "--") {
                Some(at) => (&rest[..at], rest[at + 1..].to_vec()),
                None => (rest, Vec::new()),
            };
            Ok(Invocation::Prove { only: parse_only(ours)?, arguments })
        }
        "layers" | "sizes" | "servers" => {
            none(command, rest).map(|()| Invocation::Test { only: vec![command.clone()] })
        }
        "bench" => none(command, rest).map(|()| Invocation::Bench),
        "list" => none(command, rest).map(|()| Invocation::List),
        "tidy" => none(command, rest).map(|()| Invocation::Tidy),
        unknown => Err(format!(
            "unknown command `{unknown}`; the commands are test, ci, list, layers, sizes, servers, prove, bench and tidy"
        )),
    }
}

fn none(command: &str, rest: &[String]) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => Err(format!("`{command}` takes no arguments, got `{extra}`")),
    }
}

fn parse_only(rest: &[String]) -> Result<Vec<String>, String> {
    let mut only = Vec::new();
    let mut rest = rest.iter();
    while let Some(argument) = rest.next() {
        let name = match argument.strip_prefix("--only") {
            Some("") => rest.next().ok_or("`--only` needs a name; `cargo xtask list` names the steps")?,
            Some(joined) if joined.starts_with('=') => &joined[1..],
            _ => return Err(format!("unknown argument `{argument}`; did you mean `--only {argument}`?")),
        };
        only.push(name.to_owned());
    }
    Ok(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_command_is_understood() {
        assert_eq!(parse_line("test"), Ok(Invocation::Test { only: vec![] }));
        assert_eq!(parse_line("ci"), parse_line("test"));
        assert_eq!(parse_line("layers"), Ok(Invocation::Test { only: vec!["layers".into()] }));
        assert_eq!(parse_line("sizes"), Ok(Invocation::Test { only: vec!["sizes".into()] }));
        assert_eq!(parse_line("servers"), Ok(Invocation::Test { only: vec!["servers".into()] }));
        assert_eq!(parse_line("prove"), Ok(Invocation::Prove { only: vec![], arguments: vec![] }));
        assert_eq!(parse_line("list"), Ok(Invocation::List));
        assert_eq!(parse_line("tidy"), Ok(Invocation::Tidy));
        assert_eq!(parse_line("bench"), Ok(Invocation::Bench));
        for line in ["--help", "-h", "help", "test --help"] {
            assert_eq!(parse_line(line), Ok(Invocation::Help), "{line}");
        }
    }

    #[test]
    fn only_may_be_joined_and_repeated() {
        let only = vec!["fmt".to_owned(), "sizes".to_owned()];
        assert_eq!(parse_line("test --only fmt --only=sizes"), Ok(Invocation::Test { only }));
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_proofs() {
        let arguments = ["--seed", "7", "--help"].map(String::from).to_vec();
        let expected = Invocation::Prove { only: vec!["batches".into()], arguments };
        assert_eq!(parse_line("prove --only batches -- --seed 7 --help"), Ok(expected));
    }

    #[test]
    fn mistakes_name_the_argument_and_the_choices() {
        for (line, words) in [
            ("", ["command", "missing"]),
            ("tests", ["`tests`", "tidy"]),
            ("test fmt", ["`fmt`", "--only fmt"]),
            ("test --only", ["--only", "xtask list"]),
            ("test --only speed", ["`speed`", "clippy-none"]),
            ("test --onlyfmt", ["--onlyfmt", "unknown"]),
            ("tidy now", ["`tidy`", "`now`"]),
            ("prove batches", ["`batches`", "--only batches"]),
            ("bench fast", ["`bench`", "`fast`"]),
        ] {
            let mistake = parse_line(line).expect_err(line);
            assert!(words.iter().all(|word| mistake.contains(word)), "{line}: {mistake}");
        }
    }
}
