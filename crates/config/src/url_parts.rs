//! Addresses such as `redis://…` and `postgres://…`: taken apart into settings, put together again.
//!
//! An address in a layer stands for its parts in that layer, so that `POSTGRES_PASSWORD` can complete a `postgres.url` of a
//! file and a rule can look at one field.

use infra_types::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::{
    problem::{Problem, Source},
    tree::{Entry, Node, Scalar, Table},
};

/// All but what RFC 3986 calls unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes a piece of an address.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A host as it stands in an address: IPv6 in brackets.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Replaces `redis.url` and `postgres.url` of one layer by their parts.
pub(crate) fn expand(layer: &mut Table, problems: &mut Vec<Problem>) {
    for (section, split) in [("redis", redis as Split), ("postgres", postgres as Split)] {
        let path = [section, "url"];
        while let Some(node) = layer.get(&path) {
            let (text, at) = match node {
                Node::Value(stack) => match stack.last() {
                    Some(Entry { scalar: Scalar::Text(text) | Scalar::Str(text), at }) => {
                        (Some(text.clone()), at.clone())
                    }
                    Some(entry) => (None, entry.at.clone()),
                    None => return,
                },
                Node::Table(table) => (None, table.at.first().cloned().unwrap_or(Source::Code)),
            };
            let parts = match &text {
                Some(text) => split(text.expose()),
                None => Err(("expected an address as text", "put it in quotes")),
            };
            layer.take_top(&path);
            match parts {
                Ok(parts) => {
                    for (key, value) in parts {
                        let full: Vec<&str> = std::iter::once(section).chain(key.split('.')).collect();
                        let scalar = Scalar::Text(Secret::new(value));
                        layer.insert(&full, Entry::new(scalar, at.clone()), problems);
                    }
                    // What lies below in the same layer is covered.
                    while layer.take_top(&path).is_some() {}
                }
                Err((message, hint)) => problems.push(Problem::new(path.join("."), at, message).hint(hint)),
            }
        }
    }
}

/// Settings of the section and their values; a message and a hint that name no value.
type Parts = Result<Vec<(String, String)>, (&'static str, &'static str)>;
type Split = fn(&str) -> Parts;

const REDIS: (&str, &str) = (
    "is not an address of a Redis server",
    "write redis://user:password@host:6379/0 or rediss://… for TLS, special characters percent-encoded",
);
const POSTGRES: (&str, &str) = (
    "is not an address of a PostgreSQL server",
    "write postgres://user:password@host:5432/database, special characters percent-encoded",
);

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(String::from)
}

/// Host, port, user and password, which both kinds share.
fn authority(url: &Url, port: u16) -> Option<Vec<(String, String)>> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let mut parts =
        vec![("host".to_owned(), decode(host)?), ("port".to_owned(), url.port().unwrap_or(port).to_string())];
    if !url.username().is_empty() {
        parts.push(("user".to_owned(), decode(url.username())?));
    }
    if let Some(password) = url.password() {
        parts.push(("password".to_owned(), decode(password)?));
    }
    Some(parts)
}

fn redis(text: &str) -> Parts {
    let url = Url::parse(text).map_err(|_| REDIS)?;
    let tls = match url.scheme() {
        "redis" => "false",
        "rediss" => "true",
        _ => return Err(REDIS),
    };
    if url.fragment().is_some() {
        return Err(("carries a `#` part, which would turn certificate checks off", "remove it"));
    }
    if url.query().is_some() {
        return Err(("carries a `?` part, which is not supported", "use the settings of the redis section"));
    }
    let mut parts = authority(&url, 6379).ok_or(REDIS)?;
    let db = url.path().trim_start_matches('/');
    parts.push(("db".into(), if db.is_empty() { "0".into() } else { db.into() }));
    parts.push(("tls".into(), tls.into()));
    Ok(parts)
}

fn postgres(text: &str) -> Parts {
    let url = Url::parse(text).map_err(|_| POSTGRES)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") || url.fragment().is_some() {
        return Err(POSTGRES);
    }
    let mut parts = authority(&url, 5432).ok_or(POSTGRES)?;
    let db = url.path().trim_start_matches('/');
    if !db.is_empty() {
        parts.push(("db".into(), decode(db).ok_or(POSTGRES)?));
    }
    for (key, value) in url.query_pairs() {
        let key = match key.as_ref() {
            "sslmode" => "tls",
            "dbname" => "db",
            own @ ("host" | "port" | "user" | "password") => own,
            other if !other.is_empty() && other.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
                parts.push((format!("params.{other}"), value.into_owned()));
                continue;
            }
            _ => {
                return Err((
                    "carries a parameter whose name is not lower-case letters",
                    "write ?name=value&name=value",
                ));
            }
        };
        parts.push((key.into(), value.into_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(parts: &'a [(String, String)], key: &str) -> Option<&'a str> {
        parts.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    #[test]
    fn redis_addresses() {
        let parts = redis("rediss://bot:p%40ss%2Fw@cache.example:7000/3").unwrap();
        for (key, value) in [
            ("host", "cache.example"),
            ("port", "7000"),
            ("user", "bot"),
            ("password", "p@ss/w"),
            ("db", "3"),
            ("tls", "true"),
        ] {
            assert_eq!(get(&parts, key), Some(value));
        }
        let parts = redis("redis://cache").unwrap();
        assert_eq!(
            (get(&parts, "port"), get(&parts, "db"), get(&parts, "tls")),
            (Some("6379"), Some("0"), Some("false"))
        );
        for bad in ["", "cache:6379", "http://cache", "redis://", "rediss://cache/#insecure", "redis://cache?x=1"] {
            assert!(redis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn postgres_addresses() {
        let parts =
            postgres("postgres://bot:s3@db.example/trading?sslmode=require&application_name=bot&password=s4").unwrap();
        for (key, value) in [
            ("host", "db.example"),
            ("port", "5432"),
            ("user", "bot"),
            ("password", "s4"),
            ("db", "trading"),
            ("tls", "require"),
            ("params.application_name", "bot"),
        ] {
            assert_eq!(get(&parts, key), Some(value), "{key}");
        }
        for bad in ["", "db", "mysql://db", "postgres:///db", "postgres://db?S3cret=1", "postgres://%ff@db"] {
            assert!(postgres(bad).is_err(), "{bad}");
        }
    }
}
