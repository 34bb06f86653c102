//! A store by its name, as it stands in a configuration.

use std::sync::Arc;

use infra_types::{Clock, SystemClock};

use crate::{error::StoreError, memory::MemoryStateStore, store::StateStore};

/// The store that `name` names, on the machine's clock: `memory`, or `sqlite:PATH` with feature `sqlite`. No I/O happens yet.
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
        unknown => Err(StoreError::Invalid { rule: format!("no state store is called {unknown:?}: choose {KNOWN}") }),
    }
}

#[cfg(feature = "sqlite")]
const KNOWN: &str = "memory or sqlite:PATH";
#[cfg(not(feature = "sqlite"))]
const KNOWN: &str = "memory (or turn on feature sqlite for sqlite:PATH)";

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
}
