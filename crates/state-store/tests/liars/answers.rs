//! Stores that lie about what they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, Entry, Key, KeyKind, MemoryStateStore, Op, Page, Scan, StateStore, StoreError, Version, When,
};
use infra_types::{ManualClock, Namespace};
use parking_lot::Mutex;

use super::lie::{Liar, Lie};

/// Lists from a copy for which no time passes.
#[derive(Debug)]
struct StaleScan(MemoryStateStore, MemoryStateStore);

#[async_trait]
impl Lie for StaleScan {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let applied = self.0.apply(batch.clone()).await?;
        // Refused where time matters; the copy need not be exact to be wrong.
        let _ = self.1.apply(batch).await;
        Ok(applied)
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.0.scan(namespace, scan.clone()).await?;
        self.1.scan(namespace, scan).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.1.clear(namespace).await?;
        self.0.clear(namespace).await
    }
}

pub(crate) fn stale_scan(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(StaleScan(honest, MemoryStateStore::new(Arc::new(ManualClock::default())))))
}

/// Counts the versions of each key from 1, and anew when the key is created anew.
#[derive(Debug)]
struct VersionsRestart {
    honest: MemoryStateStore,
    before: Mutex<BTreeMap<(Namespace, Key), u64>>,
}

impl VersionsRestart {
    fn before(&self, namespace: &Namespace, key: &Key) -> u64 {
        self.before.lock().get(&(namespace.clone(), key.clone())).copied().unwrap_or(0)
    }

    fn shown(&self, namespace: &Namespace, key: &Key, version: Version) -> Version {
        match key.kind() {
            KeyKind::Record => Version(version.0.saturating_sub(self.before(namespace, key))),
            _ => version,
        }
    }

    fn shown_entry(&self, namespace: &Namespace, key: &Key, mut entry: Entry) -> Entry {
        entry.version = entry.version.map(|version| self.shown(namespace, key, version));
        entry
    }
}

#[async_trait]
impl Lie for VersionsRestart {
    fn honest(&self) -> &MemoryStateStore {
        &self.honest
    }

    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let found = self.honest.get_many(namespace, keys).await?;
        let found = found.into_iter().zip(keys);
        Ok(found.map(|(entry, key)| entry.map(|entry| self.shown_entry(namespace, key, entry))).collect())
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        let mut page = self.honest.scan(namespace, scan).await?;
        for (key, entry) in &mut page.entries {
            *entry = self.shown_entry(namespace, key, entry.clone());
        }
        Ok(page)
    }

    async fn apply(&self, mut batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let namespace = batch.namespace.clone();
        let mut written = Vec::new();
        let mut created = Vec::new();
        for op in &mut batch.ops {
            if let Op::Set { key, when, .. } | Op::Delete { key, when } | Op::Check { key, when } = op
                && let When::Version(version) = when
            {
                version.0 = version.0.saturating_add(self.before(&namespace, key));
            }
            let key = match op {
                Op::Set { key, .. } | Op::Add { key, .. } => Some(key.clone()),
                _ => None,
            };
            if let Some(key) = &key
                && self.honest.get(&namespace, key).await?.is_none()
            {
                created.push(key.clone());
            }
            written.push(key);
        }
        let mut applied = self.honest.apply(batch).await.map_err(|e| match e {
            StoreError::Mismatch { index, key, found } => {
                let found = found.map(|version| self.shown(&namespace, &key, version));
                StoreError::Mismatch { index, key, found }
            }
            other => other,
        })?;
        for key in created {
            if let Some(version) = self.honest.get(&namespace, &key).await?.and_then(|entry| entry.version) {
                self.before.lock().insert((namespace.clone(), key), version.0 - 1);
            }
        }
        for (applied, key) in applied.iter_mut().zip(written) {
            if let (Applied::Version(version), Some(key)) = (applied, key) {
                *version = self.shown(&namespace, &key, *version);
            }
        }
        Ok(applied)
    }
}

pub(crate) fn versions_restart(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(VersionsRestart { honest, before: Mutex::default() }))
}

/// Remembers in `after` how many records it gave.
#[derive(Debug)]
struct OffsetPages(MemoryStateStore);

#[async_trait]
impl Lie for OffsetPages {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        let Some(offset) = scan.after.as_deref().and_then(|after| after.parse::<usize>().ok()) else {
            let mut page = self.0.scan(namespace, scan).await?;
            page.next = page.next.map(|_| page.entries.len().to_string());
            return Ok(page);
        };
        let mut all = self.0.scan(namespace, Scan { after: None, limit: 1_000, ..scan.clone() }).await?.entries;
        let mut entries = all.split_off(offset.min(all.len()));
        let has_more = entries.len() > scan.limit;
        entries.truncate(scan.limit);
        let next = has_more.then(|| (offset + scan.limit).to_string());
        Ok(Page { entries, next })
    }
}

pub(crate) fn offset_pages(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(OffsetPages(honest)))
}

/// Puts the prefix into `LIKE 'prefix%'` as it is.
#[derive(Debug)]
struct LikeScan(MemoryStateStore, Mutex<BTreeSet<String>>);

fn is_like(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, _) => true,
        (Some(('%', pattern)), _) => (0..=text.len()).any(|skip| is_like(pattern, &text[skip..])),
        (Some((_, _)), None) => false,
        (Some((p, pattern)), Some((t, text))) => (*p == '_' || p == t) && is_like(pattern, text),
    }
}

#[async_trait]
impl Lie for LikeScan {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        for op in &batch.ops {
            if let Op::Set { key, .. } | Op::Add { key, .. } = op {
                self.1.lock().insert(key.name().to_owned());
            }
        }
        self.0.apply(batch).await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        self.0.scan(namespace, scan.clone()).await?;
        let pattern: Vec<char> = scan.prefix.chars().collect();
        let names: Vec<String> = self.1.lock().iter().cloned().collect();
        let mut page = Page::default();
        for name in names {
            let is_after = scan.after.as_ref().is_none_or(|after| name > *after);
            if !is_after || !is_like(&pattern, &name.chars().collect::<Vec<_>>()) {
                continue;
            }
            let key = Key::record(&name)?;
            let Some(entry) = self.0.get(namespace, &key).await? else { continue };
            if page.entries.len() == scan.limit {
                page.next = page.entries.last().map(|(key, _)| key.name().to_owned());
                break;
            }
            page.entries.push((key, entry));
        }
        Ok(page)
    }
}

pub(crate) fn like_scan(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(LikeScan(honest, Mutex::default())))
}

/// Clears every namespace whose name begins alike.
#[derive(Debug)]
struct ClearByPrefix(MemoryStateStore, Mutex<BTreeSet<Namespace>>);

#[async_trait]
impl Lie for ClearByPrefix {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        self.1.lock().insert(batch.namespace.clone());
        self.0.apply(batch).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        let known: Vec<Namespace> = self.1.lock().iter().cloned().collect();
        for other in known.iter().filter(|other| *other != namespace) {
            if other.as_str().starts_with(namespace.as_str()) {
                self.0.clear(other).await?;
            }
        }
        self.0.clear(namespace).await
    }
}

pub(crate) fn clear_by_prefix(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(ClearByPrefix(honest, Mutex::default())))
}

/// Reads one key after the other, with time in between.
#[derive(Debug)]
struct TornReads(MemoryStateStore);

#[async_trait]
impl Lie for TornReads {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        if keys.len() > 10 {
            return self.0.get_many(namespace, keys).await;
        }
        let mut found = Vec::new();
        for key in keys {
            found.push(self.0.get(namespace, key).await?);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }
}

pub(crate) fn torn_reads(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(TornReads(honest)))
}
