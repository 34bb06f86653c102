//! Memory and SQLite give the same answers to the same operations, to the millisecond. What a store with a server's clock has in common
//! with memory is in `agreement`, and SQLite has it in common too.
#![cfg(feature = "sqlite")]

mod agreement;

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use infra_backends::{SqliteConfig, Synchronous};
use infra_state_store::{
    Batch, ChangePosition, Delta, Key, KeyKind, ListRange, MemoryStateStore, Op, OutboxPosition, Scan,
    SqliteStateStore, StateStore, Ttl, Value, Version, When, WindowLimit,
};
use infra_testkit::TestDir;
use infra_types::{EventId, ManualClock, Namespace, SystemClock};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Apply(&'static str, Vec<Op>),
    Advance(u64),
    /// Of `b`, which keeps no changes: SQLite clears in chunks, and how many numbers it takes to tell of them is its own.
    Clear,
}

fn key(kind: KeyKind, name: &str) -> Key {
    Key::new(kind, name).expect("a valid key")
}

fn ns(name: &str) -> Namespace {
    Namespace::new(name).expect("a valid namespace")
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 1 => Just("b")]
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("x"), Just("x%"), Just("x_y"), Just("xy"), Just("é\u{10FFFF}")]
}

fn plain() -> impl Strategy<Value = Key> {
    (name(), prop_oneof![Just(KeyKind::Cache), Just(KeyKind::Record)]).prop_map(|(n, kind)| key(kind, n))
}

fn lease() -> impl Strategy<Value = Key> {
    prop_oneof![Just("l"), Just("m")].prop_map(|n| key(KeyKind::Lease, n))
}

fn queue() -> impl Strategy<Value = Key> {
    prop_oneof![Just("q"), Just("r")].prop_map(|n| key(KeyKind::Record, n))
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![Just(Ttl::Never), Just(Ttl::Keep), (1u64..40).prop_map(|ms| Ttl::After(Duration::from_millis(ms)))]
}

fn list() -> impl Strategy<Value = Key> {
    prop_oneof![Just("l"), Just("m")].prop_map(|n| key(KeyKind::List, n))
}

fn window() -> impl Strategy<Value = Key> {
    prop_oneof![Just("v"), Just("w")].prop_map(|n| key(KeyKind::Window, n))
}

fn limit() -> impl Strategy<Value = WindowLimit> {
    (0i64..9, 10u64..60, 1u8..8).prop_map(|(max, ms, slices)| {
        let slices = NonZeroU8::new(slices).expect("not zero");
        WindowLimit { max, length: Duration::from_millis(ms), slices }
    })
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        6 => Just(When::Always),
        1 => Just(When::Absent),
        1 => Just(When::Exists),
        2 => (1u64..20).prop_map(|v| When::Version(Version(v))),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::from),
        (-5i64..=5).prop_map(Value::Counter),
        Just(Value::Counter(Value::COUNTER_MAX)),
    ]
}

fn id() -> impl Strategy<Value = EventId> {
    prop_oneof![Just("e1"), Just("e2")].prop_map(|id| EventId::new(id).expect("a valid id"))
}

fn op() -> impl Strategy<Value = Op> {
    let holder = prop_oneof![Just("h1".to_owned()), Just("h2".to_owned())];
    let time = (1u64..40).prop_map(Duration::from_millis);
    prop_oneof![
        6 => (plain(), value(), ttl(), when()).prop_map(|(key, value, ttl, when)| Op::Set { key, value, ttl, when }),
        2 => (plain(), when()).prop_map(|(key, when)| Op::Delete { key, when }),
        1 => (plain(), when()).prop_map(|(key, when)| Op::Check { key, when }),
        4 => (plain(), -6i64..6, -9i64..0, 0i64..9, ttl())
            .prop_map(|(key, by, min, max, ttl)| Op::Add { key, delta: Delta { by, min, max }, ttl }),
        2 => (lease(), holder.clone(), time.clone()).prop_map(|(key, holder, ttl)| Op::AcquireLease { key, holder, ttl }),
        1 => (lease(), holder, 0u64..4, time)
            .prop_map(|(key, holder, fence, ttl)| Op::RenewLease { key, holder, fence, ttl }),
        1 => (lease(), 0u64..4).prop_map(|(key, fence)| Op::ReleaseLease { key, fence }),
        1 => (lease(), 0u64..4).prop_map(|(key, fence)| Op::CheckFence { key, fence }),
        2 => (queue(), id()).prop_map(|(outbox, id)| {
            Op::Enqueue { outbox, order_key: "k".into(), id, payload: "load".into() }
        }),
        1 => (queue(), 0u64..2, 0u64..20).prop_map(|(outbox, transaction, sequence)| {
            // A transaction comes from a store that has them; mostly there is none.
            let up_to = OutboxPosition { transaction: transaction * u64::from(sequence == 19), sequence };
            Op::Acknowledge { outbox, up_to }
        }),
        1 => (queue(), id(), ttl()).prop_map(|(consumer, id, ttl)| Op::MarkInbox { consumer, id, ttl }),
        4 => (list(), 0u8..9, prop_oneof![1u32..5, 1u32..=50], ttl())
            .prop_map(|(list, n, cap, ttl)| Op::Push { list, value: vec![n; n.into()].into(), cap, ttl }),
        4 => (window(), -1i64..6, limit()).prop_map(|(window, by, limit)| Op::Admit { window, by, limit }),
        1 => prop_oneof![list(), window()].prop_map(|key| Op::Delete { key, when: When::Always }),
        1 => (prop_oneof![list(), window()], prop_oneof![Just(When::Absent), Just(When::Exists)])
            .prop_map(|(key, when)| Op::Check { key, when }),
        2 => (0u32..6).prop_map(|max| Op::KeepChanges { max }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (namespace(), prop::collection::vec(op(), 0..=12)).prop_map(|(ns, mut ops)| {
            ops.retain(|op| ns == "a" || !matches!(op, Op::KeepChanges { .. }));
            Step::Apply(ns, ops)
        }),
        3 => (1u64..30).prop_map(Step::Advance),
        1 => Just(Step::Clear),
    ]
}

/// Everything that can be read, as text.
async fn all(store: &dyn StateStore) -> String {
    let mut seen = String::new();
    for ns in ["a", "b"].map(ns) {
        let names = ["x", "x%", "x_y", "xy", "é\u{10FFFF}", "l", "m"];
        let kinds = [KeyKind::Cache, KeyKind::Record, KeyKind::Lease];
        let keys: Vec<Key> = names.iter().flat_map(|n| kinds.map(|kind| key(kind, n))).collect();
        seen += &format!("{:?}\n", store.get_many(&ns, &keys).await);
        for prefix in ["x", "x%", "x_", "é", "é\u{10FFFF}"] {
            let mut scan = Scan { limit: 2, ..Scan::new(prefix) };
            loop {
                let page = store.scan(&ns, scan.clone()).await.expect("a scan");
                seen += &format!("{page:?}\n");
                match page.next {
                    None => break,
                    next => scan.after = next,
                }
            }
        }
        for queue in ["q", "r"].map(|q| key(KeyKind::Record, q)) {
            seen += &format!("{:?}\n", store.outbox_read(&ns, &queue, None, 3).await);
        }
        for list in ["l", "m"].map(|l| key(KeyKind::List, l)) {
            for range in [ListRange::newest(2), ListRange::oldest(9), ListRange { skip: 1, ..ListRange::newest(9) }] {
                seen += &format!("{:?}\n", store.list_range(&ns, &list, range).await);
            }
        }
        for after in [None, Some(0), Some(4), Some(9), Some(u64::MAX)] {
            seen += &format!("{:?}\n", store.changes_read(&ns, after.map(ChangePosition), 3).await);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_agree(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = TestDir::new();
            let clock = ManualClock::default();
            let memory = MemoryStateStore::new(Arc::new(clock.clone()));
            let config = SqliteConfig::new(dir.file("state.db")).with_synchronous(Synchronous::Normal);
            let sqlite = SqliteStateStore::open(config, Arc::new(clock.clone()));
            for step in steps {
                match step {
                    Step::Advance(ms) => clock.advance(Duration::from_millis(ms)),
                    Step::Clear => {
                        let ns = ns("b");
                        prop_assert_eq!(memory.clear(&ns).await.unwrap(), sqlite.clear(&ns).await.unwrap());
                    }
                    Step::Apply(name, ops) => {
                        let batch = Batch { namespace: ns(name), ops };
                        let (m, s) = (memory.apply(batch.clone()).await, sqlite.apply(batch).await);
                        prop_assert_eq!(format!("{m:?}"), format!("{s:?}"));
                    }
                }
                prop_assert_eq!(all(&memory).await, all(&sqlite).await);
            }
            sqlite.close().await.unwrap();
            Ok(())
        })?;
    }

    #[test]
    fn memory_and_sqlite_agree_at_the_ends_of_every_range(steps in agreement::steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = TestDir::new();
            let config = SqliteConfig::new(dir.file("state.db")).with_synchronous(Synchronous::Normal);
            let sqlite = SqliteStateStore::open(config, SystemClock::shared());
            let agreed = agreement::agree(&sqlite, steps).await;
            sqlite.close().await.unwrap();
            agreed
        })?;
    }
}
