//! Kills brokers and consumers, and cuts the network, in the middle of 10,000 events: each has its effect once, in the order of its key.
//!
//! Takes about 2 minutes.
//!
//! On SQLite, Redis and PostgreSQL, all set to keep what they answered through a power cut. Events of 100 keys are published at least once, a
//! few at a time; what was not answered is published again with the same id. Two consumer processes of one group handle them through an inbox
//! in the state store of the same backend: the effect (the event's number is pushed to the list of its key) and the mark are one batch. In the
//! first run the broker is killed with -9 and started again twice, and a consumer is killed twice (a file has no broker: there both consumers
//! die, and the publisher opens the file anew). In the second run the network of everybody falls silent for ten seconds.
//! In the end each list must hold each number of its key once and in order; what was delivered more often must have carried the same id.

#[path = "prove_events/consumer.rs"]
mod consumer;
#[path = "prove_events/run.rs"]
mod run;
#[path = "prove_events/world.rs"]
mod world;

use std::process::ExitCode;

use self::{
    run::{Disturbance, Found, run},
    world::Backend,
};

/// How this program is told to be a consumer.
const CONSUMER: &str = "--as-consumer";
const HELP: &str = "\
usage: prove_events [--backend sqlite|redis|postgres|all] [--batches EVENTS]

  --backend  on what; all by default
  --batches  how many events in each run; 10000 by default

Exit code 0: every promise held. 1: one was broken. 2: a mistake in the arguments.";

fn parse(arguments: &[String]) -> Option<(Vec<Backend>, usize)> {
    let (mut backends, mut events) = (Backend::EVERY.to_vec(), 10_000);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--backend" && value == "all" => {}
            [name, value] if name == "--backend" => backends = vec![Backend::parse(value)?],
            [name, value] if name == "--batches" => {
                events = value.parse().ok().filter(|events| (1_000..=50_000).contains(events))?;
            }
            _ => return None,
        }
    }
    Some((backends, events))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("two threads");
    if let [first, job] = &arguments[..]
        && first == CONSUMER
    {
        runtime.block_on(consumer::consume(job));
        return ExitCode::SUCCESS;
    }
    let Some((backends, events)) = parse(&arguments) else {
        let asked = arguments.iter().any(|argument| argument == "--help");
        eprintln!("{HELP}");
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    let mut found = Vec::new();
    for backend in backends {
        for disturbance in [Disturbance::Kills, Disturbance::SilentNetwork] {
            if disturbance == Disturbance::SilentNetwork && backend == Backend::Sqlite {
                continue;
            }
            eprintln!("{} {disturbance:?}: {events} events", backend.name());
            found.push(runtime.block_on(run(backend, disturbance, events)));
        }
    }
    print!("{}", Found::table(&found));
    if found.iter().all(Found::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
