//! Decides a million orders by the dice, and decides them all again from the log: every decision must be the same to the last bit.
//!
//! Takes about 5 minutes.
//!
//! The log (several gigabytes) is never stored: it flows through a pipe into the replay, which
//! runs beside.
#![expect(clippy::unwrap_used, reason = "limits and names of the scene that cannot be made have failed")]

#[path = "prove_decisions/world.rs"]
mod world;

use std::{
    io::{BufReader, BufWriter, IsTerminal, Write},
    process::ExitCode,
    thread,
};

use infra_risk_engine::{ReplayError, ReplayReport, replay};

use self::world::{Counts, World};

const HELP: &str = "\
usage: prove_decisions [--decisions N] [--seed N]

  --decisions  how many orders are decided; 1000000 by default
  --seed       decides about everything; 1 by default

Exit code 0: every decision came out the same. 1: one did not. 2: a mistake in the arguments.";

fn arguments() -> Result<(u64, u64), String> {
    let (mut decisions, mut seed) = (1_000_000, 1);
    let all: Vec<String> = std::env::args().skip(1).collect();
    for pair in all.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let number = value.parse::<u64>().map_err(|_| format!("{name} takes a whole number, not {value}"))?;
        match name.as_str() {
            "--decisions" => decisions = number.max(1),
            "--seed" => seed = number,
            _ => return Err(format!("there is no argument {name}")),
        }
    }
    Ok((decisions, seed))
}

fn main() -> ExitCode {
    let (decisions, seed) = match arguments() {
        Ok(parsed) => parsed,
        Err(mistake) => {
            eprintln!("{mistake}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match prove(decisions, seed) {
        Ok((counts, report)) => verdict(seed, counts, &report),
        Err(error) => {
            eprintln!("the proof could not be made: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn prove(decisions: u64, seed: u64) -> Result<(Counts, ReplayReport), Failure> {
    let (reader, writer) = std::io::pipe()?;
    let again = thread::spawn(move || -> Result<ReplayReport, ReplayError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(replay(BufReader::with_capacity(1 << 20, reader), &mut |_| {}))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let is_terminal = std::io::stderr().is_terminal();
    let mut progress = |counts: Counts| {
        if is_terminal || counts.decisions.is_multiple_of(100_000) {
            let end = if is_terminal { "\r" } else { "\n" };
            eprint!("{} of {decisions} orders decided, {} approved{end}", counts.decisions, counts.approved);
            let _ = std::io::stderr().flush();
        }
    };
    let done = runtime.block_on(async {
        let mut world = World::new(seed, BufWriter::with_capacity(1 << 20, writer)).await?;
        world.run(decisions, &mut progress).await?;
        let counts = world.counts;
        let digest = world.recorder.digest();
        world.recorder.finish()?;
        Ok::<_, Failure>((counts, digest))
    });
    // The writer is dropped by now: the replay comes to its end.
    let report = again.join().map_err(|_| "the replay panicked")??;
    done.map(|(counts, _)| (counts, report))
}

fn verdict(seed: u64, counts: Counts, report: &ReplayReport) -> ExitCode {
    println!("seed                 {seed}");
    println!("lines                {}", report.lines);
    println!("decisions            {} ({} approved)", report.decisions, report.approved);
    println!("let through          {} by two people", counts.let_through);
    println!("settlements          {}", report.settled);
    println!("differences          {}", report.different);
    println!("digest               {}", report.digest);
    for difference in &report.differences {
        println!("line {}\n  logged   {}\n  replayed {}", difference.line, difference.logged, difference.replayed);
    }
    let (decisions, approved, settled) = (report.decisions, report.approved, report.settled);
    let all = Counts { decisions, approved, settled, ..counts };
    if report.different == 0 && report.is_whole && report.interrupted == 0 && all == counts {
        println!("every decision came out the same");
        return ExitCode::SUCCESS;
    }
    println!("FAILED: whole {}, interrupted {}, {counts:?} against {all:?}", report.is_whole, report.interrupted);
    ExitCode::FAILURE
}
