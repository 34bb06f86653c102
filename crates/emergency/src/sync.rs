//! The atomics and the lock of [`gauge`](super::gauge), which its model exchanges for those of the model checker.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64};

pub(crate) use parking_lot::RwLock;
