//! How to reach the stores.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use infra_types::Secret;
use serde::{Deserialize, Serialize};

use crate::{
    fields::{duration, host, mask},
    url_parts::{bracketed, escape},
};

/// When SQLite waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Synchronous {
    /// Survives kill -9 and a power cut.
    Full,
    /// Survives kill -9; a power cut may take the last commits.
    Normal,
}

/// The SQLite file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SqliteSection {
    /// Its name, relative to `data_dir`; [`crate::Config::sqlite_path`] joins them.
    pub file: PathBuf,
    /// When it waits for the disk.
    pub synchronous: Synchronous,
    /// How long a writer waits for another.
    #[serde(with = "duration")]
    pub busy_timeout: Duration,
}

/// How several Redis servers belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RedisTopology {
    /// One server, at `redis.host`.
    Standalone,
    /// A primary that the sentinels in `redis.nodes` know as `redis.service`.
    Sentinel,
    /// A cluster, found through any of `redis.nodes`.
    Cluster,
}

/// Where one of several servers listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The Redis server. In every layer `redis.url` (`REDIS_URL`) may stand for the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RedisSection {
    /// Host name or address.
    #[serde(with = "host_field")]
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether that is all, or one of several.
    pub topology: RedisTopology,
    /// The sentinels, or nodes of the cluster, as `host:port,host:port`; `host` and `port` are not used then.
    #[serde(default, with = "nodes", skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
    /// The name of the primary that the sentinels watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Number of the database.
    pub db: u16,
    /// What all keys of this installation start with, so that several can share a server.
    pub key_prefix: String,
    /// ACL user; none is the default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(serialize_with = "mask::option", skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret<String>>,
    /// Whether the connection is encrypted and the server's certificate checked.
    pub tls: bool,
    /// A file with the certificate of the authority that signed the server's; none is the machine's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long opening a connection may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
}

impl RedisSection {
    /// The address as one text, `rediss://…` with TLS; secret because it holds the password.
    #[must_use]
    pub fn url(&self) -> Secret<String> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let login = login(self.user.as_deref().unwrap_or_default(), self.password.as_ref());
        Secret::new(format!("{scheme}://{login}{}:{}/{}", bracketed(&self.host), self.port, self.db))
    }
}

/// How a PostgreSQL connection is protected; the names of libpq's `sslmode`. Modes that silently fall back to plain text
/// (`allow`, `prefer`) are not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PostgresTls {
    /// Plain text.
    Disable,
    /// Encrypted; the server is not checked.
    Require,
    /// Encrypted, certificate checked.
    VerifyCa,
    /// Encrypted, certificate and host name checked.
    VerifyFull,
}

impl PostgresTls {
    /// The value of `sslmode`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The PostgreSQL server. In every layer `postgres.url` (`DATABASE_URL`) may stand for the parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PostgresSection {
    /// Host name or address.
    #[serde(with = "host_field")]
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database.
    pub db: String,
    /// Role.
    pub user: String,
    /// Its password.
    #[serde(serialize_with = "mask::option", skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret<String>>,
    /// How the connection is protected.
    pub tls: PostgresTls,
    /// The schema that holds all tables of this installation, so that several can share a database.
    pub schema: String,
    /// How many connections one process opens.
    pub pool_max: std::num::NonZeroU32,
    /// How long opening a connection may take.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Further parameters of the address, such as `sslrootcert`; printed masked.
    #[serde(default, serialize_with = "mask::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Secret<String>>,
}

impl PostgresSection {
    /// The address as one text, with `sslmode`; secret because it holds the password.
    #[must_use]
    pub fn url(&self) -> Secret<String> {
        let login = login(&self.user, self.password.as_ref());
        let (host, db, tls) = (bracketed(&self.host), escape(&self.db), self.tls.as_str());
        // A path of one or two dots means something else in an address; libpq's parameter says the same without a path.
        let (path, parameter) = if matches!(db.as_str(), "." | "..") {
            (String::new(), format!("&dbname={db}"))
        } else {
            (db, String::new())
        };
        let mut url = format!("postgres://{login}{host}:{}/{path}?sslmode={tls}{parameter}", self.port);
        for (key, value) in &self.params {
            url.push_str(&format!("&{}={}", escape(key), escape(value.expose())));
        }
        Secret::new(url)
    }
}

/// `user:password@`, or nothing.
fn login(user: &str, password: Option<&Secret<String>>) -> String {
    match password {
        Some(password) => format!("{}:{}@", escape(user), escape(password.expose())),
        None if user.is_empty() => String::new(),
        None => format!("{}@", escape(user)),
    }
}

/// Several addresses as one text, so that a variable can hold them.
mod nodes {
    use serde::{Deserializer, Serializer, de::Error};

    use super::Node;
    use crate::{de::RawText, url_parts::bracketed};

    pub(super) fn serialize<S: Serializer>(nodes: &[Node], s: S) -> Result<S::Ok, S::Error> {
        let words: Vec<_> = nodes.iter().map(|node| format!("{}:{}", bracketed(&node.host), node.port)).collect();
        s.serialize_str(&words.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Node>, D::Error> {
        let text = RawText::read(d)?;
        let node = |word: &str| {
            let (host, port) = word.trim().rsplit_once(':')?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
            let port = port.parse().ok().filter(|port| *port > 0)?;
            (!host.is_empty() && host.chars().all(plain)).then(|| Node { host: host.to_owned(), port })
        };
        let nodes: Option<Vec<Node>> = text.split(',').map(node).collect();
        nodes.ok_or_else(|| D::Error::custom("expected addresses such as `host1:26379,host2:26379`"))
    }
}

/// Hosts are checked when read and printed as they are.
mod host_field {
    pub(super) use super::host::deserialize;

    pub(super) fn serialize<S: serde::Serializer>(host: &str, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(host)
    }
}
