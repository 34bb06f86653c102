//! Bots, a killer, an observer and a venue: shared by the long form (`prove_shared_limit`) and the short one
//! (`tests/kill_holders.rs`).
//!
//! Bots in processes of their own approve orders against one limit, trade, cancel, lose messages and are killed with -9. This
//! process looks at the counter all the time, sees the dead bots' orders become orphans and go on counting, and in the end compares
//! ledger and venue.

mod bot;
mod burst;
mod end;
mod herd;
mod report;
mod sleeper;
mod venue;
mod watch;
mod world;

use std::{sync::Arc, time::Duration};

use infra_testkit::KillableChild;

pub(crate) use self::{
    report::{Report, table},
    world::Backend,
};

/// Starts a process with its argument.
pub(crate) type Spawn = Arc<dyn Fn(&str) -> KillableChild + Send + Sync>;

/// What to do.
pub(crate) struct Settings {
    /// On what.
    pub(crate) backend: Backend,
    /// How many bots.
    pub(crate) bots: u32,
    /// How many orders each of them tries to have approved.
    pub(crate) attempts: u32,
    /// How many of them are killed with -9 (and started again).
    pub(crate) kills: u32,
    /// What may be in use at once.
    pub(crate) limit: i64,
    /// The lease of their names.
    pub(crate) ttl: Duration,
    /// Decides about all that is random here.
    pub(crate) seed: u64,
    /// How to start a process.
    pub(crate) spawn: Spawn,
}

/// Plays a part that a process was started for.
pub(crate) fn child(argument: &str) {
    match argument.strip_prefix("sleeper|") {
        Some(rest) => sleeper::run(rest),
        None => bot::run(argument),
    }
}

/// Does it all.
pub(crate) fn prove(settings: &Settings) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a small runtime");
    let server = world::Server::start(settings.backend);
    let mut report = Report::new(settings.backend, settings.limit);
    runtime.block_on(async {
        burst::run(settings.backend, &server.target(), &mut report).await;
        sleeper::supervise(settings, &server.target(), &mut report).await;
        let dir = infra_testkit::TestDir::new();
        herd::run(settings, &server.target(), dir.path(), &mut report).await;
        end::run(settings, &server.target(), dir.path(), &mut report).await;
    });
    report
}
