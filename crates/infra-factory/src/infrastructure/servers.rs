//! From the sections of a configuration to stores on servers.

#[cfg(feature = "postgres")]
pub(super) use self::postgres::{open as open_postgres, store as postgres_store};
#[cfg(feature = "redis")]
pub(super) use self::redis::{open as open_redis, store as redis_store};

#[cfg(feature = "redis")]
mod redis {
    use std::{sync::Arc, time::Duration};

    use infra_backends::{Fsync, Pem, Redis, RedisConfig, RedisTls, RedisTopology};
    use infra_config::{RedisSection, RedisTopology as Topology};
    use infra_state_store::{RedisStateStore, StateStore, StoreError};
    use infra_types::Clock;

    use crate::{error::FactoryError, wiring::guarded_store::GuardedStore};

    /// A store with connections of its own. A ledger demands that the server writes each change to its disk before it answers.
    pub(in super::super) fn store(
        part: &'static str,
        section: &RedisSection,
        timeout: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn StateStore>, FactoryError> {
        let is_ledger = part == "ledger";
        let mut config = config(section)?.with_operation_timeout(timeout);
        if is_ledger {
            config = config.with_min_fsync(Fsync::Always);
        }
        let store = RedisStateStore::open(config, Arc::clone(clock))?;
        let store = if is_ledger { store.durable() } else { store };
        Ok(Arc::new(GuardedStore::new(part, Arc::new(store), Arc::clone(clock))?))
    }

    /// Connections for the events.
    pub(in super::super) fn open(section: &RedisSection, timeout: Duration) -> Result<Redis, FactoryError> {
        let config = config(section)?.with_operation_timeout(timeout);
        Ok(Redis::new(config).map_err(StoreError::from)?)
    }

    fn config(section: &RedisSection) -> Result<RedisConfig, FactoryError> {
        let nodes = || section.nodes.iter().map(|node| (node.host.clone(), node.port)).collect();
        let topology = match section.topology {
            Topology::Sentinel => RedisTopology::sentinel(nodes(), section.service.clone().unwrap_or_default()),
            Topology::Cluster => RedisTopology::cluster(nodes()),
            _ => RedisTopology::standalone(section.host.clone(), section.port),
        };
        let mut config = RedisConfig::new(topology)
            .with_db(u32::from(section.db))
            .with_key_prefix(section.key_prefix.clone())
            .with_connect_timeout(section.connect_timeout);
        if let Some(user) = &section.user {
            config = config.with_username(user.clone());
        }
        if let Some(password) = &section.password {
            config = config.with_password(password.clone());
        }
        if section.tls {
            let tls = RedisTls::default();
            config = config.with_tls(match &section.ca_file {
                Some(file) => tls.with_ca(Pem::file(file)),
                None => tls,
            });
        }
        Ok(config)
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::{sync::Arc, time::Duration};

    use infra_backends::{Postgres, PostgresConfig};
    use infra_config::PostgresSection;
    use infra_state_store::{PostgresStateStore, StateStore, StoreError};
    use infra_types::Clock;

    use crate::{error::FactoryError, wiring::guarded_store::GuardedStore};

    /// One pool for all parts that are on PostgreSQL; `longest` is the longest time limit of any of them.
    pub(in super::super) fn open(section: &PostgresSection, longest: Duration) -> Result<Postgres, FactoryError> {
        let config = PostgresConfig::from_url(section.url().expose())
            .map_err(StoreError::from)?
            .with_schema(section.schema.clone())
            .with_pool_max(section.pool_max)
            .with_connect_timeout(section.connect_timeout)
            .with_operation_timeout(longest);
        Ok(Postgres::new(config).map_err(StoreError::from)?)
    }

    pub(in super::super) fn store(
        part: &'static str,
        pool: &Postgres,
        timeout: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Arc<dyn StateStore>, FactoryError> {
        let store = PostgresStateStore::new(pool.with_operation_timeout(timeout), Arc::clone(clock));
        Ok(Arc::new(GuardedStore::new(part, Arc::new(store), Arc::clone(clock))?))
    }
}
