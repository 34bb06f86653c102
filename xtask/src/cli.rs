//! The command line, read by hand: seven commands and one option need no parser library.

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
  bench                  runs the benches and writes docs/benchmarks.md; a few minutes
  tidy                   formats the workspace; the only command that writes source files

options:
  --only STEP            run this step alone; may be repeated
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
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") || command == "help" {
        return Ok(Invocation::Help);
    }
    match command.as_str() {
        "test" | "ci" => Ok(Invocation::Test { only: parse_only(rest)? }),
        "layers" | "sizes" => none(command, rest).map(|()| Invocation::Test { only: vec![command.clone()] }),
        "bench" => none(command, rest).map(|()| Invocation::Bench),
        "list" => none(command, rest).map(|()| Invocation::List),
        "tidy" => none(command, rest).map(|()| Invocation::Tidy),
        unknown => {
            Err(format!("unknown command `{unknown}`; the commands are test, ci, list, layers, sizes, bench and tidy"))
        }
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
            Some("") => rest.next().ok_or("`--only` needs the name of a step; `cargo xtask list` names them")?,
            Some(joined) if joined.starts_with('=') => &joined[1..],
            _ => return Err(format!("unknown argument `{argument}`; did you mean `--only {argument}`?")),
        };
        if !steps::NAMES.contains(&name) {
            return Err(format!("unknown step `{name}`; the steps are {}", steps::NAMES.join(", ")));
        }
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
    fn mistakes_name_the_argument_and_the_choices() {
        for (line, words) in [
            ("", ["command", "missing"]),
            ("tests", ["`tests`", "tidy"]),
            ("test fmt", ["`fmt`", "--only fmt"]),
            ("test --only", ["--only", "xtask list"]),
            ("test --only speed", ["`speed`", "clippy-none"]),
            ("test --onlyfmt", ["--onlyfmt", "unknown"]),
            ("tidy now", ["`tidy`", "`now`"]),
            ("bench fast", ["`bench`", "`fast`"]),
        ] {
            let mistake = parse_line(line).expect_err(line);
            assert!(words.iter().all(|word| mistake.contains(word)), "{line}: {mistake}");
        }
    }
}
