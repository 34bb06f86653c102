//! Fixtures on real servers.

use std::{pin::Pin, sync::Arc, time::Duration};

use infra_backends::RedisConfig;
use infra_state_store::{
    RedisStateStore, StateStore,
    conformance::{FaultControl, Fixture},
};
use infra_testkit::unique_name;
use infra_types::SystemClock;

/// A store on connections of its own.
pub(crate) fn open(config: &RedisConfig) -> Arc<RedisStateStore> {
    Arc::new(RedisStateStore::open(config.clone(), SystemClock::shared()).expect("a valid configuration"))
}

/// Two handles that share nothing but the servers, as two processes would.
pub(crate) struct Servers {
    config: RedisConfig,
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
    faults: MakeFaults,
}

/// Starts servers for the faults of one case.
pub(crate) type MakeFaults = fn() -> Pin<Box<dyn Future<Output = Arc<dyn FaultControl>> + Send>>;

impl Servers {
    /// On keys that no other test has.
    pub(crate) fn new(config: RedisConfig, faults: MakeFaults) -> Self {
        let config = config.with_key_prefix(format!("{}:", unique_name()));
        Self { store: open(&config), second: open(&config), config, faults }
    }
}

#[async_trait::async_trait]
impl Fixture for Servers {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.second.clone()
    }

    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    fn has_exact_clock(&self) -> bool {
        false
    }

    async fn reopen(&self) -> Option<Arc<dyn StateStore>> {
        for handle in [&self.store, &self.second] {
            handle.close().await.expect("an idle store closes");
        }
        Some(open(&self.config))
    }

    async fn faults(&self) -> Option<Arc<dyn FaultControl>> {
        Some((self.faults)().await)
    }
}
