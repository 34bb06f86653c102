//! What is killed: a server of our own, or none.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use infra_state_store::StateStore;
use infra_testkit::{PostgresServer, RedisServer, TestDir};

/// How long an operation over the wire may take. Nothing here needs as long, unless it gets no answer at all.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In a file.
    Sqlite,
    /// In a server.
    Redis,
    /// In a server.
    Postgres,
}

impl Backend {
    pub(crate) const EVERY: [Self; 3] = [Self::Sqlite, Self::Redis, Self::Postgres];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|backend| backend.name() == name)
    }

    /// Whether there is a server to kill and a wire to cut.
    pub(crate) fn has_server(self) -> bool {
        self != Self::Sqlite
    }
}

pub(crate) enum Server {
    File(TestDir),
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    /// One that `forgets` acknowledges what its death takes away; only Redis can be told to.
    pub(crate) fn start(backend: Backend, forgets: bool) -> Self {
        match backend {
            Backend::Sqlite => Self::File(TestDir::new()),
            Backend::Redis if forgets => Self::Redis(RedisServer::builder().config("appendonly", "no").start()),
            Backend::Redis => Self::Redis(RedisServer::start()),
            Backend::Postgres => Self::Postgres(PostgresServer::builder().durable().start()),
        }
    }

    /// What it is, and how it keeps what it acknowledged.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::File(_) => "sqlite: WAL, synchronous full",
            Self::Redis(_) => "redis: appendfsync always",
            Self::Postgres(_) => "postgres: fsync on, synchronous_commit on",
        }
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::File(_) => None,
            Self::Redis(server) => Some(server.addr()),
            Self::Postgres(server) => Some(server.addr()),
        }
    }

    /// What [`open`] opens: through `port`, or directly.
    pub(crate) fn target(&self, port: Option<u16>) -> String {
        match self {
            Self::File(dir) => dir.file("state.db").display().to_string(),
            Self::Redis(server) => format!("redis://127.0.0.1:{}", port.unwrap_or(server.port())),
            Self::Postgres(server) => {
                let own = format!(":{}/", server.port());
                server.url().replace(&own, &format!(":{}/", port.unwrap_or(server.port())))
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        match self {
            Self::File(_) => {}
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
        }
    }

    pub(crate) fn restart(&mut self) {
        match self {
            Self::File(_) => {}
            Self::Redis(server) => server.restart(),
            Self::Postgres(server) => server.restart(),
        }
    }
}

/// Opens a store; `connections` counts where a client can choose.
///
/// # Errors
/// What is wrong with the target, or which feature is missing.
pub(crate) fn open(backend: Backend, target: &str, connections: usize) -> Result<Arc<dyn StateStore>, String> {
    match backend {
        Backend::Sqlite => sqlite(target),
        Backend::Redis => redis(target, connections),
        Backend::Postgres => postgres(target, connections),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(path: &str) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::SqliteConfig::new(path);
    Ok(Arc::new(infra_state_store::SqliteStateStore::open(config, infra_types::SystemClock::shared())))
}

#[cfg(feature = "redis")]
fn redis(url: &str, connections: usize) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::RedisConfig::from_url(url).map_err(|e| e.to_string())?;
    let connections = std::num::NonZeroUsize::new(connections).ok_or("at least one connection")?;
    let config = config.with_operation_timeout(OPERATION_TIMEOUT).with_connections(connections);
    let store = infra_state_store::RedisStateStore::open(config, infra_types::SystemClock::shared());
    Ok(Arc::new(store.map_err(|e| e.to_string())?))
}

#[cfg(feature = "postgres")]
fn postgres(url: &str, connections: usize) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::PostgresConfig::from_url(url).map_err(|e| e.to_string())?;
    let connections = u32::try_from(connections).ok().and_then(std::num::NonZeroU32::new);
    let config = config.with_operation_timeout(OPERATION_TIMEOUT).with_pool_max(connections.ok_or("no connection")?);
    let store = infra_state_store::PostgresStateStore::open(config, infra_types::SystemClock::shared());
    Ok(Arc::new(store.map_err(|e| e.to_string())?))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &str) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `sqlite`".to_owned())
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str, _: usize) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `redis`".to_owned())
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str, _: usize) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `postgres`".to_owned())
}
