//! Values that only holders of a key can read.

mod keys;
mod rotate;
mod seal;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use infra_types::{Health, Namespace};

use self::seal::{OVERHEAD_MAX, Place};
pub use self::{keys::KeyRing, rotate::Rotated};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::{Key, KeyKind},
    list::{ListPage, ListRange},
    op::Op,
    store::{Entry, Limits, Page, Scan, StateStore, StoreInfo, Value},
    validate,
};

/// Encrypts what goes into a store and decrypts what comes out, with XChaCha20-Poly1305 under a random nonce for every value.
///
/// Encrypted are the bytes of cache and record keys, the values of lists, and the payloads of outboxes. **Not encrypted**, because
/// the store itself must reckon with them or sort by them: counters, sliding windows, names of namespaces and keys, holders of
/// leases, event ids, order keys, times to live, versions, and how long a value is (its length plus a constant).
///
/// A value is bound to its place (namespace, kind and name of its key, for a message its event id as well): moved to another, it
/// is `Corrupt`. Not noticed is that somebody with access to the store puts an older value back to its own place, swaps two values
/// of one list, or deletes; versions and the audit log are for that.
///
/// What is stored is longer by up to 78 bytes: [`info`](StateStore::info) tells limits that are smaller by as much.
///
/// ```
/// use std::sync::Arc;
/// use infra_state_store::{EncryptedStateStore, Key, KeyRing, MemoryStateStore, StateStoreExt, Ttl};
/// use infra_types::{Namespace, Secret, SystemClock};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let inner = Arc::new(MemoryStateStore::new(SystemClock::shared()));
/// # let (new, old) = ([7; 32], [8; 32]);
/// let keys = KeyRing::new("2026-02", Secret::new(new))?.with_older("2026-01", Secret::new(old))?;
/// let store = EncryptedStateStore::new(inner.clone(), keys);
/// let (ns, key) = (Namespace::new("vault")?, Key::record("credentials/main")?);
/// store.set_json(&ns, &key, &"api secret", Ttl::Never).await?;
/// let stored = inner.get_bytes(&ns, &key).await?.unwrap();
/// assert!(!stored.windows(3).any(|part| part == b"api"));
/// store.rotate(&ns, "credentials/").await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EncryptedStateStore {
    inner: Arc<dyn StateStore>,
    keys: KeyRing,
    accepts_plain: bool,
}

impl EncryptedStateStore {
    /// Encrypts what goes into `inner` under the active key, and reads what any of the keys encrypted.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, keys: KeyRing) -> Self {
        Self { inner, keys, accepts_plain: false }
    }

    /// Whether values that were written without encryption are read as they are, for as long as a migration lasts; otherwise they
    /// are refused as `WrongCodec`. While this is on, whoever can write to the store can plant values.
    #[must_use]
    pub fn accept_plain(mut self, accepts: bool) -> Self {
        self.accepts_plain = accepts;
        self
    }

    fn limits(&self) -> Limits {
        let inner = self.inner.info().limits;
        Limits {
            value_bytes_max: inner.value_bytes_max.saturating_sub(OVERHEAD_MAX),
            batch_bytes_max: inner.batch_bytes_max.saturating_sub(OVERHEAD_MAX * inner.batch_ops_max),
            ..inner
        }
    }

    fn seal_op(&self, namespace: &Namespace, op: &mut Op) -> Result<(), StoreError> {
        match op {
            Op::Set { key, value: Value::Bytes(bytes), .. } => {
                *bytes = self.keys.seal(&Place::value(namespace, key), bytes)?;
            }
            Op::Push { list, value, .. } => *value = self.keys.seal(&Place::value(namespace, list), value)?,
            Op::Enqueue { outbox, id, payload, .. } => {
                *payload = self.keys.seal(&Place::message(namespace, outbox, id), payload)?;
            }
            // Spelled out, so that a new operation with bytes cannot slip through.
            Op::Set { value: Value::Counter(_), .. }
            | Op::Delete { .. }
            | Op::Check { .. }
            | Op::Add { .. }
            | Op::AcquireLease { .. }
            | Op::RenewLease { .. }
            | Op::ReleaseLease { .. }
            | Op::CheckFence { .. }
            | Op::Acknowledge { .. }
            | Op::MarkInbox { .. }
            | Op::Admit { .. }
            | Op::KeepChanges { .. } => {}
        }
        Ok(())
    }

    fn open(&self, place: &Place<'_>, stored: &Bytes) -> Result<Bytes, StoreError> {
        self.keys.open(place, stored, self.accepts_plain)
    }

    fn open_entry(&self, namespace: &Namespace, key: &Key, mut entry: Entry) -> Result<Entry, StoreError> {
        // The bytes of a lease are its holder, which the store compares.
        if let Value::Bytes(bytes) = &mut entry.value
            && key.kind() != KeyKind::Lease
        {
            *bytes = self.open(&Place::value(namespace, key), bytes)?;
        }
        Ok(entry)
    }
}

#[async_trait]
impl StateStore for EncryptedStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let found = self.inner.get_many(namespace, keys).await?;
        let open =
            |(key, entry): (&Key, Option<Entry>)| entry.map(|entry| self.open_entry(namespace, key, entry)).transpose();
        keys.iter().zip(found).map(open).collect()
    }

    async fn get(&self, namespace: &Namespace, key: &Key) -> Result<Option<Entry>, StoreError> {
        let found = self.inner.get(namespace, key).await?;
        found.map(|entry| self.open_entry(namespace, key, entry)).transpose()
    }

    async fn apply(&self, mut batch: Batch) -> Result<Vec<Applied>, StoreError> {
        validate::batch(&batch, &self.limits())?;
        for op in &mut batch.ops {
            self.seal_op(&batch.namespace, op)?;
        }
        self.inner.apply(batch).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        let page = self.inner.scan(namespace, scan).await?;
        let entries = page.entries.into_iter().map(|(key, entry)| {
            let entry = self.open_entry(namespace, &key, entry)?;
            Ok((key, entry))
        });
        Ok(Page { entries: entries.collect::<Result<_, StoreError>>()?, next: page.next })
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        let page = self.inner.list_range(namespace, list, range).await?;
        let place = Place::value(namespace, list);
        let values = page.values.iter().map(|value| self.open(&place, value)).collect::<Result<_, _>>()?;
        Ok(ListPage { values, length: page.length })
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        // Changes carry no values.
        self.inner.changes_read(namespace, after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let mut rows = self.inner.outbox_read(namespace, outbox, after, limit).await?;
        for row in &mut rows {
            row.payload = self.open(&Place::message(namespace, outbox, &row.id), &row.payload)?;
        }
        Ok(rows)
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.inner.clear(namespace).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn info(&self) -> StoreInfo {
        StoreInfo { limits: self.limits(), ..self.inner.info() }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

impl fmt::Debug for EncryptedStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStateStore")
            .field("inner", &self.inner)
            .field("keys", &self.keys)
            .field("accepts_plain", &self.accepts_plain)
            .finish()
    }
}
