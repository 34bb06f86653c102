//! The suite on a Redis server that speaks TLS only.
#![cfg(feature = "redis")]

#[path = "redis_tools/faults.rs"]
mod failing;
mod redis_tools;

use std::sync::Arc;

use infra_backends::{Pem, RedisConfig, RedisTls};
use infra_state_store::{conformance::FaultControl, state_store_conformance};
use infra_testkit::{FaultProxy, RedisServer};

use self::{failing::Faults, redis_tools::Servers};

fn config(server: &RedisServer, port: u16) -> RedisConfig {
    let tls = RedisTls::default().with_ca(Pem::file(server.certificates().ca_file()));
    RedisConfig::from_url(&format!("rediss://127.0.0.1:{port}")).expect("a valid URL").with_tls(tls)
}

async fn faults() -> Arc<dyn FaultControl> {
    let mut server = tokio::task::block_in_place(|| RedisServer::builder().tls().start());
    let proxy = FaultProxy::start(server.addr()).await;
    let (through, past) = (config(&server, proxy.addr().port()), config(&server, server.port()));
    Faults::control(through, &past, vec![proxy], move || server.restart())
}

async fn fixture() -> Servers {
    let server = RedisServer::shared_tls();
    Servers::new(config(server, server.port()), || Box::pin(faults()))
}

state_store_conformance!(fixture());
