//! The suite on a Redis Cluster of six nodes, and what only a cluster does.
#![cfg(feature = "redis")]

mod redis_tools;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use infra_backends::{RedisConfig, RedisTopology};
use infra_state_store::state_store_conformance;
use infra_testkit::{FaultProxy, RedisCluster};

use self::redis_tools::{Faults, Servers};

fn config(seeds: &[SocketAddr]) -> RedisConfig {
    RedisConfig::new(RedisTopology::cluster(seeds.iter().map(|at| (at.ip().to_string(), at.port())).collect()))
}

/// A client behind the proxies learns from the cluster which ports there are, and keeps to the host that it knows: the proxies have the
/// servers' ports on another loopback address.
async fn faults() -> Faults {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    // Two test processes at once must not take the same address and port; their ports differ, for every server has its own.
    let host = Ipv4Addr::new(127, 0, 1, 1 + NEXT.fetch_add(1, Ordering::Relaxed) % 250);
    let mut cluster = tokio::task::block_in_place(RedisCluster::start);
    let slot = cluster.slot_of("{conformance}");
    let master = cluster.master_of(slot).expect("a whole cluster has a master for each slot");
    let mut proxies = Vec::new();
    for node in cluster.nodes() {
        let _ = node.cli(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint"]);
        proxies.push(FaultProxy::start_at((host, node.port()).into(), node.addr()).await);
    }
    proxies.swap(0, master);
    let through: Vec<SocketAddr> = proxies.iter().map(FaultProxy::addr).collect();
    let past = config(&cluster.seeds());
    Faults::new(config(&through), &past, proxies, move || cluster.nodes_mut()[master].restart())
}

async fn fixture() -> Servers {
    Servers::new(config(&RedisCluster::shared().seeds()), || Box::pin(faults()))
}

state_store_conformance!(fixture());
