//! A fixture on a schema of its own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_backends::{Postgres, PostgresConfig};
use infra_event_bus::{
    EventBus, PostgresBroker, PostgresEventBus, TimeSource,
    conformance::{Fixture, config},
};
use infra_testkit::unique_name;
use infra_types::{Clock, ManualClock};

/// A busy machine may take its time.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Schema {
    config: PostgresConfig,
    clock: ManualClock,
    bus: Arc<PostgresEventBus>,
}

/// A schema that no other test has.
fn apart(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url)
        .expect("the kit writes proper URLs")
        .with_connect_timeout(PATIENCE)
        .with_operation_timeout(PATIENCE)
        .with_schema(unique_name())
}

/// A bus on connections of its own, as another process would have it, with a clock that is moved by hand.
fn open(postgres: &PostgresConfig, clock: &ManualClock) -> Arc<PostgresEventBus> {
    let postgres = Postgres::new(postgres.clone()).expect("a valid configuration");
    let broker = PostgresBroker::new(postgres, config().limits).with_time_source(TimeSource::Bus);
    Arc::new(PostgresEventBus::with_broker(broker, Arc::new(clock.clone()) as Arc<dyn Clock>, config()))
}

impl Schema {
    pub(crate) fn new(url: &str) -> Self {
        let (config, clock) = (apart(url), ManualClock::default());
        let bus = open(&config, &clock);
        Self { config, clock, bus }
    }
}

#[async_trait]
impl Fixture for Schema {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        Some(open(&self.config, &self.clock))
    }

    async fn reopen(&mut self) {
        self.bus.abandon();
        self.bus = open(&self.config, &self.clock);
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}
