#![doc = include_str!("../README.md")]

mod error;
pub mod gate;
mod infrastructure;
mod instance;
mod limits;
mod logs;
mod wiring;

pub use error::FactoryError;
pub use infrastructure::{CloseReport, Console, Infrastructure, InfrastructureBuilder, create_infrastructure};
pub use logs::log_config;
pub use wiring::{
    halt_cancels::Venues,
    inbox::Inbox,
    outbox::{AuditRow, Outbox},
    supervise::{SuperviseConfig, Supervision},
};

/// The capabilities that a bot uses by themselves, so that one dependency is enough.
pub use infra_audit_log as audit_log;
pub use infra_config as config;
pub use infra_emergency as emergency;
pub use infra_event_bus as event_bus;
pub use infra_latency_monitor as latency_monitor;
pub use infra_logging as logging;
pub use infra_resilience as resilience;
pub use infra_risk_engine as risk_engine;
pub use infra_state_store as state_store;
pub use infra_types as types;

pub use infra_config::Preset;
