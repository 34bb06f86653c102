//! What the gate's tests share: a store that fails on command, a venue with a script, and a small world around a gate.

mod store;
mod venue;
mod world;

pub(crate) use store::Fault;
pub(crate) use venue::{Answer, Venue, ack, cancelled, expired, fill, fill_with_fee};
pub(crate) use world::{World, assert_flat, dec, limits, order, patient_gate};
