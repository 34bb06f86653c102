//! What is wrong, where it was written, and what to do.

use std::fmt;

use infra_types::ErrorKind;

use crate::preset::Preset;

/// The place that gave a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A default of the preset.
    Preset(Preset),
    /// A TOML file; line and column start at 1, the column counts characters.
    File {
        /// As it was given to the builder.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// A file as a whole, because it could not be read.
    WholeFile {
        /// As it was given to the builder.
        name: String,
    },
    /// An environment variable, by name.
    Variable(String),
    /// The program itself: `ConfigBuilder::set` or the name of the preset.
    Code,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(preset) => write!(f, "preset `{preset}`"),
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::WholeFile { name } => f.write_str(name),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Code => f.write_str("set in code"),
        }
    }
}

/// One mistake. It names places, never values: a value may be a secret that stands in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The setting, such as `redis.port`; empty when a whole file is concerned.
    pub path: String,
    /// Where the value was written.
    pub source: Source,
    /// What the value would have replaced.
    pub overrides: Option<Source>,
    /// The name of the compliance or consistency rule that was broken; `None` for a value that cannot be read.
    pub rule: Option<&'static str>,
    /// What is wrong, a lowercase fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, source: Source, message: impl Into<String>) -> Self {
        Self { path: path.into(), source, overrides: None, rule: None, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn overrides(mut self, overrides: Option<Source>) -> Self {
        self.overrides = overrides;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} ({}", self.message, self.source)?;
        if let Some(overrides) = &self.overrides {
            write!(f, ", overrides {overrides}")?;
        }
        if let Some(rule) = self.rule {
            write!(f, ", rule {rule}")?;
        }
        f.write_str(")")?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Every mistake in a configuration, in one report.
///
/// `Display` prints one line for each. At most [`ConfigError::PROBLEMS_MAX`] are kept; [`ConfigError::omitted`] counts the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
    omitted: usize,
}

impl ConfigError {
    /// How many problems one report holds.
    pub const PROBLEMS_MAX: usize = 100;

    /// `None` when there is nothing to report.
    pub(crate) fn collect(mut problems: Vec<Problem>) -> Option<Self> {
        let omitted = problems.len().saturating_sub(Self::PROBLEMS_MAX);
        problems.truncate(Self::PROBLEMS_MAX);
        if problems.is_empty() { None } else { Some(Self { problems, omitted }) }
    }

    /// The mistakes: unreadable files first, then values, unknown keys, rules. Never empty.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many more there were than the report holds.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Always [`ErrorKind::Invalid`]: fix the configuration and start again.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], omitted: 0 }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ([problem], 0) = (&self.problems[..], self.omitted) {
            return write!(f, "the configuration has a mistake: {problem}");
        }
        let total = self.problems.len() + self.omitted;
        write!(f, "the configuration has {total} mistakes:")?;
        for (at, problem) in self.problems.iter().enumerate() {
            write!(f, "\n  {}. {problem}", at + 1)?;
        }
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
