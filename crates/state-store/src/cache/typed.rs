//! Values of one type under one prefix, each with a time to live.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use infra_types::{Clock, Namespace, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    batch::{Batch, Ttl, When},
    codec::{Stored, StoredExt, encode_stored},
    error::StoreError,
    ext::StateStoreExt,
    key::{Key, KeyKind},
    op::Op,
    store::{Scan, StateStore},
};

/// A type that a [`TypedCache`] keeps.
pub trait Cached: Stored {
    /// What names a value.
    type Id: ?Sized + Sync;

    /// What the names of its keys start with, such as `balance:`.
    const PREFIX: &'static str;

    /// How long a value stays after it was written, unless chosen otherwise.
    const TTL: Duration;

    /// `Record`, or `Cache` for what may be evicted at any time and is never listed.
    const KIND: KeyKind = KeyKind::Record;

    /// Under which name this value is kept.
    fn id(&self) -> String;

    /// The name as it follows the prefix.
    fn name(id: &Self::Id) -> String;

    /// When the value was true. A record with a time never replaces one with a later time. Without one, its age is
    /// reckoned from the write.
    fn time(&self) -> Option<Timestamp> {
        None
    }

    /// Refuses a value that makes no sense, before it is written.
    ///
    /// # Errors
    /// `Invalid`, with the rule.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A value and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged<T> {
    /// The value.
    pub value: T,
    /// When it was true, or else when it was written.
    pub time: Timestamp,
    /// How long ago that was by the view's clock; zero if that is in the future.
    pub age: Duration,
}

impl<T> Aged<T> {
    /// Whether it is at most so old.
    #[must_use]
    pub fn is_fresh(&self, age_max: Duration) -> bool {
        self.age <= age_max
    }
}

/// One page of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePage<T> {
    /// Values in the byte order of their names.
    pub values: Vec<Aged<T>>,
    /// Where the next page starts; none on the last page.
    pub next: Option<String>,
}

/// As it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "T: Stored")]
pub(super) struct Noted<T> {
    pub(super) time: Timestamp,
    pub(super) value: T,
}

impl<T: Stored> Stored for Noted<T> {
    const NAME: &'static str = T::NAME;
    const SCHEMA: u32 = T::SCHEMA;

    fn upgrade(from: u32, mut old: serde_json::Value) -> Option<Self> {
        let time = serde_json::from_value(old.get_mut("time")?.take()).ok()?;
        Some(Self { time, value: T::upgrade(from, old.get_mut("value")?.take())? })
    }
}

/// Values of one type under one prefix of a namespace. Clones share the store.
pub struct TypedCache<T> {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) namespace: Namespace,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ttl: Duration,
    values: PhantomData<fn() -> T>,
}

impl<T: Cached> TypedCache<T> {
    /// How often a write that others overtake is tried.
    const ATTEMPTS: u32 = 64;

    /// A view of `namespace`, with ages by `clock.wall()`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self { store, namespace, clock, ttl: T::TTL, values: PhantomData }
    }

    /// Chooses how long a value stays after it was written.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Writes a value under its own name, unless it is older than the one that is there; whether it did.
    ///
    /// # Errors
    /// `Invalid` as [`Cached::check`] says; `Mismatch` if others were faster again and again; `WrongCodec` if a newer program's
    /// value is there; else as [`StateStore::apply`]. After `Ambiguous` it is safe to write it again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it written.
    pub async fn put(&self, value: &T) -> Result<bool, StoreError>
    where
        T: Clone,
    {
        let time = value.time();
        let noted = Noted { time: time.unwrap_or_else(|| self.clock.wall()), value: value.clone() };
        self.put_unless(&value.id(), &noted, Vec::new(), |found| time.is_some_and(|time| found.time > time)).await
    }

    /// Reads a value.
    ///
    /// # Errors
    /// As [`StateStore::get`], and `WrongCodec` if it is not a `T`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn get(&self, id: &T::Id) -> Result<Option<Aged<T>>, StoreError> {
        let found = self.store.get_stored(&self.namespace, &self.key(&T::name(id))?).await?;
        Ok(found.map(|noted| self.aged(noted)))
    }

    /// Reads values in one consistent snapshot, in the order of `ids`; up to 1,024.
    ///
    /// # Errors
    /// As [`get`](Self::get); `TooLarge` for more.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn get_many(&self, ids: &[&T::Id]) -> Result<Vec<Option<Aged<T>>>, StoreError> {
        let keys = ids.iter().map(|id| self.key(&T::name(id))).collect::<Result<Vec<_>, _>>()?;
        let found = self.store.get_many_stored(&self.namespace, &keys).await?;
        Ok(found.into_iter().map(|noted| noted.map(|noted| self.aged(noted))).collect())
    }

    /// How old a value is; none if there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn age(&self, id: &T::Id) -> Result<Option<Duration>, StoreError> {
        Ok(self.get(id).await?.map(|found| found.age))
    }

    /// Removes a value; whether it was there.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it removed.
    pub async fn remove(&self, id: &T::Id) -> Result<bool, StoreError> {
        self.store.delete(&self.namespace, &self.key(&T::name(id))?).await
    }

    /// Lets a value stay as long as if it were written now; whether it is there. Its age stays.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancel safety
    /// Dropping the future may leave it prolonged.
    pub async fn touch(&self, id: &T::Id) -> Result<bool, StoreError> {
        let key = self.key(&T::name(id))?;
        let mut left = Self::ATTEMPTS;
        loop {
            let Some(found) = self.store.get_stored_entry::<Noted<T>>(&self.namespace, &key).await? else {
                return Ok(false);
            };
            let when = found.version.map_or(When::Exists, When::Version);
            left -= 1;
            let ttl = Ttl::After(self.ttl);
            match self.store.set_stored_when(&self.namespace, &key, &found.value, ttl, when).await {
                Ok(_) => return Ok(true),
                Err(StoreError::Mismatch { .. }) if left > 0 => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Lists values whose names (after the prefix of the type) start with `start`, at most `limit` (1 to 1,000) from `after` on.
    ///
    /// # Errors
    /// `Invalid` for a type that is kept in cache keys; else as [`StateStore::scan`], and `WrongCodec`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn page(&self, start: &str, after: Option<&str>, limit: usize) -> Result<CachePage<T>, StoreError> {
        if T::KIND != KeyKind::Record {
            return Err(StoreError::Invalid {
                rule: format!("{} is kept in cache keys, which are not listed", T::NAME),
            });
        }
        let prefix = format!("{}{start}", T::PREFIX);
        let scan = Scan { prefix, after: after.map(str::to_owned), limit };
        let page = self.store.scan_stored(&self.namespace, scan).await?;
        let values = page.entries.into_iter().map(|(_, entry)| self.aged(entry.value)).collect();
        Ok(CachePage { values, next: page.next })
    }

    pub(super) fn key(&self, name: &str) -> Result<Key, StoreError> {
        if name.is_empty() {
            return Err(StoreError::InvalidKey { rule: "must not be empty" });
        }
        Key::new(T::KIND, format!("{}{name}", T::PREFIX))
    }

    pub(super) fn aged(&self, noted: Noted<T>) -> Aged<T> {
        let Noted { time, value } = noted;
        Aged { value, time, age: self.clock.wall().since(time) }
    }

    /// Writes a value together with `more` operations, unless what is there forbids it; whether it did.
    pub(super) async fn put_unless(
        &self,
        name: &str,
        noted: &Noted<T>,
        more: Vec<Op>,
        forbids: impl Fn(&Noted<T>) -> bool + Send,
    ) -> Result<bool, StoreError> {
        noted.value.check()?;
        let key = self.key(name)?;
        let bytes = encode_stored(noted)?;
        let mut left = Self::ATTEMPTS;
        loop {
            let when = match T::KIND {
                KeyKind::Record => {
                    let found = self.store.get_stored_entry::<Noted<T>>(&self.namespace, &key).await?;
                    match found {
                        Some(found) if forbids(&found.value) => return Ok(false),
                        Some(found) => found.version.map_or(When::Exists, When::Version),
                        None => When::Absent,
                    }
                }
                _ => When::Always,
            };
            let mut batch = Batch::new(self.namespace.clone());
            batch = batch.set_when(key.clone(), bytes.clone(), Ttl::After(self.ttl), when);
            batch.extend(more.iter().cloned());
            left -= 1;
            match self.store.apply(batch).await {
                Ok(_) => return Ok(true),
                Err(StoreError::Mismatch { .. }) if left > 0 => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl<T> Clone for TypedCache<T> {
    fn clone(&self) -> Self {
        let Self { store, namespace, clock, ttl, values } = self;
        Self { store: store.clone(), namespace: namespace.clone(), clock: clock.clone(), ttl: *ttl, values: *values }
    }
}

impl<T: Cached> fmt::Debug for TypedCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCache")
            .field("of", &T::NAME)
            .field("store", &self.store)
            .field("namespace", &self.namespace)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}
