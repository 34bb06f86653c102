//! The suite on PostgreSQL.
#![cfg(feature = "postgres")]

mod postgres_fixture;
mod postgres_tools;

use infra_state_store::state_store_conformance;
use infra_testkit::PostgresServer;

use self::postgres_fixture::Schema;

fn url(server: &PostgresServer, port: u16) -> String {
    let (user, password) = (server.user(), server.password());
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{user}")
}

async fn fixture() -> Schema {
    Schema::new(PostgresServer::shared(), (PostgresServer::start, url))
}

state_store_conformance!(fixture());
