#![doc = include_str!("../README.md")]

mod builder;
mod controller;
mod durable;
mod error;
mod limit;
mod notify;
mod poller;
mod raise;
mod rearm;
mod state;
mod view;

pub use builder::{CompanionOps, EmergencyBuilder};
pub use controller::EmergencyController;
pub use error::EmergencyError;
pub use limit::LimitVerdict;
pub use notify::SubscriptionId;
pub use poller::PollerGuard;
pub use state::{EmergencyState, Snapshot, Stance, Transition};
