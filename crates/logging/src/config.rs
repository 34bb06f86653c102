//! What is logged, where to, and how much it may take.

use std::{path::PathBuf, time::Duration};

use crate::{error::LogError, level};

/// How the console looks. The file is always JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// One short line, for a person; coloured on a terminal.
    #[default]
    Pretty,
}

/// A file that rotates by size: `{prefix}.log`, then `{prefix}.1.log` (newest) to `{prefix}.{files_max - 1}.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The folder; made if it is missing.
    pub dir: PathBuf,
    /// How the names start: `[A-Za-z0-9_-]{1,64}`. One process at a time may hold a prefix.
    pub prefix: String,
    /// How many bytes a file may hold (10,000,000). A longer line gets a file of its own.
    pub bytes_max: u64,
    /// How many files are kept, the one being written included (10). The oldest goes.
    pub files_max: u32,
}

impl FileConfig {
    /// Ten files of 10 MB in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, prefix: impl Into<String>) -> Self {
        Self { dir: dir.into(), prefix: prefix.into(), bytes_max: 10_000_000, files_max: 10 }
    }
}

/// What is logged, where to, and how much it may take.
///
/// | field | default |
/// |---|---|
/// | `level` | `info` |
/// | `format` | `Pretty` |
/// | `console` | yes |
/// | `file` | none |
/// | `queue_bytes_max` | 8 MiB |
/// | `error_wait_max` | 2 s |
/// | `masked_fields` | none beyond the built-in names |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A default level and exceptions: `info,infra_risk_engine=debug,sqlx=warn`.
    pub level: String,
    /// How the console looks.
    pub format: LogFormat,
    /// Whether to write to standard error.
    pub console: bool,
    /// Whether to write to files.
    pub file: Option<FileConfig>,
    /// How many bytes of lines may wait for each output. Twice as much is taken, as one half is written while the other
    /// fills.
    pub queue_bytes_max: usize,
    /// How long an ERROR waits for room before it is given up, because a stuck output must not stop a bot.
    pub error_wait_max: Duration,
    /// Names of fields whose values never print, besides passwords, secrets, tokens, keys and their like.
    pub masked_fields: Vec<String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::default(),
            console: true,
            file: None,
            queue_bytes_max: 8 * 1024 * 1024,
            error_wait_max: Duration::from_secs(2),
            masked_fields: Vec::new(),
        }
    }
}

impl LogConfig {
    /// Sets the level, e.g. `info` or `info,infra_risk_engine=debug`.
    #[must_use]
    pub fn with_level(mut self, level: impl Into<String>) -> Self {
        self.level = level.into();
        self
    }

    /// Sets how the console looks.
    #[must_use]
    pub fn with_format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Turns the console on or off.
    #[must_use]
    pub fn with_console(mut self, console: bool) -> Self {
        self.console = console;
        self
    }

    /// Writes to files as well.
    #[must_use]
    pub fn with_file(mut self, file: FileConfig) -> Self {
        self.file = Some(file);
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`LogError::InvalidConfig`] with all mistakes.
    pub fn validate(&self) -> Result<(), LogError> {
        let mut problems = Vec::new();
        if let Err(LogError::InvalidLevel { problem }) = level::parse(&self.level) {
            problems.push(format!("level: {problem}"));
        }
        if !self.console && self.file.is_none() {
            problems.push("console, file: turn at least one on".to_owned());
        }
        if self.queue_bytes_max < 64 * 1024 {
            problems.push("queue_bytes_max: use at least 65536".to_owned());
        }
        if let Some(file) = &self.file {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if file.prefix.is_empty() || file.prefix.len() > 64 || !file.prefix.chars().all(plain) {
                problems.push("file.prefix: use 1 to 64 letters, digits, _ or -".to_owned());
            }
            if file.bytes_max == 0 {
                problems.push("file.bytes_max: use at least 1".to_owned());
            }
            if !(2..=10_000).contains(&file.files_max) {
                problems.push(
                    "file.files_max: use 2 to 10000; with one file a rotation would forget everything".to_owned(),
                );
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(LogError::InvalidConfig { problems }) }
    }
}
