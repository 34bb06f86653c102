//! Every operation beside every other, in one batch.

use std::num::NonZeroU8;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Batch, Delta, OutboxPosition, Ttl, Version, When},
    changes::ChangePosition,
    error::StoreError,
    op::Op,
    store::{StateStore, Value},
    window::WindowLimit,
};

/// What the other operations meet: one of everything.
async fn furnish(store: &dyn StateStore) -> ChangePosition {
    let mut all = batch().with(Op::KeepChanges { max: 8 });
    all.extend([
        put(&cache("c"), "old"),
        set(&record("r"), "old", Ttl::After(LONG), When::Always),
        put(&record("n"), Value::Counter(5)),
        put(&record("gone"), "old"),
        acquire("held", "holder", LONG),
        acquire("free", "holder", LONG),
        Op::ReleaseLease { key: lease("free"), fence: 1 },
        push("list", "1", 3, Ttl::Never),
        push("list", "2", 3, Ttl::After(LONG)),
        push("list", "3", 3, Ttl::Keep),
        admit("w", 3, hourly(5)),
        enqueue("out", "first"),
        enqueue("out", "second"),
        mark("in", "seen", Ttl::Never),
    ]);
    good(store.apply(all).await);
    changes_end(store).await
}

/// Everything that can be seen, as text. Needs no write: what is only told to a write is asked by one that is refused.
async fn everything(store: &dyn StateStore, start: ChangePosition) -> String {
    let keys = [
        cache("c"),
        cache("new"),
        record("r"),
        record("n"),
        record("gone"),
        record("new"),
        lease("held"),
        lease("free"),
        lease("new"),
    ];
    let entries = good(store.get_many(&home(), &keys).await);
    let mut seen = format!("{entries:?} {:?} {:?}", values(store, "list").await, values(store, "new").await);
    seen += &format!(" {} {}", used(store, "w").await, used(store, "new").await);
    seen += &format!(" {:?} {:?}", messages(store, "out").await, messages(store, "new").await);
    seen += &format!(" {:?}", changes_after(store, start).await);
    for question in [
        mark("in", "new", Ttl::Never),
        Op::CheckFence { key: lease("free"), fence: 1 },
        Op::CheckFence { key: lease("new"), fence: 1 },
        Op::Check { key: list("list"), when: When::Exists },
    ] {
        let answer = store.apply(batch().with(question).check(record("missing"), When::Exists)).await;
        seen += &format!(" {:?}", answer.map_err(|e| e.index()));
    }
    seen
}

/// One of every kind of operation that writes, and none that depends on another.
fn writers(first: OutboxPosition) -> Vec<Op> {
    vec![
        put(&cache("c"), "new"),
        set(&record("r"), "new", Ttl::Never, When::Exists),
        put(&cache("new"), "new"),
        set(&record("new"), "new", Ttl::After(LONG), When::Absent),
        remove(&record("gone")),
        remove(&list("list")),
        remove(&window("w")),
        Op::Add { key: record("n"), delta: Delta::at_most(1, 6), ttl: Ttl::After(LONG) },
        acquire("new", "me", LONG),
        acquire("free", "me", LONG),
        Op::RenewLease { key: lease("held"), holder: "holder".into(), fence: 1, ttl: LONG * 2 },
        Op::ReleaseLease { key: lease("held"), fence: 1 },
        enqueue("out", "third"),
        enqueue("new", "first"),
        Op::Acknowledge { outbox: record("out"), up_to: first },
        mark("in", "new", Ttl::Never),
        push("list", "4", 3, Ttl::Never),
        push("new", "1", 3, Ttl::After(LONG)),
        admit("w", 2, hourly(5)),
        admit("new", 1, hourly(5)),
        Op::KeepChanges { max: 2 },
        Op::KeepChanges { max: 0 },
    ]
}

/// One of every way to be refused, whatever any writer did before it.
fn refusers() -> Vec<Op> {
    vec![
        Op::Check { key: record("missing"), when: When::Exists },
        Op::Check { key: cache("missing"), when: When::Exists },
        set(&record("r"), "v", Ttl::Never, When::Absent),
        set(&record("missing"), "v", Ttl::Never, When::Version(Version(1))),
        Op::Delete { key: record("r"), when: When::Version(Version(u64::MAX >> 12)) },
        Op::Delete { key: list("missing"), when: When::Exists },
        put(&record("counter"), Value::Counter(Value::COUNTER_MAX + 1)),
        Op::Add { key: record("n"), delta: Delta::at_most(1, 0), ttl: Ttl::Keep },
        Op::Add { key: record("n"), delta: Delta::unbounded(Value::COUNTER_MAX), ttl: Ttl::Keep },
        Op::Add { key: record("r"), delta: Delta::unbounded(1), ttl: Ttl::Keep },
        Op::RenewLease { key: lease("held"), holder: "thief".into(), fence: 1, ttl: LONG },
        Op::ReleaseLease { key: lease("held"), fence: 7 },
        Op::CheckFence { key: lease("held"), fence: 7 },
        mark("in", "seen", Ttl::Never),
        admit("w", 6, hourly(5)),
    ]
}

/// Whatever wrote, whatever refuses after it: nothing is left of the batch, for any handle, and the refusing one is named.
pub async fn no_writer_is_left_over_before_any_refusal(f: &dyn Fixture) {
    let store = f.store();
    let start = furnish(&*store).await;
    let first = messages(&*store, "out").await[0].position;
    let before = everything(&*store, start).await;
    for refuser in refusers() {
        for writer in writers(first) {
            let answer = store.apply(batch().with(writer.clone()).with(refuser.clone())).await;
            let e = answer.expect_err("the batch must be refused");
            assert_eq!(e.index(), Some(1), "{writer:?}, then {refuser:?}: {e:?}");
        }
        assert_eq!(everything(&*store, start).await, before, "after {refuser:?}");
    }
    assert_eq!(everything(&*f.second(), start).await, before);
}

/// All writers in one batch, refused at each place in turn.
pub async fn a_refusal_at_any_place_undoes_all(f: &dyn Fixture) {
    let store = f.store();
    let start = furnish(&*store).await;
    let first = messages(&*store, "out").await[0].position;
    let before = everything(&*store, start).await;
    for (place, refuser) in (0..=writers(first).len()).zip(refusers().into_iter().cycle()) {
        let mut ops = writers(first);
        ops.insert(place, refuser.clone());
        let e = store.apply(Batch { namespace: home(), ops }).await.expect_err("the batch must be refused");
        assert_eq!(e.index(), Some(place), "{refuser:?}: {e:?}");
        assert_eq!(everything(&*store, start).await, before, "refused at {place} by {refuser:?}");
    }
    // Without a refusal the same batch happens.
    let ops = writers(first);
    let count = ops.len();
    assert_eq!(good(store.apply(Batch { namespace: home(), ops }).await).len(), count);
}

/// One result an operation, each of its own kind, in their order.
pub async fn a_mixed_batch_answers_every_operation(f: &dyn Fixture) {
    let store = f.store();
    let mut mixed = batch().with(Op::KeepChanges { max: 10 });
    mixed.extend([
        put(&cache("c"), "v"),
        put(&record("r"), "v"),
        Op::Add { key: cache("n"), delta: Delta::unbounded(7), ttl: Ttl::Keep },
        Op::Add { key: record("n"), delta: Delta::unbounded(-7), ttl: Ttl::Keep },
        push("list", "1", 5, Ttl::Never),
        push("list", "2", 5, Ttl::Never),
        admit("w", 2, hourly(5)),
        admit("w", 0, hourly(5)),
        acquire("l", "me", LONG),
        Op::CheckFence { key: lease("l"), fence: 1 },
        Op::ReleaseLease { key: lease("l"), fence: 1 },
        enqueue("out", "e"),
        mark("in", "e", Ttl::Never),
        Op::Check { key: record("r"), when: When::Exists },
        remove(&cache("c")),
        remove(&list("list")),
        remove(&window("w")),
        remove(&record("missing")),
    ]);
    let applied = good(store.apply(mixed).await);
    assert_eq!(applied.len(), 19);
    let version = get(&*store, &record("r")).await.and_then(|e| e.version).expect("a record has a version");
    assert_eq!(applied[1..3], [Applied::Done, Applied::Version(version)]);
    assert_eq!(
        applied[3..9],
        [
            Applied::Counter(7),
            Applied::Counter(-7),
            Applied::Length(1),
            Applied::Length(2),
            Applied::Used(2),
            Applied::Used(2),
        ]
    );
    assert!(matches!(applied[9], Applied::Lease(grant) if grant.fence == 1), "{:?}", applied[9]);
    assert_eq!(applied[10..15], [Applied::Done; 5]);
    let existed = [true, true, true, false].map(Applied::Existed);
    assert_eq!(applied[15..], existed);
    assert_eq!(values(&*store, "list").await, [""; 0]);
    assert_eq!(used(&*store, "w").await, 0);
}

/// A batch is a small program over lists and windows too.
pub async fn lists_and_windows_see_earlier_operations(f: &dyn Fixture) {
    let store = f.store();
    let program = batch()
        .check(list("l"), When::Absent)
        .with(push("l", "1", 2, Ttl::After(LONG)))
        .check(list("l"), When::Exists)
        .with(push("l", "2", 2, Ttl::Keep))
        .with(push("l", "3", 2, Ttl::Keep))
        .delete(list("l"))
        .check(list("l"), When::Absent)
        .with(push("l", "4", 2, Ttl::Keep))
        .with(admit("w", 4, hourly(5)))
        .check(window("w"), When::Exists)
        .delete(window("w"))
        .with(admit("w", 5, hourly(5)));
    let applied = good(store.apply(program).await);
    assert_eq!(applied[4..6], [Applied::Length(2), Applied::Existed(true)]);
    assert_eq!((applied[7], applied[11]), (Applied::Length(1), Applied::Used(5)));
    assert_eq!(values(&*store, "l").await, ["4"]);
    f.advance(SOON).await;
    let e =
        store.apply(batch().delete(window("w")).with(admit("w", 3, hourly(5))).with(admit("w", 3, hourly(5)))).await;
    assert!(matches!(e, Err(StoreError::WindowFull { index: 2, used: 3, .. })), "{e:?}");
    assert_eq!(used(&*store, "w").await, 5);
}

/// Many mixed batches at once, some of them refused: every part of them happened equally often.
pub async fn every_part_of_concurrent_batches_happens_equally_often(f: &dyn Fixture) {
    const MAX: i64 = 50;
    let store = f.store();
    keep_changes(&*store, 10_000).await;
    let start = changes_end(&*store).await;
    let done = together(f, |task, store| async move {
        let mut done = 0;
        for n in 0..5 {
            let event = format!("{task}-{n}");
            let mut all = batch().set(record(&event), "v").add(record("count"), Delta::unbounded(1));
            all.extend([
                push("list", &event, 10_000, Ttl::Never),
                enqueue("out", &event),
                mark("in", &event, Ttl::Never),
                acquire(&event, "me", LONG),
                Op::ReleaseLease { key: lease(&event), fence: 1 },
                admit("w", 1, hourly(MAX)),
            ]);
            match store.apply(all).await {
                Ok(_) => done += 1,
                Err(StoreError::WindowFull { index: 7, .. }) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
        done
    })
    .await;
    assert_eq!(done.into_iter().sum::<i64>(), MAX);
    let (list, rows) = (values(&*store, "list").await, messages(&*store, "out").await);
    assert_eq!(list, ids(&rows), "the list and the outbox tell one order");
    assert_eq!((number(&*store, &record("count")).await, list.len() as i64), (Some(MAX), MAX));
    assert_eq!(used(&*store, "w").await, MAX);
    let changes = changes_after(&*store, start).await.changes;
    let records: Vec<&str> = changes.iter().map(|c| c.key.name()).filter(|name| *name != "count").collect();
    assert_eq!((records, changes.len() as i64), (ids(&rows), MAX * 2), "and so do the changes");
}

/// As many operations as a batch may hold, of every cheap kind; refused at the very end, nothing is left of them.
pub async fn the_largest_batch_is_all_or_nothing(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 2_000).await;
    let start = changes_end(&*store).await;
    let max = store.info().limits.batch_ops_max;
    let narrow = WindowLimit { slices: NonZeroU8::MIN, ..hourly(10_000) };
    let many = |count: usize| {
        let mut many = batch();
        many.extend((0..count).map(|n| match n % 6 {
            0 => put(&record(&format!("k{n:04}")), "v"),
            1 => put(&cache(&format!("k{n:04}")), "v"),
            2 => push("list", &n.to_string(), 100, Ttl::Never),
            3 => enqueue("out", &n.to_string()),
            4 => admit("w", 1, narrow),
            _ => mark("in", &n.to_string(), Ttl::Never),
        }));
        many
    };
    let doomed = store.apply(many(max - 1).check(record("missing"), When::Exists)).await;
    assert_eq!(doomed.expect_err("the batch must be refused").index(), Some(max - 1));
    assert_eq!(names(&*store, "k", 1_000).await, [""; 0]);
    assert_eq!((used(&*store, "w").await, values(&*store, "list").await.len()), (0, 0));
    assert!(changes_after(&*store, start).await.changes.is_empty());
    assert_eq!(good(store.apply(many(max)).await).len(), max);
    let each = |kind: usize| (0..max).filter(|n| n % 6 == kind).count();
    assert_eq!(names(&*store, "k", 1_000).await.len(), each(0));
    assert_eq!(values(&*store, "list").await.len(), 100);
    assert_eq!(messages(&*store, "out").await.len(), each(3));
    assert_eq!(used(&*store, "w").await, each(4) as i64);
    assert_eq!(changes_after(&*store, start).await.changes.len(), each(0));
}

/// The most bytes that a batch may hold, in every place that holds bytes; refused at the very end, nothing is left of them.
pub async fn the_heaviest_batch_is_all_or_nothing(f: &dyn Fixture) {
    let store = f.store();
    let limits = store.info().limits;
    let (full, rest) =
        (limits.batch_bytes_max / limits.value_bytes_max, limits.batch_bytes_max % limits.value_bytes_max);
    let sizes: Vec<usize> =
        std::iter::repeat_n(limits.value_bytes_max, full).chain([rest]).filter(|size| *size > 0).collect();
    let heavy = |more: usize| {
        let mut heavy = batch();
        heavy.extend(sizes.iter().enumerate().map(|(n, size)| {
            let load = vec![7_u8; *size];
            let outbox = record("out");
            match n % 4 {
                0 => put(&record(&format!("k{n}")), load),
                1 => Op::Push { list: list("list"), value: load.into(), cap: 10, ttl: Ttl::Never },
                2 => Op::Enqueue { outbox, order_key: "k".into(), id: id(&n.to_string()), payload: load.into() },
                _ => put(&cache(&format!("k{n}")), load),
            }
        }));
        heavy.extend((0..more).map(|_| push("list", "x", 10, Ttl::Never)));
        heavy
    };
    let over = store.apply(heavy(1)).await;
    assert!(matches!(over, Err(StoreError::TooLarge { what: "batch bytes", .. })), "{over:?}");
    let doomed = store.apply(heavy(0).check(record("missing"), When::Exists)).await;
    assert_eq!(doomed.expect_err("the batch must be refused").index(), Some(sizes.len()));
    assert_eq!(names(&*store, "k", 100).await, [""; 0]);
    assert_eq!(messages(&*store, "out").await, []);
    good(store.apply(heavy(0)).await);
    let of = |place: usize| sizes.iter().skip(place).step_by(4).sum::<usize>();
    let page = good(f.second().list_range(&home(), &list("list"), crate::list::ListRange::newest(10)).await);
    assert_eq!(page.values.iter().map(bytes::Bytes::len).sum::<usize>(), of(1));
    let rows = messages(&*f.second(), "out").await;
    assert_eq!(rows.iter().map(|row| row.payload.len()).sum::<usize>(), of(2));
}
