#![doc = include_str!("../README.md")]

mod checkpoint_file;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
mod export;
mod fields;
mod kind;
mod log;
mod memory;
mod note;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tree;
mod verify;

pub use checkpoint_file::CheckpointFile;
pub use codec::{LEAF_BYTES_MAX, SCHEMA_VERSION};
pub use error::AuditError;
pub use event::AuditEvent;
pub use export::{export_csv, export_json};
pub use fields::{FieldValue, Fields};
pub use kind::{AuditKind, CustomKind};
pub use log::{AuditInfo, AuditLog, AuditPage, AuditQuery, BATCH_EVENTS_MAX, Receipt, Statistics, StoredEvent};
pub use memory::{MemoryAuditLog, MemoryConfig, WhenFull};
pub use note::{Checkpoint, NoteSigner, NoteVerifier};
#[cfg(feature = "postgres")]
pub use postgres::PostgresAuditLog;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteAuditLog;
pub use tree::{Frontier, Hash32, TreeHead, leaf_hash, node_hash};
pub use verify::{Tampering, Unanchored, Verdict, Verifier};
