//! A store by its name, as it stands in a configuration.

use std::sync::Arc;

use infra_types::{Clock, SystemClock};

use crate::{error::StoreError, memory::MemoryStateStore, store::StateStore};

/// The store that `name` names, on the machine's clock: `memory`; with feature `sqlite` `sqlite:PATH`; with feature `redis`
/// `redis://HOST` and what else `RedisConfig::from_url` reads (`rediss://`, `redis-cluster://`, `redis-sentinel://` …), also behind
/// `redis:`; with feature `postgres` `postgres://USER:PASSWORD@HOST/DATABASE` and what else `PostgresConfig::from_url` reads, also
/// behind `postgres:`. No I/O happens yet.
///
/// # Errors
/// `Invalid` for a name that this build does not know; it lists those that it does.
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
        "sqlite" => sqlite(target, clock),
        "redis" if target.contains("://") => redis(target, clock),
        "redis" | "rediss" | "redis-cluster" | "rediss-cluster" | "redis-sentinel" | "rediss-sentinel" => {
            redis(name, clock)
        }
        "postgres" if target.contains("://") => postgres(target, clock),
        "postgres" | "postgresql" => postgres(name, clock),
        unknown => {
            Err(StoreError::Invalid { rule: format!("no state store is called {unknown:?}: choose {}", known()) })
        }
    }
}

/// What this build can name, and which features would add to it.
fn known() -> String {
    let all = [
        ("sqlite:PATH", "sqlite", cfg!(feature = "sqlite")),
        ("redis://HOST", "redis", cfg!(feature = "redis")),
        ("postgres://HOST/DATABASE", "postgres", cfg!(feature = "postgres")),
    ];
    let here: String = all.iter().filter(|(.., here)| *here).map(|(name, ..)| format!(", {name}")).collect();
    let more: Vec<&str> = all.iter().filter(|(.., here)| !here).map(|(_, feature, _)| *feature).collect();
    let more = if more.is_empty() { String::new() } else { format!(" (features {} add more)", more.join(", ")) };
    format!("memory{here}{more}")
}

#[cfg(feature = "sqlite")]
fn sqlite(path: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    if path.is_empty() {
        return Err(StoreError::Invalid { rule: "sqlite needs a file: write sqlite:PATH".into() });
    }
    Ok(Arc::new(crate::sqlite::SqliteStateStore::open(infra_backends::SqliteConfig::new(path), clock)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_path: &str, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Err(StoreError::Invalid { rule: "this build has no sqlite: turn on feature `sqlite` of infra-state-store".into() })
}

#[cfg(feature = "redis")]
fn redis(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(Arc::new(crate::redis::RedisStateStore::open(infra_backends::RedisConfig::from_url(url)?, clock)?))
}

#[cfg(not(feature = "redis"))]
fn redis(_url: &str, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Err(StoreError::Invalid { rule: "this build has no redis: turn on feature `redis` of infra-state-store".into() })
}

#[cfg(feature = "postgres")]
fn postgres(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(Arc::new(crate::postgres::PostgresStateStore::open(infra_backends::PostgresConfig::from_url(url)?, clock)?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &str, _clock: Arc<dyn Clock>) -> Result<Arc<dyn StateStore>, StoreError> {
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
    fn sqlite_needs_a_path_and_opens_nothing_yet() {
        assert!(create_state_store("sqlite").unwrap_err().to_string().contains("sqlite:PATH"));
        let store = create_state_store("sqlite:/nowhere/at all/t.db").unwrap();
        assert_eq!(store.info().backend, "sqlite");
    }

    #[cfg(not(feature = "sqlite"))]
    #[test]
    fn sqlite_without_its_feature_says_which_one() {
        assert!(create_state_store("sqlite:t.db").unwrap_err().to_string().contains("feature `sqlite`"));
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
        for name in ["redis", "redis:", "redis:127.0.0.1", "redis://", "rediss:x", "redis:http://u:secret@h"] {
            let e = create_state_store(name).unwrap_err();
            assert!(e.kind() == infra_types::ErrorKind::Invalid && !e.to_string().contains("secret"), "{name}: {e}");
        }
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn redis_without_its_feature_says_which_one() {
        for name in ["redis://h", "rediss://u:secret@h", "redis:redis://h", "redis-cluster://a,b"] {
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
        for name in
            ["postgres", "postgres:", "postgres://", "postgres:http://u:secret@h", "postgres://u:secret@h/d?x=1"]
        {
            let e = create_state_store(name).unwrap_err();
            assert!(e.kind() == infra_types::ErrorKind::Invalid && !e.to_string().contains("secret"), "{name}: {e}");
        }
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn postgres_without_its_feature_says_which_one() {
        for name in ["postgres://u:secret@h/d", "postgresql://h/d", "postgres:postgres://h/d"] {
            let e = create_state_store(name).unwrap_err().to_string();
            assert!(e.contains("feature `postgres`") && !e.contains("secret"), "{e}");
        }
    }
}
