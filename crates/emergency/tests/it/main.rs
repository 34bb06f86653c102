//! The switch from outside: transitions, failures of the store, several processes, and every order of their steps.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fail_closed;
mod fleet;
mod heartbeat;
mod interleavings;
mod limits;
mod poller;
mod procedure;
mod push;
mod rearm_policy;
mod scopes;
mod simulation;
mod store;
mod transitions;
