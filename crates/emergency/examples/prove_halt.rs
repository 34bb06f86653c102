//! After an acknowledged halt and its lease no process places anything, and no restart is weaker: simulated and with real processes.
//!
//! Takes about 5 minutes.
//!
//! 1,000 simulated schedules: four controllers over one store on a clock of the simulation's own, with suspensions, partitions,
//! lost requests and replies, calls that hang, restarts, re-arms of one and of two persons. Then, on SQLite and on Redis, 30 schedules
//! with three bots in processes of their own, which say what they place, while they are killed (`kill -9`), stopped (SIGSTOP, SIGCONT)
//! and cut off from the server, and an operator or a bot halts, re-arms and halts again. A bot reads the clock before it asks the
//! switch, so what is judged is when an order was decided; how long it takes from there to the venue no switch can say.

#[path = "prove_halt/child.rs"]
mod child;
#[path = "prove_halt/real.rs"]
mod real;
#[path = "prove_halt/sim.rs"]
mod sim;

use std::process::{Command, ExitCode};

use infra_testkit::KillableChild;

use self::real::Backend;

/// How this program is told to be a bot.
const BOT: &str = "--as-bot";
const HELP: &str = "\
usage: prove_halt [--simulated N] [--real N] [--seed N]

  --simulated  schedules that are simulated; 1000 by default
  --real       schedules with real processes, on SQLite and on Redis each; 30 by default
  --seed       the first seed; 1 by default

Exit code 0: every promise held. 1: one was broken. 2: a mistake in the arguments.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, job] = &arguments[..]
        && first == BOT
    {
        child::run(job);
        return ExitCode::SUCCESS;
    }
    let (mut simulated, mut real, mut seed) = (1_000, 30, 1);
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|value| value.parse::<u64>().ok());
        match (pair[0].as_str(), number) {
            ("--simulated", Some(n)) => simulated = n,
            ("--real", Some(n)) => real = n,
            ("--seed", Some(n)) => seed = n,
            ("--help", _) => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("{}: not an argument with a whole number\n\n{HELP}", pair[0]);
                return ExitCode::from(2);
            }
        }
    }
    let figures = sim::simulate(seed, simulated, |seed, figures| {
        if !figures.holds() {
            eprintln!("seed {seed} broke a promise\n{figures}");
        }
    });
    println!("{figures}\n");
    let mut holds = figures.holds();
    let spawn = |job: &str| {
        let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
        command.args([BOT, job]);
        KillableChild::spawn(command)
    };
    for backend in [Backend::Sqlite, Backend::Redis] {
        if real > 0 {
            let figures = real::run(backend, seed, real, &spawn, |seed| eprintln!("{}: seed {seed}", backend.name()));
            println!("{figures}\n");
            holds &= figures.holds();
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
