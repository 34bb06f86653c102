#![doc = include_str!("../README.md")]

mod batch;
mod create;
mod error;
mod ext;
mod key;
mod memory;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod validate;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use batch::{Applied, Batch, Delta, LeaseGrant, Op, OutboxPosition, OutboxRow, Ttl, Version, When};
pub use create::{create_state_store, create_state_store_with};
pub use error::StoreError;
pub use ext::StateStoreExt;
pub use key::{Key, KeyKind};
pub use memory::MemoryStateStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStateStore;
pub use store::{Entry, Limits, Page, Scan, StateStore, StoreInfo, Value};
