//! The primitives that a model checker has to see; the loom test puts its own in their place.

pub(super) use std::sync::atomic::AtomicU64;

pub(super) use parking_lot::Mutex;
