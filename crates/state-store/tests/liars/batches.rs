//! Stores that lie when they write.

use std::sync::Arc;

use async_trait::async_trait;
use infra_state_store::{Applied, Batch, Delta, MemoryStateStore, Op, StateStore, StoreError, Ttl, Value, When};

use super::lie::{Liar, Lie, nothing, pause};

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
        let ops = batch.ops.into_iter().map(self.op).collect();
        self.honest.apply(Batch { ops, ..batch }).await
    }
}

fn rewrite(honest: MemoryStateStore, op: fn(Op) -> Op) -> Arc<dyn StateStore> {
    Arc::new(Liar(Rewrite { honest, op }))
}

pub(crate) fn ttl_survives(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| match op {
        Op::Set { key, value, ttl: Ttl::Never, when } => Op::Set { key, value, ttl: Ttl::Keep, when },
        other => other,
    })
}

pub(crate) fn keep_is_never(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| match op {
        Op::Set { key, value, ttl: Ttl::Keep, when } => Op::Set { key, value, ttl: Ttl::Never, when },
        other => other,
    })
}

pub(crate) fn absent_ignored(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| match op {
        Op::Set { key, value, ttl, when: When::Absent } => Op::Set { key, value, ttl, when: When::Always },
        other => other,
    })
}

pub(crate) fn fence_ignored(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| if matches!(op, Op::CheckFence { .. }) { nothing() } else { op })
}

pub(crate) fn inbox_forgets(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| if matches!(op, Op::MarkInbox { .. }) { nothing() } else { op })
}

pub(crate) fn bounds_ignored(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| match op {
        Op::Add { key, delta, ttl } => Op::Add { key, delta: Delta::unbounded(delta.by), ttl },
        other => other,
    })
}

pub(crate) fn text_only(honest: MemoryStateStore) -> Arc<dyn StateStore> {
    rewrite(honest, |op| match op {
        Op::Set { key, value: Value::Bytes(bytes), ttl, when } => {
            Op::Set { key, value: String::from_utf8_lossy(&bytes).into_owned().into(), ttl, when }
        }
        other => other,
    })
}

/// What one operation was before and is now, with a look at the store in between.
macro_rules! lie {
    ($name:ident, $type:ident, |$honest:ident, $batch:ident| $body:expr) => {
        #[derive(Debug)]
        struct $type(MemoryStateStore);

        #[async_trait]
        impl Lie for $type {
            fn honest(&self) -> &MemoryStateStore {
                &self.0
            }

            async fn apply(&self, $batch: Batch) -> Result<Vec<Applied>, StoreError> {
                let $honest = &self.0;
                $body
            }
        }

        pub(crate) fn $name(honest: MemoryStateStore) -> Arc<dyn StateStore> {
            Arc::new(Liar($type(honest)))
        }
    };
}

lie!(compare_creates, CompareCreates, |honest, batch| {
    let mut batch = batch;
    for op in &mut batch.ops {
        if let Op::Set { key, when: when @ When::Version(_), .. } = op
            && honest.get(&batch.namespace, key).await?.is_none()
        {
            *when = When::Always;
        }
    }
    honest.apply(batch).await
});

lie!(renews_for_anybody, RenewsForAnybody, |honest, batch| {
    let mut batch = batch;
    for op in &mut batch.ops {
        if let Op::RenewLease { key, holder, fence, .. } = op
            && let Some(entry) = honest.get(&batch.namespace, key).await?
            && let (Some(current), Some(version)) = (entry.value.as_bytes(), entry.version)
        {
            *holder = String::from_utf8_lossy(current).into_owned();
            *fence = version.0;
        }
    }
    honest.apply(batch).await
});

lie!(no_rollback, NoRollback, |honest, batch| {
    let mut applied = Vec::new();
    for (index, op) in batch.ops.into_iter().enumerate() {
        // Behind as many idle operations as came before, so that a refusal has the right index.
        let mut ops = vec![nothing(); index];
        ops.push(op);
        let namespace = batch.namespace.clone();
        applied.extend(honest.apply(Batch { namespace, ops }).await?.pop());
    }
    Ok(applied)
});

lie!(outbox_first, OutboxFirst, |honest, batch| {
    let is_message = |op: &Op| matches!(op, Op::Enqueue { .. } | Op::Acknowledge { .. });
    let messages = batch.ops.iter().filter(|op| is_message(op)).cloned().collect();
    honest.apply(Batch { namespace: batch.namespace.clone(), ops: messages }).await?;
    let rest = batch.ops.into_iter().map(|op| if is_message(&op) { nothing() } else { op }).collect();
    honest.apply(Batch { ops: rest, ..batch }).await
});

lie!(lost_updates, LostUpdates, |honest, batch| {
    if let [Op::Add { key, delta, ttl }] = &batch.ops[..] {
        let current = honest.get(&batch.namespace, key).await?;
        let current = current.map_or(Some(0), |entry| entry.value.as_counter());
        let new = current.and_then(|current| current.checked_add(delta.by));
        tokio::task::yield_now().await;
        if let Some(new) = new.filter(|new| (delta.min..=delta.max).contains(new)) {
            let set = Op::Set { key: key.clone(), value: Value::Counter(new), ttl: *ttl, when: When::Always };
            if honest.apply(Batch { ops: vec![set], ..batch.clone() }).await.is_ok() {
                return Ok(vec![Applied::Counter(new)]);
            }
        }
    }
    honest.apply(batch).await
});

lie!(overflow_clamps, OverflowClamps, |honest, batch| {
    match (honest.apply(batch.clone()).await, &batch.ops[..]) {
        (Err(StoreError::Overflow { .. }), [Op::Add { key, delta, ttl }]) => {
            let max = Value::COUNTER_MAX * delta.by.signum();
            let set = Op::Set { key: key.clone(), value: Value::Counter(max), ttl: *ttl, when: When::Always };
            honest.apply(Batch { ops: vec![set], ..batch.clone() }).await?;
            Ok(vec![Applied::Counter(max)])
        }
        (honest, _) => honest,
    }
});

lie!(overflow_wraps, OverflowWraps, |honest, batch| {
    match (honest.apply(batch.clone()).await, &batch.ops[..]) {
        (Err(StoreError::Overflow { current, .. }), [Op::Add { key, delta, ttl }]) => {
            let width = i128::from(Value::COUNTER_MAX) * 2 + 1;
            let new = i128::from(current) + i128::from(delta.by) - width * i128::from(delta.by.signum());
            let new = i64::try_from(new).unwrap_or(0).clamp(-Value::COUNTER_MAX, Value::COUNTER_MAX);
            let set = Op::Set { key: key.clone(), value: Value::Counter(new), ttl: *ttl, when: When::Always };
            honest.apply(Batch { ops: vec![set], ..batch.clone() }).await?;
            Ok(vec![Applied::Counter(new)])
        }
        (honest, _) => honest,
    }
});

lie!(compare_then_write, CompareThenWrite, |honest, batch| {
    if let [Op::Set { key, value, ttl, when: When::Version(version) }] = &batch.ops[..]
        && honest.get(&batch.namespace, key).await?.and_then(|entry| entry.version) == Some(*version)
    {
        pause().await;
        let set = Op::Set { key: key.clone(), value: value.clone(), ttl: *ttl, when: When::Always };
        return honest.apply(Batch { ops: vec![set], ..batch.clone() }).await;
    }
    honest.apply(batch).await
});

lie!(ttl_comes_later, TtlComesLater, |honest, batch| {
    if let [Op::Set { key, value, ttl: ttl @ Ttl::After(_), when }] = &batch.ops[..] {
        let bare = Op::Set { key: key.clone(), value: value.clone(), ttl: Ttl::Never, when: *when };
        let refused = honest.apply(Batch { ops: vec![bare], ..batch.clone() }).await;
        pause().await;
        refused?;
        let whole = Op::Set { key: key.clone(), value: value.clone(), ttl: *ttl, when: When::Always };
        return honest.apply(Batch { ops: vec![whole], ..batch.clone() }).await;
    }
    honest.apply(batch).await
});

lie!(mark_first, MarkFirst, |honest, batch| {
    let is_mark = |op: &Op| matches!(op, Op::MarkInbox { .. });
    let marks = batch.ops.iter().map(|op| if is_mark(op) { op.clone() } else { nothing() }).collect();
    honest.apply(Batch { namespace: batch.namespace.clone(), ops: marks }).await?;
    let rest = batch.ops.into_iter().map(|op| if is_mark(&op) { nothing() } else { op }).collect();
    honest.apply(Batch { ops: rest, ..batch }).await
});
