#![doc = include_str!("../README.md")]

mod builder;
mod config;
mod de;
mod environment;
mod fields;
mod file;
mod preset;
mod problem;
mod rules;
pub mod sections;
mod suggest;
mod tree;
mod url_parts;

pub use builder::{ConfigBuilder, get_config};
pub use config::Config;
pub use environment::Environment;
pub use preset::Preset;
pub use problem::{ConfigError, Problem, Source};
pub use sections::{
    AuditSection, Backend, EmergencySection, EventsSection, LedgerSection, LimitsFrom, LogFormat, LogLevel,
    LoggingSection, Node, PostgresSection, PostgresTls, RedisSection, RedisTopology, ResilienceSection, RiskSection,
    SqliteSection, StateSection, Synchronous,
};
