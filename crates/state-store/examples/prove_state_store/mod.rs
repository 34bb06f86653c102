//! Kills, cuts and a verifier: shared by the long form (`prove_state_store`) and the short one (`tests/kill_servers.rs`).
//!
//! Client processes write numbered batches that touch every kind of state at once, and say on a pipe what they are about to send
//! and what they were answered. This process kills them and the server, breaks the wire between them, listens to that wire, and
//! at last compares what the store holds with what was said.

mod batches;
mod chaos;
mod client;
mod clients;
mod found;
mod journal;
mod report;
mod servers;
mod tap;
mod verify;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_testkit::KillableChild;
use infra_types::SystemClock;

use self::{
    chaos::Chaos,
    clients::Clients,
    found::{Found, Relay},
    journal::Journal,
    servers::Server,
    tap::Wire,
    verify::verify,
};
pub(crate) use self::{
    client::run as client,
    report::{Report, table},
    servers::Backend,
};

/// No batch for so long: something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a client with its argument.
pub(crate) type Spawn = Arc<dyn Fn(&str) -> KillableChild + Send + Sync>;

/// What to do.
pub(crate) struct Settings {
    /// On what.
    pub(crate) backend: Backend,
    /// How many batches must have an outcome other than a definite refusal.
    pub(crate) batches: u32,
    /// `kill -9` of the server; a file has none.
    pub(crate) server_kills: u32,
    /// `kill -9` of a client.
    pub(crate) client_kills: u32,
    /// Faults on the wire; a file has none.
    pub(crate) cuts: u32,
    /// Decides about all that is random here.
    pub(crate) seed: u64,
    /// A Redis that keeps nothing on its disk, to see that this is found out.
    pub(crate) forgets: bool,
    /// Tells on stderr how far it is.
    pub(crate) tells_progress: bool,
    /// Set by who wants it to end early.
    pub(crate) stop: Arc<AtomicBool>,
    /// How to start a client.
    pub(crate) spawn: Spawn,
}

/// Does it all. None if it was stopped.
pub(crate) fn prove(settings: Settings) -> Option<Report> {
    let clock = SystemClock::shared();
    let start = clock.now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a small runtime");
    let mut server = Server::start(settings.backend, settings.forgets);
    let wire = server.addr().map(|addr| runtime.block_on(Wire::start(addr, settings.seed)));
    let target = server.target(wire.as_ref().map(Wire::port));
    let direct = server.target(None);

    let journal = Arc::new(Mutex::new(Journal::new(settings.batches)));
    let relay = runtime.block_on(Relay::start(settings.backend, &direct));
    let clients = Clients::start(&settings, &target, &journal);
    let mut chaos = Chaos::plan(&settings);
    let (mut progress, mut said) = ((0, clock.now()), clock.now());
    while !clients.are_done() {
        std::thread::sleep(Duration::from_millis(1));
        if settings.stop.load(Ordering::SeqCst) {
            clients.stop();
            return None;
        }
        let settled = locked(&journal).settled();
        if settled > progress.0 {
            progress = (settled, clock.now());
        } else if clock.now().since(progress.1) > PATIENCE {
            locked(&journal).complain(format!("no batch had an outcome for {PATIENCE:?}"));
            break;
        }
        if settings.tells_progress && clock.now().since(said) > Duration::from_secs(5) {
            said = clock.now();
            eprintln!("{:>9}: {settled} of {} batches; {}", settings.backend.name(), settings.batches, chaos.done());
        }
        if let Some(event) = chaos.due(settled) {
            let killed = chaos.bring_about(event, &mut server, wire.as_ref(), &clients);
            if killed {
                // Heard first, read then: what was acknowledged by now must be there.
                let acknowledged = locked(&journal).last_acknowledged();
                let problems = runtime.block_on(found::glance(settings.backend, &direct, &acknowledged));
                locked(&journal).vanish(problems);
            }
        }
    }
    clients.stop();
    let sightings = wire.map(Wire::end);
    // What is still on its way into the server ends with it, and what it acknowledged must survive once more.
    server.kill();
    server.restart();
    let relayed = relay.end(&runtime);
    let journal = std::mem::take(&mut *locked(&journal));
    let found = runtime.block_on(Found::read(settings.backend, &direct, &journal, relayed));
    let verdict = verify(&journal, sightings.as_ref(), &found);
    let backend = server.describe();
    Some(Report { backend, verdict, done: chaos.done(), duration: clock.now().since(start) })
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
