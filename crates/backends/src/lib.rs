#![doc = include_str!("../README.md")]

mod error;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::BackendError;
#[cfg(feature = "postgres")]
pub use postgres::{
    PemSource, PgQuery, PgSchema, PgTransaction, PgWork, Postgres, PostgresConfig, PostgresServer, PostgresStatistics,
    PostgresTls,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{Schema, Sqlite, SqliteConfig, Synchronous};
