//! The suite on a plain Redis server.
#![cfg(feature = "redis")]

use std::{sync::Arc, time::Duration};

use infra_backends::RedisConfig;
use infra_state_store::{RedisStateStore, StateStore, conformance::Fixture, state_store_conformance};
use infra_testkit::{RedisServer, unique_name};
use infra_types::SystemClock;

struct Shared {
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
}

#[async_trait::async_trait]
impl Fixture for Shared {
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
}

/// Two handles on one server share nothing but the server, as two processes would.
async fn fixture() -> Shared {
    let config = RedisConfig::from_url(&RedisServer::shared().url()).unwrap();
    let config = config.with_key_prefix(format!("{}:", unique_name()));
    let open = || Arc::new(RedisStateStore::open(config.clone(), SystemClock::shared()).unwrap());
    Shared { store: open(), second: open() }
}

state_store_conformance!(fixture());
