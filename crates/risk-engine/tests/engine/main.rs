//! The engine over a store in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod burst;
mod counters;
mod leak;
mod missing;
mod race;
mod reduce;
mod settle;
mod support;
