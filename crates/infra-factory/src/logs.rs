//! From the configuration's `logging` section to the logging crate's own.

use std::path::Path;

use infra_config::{Config, LogFormat};
use infra_logging::{FileConfig, LogConfig};

/// What `infra_logging::init` takes for `config`. A file is named after the bot, because one process owns it:
/// `logs/infra.log` becomes `logs/infra-bot_001.log`.
///
/// Call `init` in `main`, before the infrastructure is built, and keep its guard to the end; a library installs no subscriber.
#[must_use]
pub fn log_config(config: &Config) -> LogConfig {
    let section = &config.logging;
    let format = match section.format {
        LogFormat::Pretty => infra_logging::LogFormat::Pretty,
        _ => infra_logging::LogFormat::Json,
    };
    let mut logs =
        LogConfig::default().with_level(section.level.as_str()).with_format(format).with_console(section.console);
    if let Some(path) = config.log_path() {
        let stem = path.file_stem().map_or_else(|| "infra".into(), |s| s.to_string_lossy().into_owned());
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = FileConfig::new(dir, format!("{stem}-{}", config.bot_id));
        file.bytes_max = section.file_bytes_max;
        file.files_max = section.files_max.get();
        logs = logs.with_file(file);
    }
    logs
}
