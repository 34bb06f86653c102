//! Topics of one process that hand Rust values around.

mod log;
mod policy;
mod receiver;
mod seat;
mod shared;
mod state;
mod sync;
mod topic;

pub use policy::{PublishError, TopicMetrics, TryRecvError, WhenFull};
pub use receiver::{Received, TypedReceiver};
pub use topic::{Publish, TypedTopic};
