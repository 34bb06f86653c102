//! A server and consumers killed with -9 in the middle of a stream, and a network that is cut.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

mod kill_tools;

use std::{sync::Arc, time::Duration};

use infra_backends::{Postgres, PostgresConfig};
use infra_event_bus::{BusConfig, EventBus, Limits, PostgresBroker, PostgresEventBus};
use infra_testkit::{FaultProxy, PostgresServer};
use infra_types::SystemClock;

fn open(url: &str) -> Arc<dyn EventBus> {
    let config = PostgresConfig::from_url(url).unwrap();
    let config = config.with_operation_timeout(Duration::from_secs(1)).with_connect_timeout(Duration::from_secs(2));
    Arc::new(PostgresEventBus::with_broker(
        PostgresBroker::new(Postgres::new(config).unwrap(), Limits::default()).durable(),
        SystemClock::shared(),
        BusConfig::default(),
    ))
}

fn server() -> PostgresServer {
    PostgresServer::builder().durable().start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn killed_servers_and_consumers_lose_nothing() {
    if kill_tools::was_consumer(open).await {
        return;
    }
    let mut server = tokio::task::block_in_place(server);
    let url = server.url();
    let kill_and_restart = || {
        server.kill();
        server.restart();
    };
    let name = "killed_servers_and_consumers_lose_nothing";
    kill_tools::killed_servers_and_consumers_lose_nothing(name, open, &url, kill_and_restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_network_that_is_cut_loses_nothing() {
    if kill_tools::was_consumer(open).await {
        return;
    }
    let server = tokio::task::block_in_place(server);
    let proxy = FaultProxy::start(server.addr()).await;
    let url = format!("postgres://{0}:{1}@{2}/{0}", server.user(), server.password(), proxy.addr());
    kill_tools::a_network_that_is_cut_loses_nothing("a_network_that_is_cut_loses_nothing", open, &url, &proxy).await;
}
