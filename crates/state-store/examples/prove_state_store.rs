//! Kills server and clients with `kill -9` while they write: each batch is whole or absent, and `Ambiguous` is exact.
//!
//! Takes about 8 minutes.
//!
//! For each backend, 32 writers in two processes write batches of ten operations each, until 100,000 have an outcome. Meanwhile the
//! server and the clients are killed, and the wire between them loses replies, breaks in the middle of requests and answers, refuses,
//! delays and falls silent. A tap beside the clients hears what left them and what reached them. In the end every acknowledged batch
//! must be there wholly and once, every other one wholly or not at all; what was refused must not be there; and `Ambiguous` may be
//! said only of a request that left and whose whole reply did not come back. SQLite takes 20 s of that time, Redis 90 s.

#[path = "prove_state_store/mod.rs"]
mod proof;

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use infra_testkit::KillableChild;

use self::proof::{Backend, Settings, client, prove, table};

/// How this program is told to be a client.
const CLIENT: &str = "--as-client";
const HELP: &str = "\
usage: prove_state_store [--backend sqlite|redis|postgres|all] [--batches N] [--server-kills N] [--client-kills N] [--cuts N] [--seed N]

  --backend       on what; all by default
  --batches       how many must have an outcome, on each backend; 100000 by default
  --server-kills  kill -9 of the server; 20 by default (a file has no server)
  --client-kills  kill -9 of a client process; 40 by default
  --cuts          faults on the wire between them; 200 by default (a file has no wire)
  --seed          decides about moments and places; 1 by default

Exit code 0: every promise held. 1: one was broken. 2: a mistake in the arguments. 130: it was interrupted.";

struct Arguments {
    backends: Vec<Backend>,
    batches: u32,
    server_kills: u32,
    client_kills: u32,
    cuts: u32,
    seed: u64,
}

impl Arguments {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let every = Backend::EVERY.to_vec();
        let mut parsed =
            Self { backends: every, batches: 100_000, server_kills: 20, client_kills: 40, cuts: 200, seed: 1 };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            let number = || value.parse::<u32>().map_err(|_| format!("{name} takes a whole number, not {value}"));
            match name.as_str() {
                "--backend" if value == "all" => {}
                "--backend" => {
                    let unknown = || format!("there is no backend {value}: sqlite, redis, postgres or all");
                    parsed.backends = vec![Backend::parse(value).ok_or_else(unknown)?];
                }
                // More would fall off the ends of the lists.
                "--batches" => parsed.batches = number()?.clamp(100, 200_000),
                "--server-kills" => parsed.server_kills = number()?,
                "--client-kills" => parsed.client_kills = number()?,
                "--cuts" => parsed.cuts = number()?,
                "--seed" => parsed.seed = u64::from(number()?),
                _ => return Err(format!("there is no argument {name}")),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, job] = &arguments[..]
        && first == CLIENT
    {
        client(job);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(&arguments) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            eprintln!("{mistake}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let stop = Arc::<AtomicBool>::default();
    stop_on_ctrl_c(stop.clone());
    let mut reports = Vec::new();
    for backend in &arguments.backends {
        let report = prove(Settings {
            backend: *backend,
            batches: arguments.batches,
            server_kills: arguments.server_kills,
            client_kills: arguments.client_kills,
            cuts: arguments.cuts,
            seed: arguments.seed,
            forgets: false,
            tells_progress: true,
            stop: stop.clone(),
            spawn: Arc::new(|job| {
                let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
                // Not in the group that Ctrl-C reaches: this process ends them, in order.
                command.args([CLIENT, job]).process_group(0);
                KillableChild::spawn(command)
            }),
        });
        let Some(report) = report else {
            eprintln!("interrupted; the servers have ended");
            return ExitCode::from(130);
        };
        reports.push(report);
    }
    print!("{}", table(&reports));
    if reports.iter().all(proof::Report::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first one ends everything in order.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.store(true, Ordering::SeqCst);
        }
    });
}
