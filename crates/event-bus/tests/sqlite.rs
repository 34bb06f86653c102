//! The suite on SQLite files, and what only a file can show.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_backends::{Sqlite, SqliteConfig};
use infra_event_bus::{
    EventBus, SqliteEventBus,
    conformance::{Fixture, config},
};
use infra_types::ManualClock;

struct File {
    dir: tempfile::TempDir,
    clock: ManualClock,
    bus: Arc<SqliteEventBus>,
}

fn open(dir: &tempfile::TempDir, clock: &ManualClock) -> Arc<SqliteEventBus> {
    let sqlite = Sqlite::new(SqliteConfig::new(dir.path().join("bus.db")));
    Arc::new(SqliteEventBus::with_config(sqlite, Arc::new(clock.clone()), config()))
}

fn file() -> File {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::default();
    let bus = open(&dir, &clock);
    File { dir, clock, bus }
}

#[async_trait]
impl Fixture for File {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn reopen(&mut self) {
        self.bus.abandon();
        self.bus = open(&self.dir, &self.clock);
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

infra_event_bus::event_bus_conformance!(file());
