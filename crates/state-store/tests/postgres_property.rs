//! PostgreSQL gives the same answers as memory to the same operations.
#![cfg(feature = "postgres")]

mod agreement;
mod postgres_tools;

use infra_testkit::PostgresServer;
use proptest::prelude::*;

use self::{
    agreement::{agree, steps},
    postgres_tools::{apart, open},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_postgres_agree(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { agree(&*open(&apart(&PostgresServer::shared().url())), steps).await })?;
    }
}
