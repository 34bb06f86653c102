//! The suite on a plain Redis server.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::RedisConfig;
use infra_state_store::state_store_conformance;
use infra_testkit::RedisServer;

use self::redis_tools::Servers;

fn config(port: u16) -> RedisConfig {
    RedisConfig::from_url(&format!("redis://127.0.0.1:{port}")).expect("a valid URL")
}

async fn fixture() -> Servers {
    Servers::new(config(RedisServer::shared().port()), || (RedisServer::start(), Box::new(|_, port| config(port))))
}

state_store_conformance!(fixture());
