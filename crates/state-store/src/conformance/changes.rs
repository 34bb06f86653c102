//! Kept changes: in order, none skipped, and a gap where some are gone.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Batch, Delta, Ttl, Version, When},
    changes::{Change, ChangePosition, Changes},
    error::StoreError,
    ext::StateStoreExt,
    op::Op,
    store::StateStore,
};

async fn write(store: &dyn StateStore, keys: &[&str]) {
    let mut all = batch();
    all.extend(keys.iter().map(|name| put(&record(name), "v")));
    good(store.apply(all).await);
}

fn a_gap(read: &Changes) {
    assert!(read.gap && read.changes.is_empty(), "changes are gone, and that must be told: {read:?}");
}

fn no_gap(read: &Changes, expected: &[&str]) {
    assert!(!read.gap, "{read:?}");
    assert_eq!(told(&read.changes), expected);
}

/// A namespace keeps changes once it was asked to, from then on, and no other does.
pub async fn changes_are_kept_on_request(f: &dyn Fixture) {
    let store = f.store();
    for after in [None, Some(ChangePosition(0))] {
        let e = store.changes_read(&home(), after, 10).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    }
    write(&*store, &["before"]).await;
    let e = store.changes_read(&home(), None, 10).await;
    assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    let mut all = batch().set(record("same batch, before"), "v").with(Op::KeepChanges { max: 100 });
    all = all.set(record("same batch, after"), "v");
    good(store.apply(all).await);
    let end = changes_end(&*f.second()).await;
    write(&*store, &["after"]).await;
    no_gap(&changes_after(&*f.second(), end).await, &["+after"]);
    // What was written before it was asked to is not known.
    a_gap(&changes_after(&*store, ChangePosition(0)).await);
    good(store.set(&ns("other"), &record("k"), "v", Ttl::Never).await);
    assert!(store.changes_read(&ns("other"), None, 10).await.is_err());
    no_gap(&changes_after(&*store, end).await, &["+after"]);
}

/// With key, version and end of life, in the order of the batches and of the operations in them.
pub async fn changes_come_in_order_with_their_versions(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    let mixed = batch()
        .set(record("b"), "1")
        .set_when(record("a"), "1", Ttl::After(LONG), When::Always)
        .set(record("b"), "2")
        .add(record("n"), Delta::unbounded(1))
        .delete(record("a"));
    let applied = good(store.apply(mixed).await);
    let last = write_record(&*f.second(), put(&record("c"), "1")).await;
    let read = changes_after(&*store, start).await;
    no_gap(&read, &["+b", "+a", "+b", "+n", "-a", "+c"]);
    assert!(read.changes.is_sorted_by(|a, b| a.position < b.position), "{read:?}");
    assert!(read.changes[0].position > start);
    assert_eq!(read.next, read.changes[5].position);
    let versions: Vec<Option<Version>> = read.changes.iter().map(|change| change.version).collect();
    for (place, applied) in applied.iter().enumerate() {
        match applied {
            Applied::Version(version) => assert_eq!(versions[place], Some(*version), "change {place}"),
            Applied::Existed(_) => assert_eq!(versions[place], None, "change {place}"),
            _ => assert_eq!(versions[3], get(&*store, &record("n")).await.and_then(|e| e.version)),
        }
    }
    assert_eq!(versions[5], Some(last));
    let ends: Vec<bool> = read.changes.iter().map(|change| change.expires_at.is_some()).collect();
    assert_eq!(ends, [false, true, false, false, false, false]);
}

/// The end that a change tells is the end that the record has.
pub async fn a_change_tells_when_the_record_ends(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    one(&*store, set(&record("k"), "v", Ttl::After(LONG), When::Always)).await;
    one(&*store, set(&record("k"), "w", Ttl::Keep, When::Always)).await;
    let end = get(&*store, &record("k")).await.and_then(|entry| entry.expires_at);
    assert!(end.is_some());
    one(&*store, put(&record("k"), "x")).await;
    // That a time runs out is no change.
    one(&*store, set(&record("short"), "v", Ttl::After(SOON), When::Always)).await;
    f.advance(SOON).await;
    write(&*store, &["other"]).await;
    let read = changes_after(&*store, start).await;
    no_gap(&read, &["+k", "+k", "+k", "+short", "+other"]);
    assert_eq!(read.changes.iter().take(3).map(|c| c.expires_at).collect::<Vec<_>>(), [end, end, None]);
}

/// Cache keys, leases, lists, windows, messages and marks come and go without a word; a check changes nothing.
pub async fn only_records_are_told(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    let mut quiet = batch();
    quiet.extend([
        put(&cache("k"), "v"),
        remove(&cache("k")),
        acquire("k", "me", LONG),
        push("k", "v", 5, Ttl::Never),
        admit("k", 1, hourly(5)),
        enqueue("k", "event"),
        mark("k", "event", Ttl::Never),
        remove(&list("k")),
        remove(&window("k")),
        Op::Check { key: record("k"), when: When::Absent },
        remove(&record("k")),
    ]);
    good(store.apply(quiet).await);
    no_gap(&changes_after(&*store, start).await, &[]);
    write(&*store, &["k"]).await;
    one(&*store, remove(&record("k"))).await;
    one(&*store, remove(&record("k"))).await;
    no_gap(&changes_after(&*store, start).await, &["+k", "-k"]);
}

/// What did not happen is not told, and pushes nothing out.
pub async fn a_refused_batch_is_not_told(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 2).await;
    let start = changes_end(&*store).await;
    write(&*store, &["a", "b"]).await;
    let doomed = batch()
        .set(record("c"), "v")
        .delete(record("a"))
        .add(record("n"), Delta::unbounded(1))
        .check(record("missing"), When::Exists);
    assert!(store.apply(doomed).await.is_err());
    let over = batch().set(record("d"), "v").add(record("n"), Delta::at_most(1, 0));
    assert!(store.apply(over).await.is_err());
    no_gap(&changes_after(&*store, start).await, &["+a", "+b"]);
    for max in [0, 100] {
        let doomed = batch().with(Op::KeepChanges { max }).check(record("missing"), When::Exists);
        assert!(store.apply(doomed).await.is_err());
        no_gap(&changes_after(&*store, start).await, &["+a", "+b"]);
    }
    write(&*store, &["e"]).await;
    a_gap(&changes_after(&*store, start).await);
}

/// Pages join without a seam; the end of the changes stays where it is while nothing happens.
pub async fn changes_are_read_page_by_page(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    write(&*store, &["k0", "k1", "k2", "k3", "k4", "k5", "k6"]).await;
    for limit in [1, 3, 7, 1_000] {
        let (mut position, mut seen) = (start, Vec::new());
        loop {
            let read = good(store.changes_read(&home(), Some(position), limit).await);
            assert!(read.changes.len() <= limit);
            assert!(!read.gap);
            position = read.next;
            if read.changes.is_empty() {
                break;
            }
            seen.extend(told(&read.changes));
        }
        assert_eq!(seen, ["+k0", "+k1", "+k2", "+k3", "+k4", "+k5", "+k6"], "limit {limit}");
        no_gap(&changes_after(&*store, position).await, &[]);
        assert_eq!(changes_after(&*store, position).await.next, position);
    }
}

/// Who is behind what is kept learns it, and nobody else does.
pub async fn trimmed_changes_are_a_gap(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 3).await;
    let start = changes_end(&*store).await;
    write(&*store, &["a", "b", "c"]).await;
    let all = changes_after(&*store, start).await;
    no_gap(&all, &["+a", "+b", "+c"]);
    write(&*store, &["d", "e"]).await;
    a_gap(&changes_after(&*store, start).await);
    a_gap(&changes_after(&*store, all.changes[0].position).await);
    let exact = changes_after(&*f.second(), all.changes[1].position).await;
    no_gap(&exact, &["+c", "+d", "+e"]);
    // From where the gap says, the reader goes on.
    let next = changes_after(&*store, start).await.next;
    assert!(next >= exact.next);
    write(&*store, &["f"]).await;
    no_gap(&changes_after(&*store, next).await, &["+f"]);
    // One batch may push out all that was kept, and its own first changes.
    write(&*store, &["g", "h", "i", "j"]).await;
    a_gap(&changes_after(&*store, next).await);
}

/// Fewer kept: the oldest go at once. More kept: none comes back.
pub async fn what_is_kept_may_change(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 10).await;
    let start = changes_end(&*store).await;
    write(&*store, &["a", "b", "c", "d"]).await;
    let all = changes_after(&*store, start).await;
    keep_changes(&*store, 10).await;
    no_gap(&changes_after(&*store, start).await, &["+a", "+b", "+c", "+d"]);
    keep_changes(&*store, 2).await;
    a_gap(&changes_after(&*store, start).await);
    no_gap(&changes_after(&*store, all.changes[1].position).await, &["+c", "+d"]);
    keep_changes(&*store, 10).await;
    a_gap(&changes_after(&*store, start).await);
    no_gap(&changes_after(&*store, all.changes[1].position).await, &["+c", "+d"]);
    write(&*store, &["e"]).await;
    no_gap(&changes_after(&*store, all.changes[1].position).await, &["+c", "+d", "+e"]);
    // Operations happen in their order: what fell off before more was kept is gone.
    let start = changes_end(&*store).await;
    let keep = |max| Op::KeepChanges { max };
    let puts = ["f", "g", "h", "i"].map(|name| put(&record(name), name.to_owned()));
    let mut raised = batch().with(keep(2));
    raised.extend(puts);
    good(store.apply(raised.with(keep(10))).await);
    a_gap(&changes_after(&*store, start).await);
}

/// A cleared namespace goes on keeping, and everyone who followed it learns that something is gone, also who was at the end.
pub async fn clearing_is_a_gap(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    write(&*store, &["a", "b"]).await;
    let end = changes_end(&*store).await;
    good(store.clear(&home()).await);
    for position in [start, end] {
        a_gap(&changes_after(&*f.second(), position).await);
    }
    let next = changes_after(&*store, end).await.next;
    assert!(next > end);
    write(&*store, &["c"]).await;
    no_gap(&changes_after(&*store, next).await, &["+c"]);
    a_gap(&changes_after(&*store, end).await);
}

/// A position that this store never gave (a backup was restored) is a gap, not silence for ever.
pub async fn a_position_of_another_life_is_a_gap(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    write(&*store, &["a"]).await;
    let end = changes_end(&*store).await;
    for beyond in [ChangePosition(end.0 + 1_000_000), ChangePosition((1 << 53) - 1), ChangePosition(u64::MAX)] {
        let read = changes_after(&*store, beyond).await;
        a_gap(&read);
        assert_eq!(read.next, end, "{beyond:?}");
    }
}

/// Ended, nothing is kept; begun anew, what was written meanwhile is a gap.
pub async fn ending_forgets_the_changes(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 100).await;
    let start = changes_end(&*store).await;
    write(&*store, &["a"]).await;
    keep_changes(&*store, 0).await;
    let e = store.changes_read(&home(), Some(start), 10).await;
    assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    write(&*store, &["unseen"]).await;
    keep_changes(&*store, 100).await;
    a_gap(&changes_after(&*store, start).await);
    let next = changes_end(&*store).await;
    write(&*store, &["b"]).await;
    no_gap(&changes_after(&*store, next).await, &["+b"]);
}

/// Reading takes nothing away from another reader.
pub async fn readers_do_not_disturb_each_other(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    keep_changes(&*store, 100).await;
    let (mut fast, slow) = (changes_end(&*store).await, changes_end(&*second).await);
    for n in 0..4 {
        write(&*store, &[&format!("k{n}")]).await;
        let read = changes_after(&*store, fast).await;
        no_gap(&read, &[&format!("+k{n}")]);
        fast = read.next;
    }
    no_gap(&changes_after(&*second, slow).await, &["+k0", "+k1", "+k2", "+k3"]);
    no_gap(&changes_after(&*second, fast).await, &[]);
}

/// A change that appears later never stands before one that was read: a reader that follows sixteen writers meets every write once.
pub async fn a_follower_skips_no_late_writer(f: &dyn Fixture) {
    const EACH: usize = 12;
    let store = f.store();
    keep_changes(&*store, 100_000).await;
    let mut position = changes_end(&*store).await;
    let left = Arc::new(AtomicUsize::new(TASKS));
    let follower = {
        let (store, left) = (f.second(), left.clone());
        run(async move {
            let mut seen: Vec<Change> = Vec::new();
            loop {
                let was_over = left.load(Ordering::SeqCst) == 0;
                let read = good(store.changes_read(&home(), Some(position), 7).await);
                assert!(!read.gap, "nothing was trimmed");
                position = read.next;
                let is_empty = read.changes.is_empty();
                seen.extend(read.changes);
                if is_empty && was_over {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let written = together(f, move |task, store| {
        let left = left.clone();
        async move {
            let mut written = Vec::new();
            for n in 0..EACH {
                // Batches of several sizes are on the way for several times.
                let mut several: Batch = batch();
                several.extend((0..1 + (task + n) % 5).map(|part| put(&record(&format!("{task}-{n}-{part}")), "v")));
                for applied in good(store.apply(several).await) {
                    match applied {
                        Applied::Version(version) => written.push(version),
                        other => panic!("a record's write gives a version, not {other:?}"),
                    }
                }
            }
            left.fetch_sub(1, Ordering::SeqCst);
            written
        }
    })
    .await;
    let seen = follower.done().await;
    assert!(seen.is_sorted_by(|a, b| a.position < b.position), "in order, each once");
    let seen: BTreeSet<Version> = seen.into_iter().filter_map(|change| change.version).collect();
    let written: BTreeSet<Version> = written.into_iter().flatten().collect();
    let skipped: Vec<_> = written.difference(&seen).collect();
    assert!(skipped.is_empty(), "{} of {} changes were skipped: {skipped:?}", skipped.len(), written.len());
    assert_eq!(seen.len(), written.len());
}
