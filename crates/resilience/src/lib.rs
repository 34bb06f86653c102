#![doc = include_str!("../README.md")]

mod breaker;
mod budget;
mod classify;
mod effect;
mod error;
mod outcome;
mod policy;
pub mod presets;
mod random;
mod retry;
mod timeout;

pub use breaker::{
    Abandoned, BreakerBuilder, BreakerEvent, BreakerEventKind, BreakerSnapshot, BreakerState, CircuitBreaker, Permit,
    Rejected, Verdict,
};
pub use budget::RetryBudget;
pub use classify::Classify;
pub use effect::{AtMostOnce, Effect, Idempotent, Keyed, ReadOnly, Repeatable};
pub use error::{CallError, InvalidConfig};
pub use outcome::{Outcome, Submission};
pub use policy::{Attempt, Policy, PolicyBuilder, PolicyError};
pub use random::{RandomSource, SeededRandom};
pub use retry::{Decision, Retry, StopReason};
pub use timeout::with_timeout;
