//! Logs on real servers.

use std::{sync::Arc, time::Duration};

use infra_audit_log::{AuditEvent, AuditKind, AuditLog, Fields, PostgresAuditLog, conformance::Fixture};
use infra_backends::PostgresConfig;
use infra_testkit::{PostgresServer, unique_name};
use infra_types::{Clock, EventId, ManualClock, Symbol, SystemClock, Timestamp, UserId};

/// A busy machine may take its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Patient settings for a server, and a schema of one's own.
pub(crate) fn config(server: &PostgresServer) -> PostgresConfig {
    PostgresConfig::from_url(&server.url())
        .unwrap()
        .with_connect_timeout(PATIENCE)
        .with_operation_timeout(PATIENCE)
        .with_schema(unique_name())
}

/// A schema of the shared server that no other test has.
pub(crate) fn apart() -> PostgresConfig {
    config(PostgresServer::shared())
}

pub(crate) fn open(config: &PostgresConfig) -> PostgresAuditLog {
    PostgresAuditLog::open(config.clone(), SystemClock::shared()).unwrap()
}

pub(crate) fn event(n: u64) -> AuditEvent {
    AuditEvent::new(
        EventId::new(format!("e-{n}")).unwrap(),
        AuditKind::BUILT_IN[n as usize % AuditKind::BUILT_IN.len()].clone(),
        Timestamp::from_millis(n as i64),
        "order/1",
        "place",
    )
    .with_symbol(Symbol::new("BTCUSDT").unwrap())
    .with_user(UserId::new("ann").unwrap())
    .with_details(Fields::new().with("n", n))
}

/// Every pool on the schema shares nothing with the others but the server, as processes would.
pub(crate) struct Schema {
    clock: ManualClock,
    config: PostgresConfig,
    log: Arc<PostgresAuditLog>,
}

impl Schema {
    pub(crate) fn new() -> Self {
        let (clock, config) = (ManualClock::default(), apart());
        Self { log: Self::open(&config, &clock), config, clock }
    }

    fn open(config: &PostgresConfig, clock: &ManualClock) -> Arc<PostgresAuditLog> {
        Arc::new(PostgresAuditLog::open(config.clone(), Arc::new(clock.clone())).unwrap())
    }
}

#[async_trait::async_trait]
impl Fixture for Schema {
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
        self.log = Self::open(&self.config, &self.clock);
    }
}
