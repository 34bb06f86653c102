//! The order gate under attack: lost replies, doubled reports, halts in between, and death at every write.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

#[path = "../common/mod.rs"]
mod common;

mod approve;
mod crash;
mod halt;
mod losses;
mod lost;
mod orphans;
mod place;
mod reconcile;
mod report;
mod scopes;
