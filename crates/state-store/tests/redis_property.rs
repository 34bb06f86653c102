//! Redis gives the same answers as memory to the same operations.
#![cfg(feature = "redis")]

mod agreement;

use infra_backends::RedisConfig;
use infra_state_store::RedisStateStore;
use infra_testkit::{RedisServer, unique_name};
use infra_types::SystemClock;
use proptest::prelude::*;

use self::agreement::{agree, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_redis_agree(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = RedisConfig::from_url(&RedisServer::shared().url()).unwrap();
            let config = config.with_key_prefix(format!("{}:", unique_name()));
            let redis = RedisStateStore::open(config, SystemClock::shared()).unwrap();
            agree(&redis, steps).await
        })?;
    }
}
