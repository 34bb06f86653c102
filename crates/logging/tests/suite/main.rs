//! The log as its users see it.
#![expect(clippy::unwrap_used, reason = "helpers of a test may panic")]

mod files;
mod lines;
mod pressure;
mod support;
