#![doc = include_str!("../README.md")]

mod batch;
mod capability;
mod changes;
mod codec;
mod create;
#[cfg(feature = "encryption")]
mod encrypted;
mod error;
mod ext;
mod key;
mod list;
mod memory;
mod metered;
mod op;
#[cfg(feature = "postgres")]
mod postgres;
mod rate_limiter;
#[cfg(feature = "redis")]
mod redis;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod validate;
mod window;

pub mod cache;
#[cfg(feature = "conformance")]
pub mod chaos;
#[cfg(feature = "conformance")]
pub mod conformance;

pub use batch::{Applied, Batch, Delta, LeaseGrant, OutboxPosition, OutboxRow, Ttl, Version, When};
pub use capability::Capability;
pub use changes::{Change, ChangePosition, Changes, Watch, WatchEvent};
pub use codec::{Stored, StoredEntry, StoredExt, StoredPage, decode_stored, encode_stored};
pub use create::{create_state_store, create_state_store_with};
#[cfg(feature = "encryption")]
pub use encrypted::{EncryptedStateStore, KeyRing, Rotated};
pub use error::StoreError;
pub use ext::{Once, StateStoreExt};
pub use key::{Key, KeyKind};
pub use list::{ListOrder, ListPage, ListRange};
pub use memory::MemoryStateStore;
pub use metered::{CallStatistics, MeteredStateStore, StoreStatistics};
pub use op::Op;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStateStore;
pub use rate_limiter::{Decision, RateLimiter};
#[cfg(feature = "redis")]
pub use redis::RedisStateStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStateStore;
pub use store::{Entry, Limits, Page, Scan, StateStore, StoreInfo, Value};
pub use window::WindowLimit;
