//! Short words for the cases.

use std::{future::Future, sync::Arc, time::Duration};

use infra_types::{EventId, Namespace};
use tokio::{sync::Barrier, task::JoinHandle};

use super::Fixture;
use crate::{
    batch::{Applied, Batch, OutboxRow, Ttl, Version, When},
    changes::{Change, ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    op::Op,
    store::{Entry, Scan, StateStore, Value},
    window::WindowLimit,
};

/// A lifetime that a real server can be waited for.
pub(super) const SOON: Duration = Duration::from_millis(80);
pub(super) const LONG: Duration = Duration::from_secs(3_600);
/// Tasks of a concurrent case.
pub(super) const TASKS: usize = 16;

pub(super) fn ns(name: &str) -> Namespace {
    Namespace::new(name).expect("a valid namespace")
}

/// The namespace of a case.
pub(super) fn home() -> Namespace {
    ns("conformance")
}

pub(super) fn batch() -> Batch {
    Batch::new(home())
}

pub(super) fn record(name: &str) -> Key {
    Key::record(name).expect("a valid key")
}

pub(super) fn cache(name: &str) -> Key {
    Key::cache(name).expect("a valid key")
}

pub(super) fn lease(name: &str) -> Key {
    Key::lease(name).expect("a valid key")
}

pub(super) fn list(name: &str) -> Key {
    Key::list(name).expect("a valid key")
}

pub(super) fn window(name: &str) -> Key {
    Key::window(name).expect("a valid key")
}

pub(super) fn id(text: &str) -> EventId {
    EventId::new(text).expect("a valid id")
}

pub(super) fn set(key: &Key, value: impl Into<Value>, ttl: Ttl, when: When) -> Op {
    Op::Set { key: key.clone(), value: value.into(), ttl, when }
}

pub(super) fn put(key: &Key, value: impl Into<Value>) -> Op {
    set(key, value, Ttl::Never, When::Always)
}

pub(super) fn acquire(name: &str, holder: &str, ttl: Duration) -> Op {
    Op::AcquireLease { key: lease(name), holder: holder.into(), ttl }
}

pub(super) fn enqueue(outbox: &str, event: &str) -> Op {
    Op::Enqueue { outbox: record(outbox), order_key: "order".into(), id: id(event), payload: event.to_owned().into() }
}

pub(super) fn mark(consumer: &str, event: &str, ttl: Ttl) -> Op {
    Op::MarkInbox { consumer: record(consumer), id: id(event), ttl }
}

pub(super) fn push(name: &str, value: &str, cap: u32, ttl: Ttl) -> Op {
    Op::Push { list: list(name), value: value.to_owned().into(), cap, ttl }
}

pub(super) fn admit(name: &str, by: i64, limit: WindowLimit) -> Op {
    Op::Admit { window: window(name), by, limit }
}

/// So many in an hour: nothing that it counts leaves during a case.
pub(super) fn hourly(max: i64) -> WindowLimit {
    WindowLimit::new(max, LONG)
}

pub(super) fn remove(key: &Key) -> Op {
    Op::Delete { key: key.clone(), when: When::Always }
}

pub(super) async fn try_one(store: &dyn StateStore, op: Op) -> Result<Applied, StoreError> {
    let mut applied = store.apply(batch().with(op)).await?;
    assert_eq!(applied.len(), 1, "one operation gives one result");
    Ok(applied.remove(0))
}

#[track_caller]
pub(super) fn good<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => panic!("refused: {e:?}"),
    }
}

pub(super) async fn one(store: &dyn StateStore, op: Op) -> Applied {
    good(try_one(store, op).await)
}

/// Applies an operation that must be refused.
pub(super) async fn refused(store: &dyn StateStore, op: Op) -> StoreError {
    let words = format!("{op:?}");
    match try_one(store, op).await {
        Err(e) => e,
        Ok(applied) => panic!("{words} must be refused, gave {applied:?}"),
    }
}

pub(super) async fn write_record(store: &dyn StateStore, op: Op) -> Version {
    match one(store, op).await {
        Applied::Version(version) => version,
        other => panic!("writing a record gives its version, not {other:?}"),
    }
}

pub(super) async fn fence(store: &dyn StateStore, op: Op) -> u64 {
    match one(store, op).await {
        Applied::Lease(grant) => grant.fence,
        other => panic!("a lease operation gives a grant, not {other:?}"),
    }
}

pub(super) async fn get(store: &dyn StateStore, key: &Key) -> Option<Entry> {
    good(store.get(&home(), key).await)
}

pub(super) async fn value(store: &dyn StateStore, key: &Key) -> Option<Value> {
    get(store, key).await.map(|entry| entry.value)
}

pub(super) async fn number(store: &dyn StateStore, key: &Key) -> Option<i64> {
    value(store, key).await.map(|value| value.as_counter().expect("a counter"))
}

pub(super) fn bytes(text: &str) -> Option<Value> {
    Some(Value::from(text.to_owned()))
}

/// The names of all records under a prefix, read in pages of `limit`.
pub(super) async fn names(store: &dyn StateStore, prefix: &str, limit: usize) -> Vec<String> {
    let mut scan = Scan { limit, ..Scan::new(prefix) };
    let mut names = Vec::new();
    loop {
        let page = good(store.scan(&home(), scan.clone()).await);
        assert!(page.entries.len() <= limit, "a page holds at most its limit");
        names.extend(page.entries.iter().map(|(key, _)| key.name().to_owned()));
        match page.next {
            None => return names,
            next => scan.after = next,
        }
    }
}

pub(super) async fn messages(store: &dyn StateStore, outbox: &str) -> Vec<OutboxRow> {
    good(store.outbox_read(&home(), &record(outbox), None, 1_000).await)
}

pub(super) fn ids(rows: &[OutboxRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

/// The whole of a list (up to 1,000 values), the oldest first.
pub(super) async fn values(store: &dyn StateStore, name: &str) -> Vec<String> {
    let page: ListPage = good(store.list_range(&home(), &list(name), ListRange::oldest(1_000)).await);
    let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).expect("the cases push text");
    let values: Vec<String> = page.values.into_iter().map(text).collect();
    assert_eq!(values.len(), (page.length as usize).min(1_000), "a list tells its length");
    values
}

/// What a window counts now.
pub(super) async fn used(store: &dyn StateStore, name: &str) -> i64 {
    match one(store, admit(name, 0, hourly(Value::COUNTER_MAX))).await {
        Applied::Used(used) => used,
        other => panic!("admitting tells what is used, not {other:?}"),
    }
}

pub(super) async fn keep_changes(store: &dyn StateStore, max: u32) {
    assert_eq!(one(store, Op::KeepChanges { max }).await, Applied::Done);
}

pub(super) async fn changes_after(store: &dyn StateStore, after: ChangePosition) -> Changes {
    good(store.changes_read(&home(), Some(after), 1_000).await)
}

/// Where the changes end now.
pub(super) async fn changes_end(store: &dyn StateStore) -> ChangePosition {
    let read = good(store.changes_read(&home(), None, 1).await);
    assert!(read.changes.is_empty() && !read.gap, "without a position only the end is told: {read:?}");
    read.next
}

/// What happened to which key: `+name` was written, `-name` was deleted.
pub(super) fn told(changes: &[Change]) -> Vec<String> {
    let sign = |change: &Change| if change.version.is_some() { '+' } else { '-' };
    changes.iter().map(|change| format!("{}{}", sign(change), change.key.name())).collect()
}

/// A task that ends with its case, also when the case fails.
pub(super) struct Running<T>(JoinHandle<T>);

pub(super) fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Running<T> {
    Running(tokio::spawn(work))
}

impl<T> Running<T> {
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub(super) async fn done(mut self) -> T {
        (&mut self.0).await.expect("a task of the case must not panic")
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs [`TASKS`] tasks that start at one moment, on both handles in turn.
pub(super) async fn together<T, W>(fixture: &dyn Fixture, work: impl Fn(usize, Arc<dyn StateStore>) -> W) -> Vec<T>
where
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let store = if number % 2 == 0 { fixture.store() } else { fixture.second() };
            let (work, start) = (work(number, store), start.clone());
            run(async move {
                start.wait().await;
                work.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.done().await);
    }
    answers
}
