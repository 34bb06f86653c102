//! Which backend each part lives on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use infra_audit_log::{AuditLog, Checkpoint, CheckpointFile, MemoryAuditLog, MemoryConfig, NoteSigner, WhenFull};
#[cfg(feature = "postgres")]
use infra_config::Preset;
use infra_config::{Backend, Config};
use infra_event_bus::{EventBus, MemoryEventBus, SpillConfig, SpillingEventBus};
use infra_state_store::{MemoryStateStore, StateStore};
use infra_types::{BotId, Clock, Namespace};

use crate::error::FactoryError;

#[expect(clippy::expect_used, reason = "called with two fixed, valid words")]
pub(super) fn namespace(name: &'static str) -> Namespace {
    Namespace::new(name).expect("a valid namespace")
}

pub(super) struct Places {
    pub(super) ledger: Arc<dyn StateStore>,
    pub(super) state: Arc<dyn StateStore>,
    pub(super) market_data: Arc<dyn StateStore>,
    /// The bus that the program gets.
    pub(super) events: Arc<dyn EventBus>,
    /// The same without a spill log, for what waits in the ledger until the bus has it.
    pub(super) unspilled_events: Arc<dyn EventBus>,
    pub(super) audit: Arc<dyn AuditLog>,
    #[cfg(feature = "sqlite")]
    sqlite: Option<infra_backends::Sqlite>,
    #[cfg(feature = "postgres")]
    postgres: Option<infra_backends::Postgres>,
    /// Of the events; a store has connections of its own.
    #[cfg(feature = "redis")]
    redis: Option<infra_backends::Redis>,
}

fn missing(part: &'static str, backend: Backend) -> FactoryError {
    let hint = match backend {
        Backend::Sqlite => "turn on the feature `sqlite` of infra-factory",
        Backend::Redis if !cfg!(feature = "redis") => "turn on the feature `redis` of infra-factory",
        Backend::Postgres if !cfg!(feature = "postgres") => "turn on the feature `postgres` of infra-factory",
        _ => "this part is not on that backend in this version; choose another for it",
    };
    FactoryError::BackendMissing { part, backend: backend.to_string(), hint }
}

/// Builds the parts of one backend each; handles are opened by their first use.
struct Opener<'a> {
    config: &'a Config,
    clock: Arc<dyn Clock>,
    memory: Arc<dyn StateStore>,
    #[cfg(feature = "sqlite")]
    sqlite: Option<(infra_backends::Sqlite, Arc<dyn StateStore>)>,
    #[cfg(feature = "postgres")]
    postgres: Option<infra_backends::Postgres>,
    /// Of the events; a store has connections of its own.
    #[cfg(feature = "redis")]
    redis: Option<infra_backends::Redis>,
}

impl<'a> Opener<'a> {
    fn new(config: &'a Config, clock: Arc<dyn Clock>) -> Self {
        let entries = std::num::NonZeroUsize::new(config.state.cache_entries_max.get() as usize);
        let memory: Arc<dyn StateStore> = match entries {
            Some(max) => Arc::new(MemoryStateStore::with_cache_entries_max(Arc::clone(&clock), max)),
            None => Arc::new(MemoryStateStore::new(Arc::clone(&clock))),
        };
        Self {
            config,
            clock,
            memory,
            #[cfg(feature = "sqlite")]
            sqlite: None,
            #[cfg(feature = "postgres")]
            postgres: None,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }

    /// One pool for all parts that want it.
    #[cfg(feature = "postgres")]
    fn postgres(&mut self) -> Result<infra_backends::Postgres, FactoryError> {
        if let Some(pool) = &self.postgres {
            return Ok(pool.clone());
        }
        let longest = self.config.ledger.operation_timeout.max(self.config.state.operation_timeout);
        let pool = super::servers::open_postgres(&self.config.postgres, longest)?;
        Ok(self.postgres.insert(pool).clone())
    }

    /// One file, one handle, one store for all parts that want it.
    #[cfg(feature = "sqlite")]
    fn sqlite(&mut self) -> (infra_backends::Sqlite, Arc<dyn StateStore>) {
        let (config, clock) = (self.config, &self.clock);
        self.sqlite
            .get_or_insert_with(|| {
                let synchronous = match config.sqlite.synchronous {
                    infra_config::Synchronous::Normal => infra_backends::Synchronous::Normal,
                    // Whatever a later version adds, nothing is safer than FULL.
                    _ => infra_backends::Synchronous::Full,
                };
                let file = infra_backends::SqliteConfig::new(config.sqlite_path())
                    .with_synchronous(synchronous)
                    .with_busy_timeout(config.sqlite.busy_timeout);
                let sqlite = infra_backends::Sqlite::new(file);
                let store = infra_state_store::SqliteStateStore::new(sqlite.clone(), Arc::clone(clock));
                (sqlite, Arc::new(store))
            })
            .clone()
    }

    /// `timeout` is the one time limit of each operation on a server; a file has its own.
    fn store(
        &mut self,
        part: &'static str,
        backend: Backend,
        #[cfg_attr(
            not(any(feature = "redis", feature = "postgres")),
            expect(unused_variables, reason = "without a server nothing takes long")
        )]
        timeout: Duration,
    ) -> Result<Arc<dyn StateStore>, FactoryError> {
        match backend {
            Backend::Memory => Ok(Arc::clone(&self.memory)),
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => Ok(self.sqlite().1),
            #[cfg(feature = "redis")]
            Backend::Redis => super::servers::redis_store(part, &self.config.redis, timeout, &self.clock),
            #[cfg(feature = "postgres")]
            Backend::Postgres => super::servers::postgres_store(part, &self.postgres()?, timeout, &self.clock),
            other => Err(missing(part, other)),
        }
    }

    fn bus(&mut self, backend: Backend) -> Result<Arc<dyn EventBus>, FactoryError> {
        match backend {
            Backend::Memory => Ok(Arc::new(MemoryEventBus::new(Arc::clone(&self.clock)))),
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => {
                Ok(Arc::new(infra_event_bus::SqliteEventBus::new(self.sqlite().0, Arc::clone(&self.clock))))
            }
            #[cfg(feature = "redis")]
            Backend::Redis => {
                let redis = super::servers::open_redis(&self.config.redis, self.config.state.operation_timeout)?;
                let redis = self.redis.insert(redis).clone();
                Ok(Arc::new(infra_event_bus::RedisEventBus::new(redis, Arc::clone(&self.clock))?))
            }
            #[cfg(feature = "postgres")]
            Backend::Postgres => {
                let pool = self.postgres()?.with_operation_timeout(self.config.state.operation_timeout);
                Ok(Arc::new(infra_event_bus::PostgresEventBus::new(pool, Arc::clone(&self.clock))))
            }
            other => Err(missing("events", other)),
        }
    }

    fn audit(&mut self, backend: Backend) -> Result<Arc<dyn AuditLog>, FactoryError> {
        match backend {
            Backend::Memory => {
                // A log that refused when full would stop the outbox; what is forgotten is counted and named by `verify`.
                let config = MemoryConfig::default()
                    .with_capacity(self.config.audit.memory_entries_max.get() as usize)
                    .with_when_full(WhenFull::EvictOldest);
                Ok(Arc::new(MemoryAuditLog::new(config, Arc::clone(&self.clock))))
            }
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => {
                Ok(Arc::new(infra_audit_log::SqliteAuditLog::new(self.sqlite().0, Arc::clone(&self.clock))))
            }
            #[cfg(feature = "postgres")]
            Backend::Postgres => {
                let pool = self.postgres()?.with_operation_timeout(self.config.ledger.operation_timeout);
                let log = infra_audit_log::PostgresAuditLog::new(pool, Arc::clone(&self.clock));
                let is_production = self.config.preset == Preset::Production;
                Ok(Arc::new(if is_production { log.require_durable() } else { log }))
            }
            other => Err(missing("audit", other)),
        }
    }
}

impl Places {
    pub(super) fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, FactoryError> {
        let mut opener = Opener::new(config, Arc::clone(clock));
        // What is missing is told for the most important part first.
        let ledger = opener.store("ledger", config.ledger.backend, config.ledger.operation_timeout)?;
        let state = opener.store("state", config.state.backend, config.state.operation_timeout)?;
        let events = opener.bus(config.events.backend)?;
        Ok(Self {
            ledger,
            state,
            events: Arc::clone(&events),
            unspilled_events: events,
            audit: opener.audit(config.audit.backend)?,
            market_data: Arc::clone(&opener.memory),
            #[cfg(feature = "sqlite")]
            sqlite: opener.sqlite.map(|(sqlite, _)| sqlite),
            #[cfg(feature = "postgres")]
            postgres: opener.postgres,
            #[cfg(feature = "redis")]
            redis: opener.redis,
        })
    }

    /// While a server is lost, events that are published are kept on the local disk, in the order in which they were published.
    pub(super) async fn spill_events(
        &mut self,
        config: &Config,
        bot: &BotId,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), FactoryError> {
        if matches!(config.events.backend, Backend::Redis | Backend::Postgres) {
            let log = SpillConfig::new(config.data_dir.join(format!("bot-{bot}.spill")));
            let events = Arc::clone(&self.unspilled_events);
            self.events = Arc::new(SpillingEventBus::open(events, log, Arc::clone(clock)).await?);
        }
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<(), FactoryError> {
        self.audit.close().await?;
        self.ledger.close().await?;
        self.state.close().await?;
        self.market_data.close().await?;
        #[cfg(feature = "sqlite")]
        if let Some(sqlite) = &self.sqlite {
            sqlite.close().await;
        }
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            redis.close();
        }
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres {
            postgres.close().await;
        }
        Ok(())
    }
}

/// Where the audit log's checkpoint is kept: never in the database that it vouches for.
pub(super) enum Anchor {
    /// A signed note in a file beside the database, and its key.
    File(CheckpointFile),
    /// In this process, where the log is too and nothing outlives it.
    Process { signer: Box<NoteSigner>, last: parking_lot::Mutex<Option<Checkpoint>> },
}

impl Anchor {
    pub(super) fn new(config: &Config) -> Result<Self, FactoryError> {
        let origin = "infra/audit";
        if config.audit.backend != Backend::Memory {
            let file = |name: &str| -> PathBuf { config.data_dir.join(name) };
            return Ok(Self::File(CheckpointFile::new(file("audit.checkpoint"), file("audit.key"), origin)));
        }
        let signer = Box::new(NoteSigner::generate(origin)?);
        Ok(Self::Process { signer, last: parking_lot::Mutex::new(None) })
    }

    pub(super) async fn advance(&self, log: &dyn AuditLog) -> Result<(), FactoryError> {
        match self {
            Self::File(file) => {
                file.advance(log).await?;
            }
            Self::Process { signer, last } => {
                let previous = last.lock().clone();
                let head = log.checkpoint(previous.as_ref()).await?;
                *last.lock() = Some(signer.sign(head));
            }
        }
        Ok(())
    }

    pub(super) async fn load(&self) -> Result<Option<Checkpoint>, FactoryError> {
        match self {
            Self::File(file) => Ok(file.load().await?),
            Self::Process { last, .. } => Ok(last.lock().clone()),
        }
    }
}
