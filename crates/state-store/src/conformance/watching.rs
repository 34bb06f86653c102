//! `Watch`, which follows the changes under a prefix.

use std::{sync::Arc, time::Duration};

use infra_types::SystemClock;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Version},
    changes::{ChangePosition, Watch, WatchEvent},
    error::StoreError,
    store::StateStore,
};

/// Real time: a watch waits between two reads, whatever the store's clock does.
const PATIENCE: Duration = Duration::from_secs(10);

fn watch(store: Arc<dyn StateStore>, prefix: &str, after: Option<ChangePosition>) -> Watch {
    Watch::new(store, SystemClock::shared(), home(), prefix, after).with_pause(Duration::from_millis(1))
}

async fn next(watch: &mut Watch) -> WatchEvent {
    good(tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change must be seen in time"))
}

async fn written(watch: &mut Watch) -> String {
    match next(watch).await {
        WatchEvent::Change(change) => told(&[change]).remove(0),
        WatchEvent::Gap => "gap".into(),
    }
}

/// From its start on it tells every change under its prefix, taken literally, over any handle, and no other.
pub async fn a_watch_tells_what_happens_under_its_prefix(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 1_000).await;
    one(&*store, put(&record("a%1"), "before")).await;
    let mut some = watch(f.second(), "a%", None);
    let mut all = watch(f.second(), "", None);
    good(some.start().await);
    good(all.start().await);
    for name in ["a%1", "ab1", "b", "a%2"] {
        one(&*store, put(&record(name), "v")).await;
    }
    one(&*store, put(&cache("a%3"), "v")).await;
    one(&*store, remove(&record("a%1"))).await;
    for expected in ["+a%1", "+a%2", "-a%1"] {
        assert_eq!(written(&mut some).await, expected);
    }
    for expected in ["+a%1", "+ab1", "+b", "+a%2", "-a%1"] {
        assert_eq!(written(&mut all).await, expected);
    }
}

/// Nobody keeps changes there: it says so instead of waiting for ever.
pub async fn a_watch_needs_kept_changes(f: &dyn Fixture) {
    let mut watch = watch(f.store(), "a", None);
    assert!(matches!(watch.start().await, Err(StoreError::Invalid { .. })));
    assert!(matches!(watch.next().await, Err(StoreError::Invalid { .. })));
    assert_eq!(watch.position(), None);
    keep_changes(&*f.store(), 10).await;
    good(watch.start().await);
    one(&*f.store(), put(&record("a"), "v")).await;
    assert_eq!(written(&mut watch).await, "+a");
}

/// A position that was kept is where another life goes on: nothing twice, nothing missed, whatever was read ahead.
pub async fn a_watch_goes_on_from_its_position(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 1_000).await;
    let mut first = watch(f.second(), "k", None);
    good(first.start().await);
    let mut all = batch();
    all.extend((0..6).map(|n| put(&record(&format!("k{n}")), "v")));
    good(store.apply(all).await);
    for n in 0..6 {
        let mut again = watch(f.store(), "k", first.position());
        assert_eq!(written(&mut again).await, format!("+k{n}"));
        assert_eq!(written(&mut first).await, format!("+k{n}"));
    }
    let mut again = watch(f.store(), "k", first.position());
    one(&*store, put(&record("k6"), "v")).await;
    assert_eq!(written(&mut again).await, "+k6");
}

/// Told once, and what comes next is newer. A gap that was not told yet is found again from the kept position.
pub async fn a_watch_tells_gaps(f: &dyn Fixture) {
    let store = f.store();
    keep_changes(&*store, 2).await;
    let mut late = watch(f.second(), "k", None);
    good(late.start().await);
    let kept = late.position();
    for n in 0..4 {
        one(&*store, put(&record(&format!("k{n}")), "v")).await;
    }
    assert_eq!(next(&mut late).await, WatchEvent::Gap);
    one(&*store, put(&record("k4"), "v")).await;
    assert_eq!(written(&mut late).await, "+k4");
    good(store.clear(&home()).await);
    assert_eq!(next(&mut late).await, WatchEvent::Gap);
    one(&*store, put(&record("k5"), "v")).await;
    assert_eq!(written(&mut late).await, "+k5");
    let mut restored = watch(f.second(), "k", kept);
    assert_eq!(next(&mut restored).await, WatchEvent::Gap);
    // Gaps are told whatever the prefix: what is gone may have been under it.
    let mut elsewhere = watch(f.second(), "other", kept);
    assert_eq!(next(&mut elsewhere).await, WatchEvent::Gap);
}

/// A wait that was given up in the middle, again and again, loses no change and tells none twice.
pub async fn a_watch_may_be_given_up_at_any_time(f: &dyn Fixture) {
    const WRITES: usize = 60;
    let store = f.store();
    keep_changes(&*store, 1_000).await;
    let mut watch = watch(f.second(), "k", None);
    good(watch.start().await);
    let writer = run(async move {
        let mut versions = Vec::new();
        for n in 0..WRITES {
            match one(&*store, put(&record(&format!("k{n}")), "v")).await {
                Applied::Version(version) => versions.push(version),
                other => panic!("a record's write gives a version, not {other:?}"),
            }
        }
        versions
    });
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    let mut seen: Vec<Version> = Vec::new();
    let mut spins = 0_u32;
    while seen.len() < WRITES {
        // Polled a few times and dropped where it stands; now and then left to finish, so that it comes forward.
        spins += 1;
        let event = tokio::select! {
            biased;
            event = watch.next() => Some(good(event)),
            () = yields(spins) => None,
            () = &mut deadline => panic!("only {} of {WRITES} changes were told", seen.len()),
        };
        match event {
            Some(WatchEvent::Change(change)) => seen.extend(change.version),
            Some(WatchEvent::Gap) => panic!("nothing was trimmed"),
            None => {}
        }
    }
    assert_eq!(seen, writer.done().await);
}

/// Comes back after some turns of the scheduler, and now and then only after a real read had time: more each time, because a store may
/// have to connect anew for it.
async fn yields(spins: u32) {
    let (rounds, turns) = (spins / 40 + 1, spins % 40);
    if turns == 39 {
        tokio::time::sleep(Duration::from_millis(20) * rounds).await;
    }
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
