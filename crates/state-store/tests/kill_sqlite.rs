//! Processes that share a file, and processes that die while they write.
#![cfg(feature = "sqlite")]

use std::{path::Path, sync::Arc, time::Duration};

use infra_backends::SqliteConfig;
use infra_state_store::{
    Applied, Batch, ChangePosition, Delta, Key, ListRange, Op, OutboxRow, SqliteStateStore, StateStore, StateStoreExt,
    Ttl, Value, Version, When, WindowLimit,
};
use infra_testkit::{KillableChild, TestDir, child_argument, say};
use infra_types::{EventId, Namespace, SystemClock};

const PATIENCE: Duration = Duration::from_secs(60);
/// Records that every batch writes together.
const WIDTH: i64 = 8;

fn open(dir: &Path) -> SqliteStateStore {
    SqliteStateStore::open(SqliteConfig::new(dir.join("state.db")), SystemClock::shared())
}

fn home() -> Namespace {
    Namespace::new("home").expect("a valid namespace")
}

fn record(name: &str) -> Key {
    Key::record(name).expect("a valid key")
}

/// Values that a writer's list keeps.
const CAP: u32 = 50;

/// More than any run admits, in a time that no run lasts.
fn limit() -> WindowLimit {
    WindowLimit::new(1_000_000, Duration::from_secs(86_400))
}

/// Batch `n` of `writer`: its number in every record and at the end of a list, one message, one mark, one more on a counter and in a
/// window.
fn numbered(writer: &str, n: i64) -> Batch {
    let event = EventId::new(format!("{writer}-{n}")).expect("a valid id");
    let mut batch = Batch::new(home()).add(record(&format!("count-{writer}")), Delta::unbounded(1));
    batch.extend((0..WIDTH).map(|column| Op::Set {
        key: record(&format!("{writer}-{column}")),
        value: Value::Counter(n),
        ttl: Ttl::Never,
        when: When::Always,
    }));
    let payload = n.to_string().into();
    batch.extend([
        Op::Enqueue { outbox: record("out"), order_key: writer.into(), id: event.clone(), payload },
        Op::MarkInbox { consumer: record(writer), id: event, ttl: Ttl::Never },
        Op::Push {
            list: Key::list(writer).expect("a valid key"),
            value: n.to_string().into(),
            cap: CAP,
            ttl: Ttl::Never,
        },
        Op::Admit { window: Key::window(writer).expect("a valid key"), by: 1, limit: limit() },
    ]);
    batch
}

/// What a writer's batches left in its list and its window, which must agree with its counter.
async fn list_and_window_are_whole(store: &SqliteStateStore, writer: &str, count: i64) {
    let range = ListRange::newest(CAP as usize);
    let page = store
        .list_range(&home(), &Key::list(writer).expect("a valid key"), range)
        .await
        .expect("the store must answer");
    let newest = (1..=count).rev().take(CAP as usize).map(|n| bytes::Bytes::from(n.to_string()));
    assert!(page.values.iter().cloned().eq(newest), "{writer}: a torn batch: {page:?} of {count}");
    let peek = Op::Admit { window: Key::window(writer).expect("a valid key"), by: 0, limit: limit() };
    assert_eq!(
        store.apply_one(&home(), peek).await.expect("the store must answer"),
        Applied::Used(count),
        "{writer}: a torn batch"
    );
}

/// The child's part: writes batch after batch and says which were acknowledged, until it is killed.
async fn write_for_ever(dir: &Path) {
    let store = Arc::new(open(dir));
    store.apply_one(&home(), Op::KeepChanges { max: 100_000 }).await.expect("the store must answer");
    for writer in ["a", "b", "c", "d"] {
        let store = store.clone();
        tokio::spawn(async move {
            let start =
                store.increment(&home(), &record(&format!("count-{writer}")), 0).await.expect("the store must answer");
            for n in start + 1.. {
                store.apply(numbered(writer, n)).await.expect("the store must answer");
                say(format!("{writer} {n}"));
            }
        });
    }
    std::future::pending().await
}

/// Follows the changes from one life of the writers to the next, and notes what was told last of each record.
async fn follow(
    store: &SqliteStateStore,
    position: &mut Option<ChangePosition>,
    told: &mut std::collections::BTreeMap<String, Version>,
) {
    // Nothing was written before the changes were kept, so that the first reader starts at the beginning.
    let mut after = position.unwrap_or(ChangePosition(0));
    loop {
        let read = store.changes_read(&home(), Some(after), 1_000).await.expect("the store must answer");
        assert!(!read.gap, "nothing was trimmed");
        if read.changes.is_empty() {
            break;
        }
        assert!(read.changes.iter().all(|change| change.position > after));
        for change in read.changes {
            told.insert(change.key.name().to_owned(), change.version.expect("nothing was deleted"));
        }
        after = read.next;
    }
    *position = Some(after);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_batch_is_whole_after_kill_9() {
    if let Some(dir) = child_argument() {
        return write_for_ever(Path::new(&dir)).await;
    }
    let dir = TestDir::new();
    let mut acknowledged = std::collections::BTreeMap::<String, i64>::new();
    let (mut position, mut told) = (None, std::collections::BTreeMap::new());
    for round in 0..5 {
        let mut child = KillableChild::this_test("every_acknowledged_batch_is_whole_after_kill_9", dir.path());
        let mut said = Vec::new();
        // Killed somewhere in its work, at another place every round; about a thousand batches in all.
        for _ in 0..170 + round * 17 {
            said.push(child.next_line(PATIENCE).expect("the child must write"));
        }
        said.extend(child.kill());
        for line in said {
            let (writer, n) = line.split_once(' ').expect("writer and number");
            let n = n.parse().unwrap();
            let last = acknowledged.entry(writer.into()).or_default();
            assert!(n > *last, "numbers go on after a restart: {n} after {last}");
            *last = n;
        }

        let store = open(dir.path());
        let mut rows: Vec<OutboxRow> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.position);
            let page = store.outbox_read(&home(), &record("out"), after, 1_000).await.unwrap();
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        for (writer, last) in &acknowledged {
            let count = store.increment(&home(), &record(&format!("count-{writer}")), 0).await.unwrap();
            // One batch may have been committed whose answer nobody heard.
            assert!(count == *last || count == *last + 1, "{writer}: {count} stored, {last} acknowledged");
            let keys: Vec<Key> = (0..WIDTH).map(|column| record(&format!("{writer}-{column}"))).collect();
            for entry in store.get_many(&home(), &keys).await.unwrap() {
                assert_eq!(entry.map(|e| e.value), Some(Value::Counter(count)), "{writer}: a torn batch");
            }
            let sent = rows.iter().filter(|row| row.order_key == *writer).map(|row| row.payload.clone());
            let expected = (1..=count).map(|n| bytes::Bytes::from(n.to_string()));
            assert!(sent.eq(expected), "{writer}: one message a batch, in order");
            assert!(store.apply(numbered(writer, count)).await.is_err(), "{writer}: its mark is there");
            list_and_window_are_whole(&store, writer, count).await;
        }
        follow(&store, &mut position, &mut told).await;
        for (name, newest) in &told {
            let found = store.get(&home(), &record(name)).await.unwrap().and_then(|entry| entry.version);
            assert_eq!(found, Some(*newest), "{name}: what was told last is what is stored");
        }
        store.close().await.unwrap();
    }
    assert_eq!(acknowledged.len(), 4);
}

/// The child's part: increments with everything that a counter and a compare-and-swap can race on.
async fn increment_often(dir: &Path) {
    let store = open(dir);
    say("ready");
    let mut last = Version(0);
    for _ in 0..100 {
        store.increment(&home(), &record("n"), 1).await.expect("the store must answer");
        let attempts = std::num::NonZeroU32::new(10_000).expect("not zero");
        store
            .update(&home(), &record("json"), attempts, |n: Option<u64>| n.unwrap_or(0) + 1)
            .await
            .expect("the store must answer");
        let written = store.apply(Batch::new(home()).set(record("last"), "v")).await.expect("the store must answer");
        match written[..] {
            [Applied::Version(version)] if version > last => last = version,
            ref other => panic!("versions must grow: {other:?} after {last:?}"),
        }
    }
    store.close().await.expect("the store must answer");
    say(format!("done {}", last.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_file_lose_no_increment() {
    if let Some(dir) = child_argument() {
        return increment_often(Path::new(&dir)).await;
    }
    let dir = TestDir::new();
    let start = || KillableChild::this_test("two_processes_on_one_file_lose_no_increment", dir.path());
    let mut children = [start(), start()];
    for child in &mut children {
        child.wait_for("done", PATIENCE);
    }
    for child in children {
        assert!(child.wait());
    }
    let store = open(dir.path());
    assert_eq!(store.increment(&home(), &record("n"), 0).await.unwrap(), 200);
    assert_eq!(store.get_json::<u64>(&home(), &record("json")).await.unwrap(), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holders_lease_runs_out_and_its_fence_is_refused() {
    if let Some(dir) = child_argument() {
        let store = open(Path::new(&dir));
        let lease = Key::lease("l").unwrap();
        let grant = store.acquire_lease(&home(), &lease, "child", Duration::from_millis(1_500)).await.unwrap();
        say(format!("fence {}", grant.fence));
        return std::future::pending().await;
    }
    let dir = TestDir::new();
    let mut child = KillableChild::this_test("a_dead_holders_lease_runs_out_and_its_fence_is_refused", dir.path());
    let line = child.wait_for("fence ", PATIENCE);
    let old: u64 = line.trim_start_matches("fence ").parse().unwrap();
    child.kill();

    // This process's clock goes ahead instead of waiting.
    let clock = Arc::new(infra_types::ManualClock::starting_at(infra_types::Clock::wall(&SystemClock)));
    clock.advance(Duration::from_secs(2));
    let store = SqliteStateStore::open(SqliteConfig::new(dir.file("state.db")), clock);
    let lease = Key::lease("l").unwrap();
    assert_eq!(store.get(&home(), &lease).await.unwrap(), None);
    let new = store.acquire_lease(&home(), &lease, "parent", Duration::from_secs(60)).await.unwrap();
    assert!(new.fence > old);
    let late = Batch::new(home()).with(Op::CheckFence { key: lease, fence: old }).set(record("k"), "late");
    let e = store.apply(late).await.unwrap_err();
    assert_eq!(e.kind(), infra_types::ErrorKind::Fenced, "{e}");
}
