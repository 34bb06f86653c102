#![doc = include_str!("../README.md")]

mod error;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::BackendError;
#[cfg(feature = "postgres")]
pub use postgres::{
    PemSource, PgQuery, PgSchema, PgTransaction, PgWork, Postgres, PostgresConfig, PostgresServer, PostgresStatistics,
    PostgresTls,
};
#[cfg(feature = "redis")]
pub use redis::{
    Access, Fsync, Pem, Redis, RedisConfig, RedisScript, RedisServer, RedisStatistics, RedisTls, RedisTopology,
    key_slot,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{Schema, Sqlite, SqliteConfig, Synchronous};
