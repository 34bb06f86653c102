//! The suite on a Redis Cluster of six nodes, and what only a cluster does.
#![cfg(feature = "redis")]

#[path = "redis_tools/faults.rs"]
mod failing;
mod redis_tools;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use infra_backends::{RedisConfig, RedisTopology};
use infra_state_store::{
    Batch, Key, Scan, StateStore, StateStoreExt, StoreError, Ttl, Version, When, conformance::FaultControl,
    state_store_conformance,
};
use infra_testkit::{FaultProxy, RedisCluster};
use infra_types::{ErrorKind, Namespace};

use self::{
    failing::Faults,
    redis_tools::{Servers, open},
};

fn config(seeds: &[SocketAddr]) -> RedisConfig {
    RedisConfig::new(RedisTopology::cluster(seeds.iter().map(|at| (at.ip().to_string(), at.port())).collect()))
}

/// A client behind the proxies learns from the cluster which ports there are, and keeps to the host that it knows: the proxies have the
/// servers' ports on another loopback address.
async fn faults() -> Arc<dyn FaultControl> {
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
    Faults::control(config(&through), &past, proxies, move || cluster.nodes_mut()[master].restart())
}

async fn fixture() -> Servers {
    Servers::new(config(&RedisCluster::shared().seeds()), || Box::pin(faults()))
}

state_store_conformance!(fixture());

/// Every record that is there throughout a scan is found, and no batch is torn, while the namespace's slot moves to another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slot_that_moves_takes_nothing_away() {
    let cluster = tokio::task::block_in_place(RedisCluster::start);
    let store = open(&config(&cluster.seeds()));
    let ns = Namespace::new("moving").unwrap();
    let key = |n: usize| Key::record(format!("k{n:02}")).unwrap();
    let mut last = Version(0);
    for n in 0..40 {
        last = store.set(&ns, &key(n), "v", Ttl::Never).await.unwrap().unwrap();
    }
    let slot = cluster.slot_of("{moving}");
    let moving = cluster.begin_move(slot);
    let taker = cluster.nodes()[moving.to].port().to_string();
    // Half of the keys are gone already: nothing may take those for absent.
    let whole = |n: usize| format!("infra:state:{{moving}}:r:k{n:02}");
    for n in 0..20 {
        let moved = cluster.nodes()[moving.from].cli(&["MIGRATE", "127.0.0.1", &taker, &whole(n), "0", "5000"]);
        assert_eq!(moved.text(), "OK");
    }
    for n in [0, 39] {
        match store.apply(Batch::new(ns.clone()).check(key(n), When::Absent)).await {
            Err(StoreError::Mismatch { found, .. }) => assert!(found.is_some()),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Transient, "{e:?}"),
            Ok(_) => panic!("k{n} is there"),
        }
    }
    let written = store.apply(Batch::new(ns.clone()).set(key(0), "w").set(key(39), "w")).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Transient);
    match store.scan(&ns, Scan::new("k")).await {
        Ok(page) => assert_eq!(page.entries.len(), 40),
        Err(e) => assert_eq!(e.kind(), ErrorKind::Transient, "{e:?}"),
    }
    tokio::task::block_in_place(|| {
        cluster.move_keys(moving);
        cluster.finish_move(moving);
    });
    let page = store.scan(&ns, Scan::new("k")).await.unwrap();
    assert_eq!(page.entries.len(), 40);
    let next = store.set(&ns, &key(0), "w", Ttl::Never).await.unwrap().unwrap();
    assert_eq!(next, Version(last.0 + 1));
    assert_eq!(store.clear(&ns).await.unwrap(), 40);
}
