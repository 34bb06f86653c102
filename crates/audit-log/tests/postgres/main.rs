//! The suite on the PostgreSQL backend, and what only a server can show.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod faults;
mod kill;
mod rights;
mod sharing;
mod tamper;
mod tools;

infra_audit_log::audit_log_conformance!(tools::Schema::new());
