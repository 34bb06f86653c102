#![doc = include_str!("../README.md")]

mod error;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::BackendError;
#[cfg(feature = "sqlite")]
pub use sqlite::{Schema, Sqlite, SqliteConfig, Synchronous};
