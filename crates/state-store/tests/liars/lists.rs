//! Stores that lie about lists and windows.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_state_store::{
    Applied, Batch, Delta, Key, ListOrder, ListPage, ListRange, MemoryStateStore, Op, StateStore, StateStoreExt,
    StoreError, Ttl, Value, When, WindowLimit,
};
use infra_types::Namespace;

use super::lie::{Liar, Lie, nothing, pause};

/// Applies the operations that `is_first` names in a batch of their own.
#[derive(Debug)]
struct Outside {
    honest: MemoryStateStore,
    is_first: fn(&Op) -> bool,
}

#[async_trait]
impl Lie for Outside {
    fn honest(&self) -> &MemoryStateStore {
        &self.honest
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let is_first: Vec<bool> = batch.ops.iter().map(self.is_first).collect();
        if is_first.iter().all(|first| !first) {
            return self.honest.apply(batch).await;
        }
        let part = |wanted: bool| {
            let ops = batch.ops.iter().zip(&is_first);
            let ops = ops.map(|(op, first)| if *first == wanted { op.clone() } else { nothing() }).collect();
            Batch { namespace: batch.namespace.clone(), ops }
        };
        let before = self.honest.apply(part(true)).await?;
        let after = self.honest.apply(part(false)).await?;
        let answers = before.into_iter().zip(after).zip(&is_first);
        Ok(answers.map(|((before, after), first)| if *first { before } else { after }).collect())
    }
}

pub(crate) fn push_outside(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(Outside { honest, is_first: |op| matches!(op, Op::Push { .. }) }))
}

pub(crate) fn admit_outside(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(Outside { honest, is_first: |op| matches!(op, Op::Admit { .. }) }))
}

/// Applies other operations than it was asked to.
#[derive(Debug)]
struct Rewrite {
    honest: MemoryStateStore,
    op: fn(Op) -> Op,
}

#[async_trait]
impl Lie for Rewrite {
    fn honest(&self) -> &MemoryStateStore {
        &self.honest
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        // A mistake of the caller stays one.
        let mut doomed = batch.clone();
        doomed.ops.push(Op::Check { key: Key::record("never written")?, when: When::Exists });
        if let Err(e @ (StoreError::Invalid { .. } | StoreError::TooLarge { what: "value", .. })) =
            self.honest.apply(doomed).await
        {
            return Err(e);
        }
        let ops = batch.ops.into_iter().map(self.op).collect();
        self.honest.apply(Batch { ops, ..batch }).await
    }
}

pub(crate) fn cap_ignored(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let op = |op| match op {
        Op::Push { list, value, ttl, .. } => Op::Push { list, value, cap: 10_000, ttl },
        other => other,
    };
    Arc::new(Liar(Rewrite { honest, op }))
}

pub(crate) fn list_keeps_its_old_time(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let op = |op| match op {
        Op::Push { list, value, cap, ttl: Ttl::Never } => Op::Push { list, value, cap, ttl: Ttl::Keep },
        other => other,
    };
    Arc::new(Liar(Rewrite { honest, op }))
}

/// A slice early: what came at the end of its slice does not stay for the whole length.
pub(crate) fn window_lets_go_early(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    let op = |op| match op {
        Op::Admit { window, by, limit } => {
            let length = limit.length - limit.length / u32::from(limit.slices.get()) / 2;
            let length = length.max(Duration::from_millis(u64::from(limit.slices.get())));
            Op::Admit { window, by, limit: WindowLimit { length, ..limit } }
        }
        other => other,
    };
    Arc::new(Liar(Rewrite { honest, op }))
}

/// Counts by two ends: `skip` is taken after the limit.
#[derive(Debug)]
struct SkipAfterLimit(MemoryStateStore);

#[async_trait]
impl Lie for SkipAfterLimit {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        let mut page = self.0.list_range(namespace, list, ListRange { skip: 0, ..range }).await?;
        page.values.drain(..page.values.len().min(range.skip as usize));
        Ok(page)
    }
}

pub(crate) fn skip_after_limit(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(SkipAfterLimit(honest)))
}

/// Pushes by reading all and writing all.
#[derive(Debug)]
struct ReadModifyWrite(MemoryStateStore);

#[async_trait]
impl Lie for ReadModifyWrite {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let [Op::Push { list, value, cap, ttl: ttl @ Ttl::Never }] = &batch.ops[..] else {
            return self.0.apply(batch).await;
        };
        let range = ListRange { order: ListOrder::OldestFirst, skip: 0, limit: 1_000 };
        let mut read = self.0.list_range(&batch.namespace, list, range).await?;
        if read.length == 0 || read.length > 900 {
            return self.0.apply(batch).await;
        }
        pause().await;
        read.values.push(value.clone());
        let mut all = Batch::new(batch.namespace.clone()).delete(list.clone());
        all.extend(read.values.into_iter().map(|value| Op::Push { list: list.clone(), value, cap: *cap, ttl: *ttl }));
        Ok(self.0.apply(all).await?.pop().into_iter().collect())
    }
}

pub(crate) fn push_reads_then_writes(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(ReadModifyWrite(honest)))
}

/// One counter with a lifetime, as is often called a rate limit; lone admissions only.
#[derive(Debug)]
struct FixedWindow(MemoryStateStore);

#[async_trait]
impl Lie for FixedWindow {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        let [Op::Admit { window, by, limit }] = &batch.ops[..] else { return self.0.apply(batch).await };
        let mut peek = batch.clone();
        peek.ops = vec![Op::Admit { window: window.clone(), by: 0, limit: *limit }];
        self.0.apply(peek).await?;
        let counter = Key::cache(format!("fixed {window}"))?;
        let used = self.0.get(&batch.namespace, &counter).await?.map(|entry| entry.value.as_counter().unwrap_or(0));
        if *by <= 0 {
            return if *by == 0 { Ok(vec![Applied::Used(used.unwrap_or(0))]) } else { self.0.apply(batch).await };
        }
        let ttl = if used.is_some() { Ttl::Keep } else { Ttl::After(limit.length) };
        let add = Op::Add { key: counter, delta: Delta::at_most(*by, limit.max), ttl };
        match self.0.apply_one(&batch.namespace, add).await {
            Ok(Applied::Counter(used)) => Ok(vec![Applied::Used(used)]),
            Err(StoreError::OutOfBounds { current, .. } | StoreError::Overflow { current, .. }) => {
                let retry_after = (*by <= limit.max).then_some(limit.length);
                Err(StoreError::WindowFull { index: 0, key: window.clone(), used: current, retry_after })
            }
            Ok(other) => Ok(vec![other]),
            Err(e) => Err(e),
        }
    }
}

pub(crate) fn fixed_window(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(FixedWindow(honest)))
}

/// Looks, then counts.
#[derive(Debug)]
struct AdmitsInTwoSteps(MemoryStateStore);

#[async_trait]
impl Lie for AdmitsInTwoSteps {
    fn honest(&self) -> &MemoryStateStore {
        &self.0
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        if let [Op::Admit { window, by, limit }] = &batch.ops[..]
            && *by > 0
        {
            let look = Op::Admit { window: window.clone(), by: 0, limit: *limit };
            let looked = self.0.apply_one(&batch.namespace, look).await?;
            pause().await;
            if matches!(looked, Applied::Used(used) if used.saturating_add(*by) <= limit.max) {
                let limit = WindowLimit { max: Value::COUNTER_MAX, ..*limit };
                let count = Op::Admit { window: window.clone(), by: *by, limit };
                return Ok(vec![self.0.apply_one(&batch.namespace, count).await?]);
            }
        }
        self.0.apply(batch).await
    }
}

pub(crate) fn admits_in_two_steps(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    Arc::new(Liar(AdmitsInTwoSteps(honest)))
}
