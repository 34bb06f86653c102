#![doc = include_str!("../README.md")]

mod builder;
mod controller;
mod dead_man;
mod durable;
mod error;
mod gauge;
mod heartbeat;
mod limit;
mod notify;
mod policy;
mod poller;
mod procedure;
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
pub use dead_man::{DeadMan, DeadManConfig, DeadManGuard, OnDeath};
pub use error::EmergencyError;
pub use heartbeat::{BotDeath, BotLife, BotRecord, DeathOutcome, Heartbeat, HeartbeatConfig, HeartbeatGuard};
pub use limit::{LimitLevel, LimitPolicy, LimitReport, LimitVerdict, LimitWatch};
pub use notify::SubscriptionId;
pub use policy::RearmPolicy;
pub use poller::PollerGuard;
pub use procedure::{
    CancelFailed, CancelOrders, CancelProgress, HaltProcedure, HaltReport, ProcedureConfig, ProcedureGuard,
    VenueReport, VenueStatus,
};
pub use push::{ListenGuard, PushCounts, TRANSITION_TOPIC};
pub use scopes::{OrderGroup, OrderScopes};
pub use state::{EmergencyState, RearmRequest, Snapshot, Stance, Transition, TransitionKind};
pub use status::EmergencyStatus;
pub use stop::Stop;
