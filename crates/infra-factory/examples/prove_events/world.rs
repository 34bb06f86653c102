//! What is killed, and how a process opens it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use infra_backends::{Fsync, Postgres, PostgresConfig, Redis, RedisConfig, Sqlite, SqliteConfig};
use infra_event_bus::{EventBus, PostgresEventBus, RedisEventBus, SqliteEventBus};
use infra_state_store::{PostgresStateStore, RedisStateStore, SqliteStateStore, StateStore};
use infra_testkit::{PostgresServer, RedisServer, TestDir};
use infra_types::SystemClock;

const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Redis,
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
}

pub(crate) enum Server {
    File(TestDir),
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    pub(crate) fn start(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::File(TestDir::new()),
            Backend::Redis => {
                let builder = RedisServer::builder().config("appendonly", "yes").config("appendfsync", "always");
                Self::Redis(builder.start())
            }
            Backend::Postgres => Self::Postgres(PostgresServer::builder().durable().start()),
        }
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::File(_) => None,
            Self::Redis(server) => Some(server.addr()),
            Self::Postgres(server) => Some(server.addr()),
        }
    }

    /// What [`World::open`] opens: through `port`, or directly.
    pub(crate) fn target(&self, port: Option<u16>) -> String {
        match self {
            Self::File(dir) => dir.file("bot.db").display().to_string(),
            Self::Redis(server) => format!("redis://127.0.0.1:{}", port.unwrap_or(server.port())),
            Self::Postgres(server) => {
                let own = format!(":{}/", server.port());
                server.url().replace(&own, &format!(":{}/", port.unwrap_or(server.port())))
            }
        }
    }

    /// Ends it as a power cut of its process would, and starts it again on the same files and port.
    pub(crate) fn kill_and_restart(&mut self) {
        match self {
            Self::File(_) => {}
            Self::Redis(server) => {
                server.kill();
                server.restart();
            }
            Self::Postgres(server) => {
                server.kill();
                server.restart();
            }
        }
    }
}

/// The bus and the state of one process.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) state: Arc<dyn StateStore>,
}

impl World {
    pub(crate) fn open(backend: Backend, target: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let clock = SystemClock::shared();
        Ok(match backend {
            Backend::Sqlite => {
                let sqlite = Sqlite::new(SqliteConfig::new(Path::new(target)));
                Self {
                    bus: Arc::new(SqliteEventBus::new(sqlite.clone(), clock.clone())),
                    state: Arc::new(SqliteStateStore::new(sqlite, clock)),
                }
            }
            Backend::Redis => {
                let config = RedisConfig::from_url(target)?.with_min_fsync(Fsync::Always);
                let redis = Redis::new(config.with_operation_timeout(OPERATION_TIMEOUT))?;
                Self {
                    bus: Arc::new(RedisEventBus::new(redis.clone(), clock.clone())?),
                    state: Arc::new(RedisStateStore::new(redis, clock)?),
                }
            }
            Backend::Postgres => {
                let config = PostgresConfig::from_url(target)?.with_operation_timeout(OPERATION_TIMEOUT);
                let postgres = Postgres::new(config)?;
                Self {
                    bus: Arc::new(PostgresEventBus::new(postgres.clone(), clock.clone())),
                    state: Arc::new(PostgresStateStore::new(postgres, clock)),
                }
            }
        })
    }
}
