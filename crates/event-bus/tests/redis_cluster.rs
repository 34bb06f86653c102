//! The suite on a Redis Cluster of six nodes.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::{RedisConfig, RedisTopology};
use infra_testkit::RedisCluster;

use self::redis_tools::Keys;

fn keys() -> Keys {
    let seeds = RedisCluster::shared().seeds().iter().map(|at| (at.ip().to_string(), at.port())).collect();
    Keys::new(RedisConfig::new(RedisTopology::cluster(seeds)))
}

infra_event_bus::event_bus_conformance!(keys());
