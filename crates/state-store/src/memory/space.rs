//! One namespace in memory: its rows, and how a batch that failed is undone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use infra_types::{EventId, Timestamp};

use crate::{
    batch::{OutboxPosition, OutboxRow, Version},
    error::StoreError,
    key::{Key, KeyKind},
    rules::{Head, LeaseRow, Rows, is_live},
    store::{Entry, Value},
};

/// Expired rows removed by one write at most: a batch never pays for a whole backlog.
const SWEEP_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Cell {
    value: Value,
    version: u64,
    expires_ms: Option<i64>,
    /// When it was written, in writes of the namespace: the oldest cache key goes first.
    written: u64,
}

impl Cell {
    fn entry(&self, kind: KeyKind) -> Entry {
        Entry {
            value: self.value.clone(),
            version: (kind == KeyKind::Record).then_some(Version(self.version)),
            expires_at: self.expires_ms.map(Timestamp::from_millis),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Doomed {
    Entry(Key),
    Mark(Key, EventId),
}

#[derive(Debug, Default)]
pub(super) struct Space {
    last_number: u64,
    writes: u64,
    cache: HashMap<Arc<str>, Cell>,
    records: BTreeMap<Arc<str>, Cell>,
    leases: HashMap<Arc<str>, LeaseRow>,
    outboxes: HashMap<Arc<str>, BTreeMap<u64, OutboxRow>>,
    marks: HashMap<(Key, EventId), Option<i64>>,
    /// What has a time to live, the next to expire first.
    expiries: BTreeSet<(i64, Doomed)>,
    /// Cache keys by the write that they come from.
    ages: BTreeMap<u64, Arc<str>>,
}

impl Space {
    pub(super) fn get(&self, key: &Key, now_ms: i64) -> Option<Entry> {
        if key.kind() == KeyKind::Lease {
            let row = self.leases.get(key.name())?;
            let holder = row.live_holder(now_ms)?;
            return Some(Entry {
                value: Value::Bytes(Bytes::copy_from_slice(holder.as_bytes())),
                version: Some(Version(row.fence)),
                expires_at: Some(Timestamp::from_millis(row.expires_ms)),
            });
        }
        self.cell(key).filter(|cell| is_live(cell.expires_ms, now_ms)).map(|cell| cell.entry(key.kind()))
    }

    /// Live records from `from` (with it only if `inclusive`), in the byte order of their names.
    pub(super) fn records_from(
        &self,
        from: std::ops::Bound<&str>,
        now_ms: i64,
    ) -> impl Iterator<Item = (&Arc<str>, Entry)> {
        self.records
            .range::<str, _>((from, std::ops::Bound::Unbounded))
            .filter(move |(_, cell)| is_live(cell.expires_ms, now_ms))
            .map(|(name, cell)| (name, cell.entry(KeyKind::Record)))
    }

    pub(super) fn outbox_after(&self, outbox: &Key, number: u64, limit: usize) -> Vec<OutboxRow> {
        let from = (std::ops::Bound::Excluded(number), std::ops::Bound::Unbounded);
        let rows = self.outboxes.get(outbox.name()).into_iter().flat_map(|rows| rows.range(from));
        rows.take(limit).map(|(_, row)| row.clone()).collect()
    }

    /// Forgets everything but the last number and the fences; answers how many live keys went.
    pub(super) fn clear(&mut self, now_ms: i64) -> u64 {
        let cells = self.cache.values().chain(self.records.values());
        let live = cells.filter(|cell| is_live(cell.expires_ms, now_ms)).count()
            + self.leases.values().filter(|row| row.live_holder(now_ms).is_some()).count();
        let mut leases = std::mem::take(&mut self.leases);
        leases.values_mut().for_each(|row| row.holder = None);
        *self = Self { last_number: self.last_number, writes: self.writes, leases, ..Self::default() };
        live as u64
    }

    /// Removes some of what has expired, then the oldest cache keys beyond `cache_max`; answers how many of those.
    pub(super) fn tidy(&mut self, now_ms: i64, cache_max: usize) -> u64 {
        for _ in 0..SWEEP_MAX {
            match self.expiries.first() {
                Some((at, _)) if *at <= now_ms => {}
                _ => break,
            }
            match self.expiries.pop_first() {
                Some((_, Doomed::Entry(key))) => drop(self.replace(&key, None)),
                Some((_, Doomed::Mark(consumer, id))) => drop(self.marks.remove(&(consumer, id))),
                None => {}
            }
        }
        let mut evicted = 0;
        while self.cache.len() > cache_max
            && let Some((_, name)) = self.ages.pop_first()
        {
            if let Some(Cell { expires_ms: Some(at), .. }) = self.cache.remove(&name)
                && let Ok(key) = Key::cache(&name)
            {
                self.expiries.remove(&(at, Doomed::Entry(key)));
            }
            evicted += 1;
        }
        evicted
    }

    fn cell(&self, key: &Key) -> Option<&Cell> {
        match key.kind() {
            KeyKind::Cache => self.cache.get(key.name()),
            KeyKind::Record => self.records.get(key.name()),
            KeyKind::Lease => None,
        }
    }

    /// Writes or removes a cell and keeps both indexes; answers what was there.
    fn replace(&mut self, key: &Key, cell: Option<Cell>) -> Option<Cell> {
        let name = key.shared_name();
        let is_cache = key.kind() == KeyKind::Cache;
        if let Some(cell) = &cell {
            if let Some(at) = cell.expires_ms {
                self.expiries.insert((at, Doomed::Entry(key.clone())));
            }
            if is_cache {
                self.ages.insert(cell.written, name.clone());
            }
        }
        let kept = cell.as_ref().map(|cell| (cell.expires_ms, cell.written));
        let before = match (is_cache, cell) {
            (true, Some(cell)) => self.cache.insert(name, cell),
            (true, None) => self.cache.remove(&name),
            (false, Some(cell)) => self.records.insert(name, cell),
            (false, None) => self.records.remove(&name),
        };
        if let Some(old) = &before {
            if let Some(at) = old.expires_ms
                && kept.is_none_or(|(expires_ms, _)| expires_ms != old.expires_ms)
            {
                self.expiries.remove(&(at, Doomed::Entry(key.clone())));
            }
            if is_cache && kept.is_none_or(|(_, written)| written != old.written) {
                self.ages.remove(&old.written);
            }
        }
        before
    }

    fn replace_mark(&mut self, mark: (Key, EventId), expires_ms: Option<Option<i64>>) -> Option<Option<i64>> {
        let doomed = Doomed::Mark(mark.0.clone(), mark.1.clone());
        let before = match expires_ms {
            Some(at) => self.marks.insert(mark, at),
            None => self.marks.remove(&mark),
        };
        if let Some(Some(at)) = before {
            self.expiries.remove(&(at, doomed.clone()));
        }
        if let Some(Some(at)) = expires_ms {
            self.expiries.insert((at, doomed));
        }
        before
    }
}

/// What a write replaced.
enum Undo {
    Cell(Key, Option<Cell>),
    Lease(Key, Option<LeaseRow>),
    Enqueued(Key, u64),
    Acknowledged(Key, BTreeMap<u64, OutboxRow>),
    Mark((Key, EventId), Option<Option<i64>>),
}

/// A batch under way: writes at once and remembers what it replaced.
pub(super) struct Transaction<'a> {
    space: &'a mut Space,
    last_number: u64,
    undo: Vec<Undo>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(space: &'a mut Space) -> Self {
        Self { last_number: space.last_number, space, undo: Vec::new() }
    }

    pub(super) fn roll_back(self) {
        let space = self.space;
        space.last_number = self.last_number;
        for undo in self.undo.into_iter().rev() {
            match undo {
                Undo::Cell(key, cell) => drop(space.replace(&key, cell)),
                Undo::Lease(key, Some(row)) => drop(space.leases.insert(key.shared_name(), row)),
                Undo::Lease(key, None) => drop(space.leases.remove(key.name())),
                Undo::Enqueued(outbox, number) => {
                    if let Some(rows) = space.outboxes.get_mut(outbox.name()) {
                        rows.remove(&number);
                        if rows.is_empty() {
                            space.outboxes.remove(outbox.name());
                        }
                    }
                }
                Undo::Acknowledged(outbox, mut rows) => {
                    space.outboxes.entry(outbox.shared_name()).or_default().append(&mut rows);
                }
                Undo::Mark(mark, before) => drop(space.replace_mark(mark, before)),
            }
        }
    }
}

impl Rows for Transaction<'_> {
    fn head(&mut self, key: &Key) -> Result<Option<Head>, StoreError> {
        Ok(self.space.cell(key).map(|cell| Head {
            counter: cell.value.as_counter(),
            version: cell.version,
            expires_ms: cell.expires_ms,
        }))
    }

    fn put(&mut self, key: &Key, value: Value, version: u64, expires_ms: Option<i64>) -> Result<(), StoreError> {
        self.space.writes += 1;
        let cell = Cell { value, version, expires_ms, written: self.space.writes };
        let before = self.space.replace(key, Some(cell));
        self.undo.push(Undo::Cell(key.clone(), before));
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), StoreError> {
        let before = self.space.replace(key, None);
        self.undo.push(Undo::Cell(key.clone(), before));
        Ok(())
    }

    fn lease(&mut self, key: &Key) -> Result<LeaseRow, StoreError> {
        Ok(self.space.leases.get(key.name()).cloned().unwrap_or_default())
    }

    fn put_lease(&mut self, key: &Key, row: LeaseRow) -> Result<(), StoreError> {
        let before = self.space.leases.insert(key.shared_name(), row);
        self.undo.push(Undo::Lease(key.clone(), before));
        Ok(())
    }

    fn next_number(&mut self) -> Result<u64, StoreError> {
        self.space.last_number += 1;
        Ok(self.space.last_number)
    }

    fn enqueue(
        &mut self,
        outbox: &Key,
        number: u64,
        order: String,
        id: EventId,
        load: Bytes,
    ) -> Result<(), StoreError> {
        let position = OutboxPosition { transaction: 0, sequence: number };
        let row = OutboxRow { position, order_key: order, id, payload: load };
        self.space.outboxes.entry(outbox.shared_name()).or_default().insert(number, row);
        self.undo.push(Undo::Enqueued(outbox.clone(), number));
        Ok(())
    }

    fn acknowledge(&mut self, outbox: &Key, number: u64) -> Result<(), StoreError> {
        let Some(rows) = self.space.outboxes.get_mut(outbox.name()) else { return Ok(()) };
        let left = number.checked_add(1).map(|next| rows.split_off(&next)).unwrap_or_default();
        let gone = std::mem::replace(rows, left);
        if rows.is_empty() {
            self.space.outboxes.remove(outbox.name());
        }
        self.undo.push(Undo::Acknowledged(outbox.clone(), gone));
        Ok(())
    }

    fn mark(&mut self, consumer: &Key, id: &EventId) -> Result<Option<Option<i64>>, StoreError> {
        Ok(self.space.marks.get(&(consumer.clone(), id.clone())).copied())
    }

    fn put_mark(&mut self, consumer: &Key, id: EventId, expires_ms: Option<i64>) -> Result<(), StoreError> {
        let mark = (consumer.clone(), id);
        let before = self.space.replace_mark(mark.clone(), Some(expires_ms));
        self.undo.push(Undo::Mark(mark, before));
        Ok(())
    }
}
