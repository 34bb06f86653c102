//! Reading and writing typed values; every store has it.

use std::{future::Future, num::NonZeroU32};

use infra_types::{Namespace, Timestamp};

use super::{Stored, decode_stored, encode_stored};
use crate::{
    batch::{Applied, Ttl, Version, When},
    error::StoreError,
    ext::{StateStoreExt, wrong_type},
    key::{Key, KeyKind},
    list::ListRange,
    op::Op,
    store::{Entry, Scan, StateStore},
};

/// A typed value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry<T> {
    /// What the key holds.
    pub value: T,
    /// The record's version; none for cache keys.
    pub version: Option<Version>,
    /// When it will be gone by the store's clock.
    pub expires_at: Option<Timestamp>,
}

/// One page of typed records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPage<T> {
    /// Records in the byte order of their keys.
    pub entries: Vec<(Key, StoredEntry<T>)>,
    /// Where the next page starts (as `Scan::after`); none on the last page.
    pub next: Option<String>,
}

/// Typed values that carry their schema; see [`Stored`]. Every method is as atomic and as safe to drop as the call of
/// [`StateStore`] that it makes, and refuses as that does; reads add `WrongCodec`, and `WrongType` where a counter is found.
pub trait StoredExt: StateStore {
    /// Reads a value.
    ///
    /// # Errors
    /// As [`StateStore::get`], [`decode_stored`].
    fn get_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        async move { Ok(self.get_stored_entry(namespace, key).await?.map(|entry| entry.value)) }
    }

    /// Reads a value with the version to compare it by.
    ///
    /// # Errors
    /// As [`StateStore::get`], [`decode_stored`].
    fn get_stored_entry<T: Stored>(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> impl Future<Output = Result<Option<StoredEntry<T>>, StoreError>> + Send {
        async move { self.get(namespace, key).await?.map(|entry| typed(key, &entry)).transpose() }
    }

    /// Reads values in one consistent snapshot, in the order of `keys`.
    ///
    /// # Errors
    /// As [`StateStore::get_many`], [`decode_stored`].
    fn get_many_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<Option<T>>, StoreError>> + Send {
        async move {
            let found = self.get_many(namespace, keys).await?;
            let value = |(key, entry): (&Key, Option<Entry>)| {
                entry.map(|entry| typed(key, &entry).map(|entry| entry.value)).transpose()
            };
            keys.iter().zip(found).map(value).collect()
        }
    }

    /// Writes a value, whatever was there; `Some(version)` for a record.
    ///
    /// # Errors
    /// `Invalid` if it has no JSON form; else as [`StateStore::apply`].
    fn set_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: &T,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Version>, StoreError>> + Send {
        self.set_stored_when(namespace, key, value, ttl, When::Always)
    }

    /// Writes a value if `when` holds; `Some(version)` for a record.
    ///
    /// # Errors
    /// `Mismatch` if it does not; else as [`set_stored`](Self::set_stored).
    fn set_stored_when<T: Stored>(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: &T,
        ttl: Ttl,
        when: When,
    ) -> impl Future<Output = Result<Option<Version>, StoreError>> + Send {
        let value = encode_stored(value);
        async move {
            let op = Op::Set { key: key.clone(), value: value?.into(), ttl, when };
            match self.apply_one(namespace, op).await? {
                Applied::Version(version) => Ok(Some(version)),
                _ => Ok(None),
            }
        }
    }

    /// Reads a record, changes it and writes it back if nobody else did meanwhile; else again, at most `attempts` times. As
    /// [`StateStoreExt::update`], its words about `Ambiguous` included. A value of an older schema is written back as this one.
    ///
    /// # Errors
    /// As [`StateStoreExt::update`], with `WrongCodec` for a value that is not a `T`.
    fn update_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        key: &Key,
        attempts: NonZeroU32,
        mut change: impl FnMut(Option<T>) -> T + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        async move {
            if key.kind() != KeyKind::Record {
                return Err(StoreError::Invalid { rule: "update needs a record key".into() });
            }
            let mut left = attempts.get();
            loop {
                let found = self.get_stored_entry(namespace, key).await?;
                let when = found.as_ref().and_then(|entry| entry.version).map_or(When::Absent, When::Version);
                let new = change(found.map(|entry| entry.value));
                left -= 1;
                match self.set_stored_when(namespace, key, &new, Ttl::Keep, when).await {
                    Ok(_) => return Ok(new),
                    Err(StoreError::Mismatch { .. }) if left > 0 => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }

    /// Lists typed records; one that is not a `T` refuses the page.
    ///
    /// # Errors
    /// As [`StateStore::scan`], [`decode_stored`].
    fn scan_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        scan: Scan,
    ) -> impl Future<Output = Result<StoredPage<T>, StoreError>> + Send {
        async move {
            let page = self.scan(namespace, scan).await?;
            let entries = page.entries.into_iter().map(|(key, entry)| {
                let entry = typed(&key, &entry)?;
                Ok((key, entry))
            });
            Ok(StoredPage { entries: entries.collect::<Result<_, StoreError>>()?, next: page.next })
        }
    }

    /// Reads typed values of a list, and how many it holds.
    ///
    /// # Errors
    /// As [`StateStore::list_range`], [`decode_stored`].
    fn list_stored<T: Stored>(
        &self,
        namespace: &Namespace,
        list: &Key,
        range: ListRange,
    ) -> impl Future<Output = Result<(Vec<T>, u32), StoreError>> + Send {
        async move {
            let page = self.list_range(namespace, list, range).await?;
            let values = page.values.iter().map(|bytes| decode_stored(list, bytes)).collect::<Result<_, _>>()?;
            Ok((values, page.length))
        }
    }
}

impl<S: StateStore + ?Sized> StoredExt for S {}

fn typed<T: Stored>(key: &Key, entry: &Entry) -> Result<StoredEntry<T>, StoreError> {
    let bytes = entry.value.as_bytes().ok_or_else(|| wrong_type(key))?;
    Ok(StoredEntry { value: decode_stored(key, bytes)?, version: entry.version, expires_at: entry.expires_at })
}
