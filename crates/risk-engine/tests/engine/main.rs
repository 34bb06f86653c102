//! The engine over a store in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod burst;
mod counters;
mod deposits;
mod knight;
mod leak;
mod limit_sets;
mod market_orders;
mod marks;
mod missing;
mod overrides;
mod race;
mod reduce;
mod rules;
#[expect(unreachable_pub, reason = "an example shares the file")]
mod sequences;
mod settle;
mod support;
mod trial;
