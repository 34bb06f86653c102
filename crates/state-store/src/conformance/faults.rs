//! What holds when the wire between a store and its data fails. A store without a wire declares it (`Fixture::faults` gives none),
//! and each case then asserts that it claims nothing that needs one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_types::{ErrorKind, HealthStatus, SystemClock};

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, Batch, Delta, Ttl, When},
    capability::Capability,
    changes::{Watch, WatchEvent},
    error::StoreError,
    ext::StateStoreExt,
    key::Key,
    store::{Scan, StateStore, Value},
};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the store to its server.
    Requests,
    /// From the server to the store.
    Replies,
}

/// How a server is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Open connections end and new ones are refused, as when the server is down.
    Refused,
    /// Connections stay open and are accepted, and nothing comes through, as behind a firewall that drops packets.
    Silent,
}

/// Faults on the wire of a store, made by a proxy in front of a real server that this case has for itself.
#[async_trait]
pub trait FaultControl: Send + Sync {
    /// A store on fresh and empty data; every byte of it goes over the wire that fails.
    fn store(&self) -> Arc<dyn StateStore>;

    /// Another store on the same data, past the faults.
    fn direct(&self) -> Arc<dyn StateStore>;

    /// Ends every connection that is open now; new ones work.
    async fn cut(&self);

    /// Lets so many bytes more pass this way, then ends the connection that carried them. With 0 and `Replies` the server does what the
    /// next request asks for, and its reply is lost. Happens once.
    async fn cut_after(&self, way: Way, bytes: u64);

    /// Takes the server away until [`heal`](Self::heal).
    async fn outage(&self, how: Outage);

    /// Delays every reply by this, until [`heal`](Self::heal).
    async fn delay(&self, by: Duration);

    /// Takes every fault back, also one that was told to happen and did not.
    async fn heal(&self);

    /// Kills the server (`kill -9`) and starts it again on the same data; answers when it takes connections.
    async fn restart(&self);

    /// Within this every operation of the store answers, whatever happens.
    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }
}

/// The faults, or none if the store has no wire; then it must not claim to be reached over one.
async fn wire(f: &dyn Fixture) -> Option<Arc<dyn FaultControl>> {
    let faults = f.faults().await;
    if faults.is_none() {
        let info = f.store().info();
        assert!(!info.has(Capability::ShareBetweenHosts), "{} is reached over a wire: offer its faults", info.backend);
    }
    faults
}

/// An answer in bounded time.
async fn bounded<T>(faults: &dyn FaultControl, what: &str, answer: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(faults.patience(), answer).await;
    answer.unwrap_or_else(|_| panic!("{what} must answer within {:?}", faults.patience()))
}

/// Tries until the store answers: a pool may meet some connections that are dead already.
async fn recovers(faults: &dyn FaultControl) {
    let store = faults.store();
    bounded(faults, "the same handle, once the fault is over,", async {
        while store.get(&home(), &record("probe")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

const WIDTH: usize = 4;

fn columns(writer: &str) -> Vec<Key> {
    (0..WIDTH).map(|column| record(&format!("{writer}-{column}"))).collect()
}

/// A batch that shows whether it is whole: its number in several records, at the end of a list, in a window and in an outbox.
fn numbered(writer: &str, n: i64) -> Batch {
    let mut batch = batch().add(record(&format!("{writer}-count")), Delta::unbounded(1));
    batch.extend(columns(writer).iter().map(|key| put(key, Value::Counter(n))));
    batch.extend([
        push(&format!("{writer}-list"), &n.to_string(), 1_000, Ttl::Never),
        admit(&format!("{writer}-window"), 1, hourly(1_000_000)),
        enqueue(&format!("{writer}-out"), &n.to_string()),
    ]);
    batch
}

/// How often the writer's batches were applied; panics where one is torn.
async fn applied(store: &dyn StateStore, writer: &str) -> i64 {
    let last = number(store, &record(&format!("{writer}-count"))).await.unwrap_or(0);
    let rows: Vec<String> =
        messages(store, &format!("{writer}-out")).await.iter().map(|row| row.id.as_str().to_owned()).collect();
    assert_eq!(
        values(store, &format!("{writer}-list")).await,
        rows,
        "{writer}: list and outbox are of the same batches"
    );
    assert_eq!(rows.len(), usize::try_from(last).expect("a count"), "{writer}: a torn batch");
    assert_eq!(used(store, &format!("{writer}-window")).await, last, "{writer}: a torn batch");
    let newest = rows.last().map(|n| n.parse::<i64>().expect("a number"));
    for entry in good(store.get_many(&home(), &columns(writer)).await) {
        assert_eq!(entry.and_then(|e| e.value.as_counter()), newest, "{writer}: a torn batch");
    }
    last
}

/// The sizes after which a wire is cut: every small one, then fewer.
fn places() -> impl Iterator<Item = u64> {
    (0..4).chain((2..8).map(|n| 1 << n)).chain([200, 400, 700, 1_500])
}

/// A reply that is lost, wholly or in part, is `Ambiguous`, and the batch is whole or absent. A refusal that is not `Ambiguous` stored nothing.
pub async fn a_lost_reply_is_ambiguous(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let (store, direct) = (faults.store(), faults.direct());
    let (mut expected, mut stored_unheard) = (0, 0);
    for (n, bytes) in (1..).zip(places()) {
        recovers(&*faults).await;
        faults.cut_after(Way::Replies, bytes).await;
        let answer = bounded(&*faults, "a write", store.apply(numbered("a", n))).await;
        faults.heal().await;
        let found = applied(&*direct, "a").await;
        match answer {
            Ok(_) => expected += 1,
            Err(StoreError::Ambiguous { .. }) => {
                assert!(found == expected || found == expected + 1, "{found} after {expected}");
                stored_unheard += found - expected;
                expected = found;
            }
            Err(e) => assert!(matches!(e, StoreError::Backend { .. }), "{e:?}"),
        }
        assert_eq!(found, expected, "cut after {bytes} bytes of replies");
    }
    assert!(stored_unheard > 0, "a batch whose reply was lost is stored, and its writer is told that it may be");
}

/// A request that is lost on its way leaves the batch whole or absent, and is never called a success.
pub async fn a_lost_request_stores_no_half(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let (store, direct) = (faults.store(), faults.direct());
    let mut expected = 0;
    for (n, bytes) in (1..).zip(places()) {
        recovers(&*faults).await;
        faults.cut_after(Way::Requests, bytes).await;
        let answer = bounded(&*faults, "a write", store.apply(numbered("a", n))).await;
        faults.heal().await;
        let found = applied(&*direct, "a").await;
        match answer {
            Ok(_) => expected += 1,
            Err(StoreError::Ambiguous { .. }) => {
                assert!(found == expected || found == expected + 1, "{found} after {expected}");
                expected = found;
            }
            Err(e) => assert!(matches!(e, StoreError::Backend { .. }), "{e:?}"),
        }
        assert_eq!(found, expected, "cut after {bytes} bytes of requests");
    }
}

/// A read changes nothing, so there is nothing to be in doubt about: it answers, or fails as what it is, and works again.
pub async fn a_lost_read_is_no_doubt(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let store = faults.store();
    good(store.set(&home(), &record("k"), "v", Ttl::Never).await);
    for way in [Way::Requests, Way::Replies] {
        for bytes in [0, 1, 5, 20] {
            recovers(&*faults).await;
            faults.cut_after(way, bytes).await;
            match bounded(&*faults, "a read", store.get(&home(), &record("k"))).await {
                Ok(entry) => assert_eq!(entry.map(|e| e.value), bytes_of("v")),
                Err(e) => assert!(matches!(e, StoreError::Backend { .. }), "{e:?}"),
            }
            faults.heal().await;
        }
    }
    recovers(&*faults).await;
    assert_eq!(value(&*store, &record("k")).await, bytes_of("v"));
}

fn bytes_of(text: &str) -> Option<Value> {
    bytes(text)
}

/// Many write at once while connections end again and again: what was answered is there, what was not is there or not, nothing is torn.
pub async fn cuts_leave_every_batch_whole(f: &dyn Fixture) {
    const EACH: i64 = 12;
    let Some(faults) = wire(f).await else { return };
    let is_over = Arc::new(AtomicBool::new(false));
    let cutter = {
        let (faults, is_over) = (faults.clone(), is_over.clone());
        run(async move {
            let mut cuts = 0;
            while !is_over.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(15)).await;
                faults.cut().await;
                cuts += 1;
            }
            cuts
        })
    };
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let faults = faults.clone();
            run(async move {
                let (store, name) = (faults.store(), format!("w{writer}"));
                let (mut sure, mut unsure) = (0, 0);
                for n in 1..=EACH {
                    match bounded(&*faults, "a write", store.apply(numbered(&name, n))).await {
                        Ok(_) => sure += 1,
                        Err(StoreError::Ambiguous { .. }) => unsure += 1,
                        Err(e) => assert!(matches!(e, StoreError::Backend { .. }), "{e:?}"),
                    }
                }
                (name, sure, unsure)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for writer in writers {
        answers.push(writer.done().await);
    }
    is_over.store(true, Ordering::SeqCst);
    let cuts = cutter.done().await;
    assert!(cuts > 0);
    recovers(&*faults).await;
    for (name, sure, unsure) in answers {
        let found = applied(&*faults.direct(), &name).await;
        assert!((sure..=sure + unsure).contains(&found), "{name}: {found} stored, {sure} sure, {unsure} unsure");
        // A late one is not lost either: it is seen through the same handle.
        assert_eq!(applied(&*faults.store(), &name).await, found);
    }
}

/// A server that is away: every operation says so in bounded time, health too, and the same handle works again after it.
pub async fn an_outage_is_told_in_bounded_time(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let store = faults.store();
    good(store.apply(numbered("a", 1)).await);
    for how in [Outage::Refused, Outage::Silent] {
        faults.outage(how).await;
        let refusals = bounded(&*faults, "an operation in an outage", async {
            tokio::join!(
                async { store.get(&home(), &record("a-0")).await.err() },
                async { store.scan(&home(), Scan::new("a")).await.err() },
                async { store.outbox_read(&home(), &record("a-out"), None, 10).await.err() },
            )
        })
        .await;
        for refusal in [refusals.0, refusals.1, refusals.2] {
            let e = refusal.unwrap_or_else(|| panic!("no answer can come through: {how:?}"));
            assert!(matches!(e, StoreError::Backend { .. }), "a read is never ambiguous: {e:?}");
            assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Transient), "{e:?}");
        }
        let doubt = bounded(&*faults, "a write in an outage", store.apply(batch().set(record("doubt"), "v"))).await;
        let e = doubt.expect_err("no answer can come through");
        assert!(matches!(e, StoreError::Backend { .. } | StoreError::Ambiguous { .. }), "{e:?}");
        let health = bounded(&*faults, "health in an outage", store.health()).await;
        assert_eq!(health.status, HealthStatus::Down, "{health:?}");
        faults.heal().await;
        recovers(&*faults).await;
        assert_eq!(applied(&*store, "a").await, 1);
    }
    bounded(&*faults, "a write after the outage", async {
        while store.apply(batch().set(record("after"), "v")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(store.health().await.status, HealthStatus::Up);
}

/// What was sent before the server went silent and may have arrived is `Ambiguous`, not a failure.
pub async fn silence_after_a_request_is_ambiguous(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let (store, direct) = (faults.store(), faults.direct());
    good(store.apply(numbered("a", 1)).await);
    faults.delay(faults.patience() * 10).await;
    let answer = bounded(&*faults, "a write", store.apply(numbered("a", 2))).await;
    match answer {
        Err(StoreError::Ambiguous { .. }) => {}
        // Several round trips, and the first of them got no answer.
        Err(StoreError::Backend { .. }) => assert_eq!(applied(&*direct, "a").await, 1),
        other => panic!("no reply came: {other:?}"),
    }
    faults.heal().await;
    faults.cut().await;
    recovers(&*faults).await;
    let found = applied(&*direct, "a").await;
    assert!(found == 1 || found == 2, "{found}");
}

/// Late replies are replies: no answer changes, none goes to another question.
pub async fn a_slow_wire_changes_no_answer(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let store = faults.store();
    good(store.apply(numbered("a", 1)).await);
    faults.delay(Duration::from_millis(20)).await;
    let answers: Vec<_> = (0..16)
        .map(|task| {
            let store = faults.store();
            run(async move {
                let key = record(&format!("own-{task}"));
                for n in 1..=3 {
                    one(&*store, put(&key, Value::Counter(task * 10 + n))).await;
                    assert_eq!(number(&*store, &key).await, Some(task * 10 + n));
                    let e = refused(&*store, set(&key, "w", Ttl::Never, When::Absent)).await;
                    assert!(matches!(e, StoreError::Mismatch { .. }), "{e:?}");
                    // Given up on the way: its late reply must not answer the next question.
                    let gave_up =
                        tokio::time::timeout(Duration::from_millis(5), store.get(&home(), &record("a-0"))).await;
                    assert!(gave_up.is_err() || gave_up.is_ok_and(|read| read.is_ok()));
                }
            })
        })
        .collect();
    for answer in answers {
        answer.done().await;
    }
    faults.heal().await;
    assert_eq!(applied(&*store, "a").await, 1);
}

/// A watch misses nothing and tells nothing twice, however often its connection ends.
pub async fn a_watch_outlives_its_connections(f: &dyn Fixture) {
    const WRITES: i64 = 30;
    let Some(faults) = wire(f).await else { return };
    let direct = faults.direct();
    keep_changes(&*direct, 10_000).await;
    let mut watch =
        Watch::new(faults.store(), SystemClock::shared(), home(), "k", None).with_pause(Duration::from_millis(2));
    good(watch.start().await);
    let written = Arc::new(AtomicI64::new(0));
    let writer = {
        let (faults, written) = (faults.clone(), written.clone());
        run(async move {
            for n in 0..WRITES {
                one(&*direct, put(&record(&format!("k{n:02}")), Value::Counter(n))).await;
                written.store(n + 1, Ordering::SeqCst);
                if n % 3 == 0 {
                    faults.cut().await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let mut seen = Vec::new();
    bounded(&*faults, "the watch", async {
        while seen.len() < usize::try_from(WRITES).unwrap_or(0) {
            match watch.next().await {
                Ok(WatchEvent::Change(change)) => seen.push(change.key.name().to_owned()),
                Ok(WatchEvent::Gap) => panic!("nothing was trimmed"),
                Err(e) => {
                    assert!(matches!(e, StoreError::Backend { .. }), "{e:?}");
                    // A store that refuses at once must not keep the deadline from being noticed.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }
    })
    .await;
    writer.done().await;
    assert_eq!(seen, (0..WRITES).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
}

/// The server dies (`kill -9`) in the middle of batches and comes back: a store that survives a power cut has every batch that it acknowledged;
/// every store has whole ones only. The same handle works again.
pub async fn a_killed_server_keeps_what_it_promised(f: &dyn Fixture) {
    let Some(faults) = wire(f).await else { return };
    let store = faults.store();
    good(store.apply(numbered("w0", 1)).await);
    let keeps_all = store.info().has(Capability::SurvivePowerCut);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let faults = faults.clone();
            run(async move {
                let (store, name) = (faults.store(), format!("w{writer}"));
                let (mut sure, mut unsure) = (i64::from(writer == 0), 0);
                for n in 2.. {
                    match bounded(&*faults, "a write", store.apply(numbered(&name, n))).await {
                        Ok(_) => sure += 1,
                        Err(StoreError::Ambiguous { .. }) => {
                            unsure += 1;
                            break;
                        }
                        Err(e) => {
                            assert!(matches!(e, StoreError::Backend { .. }), "{e:?}");
                            break;
                        }
                    }
                }
                (name, sure, unsure)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(60)).await;
    faults.restart().await;
    // Those that were between two batches meet no fault; a cut ends them.
    let mut answers = Vec::new();
    bounded(&*faults, "a writer whose connection ended", async {
        while writers.iter().any(|writer| !writer.is_finished()) {
            faults.cut().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for writer in writers {
        answers.push(writer.done().await);
    }
    recovers(&*faults).await;
    for (name, sure, unsure) in answers {
        let found = applied(&*store, &name).await;
        assert!(found <= sure + unsure, "{name}: {found} stored, {sure} sure, {unsure} unsure");
        assert!(!keeps_all || found >= sure, "{name}: {found} stored, {sure} acknowledged");
    }
    // Not an old fence, not an old version: what is granted now is usable.
    let fence =
        bounded(&*faults, "a lease after the restart", async { fence(&*store, acquire("l", "me", LONG)).await }).await;
    let written =
        store.apply(batch().with(crate::op::Op::CheckFence { key: lease("l"), fence }).set(record("k"), "v")).await;
    assert!(matches!(good(written)[..], [Applied::Done, Applied::Version(_)]));
}
