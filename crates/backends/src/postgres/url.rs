//! `postgres://` URLs. What is not understood is refused: a mistyped `sslmode` must not switch encryption off.

use std::{num::NonZeroU32, time::Duration};

use infra_types::Secret;
use percent_encoding::percent_decode_str;
use url::Url;

use super::config::{PostgresConfig, PostgresTls};
use crate::{error::BackendError, pem::Pem};

fn invalid(what: &'static str, rule: impl Into<String>) -> BackendError {
    BackendError::InvalidConfig { what, rule: rule.into() }
}

fn decoded(what: &'static str, text: &str) -> Result<String, BackendError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| invalid(what, "percent-encode UTF-8 text"))
}

fn number<T: std::str::FromStr>(what: &'static str, text: &str, rule: &str) -> Result<T, BackendError> {
    text.parse().map_err(|_| invalid(what, rule))
}

fn tls(mode: &str) -> Result<PostgresTls, BackendError> {
    match mode {
        "disable" => Ok(PostgresTls::Disable),
        "require" => Ok(PostgresTls::Require),
        "verify-ca" => Ok(PostgresTls::VerifyCa),
        "verify-full" => Ok(PostgresTls::VerifyFull),
        // They fall back to clear text without a word.
        "allow" | "prefer" => {
            Err(invalid("sslmode", "allow and prefer may silently not encrypt: say disable or require"))
        }
        _ => Err(invalid("sslmode", "use disable, require, verify-ca or verify-full")),
    }
}

/// `-c name=value -c other=value`, as libpq's `options`.
fn server_options(text: &str, into: &mut Vec<(String, String)>) -> Result<(), BackendError> {
    let rule = "write `-c name=value`, separated by spaces, values without spaces";
    let mut words = text.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next(),
            Some(rest) => Some(rest),
            None => word.strip_prefix("--"),
        };
        let (name, value) = setting.and_then(|s| s.split_once('=')).ok_or_else(|| invalid("options", rule))?;
        into.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

impl PostgresConfig {
    /// Reads `postgres://user:password@host:port/database?name=value`. User, password and database are percent-encoded.
    ///
    /// Understood after the `?`: `sslmode` (`disable`, `require`, `verify-ca`, `verify-full`), `sslrootcert`, `sslcert`
    /// with `sslkey` (files), `options` (`-c name=value …`), `host` (a socket directory), `connect_timeout` (seconds),
    /// `schema`, `pool_max`, `operation_timeout_ms`. Anything else is refused, so that a misspelt name does not pass.
    ///
    /// # Errors
    /// `InvalidConfig` names the part and the rule; it never repeats the URL, which holds the password.
    pub fn from_url(text: &str) -> Result<Self, BackendError> {
        let example = "write postgres://user:password@host:5432/database?sslmode=verify-full";
        let url = Url::parse(text).map_err(|e| invalid("url", format!("{e}; {example}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid("url", format!("the scheme must be postgres; {example}")));
        }
        if url.fragment().is_some() {
            return Err(invalid("url", "percent-encode `#` as %23"));
        }
        let host = decoded("host", url.host_str().unwrap_or_default())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let database = decoded("database", url.path().trim_start_matches('/'))?;
        let mut config = Self::new(host, database, decoded("user", url.username())?);
        config.port = url.port().unwrap_or(config.port);
        if let Some(password) = url.password() {
            config.password = Some(Secret::new(decoded("password", password)?));
        }
        let (mut mode, mut cert, mut key) = (None, None, None);
        for (name, value) in url.query_pairs() {
            let file = || Some(Pem::File(value.as_ref().into()));
            match name.as_ref() {
                "sslmode" => mode = Some(tls(&value)?),
                "sslrootcert" => config.root_ca = file(),
                "sslcert" => cert = file(),
                "sslkey" => key = file(),
                "host" => config.host = value.into_owned(),
                "options" => server_options(&value, &mut config.options)?,
                "connect_timeout" => {
                    config.connect_timeout =
                        Duration::from_secs(number("connect_timeout", &value, "use whole seconds")?);
                }
                "operation_timeout_ms" => {
                    let ms = number("operation_timeout_ms", &value, "use whole milliseconds")?;
                    config.operation_timeout = Duration::from_millis(ms);
                }
                "schema" => config.schema = value.into_owned(),
                "pool_max" => config.pool_max = number::<NonZeroU32>("pool_max", &value, "use 1 to 10000")?,
                "user" | "password" | "dbname" | "port" => {
                    return Err(invalid("url", "put user, password, port and database before the `?`"));
                }
                _ => return Err(invalid("url", "a name after the `?` is not known: see PostgresConfig::from_url")),
            }
        }
        config.client_cert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(invalid("sslcert", "give sslcert and sslkey together")),
        };
        config.tls = mode.unwrap_or(Self::new(config.host.as_str(), "", "").tls);
        config.validate()?;
        Ok(config)
    }
}
