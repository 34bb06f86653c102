//! How a bot behaves while it runs.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use infra_types::{Decimal, UserId};
use serde::{Deserialize, Serialize};

use crate::fields::{decimal, duration};

/// How loud the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer looks for.
    Debug,
    /// What happened.
    Info,
    /// What may become a problem.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The name that `LOG_LEVEL` takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For eyes.
    Pretty,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoggingSection {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether lines go to the console.
    pub console: bool,
    /// A log file relative to `data_dir`; none writes no file. [`crate::Config::log_path`] joins them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Bytes after which the file is rotated.
    pub file_bytes_max: u64,
    /// How many rotated files are kept.
    pub files_max: NonZeroU32,
    /// How many recent lines can be queried in the process.
    pub aggregator_entries_max: NonZeroU32,
}

/// The kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EmergencySection {
    /// Whether a breached limit halts trading by itself.
    pub auto_halt_on_limit: bool,
    /// How long a confirmed halt state may be trusted; afterwards trading stops until it is confirmed again.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often the halt state is read from the store, shorter than the lease.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// Who may re-arm, change limits, enable strategies, and ask for and grant overrides. Text: names with commas between them. Empty:
    /// everybody who gives a name may.
    #[serde(default, with = "persons")]
    pub rearm_persons: Vec<UserId>,
    /// Within which time a second person has to confirm a re-arm; zero: one person is enough.
    #[serde(with = "duration")]
    pub rearm_second_person_within: Duration,
    /// How long what a program halted stays halted, whoever wants to re-arm it; zero: no time.
    #[serde(with = "duration")]
    pub rearm_cool_down: Duration,
}

/// Names with commas between them.
mod persons {
    use infra_types::UserId;
    use serde::{Deserializer, Serializer, de::Error};

    use crate::de::RawText;

    pub(super) fn serialize<S: Serializer>(persons: &[UserId], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&persons.iter().map(UserId::as_str).collect::<Vec<_>>().join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<UserId>, D::Error> {
        let text = RawText::read(d)?;
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(|word| UserId::new(word).map_err(|_| D::Error::custom("expected names such as `anna,ben`"))).collect()
    }
}

/// Which limits are followed where the ledger holds limits too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LimitsFrom {
    /// The configuration's: a start stores them as the next version if others are stored.
    Config,
    /// The stored ones: the configuration's are stored only if there are none.
    Stored,
}

/// Limits of risk. Amounts are in the account's currency; `pct` is a share of equity, 0.05 is five percent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RiskSection {
    /// Value of one order.
    #[serde(with = "decimal")]
    pub max_order_notional: Decimal,
    /// Quantity of one order, in units of the instrument; holds where an instrument has no limit of its own.
    #[serde(with = "decimal")]
    pub max_order_qty: Decimal,
    /// Value of one position, working orders included.
    #[serde(with = "decimal")]
    pub max_position_notional: Decimal,
    /// Value of all positions, as a share of equity.
    #[serde(with = "decimal")]
    pub max_portfolio_exposure_pct: Decimal,
    /// Loss of one day, as a share of equity.
    #[serde(with = "decimal")]
    pub max_daily_loss_pct: Decimal,
    /// Fall from the highest equity, as a share of it.
    #[serde(with = "decimal")]
    pub max_drawdown_pct: Decimal,
    /// Open positions at the same time.
    pub max_total_positions: NonZeroU32,
    /// Which limits are followed if others are stored in the ledger.
    pub limits: LimitsFrom,
    /// Whether a loss near its limit raises its scope to ALERT, so that nothing passes that adds risk until a person re-arms it.
    pub alert_on_warning: bool,
    /// How often losses are compared with their limits, besides after each fill.
    #[serde(with = "duration")]
    pub look_every: Duration,
}

/// Retry of idempotent operations and the breaker around a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResilienceSection {
    /// Calls of one operation, the first included.
    pub attempts_max: NonZeroU32,
    /// Wait before the second call; doubles from there.
    #[serde(with = "duration")]
    pub backoff_first: Duration,
    /// The longest wait between two calls.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// Failures in a row that open the breaker.
    pub breaker_failures: NonZeroU32,
    /// How long it stays open before it tries again.
    #[serde(with = "duration")]
    pub breaker_open_for: Duration,
}
