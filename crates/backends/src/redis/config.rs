//! Where the server is and how it is spoken to.

use std::{num::NonZeroUsize, time::Duration};

use infra_types::Secret;

use super::{server::Fsync, url};
use crate::{error::BackendError, pem::Pem};

/// Which servers there are and how the one to speak to is found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisTopology {
    /// One server.
    Standalone {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// One primary that sentinels watch and replace.
    Sentinel {
        /// The sentinels, asked in this order.
        sentinels: Vec<(String, u16)>,
        /// The name of the primary among them.
        service: String,
        /// The sentinels' own user, if they have one.
        username: Option<String>,
        /// The sentinels' own password, if they have one.
        password: Option<Secret<String>>,
    },
    /// Sixteen thousand slots spread over several primaries.
    Cluster {
        /// Some of its nodes, any of which can name the others.
        seeds: Vec<(String, u16)>,
    },
}

impl RedisTopology {
    /// One server.
    pub fn standalone(host: impl Into<String>, port: u16) -> Self {
        Self::Standalone { host: host.into(), port }
    }

    /// The primary that `sentinels` call `service`; they ask for no password.
    pub fn sentinel(sentinels: Vec<(String, u16)>, service: impl Into<String>) -> Self {
        Self::Sentinel { sentinels, service: service.into(), username: None, password: None }
    }

    /// A cluster that knows `seeds`.
    #[must_use]
    pub fn cluster(seeds: Vec<(String, u16)>) -> Self {
        Self::Cluster { seeds }
    }
}

/// TLS: the server's certificate is always verified, name included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Who signs the servers' certificates. Default none: the authorities that this machine trusts.
    pub ca_pem: Option<Pem>,
    /// The certificate that this client shows, and its key. Default none.
    pub client: Option<(Pem, Pem)>,
    /// The name that the certificate must bear. Default none: the host connected to.
    pub server_name: Option<String>,
}

impl RedisTls {
    /// Trusts the authorities in `pem` and no other.
    #[must_use]
    pub fn with_ca(mut self, pem: Pem) -> Self {
        self.ca_pem = Some(pem);
        self
    }

    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn with_client(mut self, certificate: Pem, key: Pem) -> Self {
        self.client = Some((certificate, key));
        self
    }

    /// Expects this name in the certificate instead of the host connected to.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// How to reach a Redis 7.0 or newer and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Which servers. Default: one, 127.0.0.1:6379.
    pub topology: RedisTopology,
    /// The ACL user. Default none: the server's `default` user.
    pub username: Option<String>,
    /// The password. Default none.
    pub password: Option<Secret<String>>,
    /// The database number; a cluster has only 0. Default 0.
    pub db: u32,
    /// TLS. Default none: plain text.
    pub tls: Option<RedisTls>,
    /// How long connecting, TLS, login and checks may take together. Default 5 s.
    pub connect_timeout: Duration,
    /// How long an answer may take once there is a connection. Default 2 s.
    pub operation_timeout: Duration,
    /// Connections to each server, shared by all tasks. Default 1: tasks that ask at the same time
    /// share its writes, and a second one splits them.
    pub connections: NonZeroUsize,
    /// What the ports put before their keys. Default empty.
    pub key_prefix: String,
    /// Accepts a server that deletes keys when its memory is full; right for pure caches only. Default false.
    pub allow_eviction: bool,
    /// Accepts a server that does not tell its version, role or configuration. Default false.
    pub allow_unverified: bool,
    /// The weakest write safety to accept. Default none: whatever the server has.
    pub min_fsync: Option<Fsync>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            topology: RedisTopology::standalone("127.0.0.1", 6379),
            username: None,
            password: None,
            db: 0,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(2),
            connections: NonZeroUsize::MIN,
            key_prefix: String::new(),
            allow_eviction: false,
            allow_unverified: false,
            min_fsync: None,
        }
    }
}

impl RedisConfig {
    /// The defaults for some servers.
    #[must_use]
    pub fn new(topology: RedisTopology) -> Self {
        Self { topology, ..Self::default() }
    }

    /// Reads `redis://user:password@host:port/db`, `redis-cluster://h1:p1,h2:p2` or
    /// `redis-sentinel://h1:26379,h2/service/db`; `rediss`, `rediss-cluster` and `rediss-sentinel` are the same with TLS.
    /// What a URL leaves out has its default. User and password are percent-encoded; with sentinels they are the data
    /// servers'.
    ///
    /// # Errors
    /// `InvalidConfig` says which rule was broken and repeats nothing of the URL, for it may hold a password.
    pub fn from_url(url: &str) -> Result<Self, BackendError> {
        url::parse(url)
    }

    /// Chooses the ACL user.
    #[must_use]
    pub fn with_username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Chooses the password.
    #[must_use]
    pub fn with_password(mut self, password: Secret<String>) -> Self {
        self.password = Some(password);
        self
    }

    /// Chooses the database number.
    #[must_use]
    pub fn with_db(mut self, db: u32) -> Self {
        self.db = db;
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: RedisTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Limits how long connecting may take.
    #[must_use]
    pub fn with_connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// Limits how long an answer may take.
    #[must_use]
    pub fn with_operation_timeout(mut self, operation_timeout: Duration) -> Self {
        self.operation_timeout = operation_timeout;
        self
    }

    /// Chooses how many connections there are to each server.
    #[must_use]
    pub fn with_connections(mut self, connections: NonZeroUsize) -> Self {
        self.connections = connections;
        self
    }

    /// Chooses what the ports put before their keys.
    #[must_use]
    pub fn with_key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Accepts a server that deletes keys when its memory is full.
    #[must_use]
    pub fn with_allow_eviction(mut self, allow: bool) -> Self {
        self.allow_eviction = allow;
        self
    }

    /// Accepts a server that does not tell its version, role or configuration.
    #[must_use]
    pub fn with_allow_unverified(mut self, allow: bool) -> Self {
        self.allow_unverified = allow;
        self
    }

    /// Refuses a server that keeps writes less safely.
    #[must_use]
    pub fn with_min_fsync(mut self, fsync: Fsync) -> Self {
        self.min_fsync = Some(fsync);
        self
    }

    /// How long an operation waits for a connection that is being made.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout.min(self.operation_timeout)
    }

    /// What is wrong with these settings.
    ///
    /// # Errors
    /// `InvalidConfig` with the first broken rule.
    pub fn validate(&self) -> Result<(), BackendError> {
        let broken = |what, rule: &str| Err(BackendError::InvalidConfig { what, rule: rule.to_owned() });
        let hosts: Vec<&str> = match &self.topology {
            RedisTopology::Standalone { host, .. } => vec![host],
            RedisTopology::Sentinel { sentinels, .. } => sentinels.iter().map(|(host, _)| host.as_str()).collect(),
            RedisTopology::Cluster { seeds } => seeds.iter().map(|(host, _)| host.as_str()).collect(),
        };
        if hosts.is_empty() || hosts.iter().any(|host| host.is_empty()) {
            return broken("Redis servers", "name at least one host, and none that is empty");
        }
        match &self.topology {
            RedisTopology::Sentinel { service, .. } if service.is_empty() => {
                return broken("Redis sentinel service", "give the name under which the sentinels know the primary");
            }
            RedisTopology::Cluster { .. } if self.db != 0 => {
                return broken("Redis database", "a cluster has only database 0");
            }
            _ => {}
        }
        if self.username.is_some() && self.password.is_none() {
            return broken("Redis credentials", "a user name needs a password");
        }
        if self.connect_timeout.is_zero() || self.operation_timeout.is_zero() {
            return broken("Redis timeout", "connect and operation timeout must be above zero");
        }
        Ok(())
    }
}
