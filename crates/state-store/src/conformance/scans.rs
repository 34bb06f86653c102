//! Listing records by prefix, page by page.

use std::future::Future;

use super::{Fixture, tools::*};
use crate::{
    batch::{Ttl, When},
    error::StoreError,
    ext::StateStoreExt,
    store::{Scan, StateStore},
};

async fn write(store: &dyn StateStore, keys: &[&str]) {
    let mut all = batch();
    all.extend(keys.iter().map(|name| put(&record(name), name.to_string())));
    good(store.apply(all).await);
}

/// The order is that of the bytes of UTF-8, whatever order they were written in.
pub async fn records_come_in_byte_order(f: &dyn Fixture) {
    let store = f.store();
    let mut keys = vec!["k", "k ", "k-1", "k1", "k10", "k2", "kA", "k_", "ka", "kaa", "k~", "ké", "k€", "k\u{10FFFF}"];
    write(&*store, &keys.iter().rev().copied().collect::<Vec<_>>()).await;
    keys.sort_unstable();
    assert_eq!(names(&*store, "k", 1_000).await, keys);
    let page = good(store.scan(&home(), Scan::new("k1")).await);
    let found: Vec<_> = page.entries.iter().map(|(key, e)| (key.clone(), Some(e.value.clone()))).collect();
    assert_eq!(found, [(record("k1"), bytes("k1")), (record("k10"), bytes("k10"))]);
    assert_eq!(page.entries[0].1.version, get(&*store, &record("k1")).await.and_then(|e| e.version));
}

/// `% _ * ? [ \` are characters like any other.
pub async fn wildcards_are_literal(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["a%b", "a%c", "a_b", "a*b", "a?b", "a[b]", "a\\b", "axb", "a'b", "%", "_"]).await;
    for (prefix, expected) in [
        ("a%", vec!["a%b", "a%c"]),
        ("a_", vec!["a_b"]),
        ("a*", vec!["a*b"]),
        ("a?", vec!["a?b"]),
        ("a[b", vec!["a[b]"]),
        ("a\\", vec!["a\\b"]),
        ("a'", vec!["a'b"]),
        ("%", vec!["%"]),
        ("_", vec!["_"]),
        ("A", vec![]),
    ] {
        assert_eq!(names(&*store, prefix, 100).await, expected, "{prefix:?}");
        assert_eq!(names(&*store, prefix, 1).await, expected, "{prefix:?} page by page");
    }
}

/// Lists everything in pages of 7, doing `between` after each; every lasting key must be met, none twice.
async fn meets_lasting_keys_once<W: Future<Output = ()>>(store: &dyn StateStore, between: impl Fn(usize) -> W) {
    for n in 0..40 {
        let kind = if n % 2 == 0 { "lasting" } else { "passing" };
        one(store, put(&record(&format!("k{n:02}-{kind}")), "v")).await;
    }
    let mut scan = Scan { limit: 7, ..Scan::new("k") };
    let mut seen = Vec::new();
    for round in 0.. {
        let page = good(store.scan(&home(), scan.clone()).await);
        seen.extend(page.entries.into_iter().map(|(key, _)| key.name().to_owned()));
        between(round).await;
        match page.next {
            None => break,
            next => scan.after = next,
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "in order, each once: {seen:?}");
    assert_eq!(seen.iter().filter(|name| name.ends_with("-lasting")).count(), 20, "none is missed: {seen:?}");
}

/// Keys that go between two pages do not pull others over the edge of a page, where they would be missed.
pub async fn pages_miss_no_lasting_key(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    meets_lasting_keys_once(&*store, |round| {
        let second = &second;
        async move {
            for gone in [round * 6 + 1, round * 6 + 3, round * 6 + 5, 39 - round * 2] {
                good(second.delete(&home(), &record(&format!("k{gone:02}-passing"))).await);
            }
        }
    })
    .await;
}

/// Keys that come between two pages do not push others over the edge of a page, where they would be met again.
pub async fn pages_meet_no_key_twice(f: &dyn Fixture) {
    let (store, second) = (f.store(), f.second());
    meets_lasting_keys_once(&*store, |round| {
        let second = &second;
        async move {
            for place in ["00", "20", "39"] {
                one(&**second, put(&record(&format!("k{place}-new-{round}")), "v")).await;
            }
        }
    })
    .await;
}

/// Cache keys, leases, queues, marks and other namespaces do not appear.
pub async fn only_records_of_the_namespace_are_listed(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["k1"]).await;
    one(&*store, put(&cache("k2"), "v")).await;
    one(&*store, acquire("k3", "me", LONG)).await;
    one(&*store, enqueue("k4", "event")).await;
    one(&*store, mark("k5", "event", Ttl::Never)).await;
    good(store.set(&ns("conformance.b"), &record("k6"), "v", Ttl::Never).await);
    assert_eq!(names(&*store, "k", 100).await, ["k1"]);
    let nothing = good(store.scan(&ns("never"), Scan::new("k")).await);
    assert!(nothing.entries.is_empty() && nothing.next.is_none());
}

/// A page is filled with live keys.
pub async fn the_expired_take_no_place_on_a_page(f: &dyn Fixture) {
    let store = f.store();
    let mut all = batch();
    all.extend((0..120).map(|n| {
        let ttl = if n % 10 == 9 { Ttl::Never } else { Ttl::After(SOON) };
        set(&record(&format!("k{n:03}")), "v", ttl, When::Always)
    }));
    good(store.apply(all).await);
    f.advance(SOON).await;
    let page = good(store.scan(&home(), Scan { limit: 12, ..Scan::new("k") }).await);
    assert_eq!(page.entries.len(), 12);
    assert_eq!(page.next, None);
    let page = good(store.scan(&home(), Scan { limit: 11, ..Scan::new("k") }).await);
    assert_eq!((page.entries.len(), page.next.as_deref()), (11, Some("k109")));
}

/// Also the ones whose next neighbour is hard to name: the last character, the one before the surrogates, a whole key.
pub async fn every_prefix_finds_its_keys(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["a", "a\u{D7FF}", "a\u{D7FF}z", "a\u{E000}", "a\u{10FFFF}", "b"]).await;
    write(&*store, &["\u{10FFFF}", "\u{10FFFF}\u{10FFFF}", "\u{10FFFF}a"]).await;
    for (prefix, expected) in [
        ("a\u{D7FF}", vec!["a\u{D7FF}", "a\u{D7FF}z"]),
        ("a\u{E000}", vec!["a\u{E000}"]),
        ("a\u{10FFFF}", vec!["a\u{10FFFF}"]),
        ("b", vec!["b"]),
        ("bb", vec![]),
        ("\u{10FFFF}", vec!["\u{10FFFF}", "\u{10FFFF}a", "\u{10FFFF}\u{10FFFF}"]),
        ("\u{10FFFF}\u{10FFFF}", vec!["\u{10FFFF}\u{10FFFF}"]),
    ] {
        assert_eq!(names(&*store, prefix, 2).await, expected, "{prefix:?}");
    }
    let long = "x".repeat(512);
    write(&*store, &[&long]).await;
    assert_eq!(names(&*store, &long, 2).await, [long.as_str()]);
}

/// A full last page has no next one.
pub async fn the_last_page_says_so(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["k1", "k2", "k3", "k4", "l"]).await;
    let scan = Scan { limit: 2, ..Scan::new("k") };
    let first = good(store.scan(&home(), scan.clone()).await);
    assert_eq!(first.next.as_deref(), Some("k2"));
    let second = good(store.scan(&home(), Scan { after: first.next, ..scan.clone() }).await);
    assert_eq!((second.entries.len(), second.next), (2, None));
    let beyond = good(store.scan(&home(), Scan { after: Some("k4".into()), ..scan }).await);
    assert!(beyond.entries.is_empty() && beyond.next.is_none());
}

/// `after` need not be a key that exists, nor lie under the prefix.
pub async fn a_start_before_the_prefix_starts_at_the_prefix(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["j", "k1", "k2", "l"]).await;
    for (after, expected) in [("a", 2), ("k", 2), ("k0", 2), ("k1", 1), ("k11", 1), ("k2", 0), ("l", 0), ("z", 0)] {
        let page = good(store.scan(&home(), Scan { after: Some(after.into()), ..Scan::new("k") }).await);
        assert_eq!(page.entries.len(), expected, "after {after:?}");
    }
}

/// "Everything" is not a prefix, and a page has 1 to 1,000 places.
pub async fn a_scan_needs_a_prefix_and_a_limit(f: &dyn Fixture) {
    let store = f.store();
    write(&*store, &["k"]).await;
    let bad = [
        Scan::new(""),
        Scan::new("k\0"),
        Scan::new("k".repeat(513)),
        Scan { limit: 0, ..Scan::new("k") },
        Scan { limit: 1_001, ..Scan::new("k") },
        Scan { after: Some("k\n".into()), ..Scan::new("k") },
    ];
    for scan in bad {
        let e = store.scan(&home(), scan.clone()).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{scan:?}: {e:?}");
    }
    for limit in [1, 1_000] {
        assert_eq!(good(store.scan(&home(), Scan { limit, ..Scan::new("k") }).await).entries.len(), 1);
    }
}
