//! A fixture on keys of its own.

use std::sync::Arc;

use async_trait::async_trait;
use infra_backends::{Redis, RedisConfig};
use infra_event_bus::{
    EventBus, RedisBroker, RedisEventBus, TimeSource,
    conformance::{Fixture, config},
};
use infra_testkit::unique_name;
use infra_types::{Clock, ManualClock};

pub(crate) struct Keys {
    config: RedisConfig,
    clock: ManualClock,
    bus: Arc<RedisEventBus>,
}

/// A bus on connections of its own, as another process would have it, with a clock that is moved by hand.
pub(crate) fn open(redis: &RedisConfig, clock: &ManualClock) -> Arc<RedisEventBus> {
    let redis = Redis::new(redis.clone()).expect("a valid configuration");
    let broker = RedisBroker::new(redis, config().limits).expect("a valid prefix").with_time_source(TimeSource::Bus);
    Arc::new(RedisEventBus::with_broker(broker, Arc::new(clock.clone()) as Arc<dyn Clock>, config()))
}

impl Keys {
    pub(crate) fn new(config: RedisConfig) -> Self {
        let config = config.with_key_prefix(format!("{}:", unique_name()));
        let clock = ManualClock::default();
        let bus = open(&config, &clock);
        Self { config, clock, bus }
    }
}

#[async_trait]
impl Fixture for Keys {
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
