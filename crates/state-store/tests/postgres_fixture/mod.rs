//! The suite's fixture on real servers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infra_backends::PostgresConfig;
use infra_state_store::{
    StateStore,
    conformance::{FaultControl, Fixture, Outage, Way},
};
use infra_testkit::{Cut, Direction, FaultProxy, PostgresServer};

use crate::postgres_tools::{apart, config, open};

/// Two pools on one schema share nothing but the server, as two processes would.
pub(crate) struct Schema {
    config: PostgresConfig,
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
    /// For one case's faults.
    wire: Wire,
}

/// A private server, and the URL for a client that connects to this port instead of the server's own.
pub(crate) type Wire = (fn() -> PostgresServer, fn(&PostgresServer, u16) -> String);

impl Schema {
    pub(crate) fn new(server: &PostgresServer, wire: Wire) -> Self {
        let config = apart(&wire.1(server, server.port()));
        Self { store: open(&config), second: open(&config), config, wire }
    }
}

#[async_trait::async_trait]
impl Fixture for Schema {
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

    async fn reopen(&self) -> Option<Arc<dyn StateStore>> {
        for handle in [&self.store, &self.second] {
            handle.close().await.expect("an idle store closes");
        }
        Some(open(&self.config))
    }

    async fn faults(&self) -> Option<Arc<dyn FaultControl>> {
        let (start, url) = self.wire;
        let server = tokio::task::block_in_place(start);
        let proxy = FaultProxy::start(server.addr()).await;
        // Short, because what never answers is waited for.
        let impatient = config(&url(&server, proxy.addr().port()))
            .with_operation_timeout(Duration::from_secs(2))
            .with_connect_timeout(Duration::from_secs(2));
        let (store, direct) = (open(&impatient), open(&config(&url(&server, server.port()))));
        Some(Arc::new(Faults { store, direct, proxy, server: Mutex::new(server) }))
    }
}

/// A private server behind a proxy.
struct Faults {
    store: Arc<dyn StateStore>,
    direct: Arc<dyn StateStore>,
    proxy: FaultProxy,
    server: Mutex<PostgresServer>,
}

#[async_trait::async_trait]
impl FaultControl for Faults {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn direct(&self) -> Arc<dyn StateStore> {
        self.direct.clone()
    }

    async fn cut(&self) {
        self.proxy.cut_all(Cut::Reset);
    }

    async fn cut_after(&self, way: Way, bytes: u64) {
        let direction = if way == Way::Requests { Direction::ToServer } else { Direction::ToClient };
        self.proxy.cut_after(direction, bytes, Cut::Reset);
    }

    async fn outage(&self, how: Outage) {
        match how {
            Outage::Refused => self.proxy.down(Cut::Reset),
            Outage::Silent => self.proxy.black_hole(),
        }
    }

    async fn delay(&self, by: Duration) {
        self.proxy.delay(Direction::ToClient, by);
    }

    async fn heal(&self) {
        self.proxy.pass();
    }

    async fn restart(&self) {
        tokio::task::block_in_place(|| self.server.lock().unwrap_or_else(PoisonError::into_inner).restart());
    }
}
