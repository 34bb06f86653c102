//! The suite on the memory bus, and on memory that stands for a server.

mod shared_memory;

use std::sync::Arc;

use async_trait::async_trait;
use infra_event_bus::{
    Bus, EventBus, MemoryEventBus,
    conformance::{Fixture, config},
};
use infra_types::ManualClock;

use self::shared_memory::SharedBroker;

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

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        None
    }

    async fn reopen(&mut self) {
        self.bus.abandon();
        self.bus = Arc::new(MemoryEventBus::with_config(Arc::new(self.clock.clone()), config()));
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

infra_event_bus::event_bus_conformance!(memory());

struct Shared {
    clock: ManualClock,
    bus: Arc<Bus<SharedBroker>>,
}

impl Shared {
    fn open(&self) -> Arc<Bus<SharedBroker>> {
        let broker = self.bus.broker().another();
        Arc::new(Bus::with_broker(broker, Arc::new(self.clock.clone()), config()))
    }
}

fn shared() -> Shared {
    let clock = ManualClock::default();
    let bus = Arc::new(Bus::with_broker(SharedBroker::new(), Arc::new(clock.clone()), config()));
    Shared { clock, bus }
}

#[async_trait]
impl Fixture for Shared {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        Some(self.open())
    }

    async fn reopen(&mut self) {
        self.bus.broker().die();
        self.bus.abandon();
        self.bus = self.open();
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

mod between_processes {
    infra_event_bus::event_bus_conformance!(super::shared());
}
