//! The suite on a plain Redis server.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::RedisConfig;
use infra_state_store::state_store_conformance;
use infra_testkit::{FaultProxy, RedisServer};

use self::redis_tools::{Faults, Servers};

fn config(port: u16) -> RedisConfig {
    RedisConfig::from_url(&format!("redis://127.0.0.1:{port}")).expect("a valid URL")
}

async fn faults() -> Faults {
    let mut server = tokio::task::block_in_place(RedisServer::start);
    let proxy = FaultProxy::start(server.addr()).await;
    let (through, past) = (config(proxy.addr().port()), config(server.port()));
    Faults::new(through, &past, vec![proxy], move || server.restart())
}

async fn fixture() -> Servers {
    Servers::new(config(RedisServer::shared().port()), || Box::pin(faults()))
}

state_store_conformance!(fixture());
