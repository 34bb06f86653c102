//! The suite on a Redis server that speaks TLS only.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::{Pem, RedisConfig, RedisTls};
use infra_state_store::state_store_conformance;
use infra_testkit::RedisServer;

use self::redis_tools::Servers;

fn config(server: &RedisServer, port: u16) -> RedisConfig {
    let tls = RedisTls::default().with_ca(Pem::file(server.certificates().ca_file()));
    RedisConfig::from_url(&format!("rediss://127.0.0.1:{port}")).expect("a valid URL").with_tls(tls)
}

async fn fixture() -> Servers {
    let server = RedisServer::shared_tls();
    Servers::new(config(server, server.port()), || (RedisServer::builder().tls().start(), Box::new(config)))
}

state_store_conformance!(fixture());
