//! The suite on the memory backend.

use std::{sync::Arc, time::Duration};

use infra_audit_log::{AuditLog, MemoryAuditLog, MemoryConfig, conformance::Fixture};
use infra_types::{Clock, ManualClock, Timestamp};

struct Memory {
    clock: ManualClock,
    log: Arc<MemoryAuditLog>,
}

impl Memory {
    fn new() -> Self {
        let clock = ManualClock::default();
        Self { log: Self::open(&clock), clock }
    }

    fn open(clock: &ManualClock) -> Arc<MemoryAuditLog> {
        Arc::new(MemoryAuditLog::new(MemoryConfig::default(), Arc::new(clock.clone())))
    }
}

#[async_trait::async_trait]
impl Fixture for Memory {
    fn log(&self) -> Arc<dyn AuditLog> {
        self.log.clone()
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn reopen(&mut self) {
        self.log = Self::open(&self.clock);
    }
}

infra_audit_log::audit_log_conformance!(Memory::new());
