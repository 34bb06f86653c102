//! `cargo xtask`: see `cargo xtask --help`.

use std::process::ExitCode;

use xtask::cli::{self, Invocation};
use xtask::report::{Report, say};
use xtask::workspace::Workspace;
use xtask::{bench, prove, steps};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let invocation = match cli::parse(&arguments) {
        Ok(invocation) => invocation,
        Err(mistake) => {
            eprintln!("error: {mistake}\n\n{}", cli::USAGE);
            return ExitCode::from(2);
        }
    };
    if let Invocation::Help = invocation {
        say(format_args!("{}", cli::USAGE));
        return ExitCode::SUCCESS;
    }
    let passed = Workspace::load().and_then(|workspace| run(invocation, &workspace));
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// True if everything that was asked for passed.
fn run(invocation: Invocation, workspace: &Workspace) -> Result<bool, String> {
    match invocation {
        Invocation::Help => Ok(true),
        Invocation::Bench => {
            say(format_args!("{}", bench::run(workspace)?));
            Ok(true)
        }
        Invocation::List => {
            for step in steps::all(workspace) {
                say(format_args!("{:<16} {}\n{:<16} {}", step.name, step.about, "", step.rerun()));
            }
            Ok(true)
        }
        Invocation::Prove { only, arguments } => {
            say(format_args!("{}", prove::run(workspace, &only, &arguments)?));
            Ok(true)
        }
        Invocation::Test { only } => Ok(test(workspace, &only)),
        Invocation::Tidy => steps::tidy().run(workspace).map(|_| true).map_err(|problems| problems.join("\n")),
    }
}

fn test(workspace: &Workspace, only: &[String]) -> bool {
    let mut report = Report::start();
    let chosen = steps::choose(workspace, only);
    let count = chosen.len();
    for (index, step) in chosen.iter().enumerate() {
        report.begin(index + 1, count, step);
        let outcome = step.run(workspace);
        // Without a compiler or the servers, later steps would fail with the same news in a worse wording.
        let stop = outcome.is_err() && [steps::PREFLIGHT, steps::SERVERS].contains(&step.name);
        report.end(step, outcome);
        if stop {
            break;
        }
    }
    report.finish()
}
