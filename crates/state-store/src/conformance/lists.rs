//! Capped lists.

use std::collections::BTreeMap;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    list::{ListOrder, ListRange},
    op::Op,
    store::StateStore,
};

async fn fill(store: &dyn StateStore, name: &str, count: u32) {
    let mut all = batch();
    all.extend((1..=count).map(|n| push(name, &n.to_string(), 10_000, Ttl::Never)));
    let lengths: Vec<Applied> = (1..=count).map(Applied::Length).collect();
    assert_eq!(good(store.apply(all).await), lengths);
}

async fn part(store: &dyn StateStore, order: ListOrder, skip: u32, limit: usize) -> Vec<String> {
    let page = good(store.list_range(&home(), &list("l"), ListRange { order, skip, limit }).await);
    assert_eq!(page.length, 5, "the length is that of the whole list");
    page.values.into_iter().map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
}

/// From both ends, past any number of values, as many as asked for.
pub async fn a_list_is_read_from_both_ends(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "l", 5).await;
    let second = f.second();
    let (newest, oldest) = (ListOrder::NewestFirst, ListOrder::OldestFirst);
    for (skip, limit, of_newest, of_oldest) in [
        (0, 1_000, vec!["5", "4", "3", "2", "1"], vec!["1", "2", "3", "4", "5"]),
        (0, 2, vec!["5", "4"], vec!["1", "2"]),
        (3, 1, vec!["2"], vec!["4"]),
        (3, 5, vec!["2", "1"], vec!["4", "5"]),
        (5, 5, vec![], vec![]),
        (u32::MAX, 1, vec![], vec![]),
    ] {
        assert_eq!(part(&*second, newest, skip, limit).await, of_newest, "skip {skip}, limit {limit}");
        assert_eq!(part(&*second, oldest, skip, limit).await, of_oldest, "skip {skip}, limit {limit}");
    }
}

/// A list that nobody pushed to is empty, and values are any bytes.
pub async fn an_absent_list_is_empty_and_values_are_bytes(f: &dyn Fixture) {
    let store = f.store();
    let empty = good(store.list_range(&home(), &list("l"), ListRange::newest(10)).await);
    assert_eq!((empty.values.len(), empty.length), (0, 0));
    let every: Vec<u8> = (0..=255).collect();
    for value in [every.clone(), Vec::new()] {
        one(&*store, Op::Push { list: list("l"), value: value.into(), cap: 5, ttl: Ttl::Never }).await;
    }
    let page = good(f.second().list_range(&home(), &list("l"), ListRange::oldest(10)).await);
    assert_eq!((page.values[0].to_vec(), page.values[1].len(), page.length), (every, 0, 2));
}

/// The oldest values fall off, one write at a time or all at once when the cap shrinks; a greater cap brings none back.
pub async fn a_cap_keeps_the_newest(f: &dyn Fixture) {
    let store = f.store();
    for n in 1..=5 {
        let length = one(&*store, push("l", &n.to_string(), 3, Ttl::Never)).await;
        assert_eq!(length, Applied::Length(n.min(3)), "after value {n}");
    }
    assert_eq!(values(&*store, "l").await, ["3", "4", "5"]);
    assert_eq!(one(&*store, push("l", "6", 10, Ttl::Never)).await, Applied::Length(4));
    assert_eq!(one(&*store, push("l", "7", 2, Ttl::Never)).await, Applied::Length(2));
    assert_eq!(values(&*store, "l").await, ["6", "7"]);
    assert_eq!(one(&*store, push("l", "8", 1, Ttl::Never)).await, Applied::Length(1));
    assert_eq!(values(&*f.second(), "l").await, ["8"]);
}

/// A list has one time to live, that of its last push as `Ttl` says.
pub async fn a_list_ends_as_a_whole(f: &dyn Fixture) {
    let store = f.store();
    for name in ["ended", "kept", "cleared", "moved"] {
        one(&*store, push(name, "old", 5, Ttl::After(SOON))).await;
    }
    one(&*store, push("kept", "new", 5, Ttl::Keep)).await;
    one(&*store, push("cleared", "new", 5, Ttl::Never)).await;
    one(&*store, push("moved", "new", 5, Ttl::After(LONG))).await;
    // On a busy machine the short time may be over before these pushes; then they started anew.
    let lasting = |values: Vec<String>| {
        if f.has_exact_clock() { values == ["old", "new"] } else { values.contains(&"new".into()) }
    };
    f.advance(SOON).await;
    assert_eq!(values(&*store, "ended").await, [""; 0]);
    let kept = values(&*store, "kept").await;
    assert!(kept.is_empty() || (!f.has_exact_clock() && kept == ["new"]), "{kept:?}");
    assert!(lasting(values(&*store, "cleared").await));
    assert!(lasting(values(&*store, "moved").await));
}

/// Neither the old values nor the old time come back.
pub async fn an_expired_list_starts_anew(f: &dyn Fixture) {
    let store = f.store();
    for name in ["never", "keep"] {
        // One batch: a machine that is slow between two would let the first one end before the second.
        let both = batch().with(push(name, "old", 5, Ttl::After(SOON))).with(push(name, "old", 5, Ttl::Keep));
        good(store.apply(both).await);
    }
    f.advance(SOON).await;
    assert_eq!(one(&*store, push("never", "new", 5, Ttl::Never)).await, Applied::Length(1));
    assert_eq!(one(&*store, push("keep", "new", 5, Ttl::Keep)).await, Applied::Length(1));
    f.advance(SOON).await;
    for name in ["never", "keep"] {
        assert_eq!(values(&*store, name).await, ["new"], "{name}");
    }
}

/// Not the value, not what it pushed out, not the time to live, not a list that was to be deleted.
pub async fn a_refused_batch_pushes_nothing(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "l", 3).await;
    let doomed = batch()
        .with(push("l", "4", 3, Ttl::After(SOON)))
        .with(push("l", "5", 1, Ttl::Never))
        .with(push("new", "1", 3, Ttl::After(SOON)))
        .delete(list("l"))
        .with(push("l", "6", 3, Ttl::After(SOON)))
        .check(record("missing"), When::Exists);
    let refusal = store.apply(doomed).await;
    assert!(matches!(refusal, Err(StoreError::Mismatch { index: 5, .. })), "{refusal:?}");
    f.advance(SOON).await;
    assert_eq!(values(&*store, "l").await, ["1", "2", "3"]);
    assert_eq!(values(&*f.second(), "new").await, [""; 0]);
    assert_eq!(one(&*store, push("l", "4", 10, Ttl::Never)).await, Applied::Length(4));
}

/// Nothing is lost, nothing twice, and what one pusher pushed stands in its order.
pub async fn concurrent_pushes_lose_nothing(f: &dyn Fixture) {
    const EACH: usize = 8;
    together(f, |task, store| async move {
        for n in 0..EACH {
            one(&*store, push("l", &format!("{task}:{n}"), 10_000, Ttl::Never)).await;
        }
    })
    .await;
    let mut by_task = BTreeMap::<String, Vec<String>>::new();
    for value in values(&*f.store(), "l").await {
        let (task, n) = value.split_once(':').expect("task and number");
        by_task.entry(task.into()).or_default().push(n.into());
    }
    assert_eq!(by_task.len(), TASKS);
    for (task, numbers) in by_task {
        assert_eq!(numbers, (0..EACH).map(|n| n.to_string()).collect::<Vec<_>>(), "task {task}");
    }
}

/// A cap holds while many push, and the list tells no other length on the way.
pub async fn concurrent_pushes_keep_the_cap(f: &dyn Fixture) {
    let lengths = together(f, |task, store| async move {
        let mut longest = 0;
        for n in 0..6 {
            match one(&*store, push("l", &format!("{task}:{n}"), 7, Ttl::Never)).await {
                Applied::Length(length) => longest = longest.max(length),
                other => panic!("a push gives a length, not {other:?}"),
            }
            let page = good(store.list_range(&home(), &list("l"), ListRange::newest(1_000)).await);
            assert_eq!(page.values.len(), page.length as usize, "values and length are of one moment");
            longest = longest.max(page.length);
        }
        longest
    })
    .await;
    assert_eq!(lengths.into_iter().max(), Some(7));
    assert_eq!(values(&*f.store(), "l").await.len(), 7);
}

/// A list's key is no other key: pushes write it, `list_range` reads it, conditions and deletes know whether it is there.
pub async fn list_keys_belong_to_list_operations(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, Op::Check { key: list("l"), when: When::Absent }).await;
    one(&*store, push("l", "v", 5, Ttl::Never)).await;
    for key in [cache("l"), record("l")] {
        assert_eq!(get(&*store, &key).await, None);
    }
    let answers = [
        store.get(&home(), &list("l")).await.err(),
        store.get_many(&home(), &[record("l"), list("l")]).await.err(),
        store.list_range(&home(), &record("l"), ListRange::newest(1)).await.err(),
        Some(refused(&*store, put(&list("l"), "v")).await),
        Some(refused(&*store, Op::Push { list: record("l"), value: "v".into(), cap: 5, ttl: Ttl::Never }).await),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(StoreError::Invalid { .. })), "{answer:?}");
    }
    one(&*store, Op::Check { key: list("l"), when: When::Exists }).await;
    let e = refused(&*store, Op::Check { key: list("l"), when: When::Absent }).await;
    assert!(matches!(e, StoreError::Mismatch { index: 0, found: None, .. }), "{e:?}");
    assert_eq!(names(&*store, "l", 10).await, [""; 0]);
}

/// Deleted, a list is absent and begins anew; clearing takes lists of one namespace only and counts each as one key.
pub async fn lists_are_deleted_and_cleared(f: &dyn Fixture) {
    let store = f.store();
    fill(&*store, "l", 3).await;
    assert_eq!(one(&*store, remove(&list("l"))).await, Applied::Existed(true));
    assert_eq!(values(&*f.second(), "l").await, [""; 0]);
    assert_eq!(one(&*store, remove(&list("l"))).await, Applied::Existed(false));
    fill(&*store, "l", 2).await;
    fill(&*store, "m", 700).await;
    good(store.apply_one(&ns("other"), push("l", "v", 5, Ttl::Never)).await);
    one(&*store, push("short", "v", 5, Ttl::After(SOON))).await;
    f.advance(SOON).await;
    assert_eq!(good(store.clear(&home()).await), 2);
    assert_eq!(values(&*store, "l").await, [""; 0]);
    let other = good(store.list_range(&ns("other"), &list("l"), ListRange::newest(5)).await);
    assert_eq!(other.length, 1);
    assert_eq!(one(&*store, push("m", "1", 10_000, Ttl::Never)).await, Applied::Length(1));
}
