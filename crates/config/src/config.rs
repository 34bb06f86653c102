//! The whole configuration.

use std::{fmt, path::PathBuf};

use infra_types::BotId;
use serde::{Deserialize, Serialize};

use crate::{
    preset::Preset,
    sections::{
        AuditSection, Backend, EmergencySection, EventsSection, LedgerSection, LoggingSection, PostgresSection,
        RedisSection, ResilienceSection, RiskSection, SqliteSection, StateSection,
    },
};

/// A configuration that was read and checked. Neither `Debug` nor `Display` shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// What it started from.
    pub preset: Preset,
    /// The name of the bot; two bots that share a store need two names.
    #[serde(deserialize_with = "crate::fields::bot_id")]
    pub bot_id: BotId,
    /// Where files go, as it was written: a relative path is relative to the working directory.
    pub data_dir: PathBuf,
    /// General state.
    pub state: StateSection,
    /// The event bus.
    pub events: EventsSection,
    /// What money depends on.
    pub ledger: LedgerSection,
    /// The audit trail.
    pub audit: AuditSection,
    /// The SQLite file.
    pub sqlite: SqliteSection,
    /// The Redis server.
    pub redis: RedisSection,
    /// The PostgreSQL server.
    pub postgres: PostgresSection,
    /// Logs.
    pub logging: LoggingSection,
    /// The kill switch.
    pub emergency: EmergencySection,
    /// Limits of risk.
    pub risk: RiskSection,
    /// Retry and breaker.
    pub resilience: ResilienceSection,
}

impl Config {
    /// Where the SQLite file is.
    #[must_use]
    pub fn sqlite_path(&self) -> PathBuf {
        self.data_dir.join(&self.sqlite.file)
    }

    /// Where the log file is, if there is one.
    #[must_use]
    pub fn log_path(&self) -> Option<PathBuf> {
        self.logging.file.as_ref().map(|file| self.data_dir.join(file))
    }

    /// Whether anything is kept on this backend.
    #[must_use]
    pub fn uses(&self, backend: Backend) -> bool {
        let Self { state, events, ledger, audit, .. } = self;
        [state.backend, events.backend, events.market_data_backend, ledger.backend, audit.backend].contains(&backend)
    }

    /// Every setting as TOML, secrets as `***`: to print at start, or as the beginning of a file.
    #[must_use]
    pub fn masked_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be printed: {error}\n"))
    }
}

/// The same text as [`Config::masked_toml`].
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked_toml())
    }
}
