//! Fixtures on real servers.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infra_backends::RedisConfig;
use infra_state_store::{
    RedisStateStore, StateStore,
    conformance::{FaultControl, Fixture, Outage, Way},
};
use infra_testkit::{Cut, Direction, FaultProxy, unique_name};
use infra_types::SystemClock;

/// A store on connections of its own.
pub(crate) fn open(config: &RedisConfig) -> Arc<RedisStateStore> {
    Arc::new(RedisStateStore::open(config.clone(), SystemClock::shared()).expect("a valid configuration"))
}

/// Two handles that share nothing but the servers, as two processes would.
pub(crate) struct Servers {
    config: RedisConfig,
    store: Arc<dyn StateStore>,
    second: Arc<dyn StateStore>,
    faults: MakeFaults,
}

/// Starts servers for the faults of one case.
pub(crate) type MakeFaults = fn() -> Pin<Box<dyn Future<Output = Faults> + Send>>;

impl Servers {
    /// On keys that no other test has.
    pub(crate) fn new(config: RedisConfig, faults: MakeFaults) -> Self {
        let config = config.with_key_prefix(format!("{}:", unique_name()));
        Self { store: open(&config), second: open(&config), config, faults }
    }
}

#[async_trait::async_trait]
impl Fixture for Servers {
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
        Some(Arc::new((self.faults)().await))
    }
}

/// Private servers behind proxies.
pub(crate) struct Faults {
    store: Arc<dyn StateStore>,
    direct: Arc<dyn StateStore>,
    /// The first leads to the server that has the data.
    proxies: Vec<FaultProxy>,
    restart: Mutex<Box<dyn FnMut() + Send>>,
}

impl Faults {
    /// `restart` owns the servers.
    pub(crate) fn new(
        through: RedisConfig,
        past: &RedisConfig,
        proxies: Vec<FaultProxy>,
        restart: impl FnMut() + Send + 'static,
    ) -> Self {
        // Short, because what never answers is waited for.
        let impatient =
            through.with_operation_timeout(Duration::from_secs(1)).with_connect_timeout(Duration::from_secs(2));
        Self { store: open(&impatient), direct: open(past), proxies, restart: Mutex::new(Box::new(restart)) }
    }
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
        self.proxies.iter().for_each(|proxy| proxy.cut_all(Cut::Reset));
    }

    async fn cut_after(&self, way: Way, bytes: u64) {
        let direction = if way == Way::Requests { Direction::ToServer } else { Direction::ToClient };
        self.proxies[0].cut_after(direction, bytes, Cut::Reset);
    }

    async fn outage(&self, how: Outage) {
        self.proxies.iter().for_each(|proxy| match how {
            Outage::Refused => proxy.down(Cut::Reset),
            Outage::Silent => proxy.black_hole(),
        });
    }

    async fn delay(&self, by: Duration) {
        self.proxies.iter().for_each(|proxy| proxy.delay(Direction::ToClient, by));
    }

    async fn heal(&self) {
        self.proxies.iter().for_each(FaultProxy::pass);
    }

    async fn restart(&self) {
        tokio::task::block_in_place(|| self.restart.lock().unwrap_or_else(PoisonError::into_inner)());
    }
}
