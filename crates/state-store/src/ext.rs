//! Typed sugar over the batch; every store has it.

use std::{future::Future, num::NonZeroU32, time::Duration};

use infra_types::Namespace;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    batch::{Applied, Batch, Delta, LeaseGrant, Ttl, Version, When},
    error::StoreError,
    key::{Key, KeyKind},
    op::Op,
    store::{StateStore, Value},
};

/// One-operation batches by name. All of them are as atomic as [`StateStore::apply`], refuse as it refuses, and are as safe to
/// drop: a write that was dropped is wholly there or wholly absent.
pub trait StateStoreExt: StateStore {
    /// Writes a value, whatever was there; `Some(version)` for a record.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    fn set(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: impl Into<Value> + Send,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Version>, StoreError>> + Send {
        let op = Op::Set { key: key.clone(), value: value.into(), ttl, when: When::Always };
        async move {
            match self.apply_one(namespace, op).await? {
                Applied::Version(version) => Ok(Some(version)),
                _ => Ok(None),
            }
        }
    }

    /// Reads a value that [`set_json`](Self::set_json) wrote.
    ///
    /// # Errors
    /// `WrongType` if it does not read as a `T`; else as [`StateStore::get`].
    fn get_json<T: DeserializeOwned>(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        async move { Ok(self.get_versioned(namespace, key).await?.map(|(value, _)| value)) }
    }

    /// Reads a JSON value with the version to compare it by.
    ///
    /// # Errors
    /// As [`get_json`](Self::get_json).
    fn get_versioned<T: DeserializeOwned>(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> impl Future<Output = Result<Option<(T, Option<Version>)>, StoreError>> + Send {
        async move {
            let Some(entry) = self.get(namespace, key).await? else { return Ok(None) };
            // The decoder's own words could repeat the value, which may be a secret.
            let value = entry.value.as_bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
            let value = value.ok_or_else(|| StoreError::WrongType { index: 0, key: key.clone() })?;
            Ok(Some((value, entry.version)))
        }
    }

    /// Writes a value as JSON, whatever was there; `Some(version)` for a record.
    ///
    /// # Errors
    /// `Invalid` if it has no JSON form; else as [`StateStore::apply`].
    fn set_json<T: Serialize + Sync + ?Sized>(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: &T,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Option<Version>, StoreError>> + Send {
        let json = to_json(value);
        async move { self.set(namespace, key, json?, ttl).await }
    }

    /// Writes a value if the key is absent or expired; whether it did.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    fn set_if_absent(
        &self,
        namespace: &Namespace,
        key: &Key,
        value: impl Into<Value> + Send,
        ttl: Ttl,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let op = Op::Set { key: key.clone(), value: value.into(), ttl, when: When::Absent };
        async move {
            match self.apply_one(namespace, op).await {
                Ok(_) => Ok(true),
                Err(StoreError::Mismatch { .. }) => Ok(false),
                Err(e) => Err(e),
            }
        }
    }

    /// Adds to a counter, keeping its time to live; answers the new value. For bounds use [`Op::Add`].
    ///
    /// # Errors
    /// `Overflow` beyond ±(2⁵³−1), `WrongType` if the key holds bytes; else as [`StateStore::apply`].
    fn increment(
        &self,
        namespace: &Namespace,
        key: &Key,
        by: i64,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send {
        let op = Op::Add { key: key.clone(), delta: Delta::unbounded(by), ttl: Ttl::Keep };
        async move {
            match self.apply_one(namespace, op).await? {
                Applied::Counter(value) => Ok(value),
                other => Err(unexpected(&other)),
            }
        }
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    fn delete(&self, namespace: &Namespace, key: &Key) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let op = Op::Delete { key: key.clone(), when: When::Always };
        async move { Ok(self.apply_one(namespace, op).await? == Applied::Existed(true)) }
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    fn exists(&self, namespace: &Namespace, key: &Key) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async move { Ok(self.get(namespace, key).await?.is_some()) }
    }

    /// Takes a lease, or prolongs it for the holder that has it.
    ///
    /// # Errors
    /// `LeaseHeld` if somebody else has it; else as [`StateStore::apply`].
    fn acquire_lease(
        &self,
        namespace: &Namespace,
        key: &Key,
        holder: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<LeaseGrant, StoreError>> + Send {
        let op = Op::AcquireLease { key: key.clone(), holder: holder.to_owned(), ttl };
        async move { granted(self.apply_one(namespace, op).await?) }
    }

    /// Prolongs a lease under the fence that was granted.
    ///
    /// # Errors
    /// `Fenced` if it was released or taken over; else as [`StateStore::apply`].
    fn renew_lease(
        &self,
        namespace: &Namespace,
        key: &Key,
        holder: &str,
        fence: u64,
        ttl: Duration,
    ) -> impl Future<Output = Result<LeaseGrant, StoreError>> + Send {
        let op = Op::RenewLease { key: key.clone(), holder: holder.to_owned(), fence, ttl };
        async move { granted(self.apply_one(namespace, op).await?) }
    }

    /// Gives a lease back; doing so twice is fine.
    ///
    /// # Errors
    /// `Fenced` if somebody else took it meanwhile; else as [`StateStore::apply`].
    fn release_lease(
        &self,
        namespace: &Namespace,
        key: &Key,
        fence: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        let op = Op::ReleaseLease { key: key.clone(), fence };
        async move { self.apply_one(namespace, op).await.map(|_| ()) }
    }

    /// Reads a JSON record, changes it and writes it back if nobody else did meanwhile; else again with what they wrote, at most
    /// `attempts` times. Its time to live stays. Answers what was written. `change` may run several times and must have no effects.
    ///
    /// # Errors
    /// `Mismatch` if others were faster every time, `WrongType` if the record does not read as a `T`, `Invalid` unless it is a record key;
    /// else as [`StateStore::apply`].
    fn update<T: Serialize + DeserializeOwned + Send + Sync>(
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
                let found = self.get_versioned(namespace, key).await?;
                let when = found.as_ref().and_then(|(_, version)| *version).map_or(When::Absent, When::Version);
                let current = found.map(|(value, _)| value);
                let new = change(current);
                let op = Op::Set { key: key.clone(), value: to_json(&new)?.into(), ttl: Ttl::Keep, when };
                left -= 1;
                match self.apply_one(namespace, op).await {
                    Ok(_) => return Ok(new),
                    Err(StoreError::Mismatch { .. }) if left > 0 => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }

    /// Applies a batch of one operation.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    fn apply_one(&self, namespace: &Namespace, op: Op) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        let batch = Batch::new(namespace.clone()).with(op);
        async move {
            let applied = self.apply(batch).await?;
            applied.into_iter().next().ok_or_else(|| unexpected(&Applied::Done))
        }
    }
}

impl<S: StateStore + ?Sized> StateStoreExt for S {}

fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Invalid { rule: format!("the value has no JSON form: {e}") })
}

fn granted(applied: Applied) -> Result<LeaseGrant, StoreError> {
    match applied {
        Applied::Lease(grant) => Ok(grant),
        other => Err(unexpected(&other)),
    }
}

/// A backend that answers another operation than was asked is broken; what it did is unknown.
fn unexpected(applied: &Applied) -> StoreError {
    StoreError::Ambiguous { reason: format!("the store answered {applied:?} to another operation") }
}
