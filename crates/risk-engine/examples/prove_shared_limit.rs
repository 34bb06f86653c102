//! Many processes share one limit, and some are killed: never more is approved than fits, and nothing that may live is forgotten.
//!
//! Takes about 6 minutes.
//!
//! On SQLite, Redis and PostgreSQL, all set to keep what they answered through a power cut. First ten engines try ten orders of 4,000 on
//! a limit of 10,000 at once. Then a process is stopped for longer than its lease, its orders become orphans, and it goes on. Then 16
//! processes try 10,000 orders each against one limit, while orders trade, are cancelled, and messages get lost; some of the processes
//! are killed with -9 and started again. An observer reads the counter all the time, and each approval says the value that it
//! made. When nothing is released any more, the last attempts must fill the limit to the last order that fits, orders of the dead
//! included. In the end the ledger is reconciled with what the venue (a few files) says, and everything must be zero.

#[path = "prove_shared_limit/mod.rs"]
mod proof;

use std::{
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use infra_testkit::KillableChild;

use self::proof::{Backend, Report, Settings, child, prove, table};

/// How this program is told to play a part.
const PART: &str = "--as";
const HELP: &str = "\
usage: prove_shared_limit [--backend sqlite|redis|postgres|all] [--bots N] [--attempts N] [--kills N] [--seed N]

  --backend   on what; all by default
  --bots      how many processes; 16 by default
  --attempts  how many orders each of them tries; 10000 by default
  --kills     kill -9 of a process; 12 by default
  --seed      decides about all that is random; 1 by default

Exit code 0: every promise held. 1: one was broken. 2: a mistake in the arguments.";

struct Arguments {
    backends: Vec<Backend>,
    bots: u32,
    attempts: u32,
    kills: u32,
    seed: u64,
}

fn parse(arguments: &[String]) -> Option<Arguments> {
    let backends = Backend::EVERY.to_vec();
    let mut parsed = Arguments { backends, bots: 16, attempts: 10_000, kills: 12, seed: 1 };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--backend" if value == "all" => {}
            "--backend" => parsed.backends = vec![Backend::parse(value)?],
            "--bots" => parsed.bots = value.parse().ok().filter(|bots| (2..=64).contains(bots))?,
            "--attempts" => parsed.attempts = value.parse().ok().filter(|n| (100..=100_000).contains(n))?,
            "--kills" => parsed.kills = value.parse().ok()?,
            "--seed" => parsed.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(parsed)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, part] = &arguments[..]
        && first == PART
    {
        child(part);
        return ExitCode::SUCCESS;
    }
    let Some(Arguments { backends, bots, attempts, kills, seed }) = parse(&arguments) else {
        let asked = arguments.iter().any(|argument| argument == "--help");
        eprintln!("{HELP}");
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    let mut reports = Vec::new();
    for backend in backends {
        eprintln!("{}: {bots} processes, {attempts} attempts each", backend.name());
        reports.push(prove(&Settings {
            backend,
            bots,
            attempts,
            kills,
            limit: 300_000,
            ttl: Duration::from_secs(3),
            seed,
            spawn: Arc::new(|part| {
                let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
                command.args([PART, part]);
                KillableChild::spawn(command)
            }),
        }));
    }
    print!("{}", table(&reports));
    if reports.iter().all(Report::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
