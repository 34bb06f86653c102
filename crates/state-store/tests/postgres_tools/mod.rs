//! Fixtures on real servers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infra_backends::PostgresConfig;
use infra_state_store::{
    PostgresStateStore, StateStore,
    conformance::{FaultControl, Fixture, Outage, Way},
};
use infra_testkit::{Cut, Direction, FaultProxy, PostgresServer, unique_name};
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

/// A schema of the shared server that no other test has.
pub(crate) fn apart() -> PostgresConfig {
    config(&PostgresServer::shared().url()).with_schema(unique_name())
}

/// Two pools on one schema share nothing but the server, as two processes would.
pub(crate) struct Schema {
    config: PostgresConfig,
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
    /// Makes a server for one case's faults, and tells how a client gets there through this port.
    wire: Wire,
}

/// A private server, and the settings of a client that connects to some port instead of the server's own.
pub(crate) type Wire = fn() -> (PostgresServer, Box<dyn Fn(&PostgresServer, u16) -> PostgresConfig + Send + Sync>);

/// A private server without TLS.
pub(crate) fn plain() -> (PostgresServer, Box<dyn Fn(&PostgresServer, u16) -> PostgresConfig + Send + Sync>) {
    (PostgresServer::start(), Box::new(|server, port| config(&server.url()).with_port(port)))
}

impl Schema {
    pub(crate) fn new(config: PostgresConfig, wire: Wire) -> Self {
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
        let (server, config) = tokio::task::block_in_place(self.wire);
        let proxy = FaultProxy::start(server.addr()).await;
        // Short, because what never answers is waited for.
        let impatient = config(&server, proxy.addr().port())
            .with_operation_timeout(Duration::from_secs(2))
            .with_connect_timeout(Duration::from_secs(2));
        let (store, direct) = (open(&impatient), open(&config(&server, server.port())));
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
