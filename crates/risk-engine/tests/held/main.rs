//! Held orders, their holders, orphans and reconciliation, over a store in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod contention;
mod guard;
mod hold;
mod holder;
mod orphans;
mod reconcile;
mod support;
