#![doc = include_str!("../README.md")]

mod builder;
mod controller;
mod durable;
mod error;
mod gauge;
mod limit;
mod notify;
mod policy;
mod poller;
mod push;
mod raise;
mod rearm;
mod scopes;
mod state;
mod status;
mod stop;
mod sync;
mod view;

pub use builder::{CompanionOps, EmergencyBuilder};
pub use controller::EmergencyController;
pub use error::EmergencyError;
pub use limit::LimitVerdict;
pub use notify::SubscriptionId;
pub use policy::RearmPolicy;
pub use poller::PollerGuard;
pub use push::{ListenGuard, PushCounts, TRANSITION_TOPIC};
pub use scopes::{OrderGroup, OrderScopes};
pub use state::{EmergencyState, RearmRequest, Snapshot, Stance, Transition, TransitionKind};
pub use status::EmergencyStatus;
pub use stop::Stop;
