//! A store by its name, as it stands in a configuration.

use std::sync::Arc;

use infra_types::{Clock, SystemClock};

use crate::{error::StoreError, memory::MemoryStateStore, store::StateStore};

/// Where `sqlite` without a path keeps its data: a file in the working directory.
#[cfg(feature = "sqlite")]
const SQLITE: &str = "infra.db";
/// What `redis` without an address means.
#[cfg(feature = "redis")]
const REDIS: &str = "redis://127.0.0.1:6379/0";
/// What `postgres` without an address means; on this machine, so without TLS and without a password.
#[cfg(feature = "postgres")]
const POSTGRES: &str = "postgres://infra@127.0.0.1:5432/infra?sslmode=disable";

/// The store that `name` names, on the machine's clock. No I/O happens yet.
///
/// | name | feature | store |
/// |---|---|---|
/// | `memory` | | this process's memory |
/// | `sqlite` | `sqlite` | the file `infra.db` in the working directory |
/// | `sqlite:PATH` | `sqlite` | that file |
/// | `redis` | `redis` | `redis://127.0.0.1:6379/0` |
/// | `redis://HOST` | `redis` | that server, and what else `RedisConfig::from_url` reads: `rediss://`, `redis-cluster://`, `redis-sentinel://` …; also behind `redis:` |
/// | `postgres` | `postgres` | `postgres://infra@127.0.0.1:5432/infra`, without TLS |
/// | `postgres://USER:PASSWORD@HOST/DATABASE` | `postgres` | that database, and what else `PostgresConfig::from_url` reads; also behind `postgres:` |
///
/// # Errors
/// `Invalid` for a name that this build does not know; it lists those that it does. `Backend` with kind `Invalid` for a URL that makes no
/// sense.
pub fn create_state_store(name: &str) -> Result<Arc<dyn StateStore>, StoreError> {
    create_state_store_with(name, SystemClock::shared())
}

/// As [`create_state_store`], on a clock of your own.
///
/// # Errors
/// As [`create_state_store`].
pub fn create_state_store_with(name: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    let (backend, target) = name.split_once(':').unwrap_or((name, ""));
    match backend {
        "memory" if target.is_empty() => Ok(Arc::new(MemoryStateStore::new(clock))),
        "memory" => Err(StoreError::Invalid { rule: "memory takes nothing after its name".into() }),
        "sqlite" => sqlite(name.strip_prefix("sqlite:"), clock),
        "redis" if name == backend => redis(None, clock),
        "redis" if target.contains("://") => redis(Some(target), clock),
        "redis" | "rediss" | "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => {
            redis(Some(name), clock)
        }
        "postgres" if name == backend => postgres(None, clock),
        "postgres" if target.contains("://") => postgres(Some(target), clock),
        "postgres" | "postgresql" => postgres(Some(name), clock),
        unknown => {
            Err(StoreError::Invalid { rule: format!("no state store is called {unknown:?}: choose {}", known()) })
        }
    }
}

/// What this build can name, and which features would add to it.
fn known() -> String {
    let all = [
        ("sqlite, sqlite:PATH", "sqlite", cfg!(feature = "sqlite")),
        ("redis, redis://HOST", "redis", cfg!(feature = "redis")),
        ("postgres, postgres://HOST/DATABASE", "postgres", cfg!(feature = "postgres")),
    ];
    let here: String = all.iter().filter(|(.., here)| *here).map(|(name, ..)| format!(", {name}")).collect();
    let more: Vec<&str> = all.iter().filter(|(.., here)| !here).map(|(_, feature, _)| *feature).collect();
    let more = if more.is_empty() { String::new() } else { format!(" (features {} add more)", more.join(", ")) };
    format!("memory{here}{more}")
}

#[cfg(feature = "sqlite")]
fn sqlite(path: Option<&str>, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    let path = path.unwrap_or(SQLITE);
    if path.is_empty() {
        return Err(StoreError::Invalid {
            rule: "sqlite: needs a file after it: write sqlite:PATH, or sqlite alone for infra.db".into(),
        });
    }
    Ok(Arc::new(crate::sqlite::SqliteStateStore::open(infra_backends::SqliteConfig::new(path), clock)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_path: Option<&str>, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Err(StoreError::Invalid { rule: "this build has no sqlite: turn on feature `sqlite` of infra-state-store".into() })
}

#[cfg(feature = "redis")]
fn redis(url: Option<&str>, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    let url = url.unwrap_or(REDIS);
    Ok(Arc::new(crate::redis::RedisStateStore::open(infra_backends::RedisConfig::from_url(url)?, clock)?))
}

#[cfg(not(feature = "redis"))]
fn redis(_url: Option<&str>, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Err(StoreError::Invalid { rule: "this build has no redis: turn on feature `redis` of infra-state-store".into() })
}

#[cfg(feature = "postgres")]
fn postgres(url: Option<&str>, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    let url = url.unwrap_or(POSTGRES);
    Ok(Arc::new(crate::postgres::PostgresStateStore::open(infra_backends::PostgresConfig::from_url(url)?, clock)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: Option<&str>, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Err(StoreError::Invalid {
        rule: "this build has no postgres: turn on feature `postgres` of infra-state-store".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        for bad in ["", "redsi", "memory:x", "MEMORY"] {
            let e = create_state_store(bad).unwrap_err().to_string();
            assert!(e.contains("memory"), "{bad:?}: {e}");
        }
        assert_eq!(create_state_store("memory").unwrap().info().backend, "memory");
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn sqlite_has_a_default_file_and_opens_nothing_yet() {
        let store = create_state_store("sqlite").unwrap();
        assert!(store.info().backend == "sqlite" && format!("{store:?}").contains("\"infra.db\""), "{store:?}");
        assert!(!std::path::Path::new("infra.db").exists());
        assert!(create_state_store("sqlite:").unwrap_err().to_string().contains("sqlite:PATH"));
        let store = create_state_store("sqlite:/nowhere/at all/t.db").unwrap();
        assert_eq!(store.info().backend, "sqlite");
    }

    #[cfg(not(feature = "sqlite"))]
    #[test]
    fn sqlite_without_its_feature_says_which_one() {
        for name in ["sqlite", "sqlite:", "sqlite:t.db"] {
            assert!(create_state_store(name).unwrap_err().to_string().contains("feature `sqlite`"), "{name}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_is_named_by_its_url_and_nothing_is_connected_yet() {
        for name in [
            "redis://127.0.0.1",
            "redis:redis://127.0.0.1:7000/1",
            "redis:rediss-cluster://a,b",
            "rediss://:secret@h",
            "redis-cluster://a:1,b:2",
            "redis-sentinel://a,b/primary",
        ] {
            let store = create_state_store(name).unwrap();
            assert_eq!(store.info().backend, "redis", "{name}");
            assert!(!format!("{store:?}").contains("secret"));
        }
        let by_default = format!("{:?}", create_state_store("redis").unwrap());
        assert_eq!(by_default, format!("{:?}", create_state_store("redis://127.0.0.1:6379/0").unwrap()));
        assert!(by_default.contains("\"127.0.0.1\", port: 6379 }"), "{by_default}");
        for name in
            ["redis:", "redis:127.0.0.1", "rediss", "redis-cluster", "redis://", "rediss:x", "redis:http://u:secret@h"]
        {
            let e = create_state_store(name).unwrap_err();
            assert!(e.kind() == infra_types::ErrorKind::Invalid && !e.to_string().contains("secret"), "{name}: {e}");
        }
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn redis_without_its_feature_says_which_one() {
        for name in ["redis", "redis://h", "rediss://u:secret@h", "redis:redis://h", "redis-cluster://a,b"] {
            let e = create_state_store(name).unwrap_err().to_string();
            assert!(e.contains("feature `redis`") && !e.contains("secret"), "{e}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn postgres_is_named_by_its_url_and_nothing_is_connected_yet() {
        for name in
            ["postgres://u:secret@127.0.0.1/d", "postgresql://u:secret@h:1/d?schema=s", "postgres:postgres://u@h/d"]
        {
            let store = create_state_store(name).unwrap();
            assert_eq!(store.info().backend, "postgres", "{name}");
            assert!(!format!("{store:?}").contains("secret"));
        }
        let by_default = format!("{:?}", create_state_store("postgres").unwrap());
        assert_eq!(by_default, format!("{:?}", create_state_store("postgres://infra@127.0.0.1:5432/infra").unwrap()));
        assert!(by_default.contains("127.0.0.1:5432"), "{by_default}");
        let config = infra_backends::PostgresConfig::from_url(POSTGRES).unwrap();
        assert_eq!((config.user.as_str(), config.database.as_str()), ("infra", "infra"));
        assert!(config.password.is_none() && config.tls == infra_backends::PostgresTls::Disable);
        for name in
            ["postgresql", "postgres:", "postgres://", "postgres:http://u:secret@h", "postgres://u:secret@h/d?x=1"]
        {
            let e = create_state_store(name).unwrap_err();
            assert!(e.kind() == infra_types::ErrorKind::Invalid && !e.to_string().contains("secret"), "{name}: {e}");
        }
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn postgres_without_its_feature_says_which_one() {
        for name in ["postgres", "postgres://u:secret@h/d", "postgresql://h/d", "postgres:postgres://h/d"] {
            let e = create_state_store(name).unwrap_err().to_string();
            assert!(e.contains("feature `postgres`") && !e.contains("secret"), "{e}");
        }
    }
}
