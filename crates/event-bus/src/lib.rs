#![doc = include_str!("../README.md")]

mod batch;
pub mod broker;
mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod engine;
mod error;
mod handler;
mod json;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod lost_claims;
mod memory;
mod metrics;
mod options;
mod pattern;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod replay;
mod spill;
#[cfg(feature = "sqlite")]
mod sqlite;
mod subscription;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod time_source;
mod typed;

pub use batch::{BatchHandler, in_batches};
pub use bus::{
    BusConfig, BusInfo, DeadLetter, DeadLetters, DelayPlace, DelayedEvent, Delivery, EventBus, GroupInfo, GroupStatus,
    Limits, Published,
};
pub use engine::Bus;
pub use error::BusError;
pub use handler::{Delivered, Gap, Handler, HandlerError, handler_fn};
pub use json::{EventBusExt, json_handler};
pub use memory::{MemoryBroker, MemoryEventBus};
pub use metrics::{HandlingTimes, Metrics};
pub use options::{GroupOptions, Mode, OnRetry, Overflow, StartFrom, SubscribeOptions};
pub use pattern::Pattern;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBroker, PostgresEventBus};
#[cfg(feature = "redis")]
pub use redis::{RedisBroker, RedisEventBus};
pub use replay::{Replay, ReplayFrom, Replayed};
pub use spill::{SpillConfig, SpillStatus, SpillSync, SpillingEventBus};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteBroker, SqliteEventBus};
pub use subscription::Subscription;
#[cfg(any(feature = "redis", feature = "postgres"))]
pub use time_source::TimeSource;
pub use typed::{Publish, PublishError, Received, TopicMetrics, TryRecvError, TypedReceiver, TypedTopic, WhenFull};
