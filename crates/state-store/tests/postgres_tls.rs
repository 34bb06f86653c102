//! The suite on a PostgreSQL server that speaks TLS only.
#![cfg(feature = "postgres")]

mod postgres_tools;

use infra_backends::PostgresConfig;
use infra_state_store::state_store_conformance;
use infra_testkit::{PostgresServer, unique_name};

use self::postgres_tools::{Schema, config};

fn secured(server: &PostgresServer, port: u16) -> PostgresConfig {
    let url =
        format!("{}?sslmode=verify-full&sslrootcert={}", server.bare_url(), server.certificates().ca_file().display());
    config(&url).with_port(port)
}

async fn fixture() -> Schema {
    let server = PostgresServer::shared_tls();
    let config = secured(server, server.port()).with_schema(unique_name());
    Schema::new(config, || (PostgresServer::builder().tls().start(), Box::new(secured)))
}

state_store_conformance!(fixture());
