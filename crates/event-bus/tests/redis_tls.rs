//! The suite on a Redis server that speaks TLS only.
#![cfg(feature = "redis")]

mod redis_tools;

use infra_backends::{Pem, RedisConfig, RedisTls};
use infra_testkit::RedisServer;

use self::redis_tools::Keys;

fn keys() -> Keys {
    let server = RedisServer::shared_tls();
    let tls = RedisTls::default().with_ca(Pem::file(server.certificates().ca_file()));
    Keys::new(RedisConfig::from_url(&server.url()).expect("a valid URL").with_tls(tls))
}

infra_event_bus::event_bus_conformance!(keys());
