//! The suite on a PostgreSQL server that speaks TLS only.
#![cfg(feature = "postgres")]

mod postgres_tools;

use infra_testkit::PostgresServer;

use self::postgres_tools::Schema;

infra_event_bus::event_bus_conformance!(Schema::new(&PostgresServer::shared_tls().url()));
