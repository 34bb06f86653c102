//! Stores that lie about changes, and about themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, Change, ChangePosition, Changes, Key, KeyKind, MemoryStateStore, Op, StateStore, StoreError,
    StoreInfo, Ttl, Version, When,
};
use infra_types::Namespace;
use parking_lot::Mutex;

use super::lie::{Liar, Lie, pause};

/// Gives another answer than the true one.
#[derive(Debug)]
struct Retold {
    honest: MemoryStateStore,
    retell: fn(Changes, Option<ChangePosition>) -> Changes,
}

#[async_trait]
impl Lie for Retold {
    fn honest(&self) -> &MemoryStateStore {
        &self.honest
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        Ok((self.retell)(self.honest.changes_read(namespace, after, limit).await?, after))
    }
}

pub(crate) fn trims_in_silence(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(Retold { honest, retell: |read, _| Changes { gap: false, ..read } }))
}

pub(crate) fn waits_for_a_lost_position(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let retell = |read: Changes, after: Option<ChangePosition>| match after {
        Some(after) if after > read.next => Changes { changes: Vec::new(), next: after, gap: false },
        _ => read,
    };
    Arc::new(Liar(Retold { honest, retell }))
}

pub(crate) fn deletes_are_not_told(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let retell = |mut read: Changes, _| {
        read.changes.retain(|change| change.version.is_some());
        read
    };
    Arc::new(Liar(Retold { honest, retell }))
}

/// Numbers are given at the start of a batch and seen at its end: a reader passes those that are still on their way.
#[derive(Debug)]
struct SkipsLateWriters(MemoryStateStore, Mutex<BTreeSet<Version>>);

#[async_trait]
impl Lie for SkipsLateWriters {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let applied = self.0.apply(batch).await?;
        let late: Vec<Version> = applied.iter().filter_map(version).collect();
        self.1.lock().extend(late.iter().copied());
        pause().await;
        self.1.lock().retain(|version| !late.contains(version));
        Ok(applied)
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        let hidden = self.1.lock().clone();
        let mut read = self.0.changes_read(namespace, after, limit).await?;
        read.changes.retain(|change| change.version.is_none_or(|version| !hidden.contains(&version)));
        Ok(read)
    }
}

fn version(applied: &Applied) -> Option<Version> {
    match applied {
        Applied::Version(version) => Some(*version),
        _ => None,
    }
}

pub(crate) fn skips_late_writers(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(SkipsLateWriters(honest, Mutex::default())))
}

/// Notes each write when it is asked for, whatever becomes of its batch.
#[derive(Debug)]
struct NotesTheRefused(MemoryStateStore, Mutex<BTreeMap<Namespace, Vec<Change>>>);

#[async_trait]
impl Lie for NotesTheRefused {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let answer = self.0.apply(batch.clone()).await;
        if answer.is_err()
            && let Ok(end) = self.0.changes_read(&batch.namespace, None, 1).await
        {
            for op in batch.ops {
                if let Op::Set { key, .. } = op
                    && key.kind() == KeyKind::Record
                {
                    let change = Change { position: end.next, key, version: Some(Version(0)), expires_at: None };
                    self.1.lock().entry(batch.namespace.clone()).or_default().push(change);
                }
            }
        }
        answer
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        let mut read = self.0.changes_read(namespace, after, limit).await?;
        if let (Some(after), false) = (after, read.gap) {
            let noted = self.1.lock().get(namespace).cloned().unwrap_or_default();
            read.changes.extend(noted.into_iter().filter(|change| change.position > after));
        }
        Ok(read)
    }
}

pub(crate) fn notes_the_refused(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(NotesTheRefused(honest, Mutex::default())))
}

/// Forgets that a cleared namespace was followed: clears by deleting what can be found.
#[derive(Debug)]
struct ClearsInSilence(MemoryStateStore, Mutex<BTreeSet<Namespace>>);

#[async_trait]
impl Lie for ClearsInSilence {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.1.lock().insert(namespace.clone());
        self.0.clear(namespace).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        let read = self.0.changes_read(namespace, after, limit).await?;
        let was_cleared = self.1.lock().contains(namespace);
        Ok(Changes { gap: read.gap && !was_cleared, ..read })
    }
}

pub(crate) fn clears_in_silence(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(ClearsInSilence(honest, Mutex::default())))
}

/// Says of an expired key that it is there when a condition asks: `ON CONFLICT DO NOTHING` does.
#[derive(Debug)]
struct ExpiredIsThere(MemoryStateStore, Mutex<BTreeSet<(Namespace, Key)>>);

#[async_trait]
impl Lie for ExpiredIsThere {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        if let [Op::Set { key, when: When::Absent, .. }] = &batch.ops[..]
            && self.1.lock().contains(&(batch.namespace.clone(), key.clone()))
        {
            return Err(StoreError::Mismatch { index: 0, key: key.clone(), found: None });
        }
        let applied = self.0.apply(batch.clone()).await?;
        for op in &batch.ops {
            match op {
                Op::Set { key, ttl: Ttl::After(_), .. } => {
                    self.1.lock().insert((batch.namespace.clone(), key.clone()));
                }
                Op::Delete { key, .. } => drop(self.1.lock().remove(&(batch.namespace.clone(), key.clone()))),
                _ => {}
            }
        }
        Ok(applied)
    }
}

pub(crate) fn expired_is_there(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(ExpiredIsThere(honest, Mutex::default())))
}

/// Claims more than it can.
#[derive(Debug)]
struct Boasts(MemoryStateStore, fn(&mut StoreInfo));

#[async_trait]
impl Lie for Boasts {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    fn info(&self) -> StoreInfo {
        let mut info = self.0.info();
        self.1(&mut info);
        info
    }
}

pub(crate) fn claims_to_survive(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(Boasts(honest, |info| info.survives_process = true)))
}

pub(crate) fn claims_to_be_shared(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let boast = |info: &mut StoreInfo| {
        info.survives_process = true;
        info.shared_between_processes = true;
        info.shared_between_hosts = true;
    };
    Arc::new(Liar(Boasts(honest, boast)))
}

pub(crate) fn claims_nonsense(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(Boasts(honest, |info| info.survives_power_cut = true)))
}
