//! The suite on PostgreSQL.
#![cfg(feature = "postgres")]

mod postgres_tools;

use infra_state_store::state_store_conformance;

use self::postgres_tools::{Schema, apart, plain};

async fn fixture() -> Schema {
    Schema::new(apart(), plain)
}

state_store_conformance!(fixture());
