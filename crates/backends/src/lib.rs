#![doc = include_str!("../README.md")]

mod error;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod pem;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::BackendError;
#[cfg(any(feature = "redis", feature = "postgres"))]
pub use pem::Pem;
#[cfg(feature = "postgres")]
pub use postgres::{
    PgQuery, PgSchema, PgTransaction, PgWork, Postgres, PostgresConfig, PostgresListener, PostgresServer,
    PostgresSignal, PostgresStatistics, PostgresTls,
};
#[cfg(feature = "redis")]
pub use redis::{
    Access, Fsync, Redis, RedisConfig, RedisMessage, RedisScript, RedisServer, RedisStatistics, RedisSubscription,
    RedisTls, RedisTopology, key_slot,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{Schema, Sqlite, SqliteConfig, Synchronous};
