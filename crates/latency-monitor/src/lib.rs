#![doc = include_str!("../README.md")]

mod buckets;
mod config;
mod distribution;
mod error;
mod memory;
mod monitor;
mod operation;
mod order_trace;
mod recent;
mod recorder;
mod shard;
mod slot;
mod snapshot;
mod timer;

pub use config::{LatencyConfig, RecentPolicy};
pub use distribution::Distribution;
pub use error::LatencyError;
pub use memory::MemoryLatencyMonitor;
pub use monitor::{LatencyMonitor, MonitorStats, OTHER};
pub use operation::OperationKey;
pub use order_trace::{OrderStages, OrderTrace, Stage, TraceReport};
pub use recent::Sample;
pub use recorder::{Outcome, Recorder};
pub use snapshot::{Figures, OperationSnapshot, Snapshot, Summary};
pub use timer::Timer;
