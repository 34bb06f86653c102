//! Stores on real servers.

use std::{sync::Arc, time::Duration};

use infra_backends::PostgresConfig;
use infra_state_store::PostgresStateStore;
use infra_testkit::unique_name;
use infra_types::SystemClock;

/// A busy machine may take its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store of this test's own, wherever the server is.
pub(crate) fn open(config: &PostgresConfig) -> Arc<PostgresStateStore> {
    Arc::new(PostgresStateStore::open(config.clone(), SystemClock::shared()).expect("the settings make sense"))
}

/// Patient settings for a URL.
pub(crate) fn config(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url)
        .expect("the kit writes proper URLs")
        .with_connect_timeout(PATIENCE)
        .with_operation_timeout(PATIENCE)
}

/// A schema that no other test has.
pub(crate) fn apart(url: &str) -> PostgresConfig {
    config(url).with_schema(unique_name())
}
