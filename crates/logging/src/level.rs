//! Which events are logged, as a person writes it.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::error::LogError;

/// Reads `info` or `info,some_crate=debug,some_crate::part=trace`.
///
/// Stricter than tracing-subscriber, which takes a misspelt level for the name of a target and then logs nothing else.
pub(crate) fn parse(text: &str) -> Result<Targets, LogError> {
    let bad = |problem: String| LogError::InvalidLevel { problem };
    let level = |name: &str| -> Result<LevelFilter, LogError> {
        Ok(match name.trim().to_ascii_lowercase().as_str() {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(bad(format!("{name:?} is no level; use off, error, warn, info, debug or trace"))),
        })
    };
    let mut parts = text.split(',');
    let mut targets = Targets::new().with_default(level(parts.next().unwrap_or_default())?);
    for part in parts {
        let (target, name) = part
            .split_once('=')
            .ok_or_else(|| bad(format!("{part:?} names no target; after the default level write target=level")))?;
        let target = target.trim();
        if target.is_empty() || !target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.'))
        {
            return Err(bad(format!("{target:?} is no target; use a crate or module such as infra_risk_engine")));
        }
        targets = targets.with_target(target, level(name)?);
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn reads_defaults_and_exceptions() {
        let targets = parse("Warn, infra_risk_engine=debug,sqlx=off").unwrap();
        assert!(targets.would_enable("infra_risk_engine::limits", &Level::DEBUG));
        assert!(targets.would_enable("anything", &Level::WARN));
        assert!(!targets.would_enable("anything", &Level::INFO));
        assert!(!targets.would_enable("sqlx", &Level::ERROR));
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for bad in ["", "inof", "info,debug", "info,a=", "info,=debug", "a=debug", "info,a b=debug", "3"] {
            assert!(matches!(parse(bad), Err(LogError::InvalidLevel { .. })), "{bad:?}");
        }
    }
}
