#![doc = include_str!("../README.md")]

mod builder;
mod config;
mod error;
mod fields;
mod handle;
mod json;
mod layer;
mod level;
mod mask;
mod pretty;
mod queue;
mod record;
mod rotate;
mod scrub;
mod sink;
mod stamp;
mod writer;

pub use builder::{LogBuilder, init};
pub use config::{FileConfig, LogConfig, LogFormat};
pub use error::LogError;
pub use handle::{LogGuard, LogHandle, LogStats};
