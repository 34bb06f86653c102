//! A bot of the real schedules: it trusts the switch, says whatever it places, and is killed, stopped and cut off.

use std::{sync::Arc, time::Duration};

use infra_emergency::{EmergencyController, OrderScopes, Stance};
use infra_state_store::StateStore;
use infra_testkit::say;
use infra_types::{BotId, Clock, Namespace, Scope, SystemClock, Venue};

/// How long one read of the switch is trusted.
pub(crate) const LEASE: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(100);
/// Between two orders.
const PAUSE: Duration = Duration::from_millis(3);

/// Where the switch is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In a file.
    Sqlite,
    /// In a server, behind a proxy for each bot.
    Redis,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
        }
    }
}

/// What a bot is started with.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) backend: Backend,
    pub(crate) target: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// When it halts `scope` by itself, in nanoseconds of the machine's clock; 0 for never.
    pub(crate) halts_at: u64,
    pub(crate) scope: Scope,
}

impl Job {
    pub(crate) fn to_argument(&self) -> String {
        let Self { backend, target, namespace, name, halts_at, scope } = self;
        format!("{}|{target}|{namespace}|{name}|{halts_at}|{scope}", backend.name())
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('|').collect();
        let [backend, target, namespace, name, halts_at, scope] = parts[..] else { return None };
        let backend = if backend == "redis" { Backend::Redis } else { Backend::Sqlite };
        let (target, namespace, name) = (target.to_owned(), namespace.to_owned(), name.to_owned());
        Some(Self { backend, target, namespace, name, halts_at: halts_at.parse().ok()?, scope: scope.parse().ok()? })
    }
}

/// The controller of a process of the schedules.
pub(crate) fn controller(job: &Job) -> Arc<EmergencyController> {
    let store = open(job.backend, &job.target);
    let namespace = Namespace::new(&job.namespace).expect("a valid namespace");
    let id = BotId::new(&job.name).expect("a valid name");
    let builder = EmergencyController::builder(id, store, namespace, SystemClock::shared());
    Arc::new(builder.lease(LEASE).poll_interval(POLL).build().expect("valid settings"))
}

/// Nanoseconds of the machine's clock, the same in every process of it.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemClock.now().since_origin().as_nanos()).expect("within 584 years")
}

/// Trades until it is killed.
///
/// # Panics
/// If the argument is not [`Job`]'s.
pub(crate) fn run(argument: &str) {
    let job = Job::parse(argument).expect("a bot is started by its supervisor");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a small runtime").block_on(trade(job));
}

async fn trade(job: Job) {
    let switch = controller(&job);
    let venue: Venue = "v".parse().expect("valid");
    let of_venue = OrderScopes { venue: Some(&venue), ..OrderScopes::default() };
    say(format_args!("began {}", now()));
    loop {
        let began = now();
        assert_ne!(switch.stance(), Stance::Open, "nothing was read yet");
        if switch.refresh().await.is_ok() {
            let (firm, narrow) = (switch.state(), switch.snapshot_of(&Scope::Venue(venue.clone())).state);
            say(format_args!("restored {began} {} {firm} {narrow}", now()));
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let _poller = switch.spawn_poller();
    let mut halts_at = job.halts_at;
    loop {
        // Before it asks: an order is decided between here and its line, and it must have been open then.
        let at = now();
        if switch.stance() == Stance::Open {
            say(format_args!("placed {at} firm"));
        }
        let at = now();
        if switch.stance_of(&of_venue) == Stance::Open {
            say(format_args!("placed {at} venue:v"));
        }
        if halts_at > 0 && at >= halts_at {
            halts_at = 0;
            let (switch, scope) = (Arc::clone(&switch), job.scope.clone());
            tokio::spawn(async move {
                let halted = switch.halt_in(&scope, "bot", "by itself").await;
                if halted.is_ok() {
                    say(format_args!("halted {} {scope}", now()));
                }
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn open(backend: Backend, target: &str) -> Arc<dyn StateStore> {
    match backend {
        Backend::Sqlite => sqlite(target),
        Backend::Redis => redis(target),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(path: &str) -> Arc<dyn StateStore> {
    let config = infra_backends::SqliteConfig::new(path);
    Arc::new(infra_state_store::SqliteStateStore::open(config, SystemClock::shared()))
}

#[cfg(feature = "redis")]
fn redis(url: &str) -> Arc<dyn StateStore> {
    let config = infra_backends::RedisConfig::from_url(url).expect("a valid URL");
    let config = config.with_operation_timeout(Duration::from_secs(1));
    let store = infra_state_store::RedisStateStore::open(config, SystemClock::shared());
    Arc::new(store.expect("a store opens without its server"))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &str) -> Arc<dyn StateStore> {
    panic!("build it with feature `sqlite`")
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str) -> Arc<dyn StateStore> {
    panic!("build it with feature `redis`")
}
