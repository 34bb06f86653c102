//! The suite on a plain Redis server.
#![cfg(feature = "redis")]

#[path = "redis_tools/faults.rs"]
mod failing;
mod redis_tools;

use std::sync::Arc;

use infra_backends::RedisConfig;
use infra_state_store::{conformance::FaultControl, state_store_conformance};
use infra_testkit::{FaultProxy, RedisServer};

use self::{failing::Faults, redis_tools::Servers};

fn config(port: u16) -> RedisConfig {
    RedisConfig::from_url(&format!("redis://127.0.0.1:{port}")).expect("a valid URL")
}

async fn faults() -> Arc<dyn FaultControl> {
    let mut server = tokio::task::block_in_place(RedisServer::start);
    let proxy = FaultProxy::start(server.addr()).await;
    let (through, past) = (config(proxy.addr().port()), config(server.port()));
    Faults::control(through, &past, vec![proxy], move || server.restart())
}

async fn fixture() -> Servers {
    Servers::new(config(RedisServer::shared().port()), || Box::pin(faults()))
}

state_store_conformance!(fixture());
