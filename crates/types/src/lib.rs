#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod clock;
pub mod cloudevents;
pub mod context;
pub mod envelope;
pub mod error;
pub mod health;
pub mod ids;
pub mod instrument;
pub mod money;
pub mod order;
pub mod scope;
pub mod secret;
pub mod sliced_window;
pub mod timestamp;
pub mod traceparent;

pub use backoff::{Backoff, Jitter};
pub use clock::{Clock, ManualClock, Monotonic, SystemClock};
pub use context::{AuditContext, CorrelationId, ExecutionContext, spawn_correlated};
pub use envelope::{Envelope, EventId, Topic};
pub use error::{ErrorKind, InvalidValue};
pub use health::{Health, HealthStatus};
pub use ids::{AccountId, BotId, ExecutionId, GroupId, Namespace, OrderId, StrategyId, Symbol, UserId, Venue};
pub use instrument::{InstrumentId, InstrumentSpec, SpecViolation};
pub use money::{Currency, Money, Price, Qty, Scaled};
pub use order::{Execution, ExecutionKind, Fill, Order, OrderKind, OrderStatus, Side, TimeInForce};
pub use scope::Scope;
pub use secret::Secret;
pub use sliced_window::SlicedWindow;
pub use timestamp::Timestamp;
pub use traceparent::TraceParent;

pub use rust_decimal::Decimal;
