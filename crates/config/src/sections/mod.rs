//! Plain sections: what was configured, in the house's vocabulary. They know no other crate; the factory converts them.

mod places;
mod running;
mod servers;

pub use places::{AuditSection, Backend, EventsSection, LedgerSection, StateSection};
pub use running::{EmergencySection, LimitsFrom, LogFormat, LogLevel, LoggingSection, ResilienceSection, RiskSection};
pub use servers::{Node, PostgresSection, PostgresTls, RedisSection, RedisTopology, SqliteSection, Synchronous};
