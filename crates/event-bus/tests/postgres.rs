//! The suite on a PostgreSQL server.
#![cfg(feature = "postgres")]

mod postgres_tools;

use infra_testkit::PostgresServer;

use self::postgres_tools::Schema;

infra_event_bus::event_bus_conformance!(Schema::new(&PostgresServer::shared().url()));
