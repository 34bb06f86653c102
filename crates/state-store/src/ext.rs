//! Typed sugar over the batch; every store has it.

mod once;

use std::{future::Future, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use infra_types::{EventId, Namespace};
use serde::{Serialize, de::DeserializeOwned};

pub use self::once::Once;
use crate::{
    batch::{Applied, Batch, Delta, LeaseGrant, Ttl, Version, When},
    error::StoreError,
    key::{Key, KeyKind},
    list::{ListPage, ListRange},
    op::Op,
    store::{StateStore, Value},
    window::WindowLimit,
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

    /// Reads bytes.
    ///
    /// # Errors
    /// `WrongType` if the key holds a counter; else as [`StateStore::get`].
    fn get_bytes(
        &self,
        namespace: &Namespace,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        async move {
            match self.get(namespace, key).await?.map(|entry| entry.value) {
                None => Ok(None),
                Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
                Some(Value::Counter(_)) => Err(wrong_type(key)),
            }
        }
    }

    /// Reads a counter; an absent one is zero, as it is for [`Op::Add`].
    ///
    /// # Errors
    /// `WrongType` if the key holds bytes; else as [`StateStore::get`].
    fn get_counter(&self, namespace: &Namespace, key: &Key) -> impl Future<Output = Result<i64, StoreError>> + Send {
        async move {
            match self.get(namespace, key).await? {
                None => Ok(0),
                Some(entry) => entry.value.as_counter().ok_or_else(|| wrong_type(key)),
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
            let value = value.ok_or_else(|| wrong_type(key))?;
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

    /// Replaces a record if it still has the version that was read, and answers its new one. Its time to live is taken off unless
    /// `ttl` says otherwise.
    ///
    /// # Errors
    /// `Mismatch` if it was written, deleted or expired since: read it again and decide anew. `Invalid` unless it is a record key;
    /// else as [`StateStore::apply`].
    fn compare_and_set(
        &self,
        namespace: &Namespace,
        key: &Key,
        version: Version,
        value: impl Into<Value> + Send,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Version, StoreError>> + Send {
        let op = Op::Set { key: key.clone(), value: value.into(), ttl, when: When::Version(version) };
        async move {
            match self.apply_one(namespace, op).await? {
                Applied::Version(version) => Ok(version),
                other => Err(unexpected(&other)),
            }
        }
    }

    /// [`compare_and_set`](Self::compare_and_set) with a value as JSON.
    ///
    /// # Errors
    /// As [`compare_and_set`](Self::compare_and_set); `Invalid` if the value has no JSON form.
    fn set_json_if_version<T: Serialize + Sync + ?Sized>(
        &self,
        namespace: &Namespace,
        key: &Key,
        version: Version,
        value: &T,
        ttl: Ttl,
    ) -> impl Future<Output = Result<Version, StoreError>> + Send {
        let json = to_json(value);
        async move { self.compare_and_set(namespace, key, version, json?, ttl).await }
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

    /// Adds to a counter, keeping its time to live; answers the new value.
    ///
    /// # Errors
    /// `Overflow` beyond ±(2⁵³−1), `WrongType` if the key holds bytes; else as [`StateStore::apply`].
    fn increment(
        &self,
        namespace: &Namespace,
        key: &Key,
        by: i64,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send {
        self.add_within(namespace, key, Delta::unbounded(by))
    }

    /// Adds to a counter within bounds, keeping its time to live; answers the new value.
    ///
    /// # Errors
    /// `OutOfBounds` with the current value, and as [`increment`](Self::increment).
    fn add_within(
        &self,
        namespace: &Namespace,
        key: &Key,
        delta: Delta,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send {
        let op = Op::Add { key: key.clone(), delta, ttl: Ttl::Keep };
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

    /// Appends to a list that keeps its newest `cap` (1 to 10,000) values; the whole list lives for `ttl` from this write on.
    /// Answers how many it holds now.
    ///
    /// # Errors
    /// `Invalid` unless it is a list key; else as [`StateStore::apply`].
    fn push(
        &self,
        namespace: &Namespace,
        list: &Key,
        value: impl Into<Bytes> + Send,
        cap: u32,
        ttl: Ttl,
    ) -> impl Future<Output = Result<u32, StoreError>> + Send {
        let op = Op::Push { list: list.clone(), value: value.into(), cap, ttl };
        async move {
            match self.apply_one(namespace, op).await? {
                Applied::Length(length) => Ok(length),
                other => Err(unexpected(&other)),
            }
        }
    }

    /// Reads the newest `limit` (1 to 1,000) values of a list, the newest first, and how many it holds.
    ///
    /// # Errors
    /// As [`StateStore::list_range`].
    fn list_latest(
        &self,
        namespace: &Namespace,
        list: &Key,
        limit: usize,
    ) -> impl Future<Output = Result<ListPage, StoreError>> + Send {
        async move { self.list_range(namespace, list, ListRange::newest(limit)).await }
    }

    /// Counts `by` in a sliding window if it fits; answers what the window counts now.
    ///
    /// # Errors
    /// `WindowFull` with the time to wait, and nothing is counted; else as [`StateStore::apply`].
    fn admit(
        &self,
        namespace: &Namespace,
        window: &Key,
        by: i64,
        limit: WindowLimit,
    ) -> impl Future<Output = Result<i64, StoreError>> + Send {
        let op = Op::Admit { window: window.clone(), by, limit };
        async move {
            match self.apply_one(namespace, op).await? {
                Applied::Used(used) => Ok(used),
                other => Err(unexpected(&other)),
            }
        }
    }

    /// What a sliding window counts now.
    ///
    /// # Errors
    /// `Invalid` unless it is a window key; else as [`StateStore::apply`].
    fn peek(&self, namespace: &Namespace, window: &Key) -> impl Future<Output = Result<i64, StoreError>> + Send {
        // What was counted leaves as its own limit said; the limit of a question does not matter.
        self.admit(namespace, window, 0, WindowLimit::new(0, Duration::from_secs(1)))
    }

    /// Lets a namespace keep its newest `max` changes of records for [`Watch`](crate::Watch); see [`Op::KeepChanges`].
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    fn keep_changes(&self, namespace: &Namespace, max: u32) -> impl Future<Output = Result<(), StoreError>> + Send {
        async move { self.apply_one(namespace, Op::KeepChanges { max }).await.map(|_| ()) }
    }

    /// Applies a batch unless this `consumer` processed the message `id` before; the mark is a part of the batch and is
    /// remembered for `ttl`, which must be longer than anybody repeats. The answers, and the `index` of a refusal, are those of the
    /// caller's own operations; the mark takes one of the `Limits::batch_ops_max`.
    ///
    /// **After `Ambiguous` it is safe to call it again with the same id and batch**: whichever of the two calls arrives first has
    /// the effect, and the other answers `Already`. What was answered to a lost call is lost; read what you need.
    ///
    /// # Errors
    /// `Invalid` unless `consumer` is a record key; else as [`StateStore::apply`]: the message is not marked then and may be
    /// processed again.
    fn once(
        &self,
        consumer: &Key,
        id: &EventId,
        ttl: Ttl,
        batch: Batch,
    ) -> impl Future<Output = Result<Once<Vec<Applied>>, StoreError>> + Send {
        let (consumer, id) = (consumer.clone(), id.clone());
        once::apply(self, consumer, id, ttl, batch)
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
            let mut left = attempts.get();
            loop {
                let (op, new) = changed(self, namespace, key, &mut change).await?;
                left -= 1;
                match self.apply_one(namespace, op).await {
                    Ok(_) => return Ok(new),
                    Err(StoreError::Mismatch { .. }) if left > 0 => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }

    /// [`update`](Self::update) that happens once for each message: the record changes together with the mark that `consumer`
    /// processed `id`, as in [`once`](Self::once). **After `Ambiguous` it is safe to call it again with the same id.**
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_once<T: Serialize + DeserializeOwned + Send + Sync>(
        &self,
        namespace: &Namespace,
        key: &Key,
        attempts: NonZeroU32,
        message: (&Key, &EventId, Ttl),
        mut change: impl FnMut(Option<T>) -> T + Send,
    ) -> impl Future<Output = Result<Once<T>, StoreError>> + Send {
        async move {
            let (consumer, id, ttl) = message;
            let mut left = attempts.get();
            loop {
                let (op, new) = changed(self, namespace, key, &mut change).await?;
                left -= 1;
                match self.once(consumer, id, ttl, Batch::new(namespace.clone()).with(op)).await {
                    Ok(Once::Done(_)) => return Ok(Once::Done(new)),
                    Ok(Once::Already) => return Ok(Once::Already),
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

/// A record as `change` wants it, to be written over exactly what was read.
async fn changed<S: StateStore + ?Sized, T: Serialize + DeserializeOwned + Send + Sync>(
    store: &S,
    namespace: &Namespace,
    key: &Key,
    change: &mut (impl FnMut(Option<T>) -> T + Send),
) -> Result<(Op, T), StoreError> {
    if key.kind() != KeyKind::Record {
        return Err(StoreError::Invalid { rule: "update needs a record key".into() });
    }
    let found = store.get_versioned(namespace, key).await?;
    let when = found.as_ref().and_then(|(_, version)| *version).map_or(When::Absent, When::Version);
    let new = change(found.map(|(value, _)| value));
    let value = to_json(&new)?.into();
    Ok((Op::Set { key: key.clone(), value, ttl: Ttl::Keep, when }, new))
}

pub(crate) fn wrong_type(key: &Key) -> StoreError {
    StoreError::WrongType { index: 0, key: key.clone() }
}

pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StoreError> {
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
