//! A batch in memory, and how it is undone when an operation refuses.

use std::collections::BTreeMap;

use bytes::Bytes;
use infra_types::EventId;

use super::space::{Cell, ChangeLog, List, Space, length};
use crate::{
    batch::{OutboxPosition, OutboxRow},
    changes::Change,
    error::StoreError,
    key::{Key, KeyKind},
    rules::{Head, LeaseRow, Rows},
    store::Value,
    window::Slots,
};

/// What a write replaced.
enum Undo {
    Cell(Key, Option<Cell>),
    Lease(Key, Option<LeaseRow>),
    Enqueued(Key, u64),
    Acknowledged(Key, BTreeMap<u64, OutboxRow>),
    Mark((Key, EventId), Option<Option<i64>>),
    List(Key, Option<List>),
    /// A push: what fell off, the oldest first, and the time to live before.
    Pushed(Key, Vec<Bytes>, Option<i64>),
    Changes(Option<ChangeLog>),
    /// A note: what it pushed out, and the floor before.
    Noted(Option<Change>, u64),
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
                Undo::List(key, list) => drop(space.replace_list(&key, list)),
                Undo::Pushed(key, fell_off, expires_ms) => {
                    let Some(list) = space.lists.get_mut(key.name()) else { continue };
                    list.values.pop_back();
                    fell_off.into_iter().rev().for_each(|value| list.values.push_front(value));
                    let now = std::mem::replace(&mut list.expires_ms, expires_ms);
                    space.expires(&key, now, expires_ms);
                }
                Undo::Changes(log) => space.changes = log,
                Undo::Noted(pushed_out, floor) => {
                    let Some(log) = &mut space.changes else { continue };
                    log.kept.pop_back();
                    pushed_out.into_iter().for_each(|change| log.kept.push_front(change));
                    log.floor = floor;
                }
            }
        }
    }
}

impl Rows for Transaction<'_> {
    fn head(&mut self, key: &Key) -> Result<Option<Head>, StoreError> {
        if key.kind() == KeyKind::List {
            let list = self.space.lists.get(key.name());
            return Ok(list.map(|list| Head { counter: None, version: 0, expires_ms: list.expires_ms }));
        }
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
        if key.kind() == KeyKind::List {
            let before = self.space.replace_list(key, None);
            self.undo.push(Undo::List(key.clone(), before));
            return Ok(());
        }
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

    fn push(&mut self, list: &Key, value: Bytes, cap: u32, expires_ms: Option<i64>) -> Result<u32, StoreError> {
        let stored = self.space.lists.entry(list.shared_name()).or_default();
        stored.values.push_back(value);
        let beyond = stored.values.len().saturating_sub(cap as usize);
        let fell_off = stored.values.drain(..beyond).collect();
        let length = length(&stored.values);
        let before = std::mem::replace(&mut stored.expires_ms, expires_ms);
        self.space.expires(list, before, expires_ms);
        self.undo.push(Undo::Pushed(list.clone(), fell_off, before));
        Ok(length)
    }

    fn window(&mut self, key: &Key) -> Result<Slots, StoreError> {
        let cell = self.space.cell(key);
        cell.and_then(|cell| cell.value.as_bytes()).map_or(Ok(Slots::default()), |bytes| Slots::decode(bytes))
    }

    fn keeps_changes(&mut self) -> Result<bool, StoreError> {
        Ok(self.space.changes.is_some())
    }

    fn keep_changes(&mut self, max: u32) -> Result<(), StoreError> {
        if self.space.changes.as_ref().map_or(0, |log| log.max) == max as usize {
            return Ok(());
        }
        let before = self.space.changes.clone();
        let mut log = before.clone().unwrap_or(ChangeLog { floor: self.space.last_number, ..ChangeLog::default() });
        log.max = max as usize;
        let beyond = log.kept.len().saturating_sub(log.max);
        log.floor = log.kept.drain(..beyond).next_back().map_or(log.floor, |change| change.position.0);
        self.space.changes = (max > 0).then_some(log);
        self.undo.push(Undo::Changes(before));
        Ok(())
    }

    fn note(&mut self, change: Change) -> Result<(), StoreError> {
        let Some(log) = &mut self.space.changes else { return Ok(()) };
        let floor = log.floor;
        log.kept.push_back(change);
        let pushed_out = if log.kept.len() > log.max { log.kept.pop_front() } else { None };
        log.floor = pushed_out.as_ref().map_or(floor, |change| change.position.0);
        self.undo.push(Undo::Noted(pushed_out, floor));
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
