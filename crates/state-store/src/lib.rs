#![doc = include_str!("../README.md")]

mod batch;
mod error;
mod key;
mod store;

pub use batch::{Applied, Batch, Delta, LeaseGrant, Op, OutboxPosition, OutboxRow, Ttl, Version, When};
pub use error::StoreError;
pub use key::{Key, KeyKind};
pub use store::{Entry, Limits, Page, Scan, StateStore, StoreInfo, Value};
