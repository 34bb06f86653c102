//! A process that is stopped for longer than its lease must not go on as if nothing had happened.

use std::{process::Command, time::Duration};

use infra_risk_engine::{RiskError, Stance};
use infra_testkit::say;
use infra_types::{Clock, Side, SystemClock};

use super::{
    Settings,
    bot::join,
    report::Report,
    world::{Backend, QTY, engine, holder, open, order},
};

const TTL: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(60);

/// Approves an order every few milliseconds, and says when it may not any more.
pub(crate) fn run(argument: &str) {
    let (backend, target) = argument.split_once('|').expect("a sleeper is started by its supervisor");
    let backend = Backend::parse(backend).expect("a backend");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
    runtime.block_on(async {
        let store = open(backend, target).expect("the supervisor knows how to open it");
        let engine = std::sync::Arc::new(engine(store, "sleep", holder("sleeper", TTL), 1_000_000_000).await);
        join(&engine).await;
        let _guard = engine.guard(SystemClock::shared(), |_| {}).expect("it has a name");
        for n in 0.. {
            let id = format!("s-{n}").parse().expect("an id");
            match engine.check_and_reserve(order(id, Side::Buy, QTY), Stance::Open, &|_| vec![]).await {
                Ok(_) if n == 10 => say("holds"),
                Ok(_) | Err(RiskError::Contended { .. }) => {}
                Err(RiskError::HolderLost { .. }) => {
                    say(format_args!("lost {n}"));
                    join(&engine).await;
                    let id = "s-again".parse().expect("an id");
                    let again = engine.check_and_reserve(order(id, Side::Buy, QTY), Stance::Open, &|_| vec![]).await;
                    say(if again.is_ok() { "again" } else { "refused" });
                    return;
                }
                Err(error) => {
                    say(format_args!("failed {error}"));
                    return;
                }
            }
            SystemClock.sleep(Duration::from_millis(2)).await;
        }
    });
}

pub(crate) async fn supervise(settings: &Settings, target: &str, report: &mut Report) {
    let store = open(settings.backend, target).expect("we started it");
    let sweeper = engine(store, "sleep", holder("sweeper", Duration::from_secs(60)), 1_000_000_000).await;
    sweeper.join().await.expect("nobody else has the name");
    let mut child = (settings.spawn)(&format!("sleeper|{}|{target}", settings.backend.name()));
    child.wait_for("holds", PATIENCE);
    signal("-STOP", child.id());
    let begun = SystemClock.now();
    let mut orphaned = Vec::new();
    while orphaned.is_empty() && SystemClock.now().since(begun) < PATIENCE {
        orphaned = sweeper.sweep_orphans().await.expect("the ledger can be read");
        SystemClock.sleep(Duration::from_millis(10)).await;
    }
    let before = sweeper.held_orders(None).await.expect("the ledger can be read").len();
    signal("-CONT", child.id());
    let said = child.next_line(PATIENCE);
    let after = child.next_line(PATIENCE);
    // What it approved while nobody knew that it would be stopped is orphaned; afterwards it approved nothing before it joined again.
    let held = sweeper.held_orders(None).await.expect("the ledger can be read");
    let living = held.iter().filter(|held| !held.is_orphaned()).count();
    report.sleeper = said.as_ref().is_ok_and(|line| line.starts_with("lost"))
        && after.as_deref() == Ok("again")
        && (orphaned.len(), before, held.len(), living) == (before, before, before + 1, 1);
    if !report.sleeper {
        report.problems.push(format!(
            "sleeper: {said:?}, {after:?}, {} orphaned of {before}, then {} with {living} alive",
            orphaned.len(),
            held.len()
        ));
    }
}

fn signal(which: &str, pid: u32) {
    let sent = Command::new("kill").args([which, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "a process of ours can be stopped");
}
