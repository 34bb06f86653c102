//! Private servers whose wires fail.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use infra_backends::RedisConfig;
use infra_state_store::{
    StateStore,
    conformance::{FaultControl, Outage, Way},
};
use infra_testkit::{Cut, Direction, FaultProxy};

use super::redis_tools::open;

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
    pub(crate) fn control(
        through: RedisConfig,
        past: &RedisConfig,
        proxies: Vec<FaultProxy>,
        restart: impl FnMut() + Send + 'static,
    ) -> Arc<dyn FaultControl> {
        // Short, because what never answers is waited for.
        let impatient =
            through.with_operation_timeout(Duration::from_secs(1)).with_connect_timeout(Duration::from_secs(2));
        let restart: Mutex<Box<dyn FnMut() + Send>> = Mutex::new(Box::new(restart));
        Arc::new(Self { store: open(&impatient), direct: open(past), proxies, restart })
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
