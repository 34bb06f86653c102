//! All or nothing.

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Batch, Delta, Ttl, When},
    error::StoreError,
    key::Key,
    op::Op,
    store::{StateStore, Value},
};

/// Nothing to do is done.
pub async fn an_empty_batch_is_fine(f: &dyn Fixture) {
    assert_eq!(good(f.store().apply(batch()).await), []);
}

async fn everything(store: &dyn StateStore) -> String {
    let keys = [cache("c"), record("r"), record("gone"), cache("new"), record("n"), lease("l"), lease("new")];
    let entries = good(store.get_many(&home(), &keys).await);
    let listed = names(store, "r", 10).await;
    let free = try_one(store, Op::CheckFence { key: lease("new"), fence: 1 }).await;
    format!("{entries:?} {listed:?} {free:?} {:?} {:?}", messages(store, "out").await, messages(store, "new").await)
}

/// Every kind of operation is undone when a later one refuses.
pub async fn a_refused_batch_changes_nothing(f: &dyn Fixture) {
    let store = f.store();
    let before = batch()
        .set_when(cache("c"), "old", Ttl::After(LONG), When::Always)
        .set(record("r"), "old")
        .set(record("gone"), "old")
        .set(record("n"), Value::Counter(5))
        .with(acquire("l", "holder", LONG))
        .with(enqueue("out", "first"))
        .with(mark("in", "seen", Ttl::Never));
    good(store.apply(before).await);
    let before = everything(&*store).await;
    let up_to = messages(&*store, "out").await[0].position;
    let doomed = batch()
        .set(cache("c"), "new")
        .set(record("r"), Value::Counter(1))
        .delete(record("gone"))
        .set(cache("new"), "new")
        .add(record("n"), Delta::unbounded(1))
        .with(Op::ReleaseLease { key: lease("l"), fence: 1 })
        .with(acquire("l", "thief", LONG))
        .with(acquire("new", "holder", LONG))
        .with(enqueue("out", "second"))
        .with(Op::Acknowledge { outbox: record("out"), up_to })
        .with(enqueue("new", "third"))
        .with(mark("in", "other", Ttl::Never))
        .check(record("missing"), When::Exists);
    let refusal = store.apply(doomed).await;
    assert!(matches!(refusal, Err(StoreError::Mismatch { index: 12, .. })), "{refusal:?}");
    assert_eq!(everything(&*store).await, before);
    assert_eq!(everything(&*f.second()).await, before);
    assert_eq!(one(&*store, mark("in", "other", Ttl::Never)).await, Applied::Done);
}

/// The index tells which operation refused; those before it did not.
pub async fn the_refusing_operation_is_named(f: &dyn Fixture) {
    let store = f.store();
    for place in 0..4 {
        let ops = (0..4).map(|n| {
            let when = if n == place { When::Exists } else { When::Always };
            set(&record(&format!("k{n}")), "v", Ttl::Never, when)
        });
        let mut doomed = batch();
        doomed.extend(ops);
        match store.apply(doomed).await {
            Err(StoreError::Mismatch { index, key, found: None }) => {
                assert_eq!((index, key), (place, record(&format!("k{place}"))));
            }
            other => panic!("expected a mismatch, got {other:?}"),
        }
    }
    assert_eq!(names(&*store, "k", 10).await, [""; 0]);
}

/// A batch is a small program: conditions are judged where they stand.
pub async fn later_operations_see_earlier_ones(f: &dyn Fixture) {
    let store = f.store();
    for key in [cache("k"), record("k")] {
        let program = batch()
            .check(key.clone(), When::Absent)
            .set(key.clone(), "v")
            .check(key.clone(), When::Exists)
            .delete(key.clone())
            .check(key.clone(), When::Absent)
            .add(key.clone(), Delta::at_most(2, 4))
            .add(key.clone(), Delta::at_most(2, 4))
            .delete(key.clone())
            .delete(key.clone())
            .add(key.clone(), Delta::at_most(4, 4));
        let applied = good(store.apply(program).await);
        assert_eq!(applied[3], Applied::Existed(true));
        assert_eq!(
            applied[6..],
            [Applied::Counter(4), Applied::Existed(true), Applied::Existed(false), Applied::Counter(4)]
        );
        let over = store
            .apply(
                batch()
                    .delete(key.clone())
                    .add(key.clone(), Delta::unbounded(1))
                    .add(key.clone(), Delta::at_most(9, 9)),
            )
            .await;
        assert!(matches!(over, Err(StoreError::OutOfBounds { index: 2, current: 1, .. })), "{over:?}");
        assert_eq!(number(&*store, &key).await, Some(4));
    }
}

fn pair() -> [Key; 2] {
    [record("left"), record("right")]
}

/// Two keys that are always written together are always read together.
pub async fn readers_see_a_batch_whole(f: &dyn Fixture) {
    let answers = together(f, |task, store| async move {
        for n in 0..30 {
            if task < 4 {
                let mut both = batch();
                both.extend(pair().map(|key| put(&key, Value::Counter(n * 100 + task as i64))));
                good(store.apply(both).await);
            }
            let read = good(store.get_many(&home(), &pair()).await);
            if read[0].as_ref().map(|e| &e.value) != read[1].as_ref().map(|e| &e.value) {
                return Err(format!("torn: {read:?}"));
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(answers, vec![Ok(()); TASKS]);
}

/// Money moved between two accounts is never lost or made, and no account is overdrawn.
pub async fn concurrent_batches_happen_one_by_one(f: &dyn Fixture) {
    let store = f.store();
    good(store.apply(batch().set(record("left"), Value::Counter(20)).set(record("right"), Value::Counter(0))).await);
    let moved = together(f, |task, store| async move {
        let [left, right] = pair();
        let mut moved = 0_i64;
        for _ in 0..5 {
            let amount = 1 + (task % 3) as i64;
            let transfer: Batch =
                batch().add(right.clone(), Delta::unbounded(amount)).add(left.clone(), Delta::at_least(-amount, 0));
            match store.apply(transfer).await {
                Ok(_) => moved += amount,
                Err(StoreError::OutOfBounds { index: 1, current, .. }) => assert!(current < amount),
                Err(e) => panic!("{e:?}"),
            }
        }
        moved
    })
    .await;
    let moved: i64 = moved.into_iter().sum();
    assert_eq!(number(&*store, &record("right")).await, Some(moved));
    assert_eq!(number(&*store, &record("left")).await, Some(20 - moved));
    // Every task asked for enough to empty it, the smallest amount being 1.
    assert_eq!(moved, 20);
}
