//! One namespace in memory: its rows and their indexes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use infra_types::{EventId, Timestamp};

use super::Hasher;
use crate::{
    batch::{OutboxRow, Version},
    changes::{Change, ChangePosition, Changes},
    key::{Key, KeyKind},
    list::{ListOrder, ListPage, ListRange},
    rules::{LeaseRow, is_live},
    store::{Entry, Value},
};

/// Expired rows removed by one write at most: a batch never pays for a whole backlog.
const SWEEP_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) version: u64,
    pub(super) expires_ms: Option<i64>,
    /// When it was written, in writes of the namespace: the oldest cache key goes first.
    pub(super) written: u64,
}

impl Cell {
    #[inline]
    fn entry(&self, kind: KeyKind) -> Entry {
        Entry {
            value: self.value.clone(),
            version: (kind == KeyKind::Record).then_some(Version(self.version)),
            expires_at: self.expires_ms.map(Timestamp::from_millis),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct List {
    /// The oldest first.
    pub(super) values: VecDeque<Bytes>,
    pub(super) expires_ms: Option<i64>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct ChangeLog {
    pub(super) max: usize,
    /// Changes up to and with this number are not known.
    pub(super) floor: u64,
    pub(super) kept: VecDeque<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Doomed {
    Entry(Key),
    Mark(Key, EventId),
}

#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) last_number: u64,
    pub(super) writes: u64,
    cache: HashMap<Arc<str>, Cell, Hasher>,
    records: BTreeMap<Arc<str>, Cell>,
    pub(super) leases: HashMap<Arc<str>, LeaseRow>,
    pub(super) outboxes: HashMap<Arc<str>, BTreeMap<u64, OutboxRow>>,
    pub(super) marks: HashMap<(Key, EventId), Option<i64>>,
    windows: HashMap<Arc<str>, Cell>,
    pub(super) lists: HashMap<Arc<str>, List>,
    pub(super) changes: Option<ChangeLog>,
    /// What has a time to live, the next to expire first.
    expiries: BTreeSet<(i64, Doomed)>,
    /// Cache keys by the write that they come from.
    ages: BTreeMap<u64, Arc<str>>,
}

impl Space {
    /// Asks for the time only if the key has a time to live: reading the clock costs as much as all the rest.
    #[inline]
    pub(super) fn get(&self, key: &Key, now_ms: impl FnOnce() -> i64) -> Option<Entry> {
        if key.kind() == KeyKind::Lease {
            let row = self.leases.get(key.name())?;
            let holder = row.live_holder(now_ms())?;
            return Some(Entry {
                value: Value::Bytes(Bytes::copy_from_slice(holder.as_bytes())),
                version: Some(Version(row.fence)),
                expires_at: Some(Timestamp::from_millis(row.expires_ms)),
            });
        }
        let cell = self.cell(key)?;
        if cell.expires_ms.is_some_and(|at| now_ms() >= at) {
            return None;
        }
        Some(cell.entry(key.kind()))
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

    pub(super) fn list_page(&self, list: &Key, range: ListRange, now_ms: i64) -> ListPage {
        let Some(list) = self.lists.get(list.name()).filter(|list| is_live(list.expires_ms, now_ms)) else {
            return ListPage::default();
        };
        let (skip, limit) = (range.skip as usize, range.limit);
        let values = match range.order {
            ListOrder::NewestFirst => list.values.iter().rev().skip(skip).take(limit).cloned().collect(),
            ListOrder::OldestFirst => list.values.iter().skip(skip).take(limit).cloned().collect(),
        };
        ListPage { values, length: length(&list.values) }
    }

    /// None if no changes are kept.
    pub(super) fn changes_after(&self, after: Option<ChangePosition>, limit: usize) -> Option<Changes> {
        let log = self.changes.as_ref()?;
        let end = ChangePosition(self.last_number);
        let Some(after) = after else { return Some(Changes { changes: Vec::new(), next: end, gap: false }) };
        if after.0 < log.floor || after > end {
            return Some(Changes { changes: Vec::new(), next: end, gap: true });
        }
        let from = log.kept.partition_point(|change| change.position <= after);
        let changes: Vec<Change> = log.kept.range(from..).take(limit).cloned().collect();
        let next = changes.last().map_or(after, |change| change.position);
        Some(Changes { changes, next, gap: false })
    }

    /// Forgets everything but the last number and the fences; answers how many live keys went.
    pub(super) fn clear(&mut self, now_ms: i64) -> u64 {
        let cells = self.cache.values().chain(self.records.values()).chain(self.windows.values());
        let live = cells.filter(|cell| is_live(cell.expires_ms, now_ms)).count()
            + self.lists.values().filter(|list| is_live(list.expires_ms, now_ms)).count()
            + self.leases.values().filter(|row| row.live_holder(now_ms).is_some()).count();
        let mut leases = std::mem::take(&mut self.leases);
        leases.values_mut().for_each(|row| row.holder = None);
        let mut last_number = self.last_number;
        let changes = self.changes.as_ref().map(|log| {
            // Whoever follows the changes learns that some are missing.
            last_number += 1;
            ChangeLog { max: log.max, floor: last_number, kept: VecDeque::new() }
        });
        *self = Self { last_number, writes: self.writes, leases, changes, ..Self::default() };
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
                Some((_, Doomed::Entry(key))) if key.kind() == KeyKind::List => drop(self.replace_list(&key, None)),
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

    // A key that was cloned from the one that wrote is found by its address, without comparing names.
    #[inline]
    pub(super) fn cell(&self, key: &Key) -> Option<&Cell> {
        match key.kind() {
            KeyKind::Cache => self.cache.get(key.shared_name_ref()),
            KeyKind::Record => self.records.get(key.name()),
            KeyKind::Window => self.windows.get(key.name()),
            KeyKind::Lease | KeyKind::List => None,
        }
    }

    /// Writes or removes a cell and keeps both indexes; answers what was there.
    pub(super) fn replace(&mut self, key: &Key, cell: Option<Cell>) -> Option<Cell> {
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
        let before = match (key.kind(), cell) {
            (KeyKind::Cache, Some(cell)) => self.cache.insert(name, cell),
            (KeyKind::Cache, None) => self.cache.remove(&name),
            (KeyKind::Window, Some(cell)) => self.windows.insert(name, cell),
            (KeyKind::Window, None) => self.windows.remove(&name),
            (_, Some(cell)) => self.records.insert(name, cell),
            (_, None) => self.records.remove(&name),
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

    /// Writes or removes a list and keeps the index; answers what was there.
    pub(super) fn replace_list(&mut self, key: &Key, list: Option<List>) -> Option<List> {
        let expires_ms = list.as_ref().and_then(|list| list.expires_ms);
        let before = match list {
            Some(list) => self.lists.insert(key.shared_name(), list),
            None => self.lists.remove(key.name()),
        };
        self.expires(key, before.as_ref().and_then(|list| list.expires_ms), expires_ms);
        before
    }

    /// Moves a key in the index of what has a time to live.
    pub(super) fn expires(&mut self, key: &Key, before: Option<i64>, after: Option<i64>) {
        if before != after {
            if let Some(at) = before {
                self.expiries.remove(&(at, Doomed::Entry(key.clone())));
            }
            if let Some(at) = after {
                self.expiries.insert((at, Doomed::Entry(key.clone())));
            }
        }
    }

    pub(super) fn replace_mark(
        &mut self,
        mark: (Key, EventId),
        expires_ms: Option<Option<i64>>,
    ) -> Option<Option<i64>> {
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

pub(super) fn length(values: &VecDeque<Bytes>) -> u32 {
    u32::try_from(values.len()).unwrap_or(u32::MAX)
}
