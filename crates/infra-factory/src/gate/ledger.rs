//! Order records in the store: open ones apart from those that are over, so that a start reads only what may be live.

use std::{collections::BTreeSet, sync::Arc};

use infra_state_store::{Key, Op, Scan, StateStore, Ttl, Value, Version, When};
use infra_types::{BotId, Namespace, OrderId};
use parking_lot::Mutex;

use super::{error::GateError, record::OrderRecord};

/// The prefix of every bot's open orders.
pub(super) const OPEN: &str = "order/open/";

pub(super) struct OrderKeys {
    pub(super) open: Key,
    pub(super) done: Key,
}

pub(super) struct Stored {
    pub(super) record: OrderRecord,
    pub(super) version: Version,
    pub(super) is_done: bool,
}

pub(super) struct OrderLedger {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    /// Prefixes of this bot's orders: a bot reconciles its own and nobody else's.
    open_prefix: String,
    done_prefix: String,
    /// Orders that this process knows to be open; a cheap hint, the store is the truth.
    open: Mutex<BTreeSet<OrderId>>,
}

impl OrderLedger {
    pub(super) fn new(store: Arc<dyn StateStore>, namespace: Namespace, bot: &BotId) -> Self {
        // Ids hold no slash, so no bot's prefix begins another's.
        let (open_prefix, done_prefix) = (format!("{OPEN}{bot}/"), format!("order/done/{bot}/"));
        Self { store, namespace, open_prefix, done_prefix, open: Mutex::default() }
    }

    pub(super) fn keys(&self, id: &OrderId) -> Result<OrderKeys, GateError> {
        Ok(OrderKeys {
            open: Key::record(format!("{}{id}", self.open_prefix))?,
            done: Key::record(format!("{}{id}", self.done_prefix))?,
        })
    }

    pub(super) async fn load(&self, id: &OrderId) -> Result<Option<Stored>, GateError> {
        let keys = self.keys(id)?;
        let found = self.store.get_many(&self.namespace, &[keys.open, keys.done]).await?;
        let Some((place, entry)) = found.into_iter().enumerate().find_map(|(n, e)| e.map(|e| (n, e))) else {
            return Ok(None);
        };
        let version = entry.version.ok_or_else(|| GateError::Corrupt { reason: format!("{id} has no version") })?;
        Ok(Some(Stored { record: decode(id.as_str(), &entry.value)?, version, is_done: place == 1 }))
    }

    /// The operations that replace a record by what it became; the first one holds the precondition.
    pub(super) fn replace(&self, stored: &Stored, next: &OrderRecord) -> Result<Vec<Op>, GateError> {
        let keys = self.keys(&next.order.id)?;
        let same = When::Version(stored.version);
        Ok(match (stored.is_done, next.status.is_terminal()) {
            (false, true) => vec![Op::Delete { key: keys.open, when: same }, set(&keys.done, next, When::Absent)],
            (false, false) => vec![set(&keys.open, next, same)],
            (true, _) => vec![set(&keys.done, next, same)],
        })
    }

    pub(super) fn note(&self, record: &OrderRecord) {
        let mut open = self.open.lock();
        if record.status.is_terminal() {
            open.remove(&record.order.id);
        } else {
            open.insert(record.order.id.clone());
        }
    }

    pub(super) fn mark_open(&self, id: &OrderId) {
        self.open.lock().insert(id.clone());
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.lock().len()
    }

    pub(super) async fn list_open(&self) -> Result<Vec<OrderRecord>, GateError> {
        self.list(&self.open_prefix).await
    }

    pub(super) async fn list_done(&self) -> Result<Vec<OrderRecord>, GateError> {
        self.list(&self.done_prefix).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<OrderRecord>, GateError> {
        let found = records_under(&self.store, &self.namespace, prefix).await?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }
}

/// The records under a prefix, with their keys.
pub(super) async fn records_under(
    store: &Arc<dyn StateStore>,
    namespace: &Namespace,
    prefix: &str,
) -> Result<Vec<(String, OrderRecord)>, GateError> {
    let mut records = Vec::new();
    let mut scan = Scan::new(prefix);
    scan.limit = 1_000;
    loop {
        let page = store.scan(namespace, scan.clone()).await?;
        for (key, entry) in &page.entries {
            records.push((key.name().to_owned(), decode(key.name(), &entry.value)?));
        }
        match page.next {
            Some(next) => scan.after = Some(next),
            None => return Ok(records),
        }
    }
}

#[expect(clippy::expect_used, reason = "the record's own types always serialise")]
pub(super) fn set(key: &Key, record: &OrderRecord, when: When) -> Op {
    let value = serde_json::to_vec(record).expect("an order record serialises").into();
    Op::Set { key: key.clone(), value, ttl: Ttl::Never, when }
}

fn decode(what: &str, value: &Value) -> Result<OrderRecord, GateError> {
    let corrupt = |reason: String| GateError::Corrupt { reason: format!("{what}: {reason}") };
    let bytes = value.as_bytes().ok_or_else(|| corrupt("it is a counter".into()))?;
    serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))
}
