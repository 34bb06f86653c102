//! The suite on a Redis server, and what only a server can show.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::RedisConfig;
use infra_testkit::RedisServer;

use self::redis_tools::Keys;

fn keys() -> Keys {
    Keys::new(RedisConfig::from_url(&RedisServer::shared().url()).expect("a valid URL"))
}

infra_event_bus::event_bus_conformance!(keys());
