#![doc = include_str!("../README.md")]

mod args;
mod ledger;
mod lever;
mod limits;
mod show;

use std::process::ExitCode;

use clap::Parser;
use infra_factory::emergency::Stop;

use crate::args::{Cli, Command};

/// Why nothing, or not all, was done; printed as one line.
type Failure = Box<dyn std::error::Error>;

/// `status --check` found a stop in force.
const STOPPED: u8 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(code) => code,
        Err(e) => {
            eprintln!("infra: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let console = ledger::open(&cli.ledger).await?;
    let show = show::Show { json: cli.ledger.json };
    let done = match &cli.command {
        Command::Status { check, history } => lever::status(&console, show, *check, *history).await,
        Command::Alert(to) => lever::stop(&console, show, Stop::alert(to.by.as_str(), &to.reason), to).await,
        Command::Halt(to) => lever::stop(&console, show, Stop::halt(to.by.as_str(), &to.reason), to).await,
        Command::Shutdown(to) => lever::stop(&console, show, Stop::shutdown(to.by.as_str(), &to.reason), to).await,
        Command::Rearm(rearm) => lever::rearm(&console, show, rearm).await,
        Command::Confirm(confirm) => lever::confirm(&console, show, confirm).await,
        Command::Watch => lever::watch(&console, show).await,
        Command::Limits(what) => limits::limits(&console, show, what).await,
        Command::EnableStrategy(what) => limits::enable(&console, show, what).await,
        Command::Override(what) => limits::override_once(&console, show, what).await,
        Command::Orphans => limits::orphans(&console, show).await,
    };
    // What was done is done, whatever closing says.
    if let Err(e) = console.close().await {
        eprintln!("infra: closing: {e}");
    }
    done
}
