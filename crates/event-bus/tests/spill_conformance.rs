//! While its store is there, a bus that spills is the bus below: it passes the same suite.

use std::sync::Arc;

use async_trait::async_trait;
use infra_event_bus::{
    BusError, EventBus, MemoryEventBus, SpillConfig, SpillSync, SpillingEventBus,
    conformance::{Fixture, config},
};
use infra_testkit::TestDir;
use infra_types::ManualClock;

struct Spilling {
    clock: ManualClock,
    dir: TestDir,
    below: Arc<MemoryEventBus>,
    bus: Arc<SpillingEventBus>,
}

fn below(clock: &ManualClock) -> Arc<MemoryEventBus> {
    Arc::new(MemoryEventBus::with_config(Arc::new(clock.clone()), config()))
}

async fn open(below: &Arc<MemoryEventBus>, dir: &TestDir, clock: &ManualClock) -> Result<SpillingEventBus, BusError> {
    let spill = SpillConfig::new(dir.file("log")).with_events_max(config().limits.dedup_window);
    SpillingEventBus::open(below.clone(), spill.with_sync(SpillSync::Os), Arc::new(clock.clone())).await
}

async fn spilling() -> Spilling {
    let (clock, dir) = (ManualClock::default(), TestDir::new());
    let below = below(&clock);
    let bus = Arc::new(open(&below, &dir, &clock).await.expect("a new log"));
    Spilling { clock, dir, below, bus }
}

#[async_trait]
impl Fixture for Spilling {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        None
    }

    async fn reopen(&mut self) {
        self.below.abandon();
        self.below = below(&self.clock);
        // A case may hold the dead bus, and with it its log; the log of a process that died is free.
        self.dir = TestDir::new();
        let bus = open(&self.below, &self.dir, &self.clock).await;
        self.bus = Arc::new(bus.expect("a new log"));
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

infra_event_bus::event_bus_conformance!(spilling().await);
