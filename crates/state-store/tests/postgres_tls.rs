//! The suite on a PostgreSQL server that speaks TLS only.
#![cfg(feature = "postgres")]

mod postgres_fixture;
mod postgres_tools;

use infra_state_store::state_store_conformance;
use infra_testkit::PostgresServer;

use self::postgres_fixture::Schema;

fn url(server: &PostgresServer, port: u16) -> String {
    let (user, password, ca) = (server.user(), server.password(), server.certificates().ca_file());
    let ca = ca.display();
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{user}?sslmode=verify-full&sslrootcert={ca}")
}

async fn fixture() -> Schema {
    Schema::new(PostgresServer::shared_tls(), (|| PostgresServer::builder().tls().start(), url))
}

state_store_conformance!(fixture());
