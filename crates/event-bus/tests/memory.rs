//! The suite on the memory bus.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_event_bus::{
    EventBus, MemoryEventBus,
    conformance::{Fixture, config},
};
use infra_types::ManualClock;

struct Memory {
    clock: ManualClock,
    bus: Arc<MemoryEventBus>,
}

fn memory() -> Memory {
    let clock = ManualClock::default();
    let bus = Arc::new(MemoryEventBus::with_config(Arc::new(clock.clone()), config()));
    Memory { clock, bus }
}

#[async_trait]
impl Fixture for Memory {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn reopen(&mut self) {
        self.bus.abandon();
        self.bus = Arc::new(MemoryEventBus::with_config(Arc::new(self.clock.clone()), config()));
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

infra_event_bus::event_bus_conformance!(memory());
