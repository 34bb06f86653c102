//! Where the server is and how it is used.

use std::{num::NonZeroU32, time::Duration};

use infra_types::Secret;

use crate::{error::BackendError, pem::Pem};

/// Whether the connection is encrypted, and how the server must prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresTls {
    /// No encryption: for this machine only.
    Disable,
    /// Encrypted, but any certificate will do: who sits in between can read and change everything.
    Require,
    /// The certificate must come from a trusted authority; the host name is not compared.
    VerifyCa,
    /// The certificate must come from a trusted authority and name this host.
    VerifyFull,
}

/// Where the server is and how it is used. Fields can be set directly or through the `with_*` methods;
/// [`Postgres::new`](crate::Postgres::new) checks them all.
///
/// | setting | default |
/// |---|---|
/// | `port` | 5432 |
/// | `password` | none |
/// | `tls` | `Disable` for `localhost`, loopback addresses and socket directories, `VerifyFull` for every other host |
/// | `root_ca` | none: the machine's trusted authorities; one that is given is trusted *besides* them |
/// | `client_cert` | none |
/// | `schema` | `infra` |
/// | `pool_max` | 10 |
/// | `connect_timeout` | 5 s |
/// | `operation_timeout` | 2 s |
/// | `migration_timeout` | 60 s |
/// | `idle_timeout` | 10 min |
/// | `lifetime_max` | 30 min |
/// | `recheck_after` | 500 ms |
/// | `options` | none |
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// A host name, an address, or the directory of a Unix socket (starts with `/`).
    pub host: String,
    /// The TCP port (and the number in the socket's name).
    pub port: u16,
    /// The database; it must exist.
    pub database: String,
    /// The user to log in as.
    pub user: String,
    /// Its password, if the server asks for one.
    pub password: Option<Secret<String>>,
    /// Encryption and proof of identity.
    pub tls: PostgresTls,
    /// An authority to trust besides those of the machine.
    pub root_ca: Option<Pem>,
    /// This client's certificate and its private key.
    pub client_cert: Option<(Pem, Pem)>,
    /// The schema that holds every table of this library: `[a-z_][a-z0-9_]{0,30}`, created if it is missing.
    pub schema: String,
    /// The most connections this handle and its clones open.
    pub pool_max: NonZeroU32,
    /// The longest a connect may take, TLS and login included; an operation's own deadline may end it sooner.
    pub connect_timeout: Duration,
    /// The longest an operation may take: waiting for a connection, opening it and executing.
    pub operation_timeout: Duration,
    /// The longest `ready` may take, which includes waiting for another process that migrates.
    pub migration_timeout: Duration,
    /// A connection that was idle for longer is closed.
    pub idle_timeout: Duration,
    /// A connection that is older is closed when it is idle.
    pub lifetime_max: Duration,
    /// A connection that was idle for longer is asked whether it is alive (one round trip) before it is used.
    pub recheck_after: Duration,
    /// Further server settings for each connection (`-c name=value`), such as `synchronous_commit`; the ones that this
    /// library sets itself win.
    pub options: Vec<(String, String)>,
}

impl PostgresConfig {
    /// The defaults for a database.
    pub fn new(host: impl Into<String>, database: impl Into<String>, user: impl Into<String>) -> Self {
        let host = host.into();
        Self {
            tls: if is_local(&host) { PostgresTls::Disable } else { PostgresTls::VerifyFull },
            host,
            port: 5432,
            database: database.into(),
            user: user.into(),
            password: None,
            root_ca: None,
            client_cert: None,
            schema: "infra".into(),
            pool_max: NonZeroU32::new(10).unwrap_or(NonZeroU32::MIN),
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(2),
            migration_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(1_800),
            recheck_after: Duration::from_millis(500),
            options: Vec::new(),
        }
    }

    /// Chooses the port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Secret<String>>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Chooses encryption.
    #[must_use]
    pub fn with_tls(mut self, tls: PostgresTls) -> Self {
        self.tls = tls;
        self
    }

    /// Trusts one more authority.
    #[must_use]
    pub fn with_root_ca(mut self, root_ca: Pem) -> Self {
        self.root_ca = Some(root_ca);
        self
    }

    /// Shows the server a certificate.
    #[must_use]
    pub fn with_client_cert(mut self, cert: Pem, key: Pem) -> Self {
        self.client_cert = Some((cert, key));
        self
    }

    /// Chooses the schema.
    #[must_use]
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Chooses the most connections.
    #[must_use]
    pub fn with_pool_max(mut self, pool_max: NonZeroU32) -> Self {
        self.pool_max = pool_max;
        self
    }

    /// Chooses the longest connect.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Chooses the longest operation.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Chooses the longest migration.
    #[must_use]
    pub fn with_migration_timeout(mut self, timeout: Duration) -> Self {
        self.migration_timeout = timeout;
        self
    }

    /// Chooses after how much idleness a connection is asked whether it is alive.
    #[must_use]
    pub fn with_recheck_after(mut self, idle: Duration) -> Self {
        self.recheck_after = idle;
        self
    }

    /// Adds a server setting.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// `InvalidConfig` with the first setting that makes no sense.
    pub fn validate(&self) -> Result<(), BackendError> {
        let schema_ok = (1..=31).contains(&self.schema.len())
            && !self.schema.starts_with(|c: char| c.is_ascii_digit())
            && !self.schema.starts_with("pg_")
            && self.schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let option_ok = |(name, value): &(String, String)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
                && !value.chars().any(char::is_control)
        };
        let text_ok = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        let longest = Duration::from_secs(24 * 3_600);
        let span_ok = |d: Duration| (Duration::from_millis(1)..=longest).contains(&d);
        let rules = [
            (text_ok(&self.host), "host", "name a host, an address or a socket directory"),
            (self.port != 0, "port", "use 1 to 65535"),
            (text_ok(&self.database), "database", "name the database"),
            (text_ok(&self.user), "user", "name the user"),
            (schema_ok, "schema", "use [a-z_][a-z0-9_]{0,30}, not starting with pg_"),
            (self.pool_max.get() <= 10_000, "pool_max", "use 1 to 10000"),
            (span_ok(self.connect_timeout), "connect_timeout", "use 1 ms to 24 h"),
            (span_ok(self.operation_timeout), "operation_timeout", "use 1 ms to 24 h"),
            (span_ok(self.migration_timeout), "migration_timeout", "use 1 ms to 24 h"),
            (
                self.options.iter().all(option_ok),
                "options",
                "write name=value with a plain name and no control characters",
            ),
        ];
        match rules.into_iter().find(|(ok, ..)| !ok) {
            None => Ok(()),
            Some((_, what, rule)) => Err(BackendError::InvalidConfig { what, rule: rule.into() }),
        }
    }
}

/// Whether a host can only be this machine.
pub(super) fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
