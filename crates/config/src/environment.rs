//! The environment as a value, and which variable means which setting.

use std::{collections::BTreeMap, fmt};

use infra_types::Secret;

use crate::{
    file::read_capped,
    problem::{Problem, Source},
    tree::{Entry, Scalar, Table},
};

/// Variables with names of their own; an address (`*_URL`) wins over its parts.
const NAMED: &[(&str, &str)] = &[
    ("LOG_LEVEL", "logging.level"),
    ("LOG_FORMAT", "logging.format"),
    ("LOG_AUDIT_RETENTION_DAYS", "audit.retention_days"),
    ("REDIS_HOST", "redis.host"),
    ("REDIS_PORT", "redis.port"),
    ("REDIS_DB", "redis.db"),
    ("REDIS_USER", "redis.user"),
    ("REDIS_PASSWORD", "redis.password"),
    ("REDIS_URL", "redis.url"),
    ("POSTGRES_HOST", "postgres.host"),
    ("POSTGRES_PORT", "postgres.port"),
    ("POSTGRES_DB", "postgres.db"),
    ("POSTGRES_USER", "postgres.user"),
    ("POSTGRES_PASSWORD", "postgres.password"),
    ("DATABASE_URL", "postgres.url"),
];

/// Settings whose variable may end in `_FILE` and then names a file that holds the value.
const SECRETS: &[&str] = &["redis.password", "redis.url", "postgres.password", "postgres.url"];

const PREFIX: &str = "INFRA_";
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Environment variables, taken once and passed on as a value, so that a test owns them. `Debug` prints names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `None` is a value that is not UTF-8.
    variables: BTreeMap<String, Option<Secret<String>>>,
}

impl Environment {
    /// No variables at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The variables of this process. The only place of the house that reads them.
    #[must_use]
    pub fn process() -> Self {
        let named = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            // Every name that means something here is ASCII.
            Some((name.into_string().ok()?, value.into_string().ok().map(Secret::new)))
        };
        Self { variables: std::env::vars_os().filter_map(named).collect() }
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), Some(Secret::new(value.into())));
        self
    }

    /// The two layers that the variables make: those with names of their own, then `INFRA_…` over them.
    pub(crate) fn layers(&self, problems: &mut Vec<Problem>) -> [Table; 2] {
        let mut named = Table::new(Source::Variable("…".into()));
        for (name, path) in NAMED {
            self.take(name, path, &mut named, problems);
        }
        let mut table = Table::new(Source::Variable(format!("{PREFIX}…")));
        for name in self.variables.keys() {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            if rest.is_empty() || !rest.bytes().all(plain) {
                let source = Source::Variable(format!("{PREFIX}…"));
                problems.push(
                    Problem::new("", source, "this name cannot stand for a setting")
                        .hint("write INFRA_SECTION__KEY in upper case, such as INFRA_STATE__BACKEND"),
                );
                continue;
            }
            // `X_FILE` is read together with `X`, or in its place.
            let base = name.strip_suffix("_FILE").filter(|base| SECRETS.contains(&path_of(base).as_str()));
            match base {
                Some(base) if self.variables.contains_key(base) => {}
                Some(base) => self.take(base, &path_of(base), &mut table, problems),
                None => self.take(name, &path_of(name), &mut table, problems),
            }
        }
        [named, table]
    }

    /// Puts one variable, or the file it names, at its path.
    fn take(&self, name: &str, path: &str, table: &mut Table, problems: &mut Vec<Problem>) {
        let direct = self.get(name, path, problems);
        let by_file = if SECRETS.contains(&path) {
            let name = format!("{name}_FILE");
            self.get(&name, path, problems).map(|file| (name, file))
        } else {
            None
        };
        let (source, text) = match (direct, by_file) {
            (None, None) => return,
            (Some(text), None) => (Source::Variable(name.into()), text.clone()),
            (None, Some((name, file))) => {
                let source = Source::Variable(name);
                match read_capped(file.expose().as_ref(), SECRET_BYTES_MAX) {
                    // Editors and `echo` end a file with a newline that is not part of the secret.
                    Ok(text) => (source, Secret::new(text.trim_end_matches(['\n', '\r']).to_owned())),
                    Err(why) => {
                        // The file name is not echoed: it may be the secret itself, given to the wrong variable.
                        let message = format!("the file that the variable names cannot be used: {why}");
                        problems.push(Problem::new(path, source, message));
                        return;
                    }
                }
            }
            (Some(_), Some((file_variable, _))) => {
                let message = format!("{name} and {file_variable} are both set");
                problems.push(Problem::new(path, Source::Variable(file_variable), message).hint("keep one of them"));
                return;
            }
        };
        if text.expose().is_empty() {
            problems.push(Problem::new(path, source, "the file that the variable names is empty"));
            return;
        }
        let segments: Vec<&str> = path.split('.').collect();
        table.insert(&segments, Entry::new(Scalar::Text(text), source), problems);
    }

    /// A variable's text; an empty one is unset.
    fn get(&self, name: &str, path: &str, problems: &mut Vec<Problem>) -> Option<&Secret<String>> {
        match self.variables.get(name)? {
            Some(text) => Some(text).filter(|text| !text.expose().is_empty()),
            None => {
                problems.push(Problem::new(path, Source::Variable(name.into()), "the value is not UTF-8"));
                None
            }
        }
    }
}

/// `INFRA_STATE__BACKEND` is `state.backend`.
fn path_of(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace("__", ".")
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        variables.into_iter().fold(Self::empty(), |all, (name, value)| all.with(name, value))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
