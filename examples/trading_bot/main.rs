//! A trading bot on real market data, through every part of the stack. `--help` says what can be chosen.

mod args;
mod checkpoint;
mod data;
mod exchange;
mod handlers;
mod instruments;
mod progress;
mod replay;
mod report;
mod strategy;
mod venue_client;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let outcome = match &args.command {
        Some(args::Hidden::Exchange(server)) => exchange::server::run(server),
        None => trade(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("trading_bot: {message}");
            ExitCode::FAILURE
        }
    }
}

/// One thread runs the bot: a replay handles one event after the other, and handing over between threads would only make it
/// wait. SQLite has threads of its own.
fn trade(args: &args::Args) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(replay::run(args))
}
