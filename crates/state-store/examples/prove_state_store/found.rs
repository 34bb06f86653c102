//! What the store holds in the end.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use infra_state_store::{
    Applied, Batch, ListOrder, ListRange, OutboxPosition, OutboxRow, StateStore, StateStoreExt, StoreError,
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

use super::{
    batches::{self, Name, SPACES, WRITERS, space, space_of},
    journal::Journal,
    servers::{Backend, open},
};

/// Rows of a page.
const PAGE: usize = 1_000;
/// Marks that are looked up at the same time.
const AT_ONCE: usize = 16;

/// What belongs to one writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfWriter {
    pub(crate) last: Option<i64>,
    pub(crate) cached: Option<i64>,
    pub(crate) count: i64,
    pub(crate) number: i64,
    /// The oldest first.
    pub(crate) list: Vec<u32>,
}

/// What belongs to one namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfSpace {
    pub(crate) plus: i64,
    pub(crate) minus: i64,
    pub(crate) window: i64,
    /// In the order of the outbox.
    pub(crate) outbox: Vec<Name>,
    /// What a reader got that followed the outbox through all kills, in its order.
    pub(crate) relayed: Vec<Name>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) spaces: Vec<OfSpace>,
    pub(crate) writers: Vec<OfWriter>,
    pub(crate) marks: HashSet<Name>,
}

impl Found {
    /// # Panics
    /// If the store does not answer, or holds what nobody wrote.
    pub(crate) async fn read(backend: Backend, target: &str, journal: &Journal, relayed: Vec<Vec<Name>>) -> Self {
        let store = open(backend, target, 4).expect("it was opened before");
        let mut found = Self::default();
        for (index, relayed) in (0..SPACES).zip(relayed) {
            found.spaces.push(of_space(&*store, index, relayed).await.expect("the store answers"));
        }
        for writer in 0..WRITERS {
            found.writers.push(of_writer(&*store, writer).await.expect("the store answers"));
        }
        let names: Arc<[Name]> = journal.attempts().map(|(name, _)| name).collect();
        let look = |first| {
            let (store, names) = (store.clone(), names.clone());
            tokio::spawn(async move {
                let mut marks = Vec::new();
                for name in names.iter().skip(first).step_by(AT_ONCE) {
                    if batches::is_marked(&*store, *name).await.expect("the store answers") {
                        marks.push(*name);
                    }
                }
                marks
            })
        };
        for task in (0..AT_ONCE).map(look).collect::<Vec<_>>() {
            found.marks.extend(task.await.expect("a look-up must not panic"));
        }
        store.close().await.expect("an idle store closes");
        found
    }
}

async fn of_space(store: &dyn StateStore, index: u8, relayed: Vec<Name>) -> Result<OfSpace, StoreError> {
    let [plus, minus] = batches::sums();
    let namespace = space(index);
    let window = match store.apply(Batch::new(namespace.clone()).with(batches::window(0))).await?[..] {
        [Applied::Used(used)] => used,
        ref other => panic!("a window answers what it counts, not {other:?}"),
    };
    let mut outbox = Vec::new();
    follow(store, index, &mut None, &mut outbox).await?;
    Ok(OfSpace {
        plus: store.get_counter(&namespace, &plus).await?,
        minus: store.get_counter(&namespace, &minus).await?,
        window,
        outbox,
        relayed,
    })
}

async fn of_writer(store: &dyn StateStore, writer: u8) -> Result<OfWriter, StoreError> {
    let namespace = space(space_of(writer));
    let keys = [batches::last(writer), batches::cached(writer), batches::count(writer), batches::number(writer)];
    let entries = store.get_many(&namespace, &keys).await?;
    let counter = |at: usize| entries[at].as_ref().and_then(|entry| entry.value.as_counter());
    let mut list: Vec<u32> = Vec::new();
    loop {
        let skip = u32::try_from(list.len()).expect("at most 10,000");
        let range = ListRange { order: ListOrder::OldestFirst, skip, limit: PAGE };
        let page = store.list_range(&namespace, &batches::list(writer), range).await?;
        let number = |value: &bytes::Bytes| std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        // 0 is nobody's number.
        list.extend(page.values.iter().map(|value| number(value).unwrap_or(0)));
        if page.values.is_empty() {
            break;
        }
    }
    let (count, number) = (counter(2).unwrap_or(0), counter(3).unwrap_or(0));
    Ok(OfWriter { last: counter(0), cached: counter(1), count, number, list })
}

/// Reads what came into the outbox after `from`.
async fn follow(
    store: &dyn StateStore,
    index: u8,
    from: &mut Option<OutboxPosition>,
    names: &mut Vec<Name>,
) -> Result<(), StoreError> {
    loop {
        let rows = store.outbox_read(&space(index), &batches::outbox(), *from, PAGE).await?;
        let Some(end) = rows.last().map(|row| row.position) else { return Ok(()) };
        names.extend(rows.iter().map(name_of));
        *from = Some(end);
    }
}

/// The batch of a message; all its parts must agree.
fn name_of(row: &OutboxRow) -> Name {
    let name = Name::parse(row.id.as_str())
        .filter(|name| row.order_key == name.writer.to_string() && row.payload == name.n.to_string());
    // Nobody's name: a message that is not whole.
    name.unwrap_or(Name { writer: u8::MAX, n: 0 })
}

/// Where a writer's last acknowledged batch is not there: what was acknowledged before this was called.
pub(crate) async fn glance(backend: Backend, target: &str, acknowledged: &[u32]) -> Vec<String> {
    let store = open(backend, target, 4).expect("it was opened before");
    let mut vanished = Vec::new();
    for (writer, acknowledged) in (0..).zip(acknowledged) {
        match batches::now(&*store, writer).await {
            Ok(before) if before.n >= *acknowledged => {}
            Ok(before) => {
                vanished.push(format!("writer {writer} is at {} after {acknowledged} was acknowledged", before.n));
            }
            // A server that has just started may be slow; what it lost is found in the end.
            Err(StoreError::Backend { .. }) => {}
            Err(e) => vanished.push(format!("writer {writer}: {e}")),
        }
    }
    // Only an idle handle is let go of.
    let _ = store.close().await;
    vanished
}

/// Follows all outboxes while everything dies around it.
pub(crate) struct Relay {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Vec<Name>>>,
}

impl Relay {
    pub(crate) async fn start(backend: Backend, target: &str) -> Self {
        let store = open(backend, target, 2).expect("the backend's feature must be on");
        let (stop, mut seen) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut ends: BTreeMap<u8, Option<OutboxPosition>> = (0..SPACES).map(|index| (index, None)).collect();
            let mut names = vec![Vec::new(); usize::from(SPACES)];
            while !*seen.borrow() {
                for (index, end) in &mut ends {
                    // The server may be away; then the next time.
                    let _ = follow(&*store, *index, end, &mut names[usize::from(*index)]).await;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), seen.changed()).await;
            }
            let _ = store.close().await;
            names
        });
        Self { stop, task }
    }

    /// What it read, by namespace.
    pub(crate) fn end(self, runtime: &Runtime) -> Vec<Vec<Name>> {
        self.stop.send_replace(true);
        runtime.block_on(self.task).expect("the reader must not panic")
    }
}
