//! The four ways to run.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    problem::{ConfigError, Problem, Source},
    suggest::did_you_mean,
};

/// Where a bot runs; decides every default.
///
/// It has no `Default` on purpose: whoever starts a bot says which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// A laptop: everything in memory, pretty logs.
    Development,
    /// One host without servers: one SQLite file, JSON log file and console.
    Standalone,
    /// A rehearsal on local Postgres and Redis, JSON logs.
    Staging,
    /// The fleet: Postgres and Redis over TLS, JSON logs, compliance rules enforced.
    Production,
}

impl Preset {
    /// Every preset, from laptop to fleet.
    pub const ALL: [Self; 4] = [Self::Development, Self::Standalone, Self::Staging, Self::Production];

    /// The name that [`Preset::from_str`] takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Standalone => "standalone",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// The two default layers: what all presets share, then what this one changes.
    pub(crate) const fn layers(self) -> [&'static str; 2] {
        let own = match self {
            Self::Development => include_str!("../presets/development.toml"),
            Self::Standalone => include_str!("../presets/standalone.toml"),
            Self::Staging => include_str!("../presets/staging.toml"),
            Self::Production => include_str!("../presets/production.toml"),
        };
        [include_str!("../presets/base.toml"), own]
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = ConfigError;

    /// Takes the exact name, in lower case. A typo is an error and never falls back to another preset.
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let names = Self::ALL.map(Self::as_str);
        Self::ALL.into_iter().find(|preset| preset.as_str() == name).ok_or_else(|| {
            let hint = match did_you_mean(name, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("choose one of {}", names.join(", ")),
            };
            // The text is not echoed: what was passed by mistake may be anything, a password too.
            Problem::new("preset", Source::Code, "there is no preset of this name").hint(hint).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
    }

    #[test]
    fn a_typo_fails_with_a_suggestion() {
        for (typo, meant) in [
            ("prodution", "production"),
            ("prod", "production"),
            ("Production", "production"),
            ("dev", "development"),
            ("stagin", "staging"),
            ("standalome", "standalone"),
        ] {
            let error = typo.parse::<Preset>().unwrap_err();
            assert_eq!(
                error.problems()[0].hint.as_deref(),
                Some(format!("did you mean `{meant}`?").as_str()),
                "{typo}"
            );
        }
        for nonsense in ["", "x", "hunter2"] {
            let text = nonsense.parse::<Preset>().unwrap_err().to_string();
            assert!(text.contains("choose one of development, standalone, staging, production"), "{text}");
        }
    }
}
