//! What a store that judges time by its server's clock must have in common with memory: the answers to any operations, also at the
//! ends of every range. Times are long, so that two clocks agree about what has expired.

use std::{num::NonZeroU8, time::Duration};

use infra_state_store::{
    Applied, Batch, ChangePosition, Delta, Entry, Key, KeyKind, ListRange, MemoryStateStore, Op, OutboxPosition, Scan,
    StateStore, StoreError, Ttl, Value, Version, When, WindowLimit,
};
use infra_types::{EventId, Namespace, SystemClock};
use proptest::{prelude::*, test_runner::TestCaseResult};

/// Something that is done to both stores.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Apply(&'static str, Vec<Op>),
    /// Of `b`, which keeps no changes: how many numbers a clear takes to tell them is each store's own.
    Clear,
}

/// How everything is read after a step.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Rows of a page, messages, changes and values of one answer.
    limit: usize,
    /// Where a scan begins.
    after: Option<&'static str>,
    /// Values of a list that are passed over.
    skip: u32,
}

const HOUR: Duration = Duration::from_secs(3_600);

fn key(kind: KeyKind, name: &str) -> Key {
    Key::new(kind, name).expect("a valid key")
}

fn ns(name: &str) -> Namespace {
    Namespace::new(name).expect("a valid namespace")
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("a"), 1 => Just("b")]
}

fn of(kind: KeyKind) -> impl Strategy<Value = Key> {
    prop_oneof![Just("x"), Just("x%"), Just("x*"), Just("é\u{10FFFF}")].prop_map(move |name| key(kind, name))
}

fn plain() -> impl Strategy<Value = Key> {
    prop_oneof![of(KeyKind::Cache), of(KeyKind::Record), of(KeyKind::Record)]
}

fn any_kind() -> impl Strategy<Value = Key> {
    prop_oneof![3 => plain(), 1 => of(KeyKind::List), 1 => of(KeyKind::Window)]
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![Just(Ttl::Never), Just(Ttl::Keep), Just(Ttl::After(HOUR)), Just(Ttl::After(Duration::MAX))]
}

fn large() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..20, 1 => Just((1 << 53) - 1), 1 => Just(1 << 53), 1 => Just((1 << 53) + 1), 1 => Just(u64::MAX)]
}

fn when_of(kind: KeyKind) -> BoxedStrategy<When> {
    let simple = prop_oneof![6 => Just(When::Always), 1 => Just(When::Absent), 1 => Just(When::Exists)];
    match kind {
        KeyKind::Record => prop_oneof![4 => simple, 1 => large().prop_map(|v| When::Version(Version(v)))].boxed(),
        _ => simple.boxed(),
    }
}

fn with_when(key: impl Strategy<Value = Key>) -> impl Strategy<Value = (Key, When)> {
    key.prop_flat_map(|key| {
        let when = when_of(key.kind());
        (Just(key), when)
    })
}

/// Small ones, and those around the limit of a counter and of an i64.
fn number() -> impl Strategy<Value = i64> {
    const MAX: i64 = Value::COUNTER_MAX;
    prop_oneof![
        8 => -6i64..6,
        1 => prop::sample::select(vec![MAX - 1, MAX, MAX + 1, MAX + 2, i64::MAX, 1 - MAX, -MAX, -MAX - 1, -MAX - 2, i64::MIN]),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::from),
        Just(Value::from(vec![b'\n'; 200])),
        number().prop_map(Value::Counter),
    ]
}

fn id() -> impl Strategy<Value = EventId> {
    prop_oneof![Just("e1"), Just("e2")].prop_map(|id| EventId::new(id).expect("a valid id"))
}

fn limit() -> impl Strategy<Value = WindowLimit> {
    // Long ones: nothing leaves while the test runs, in whichever slice the two clocks are.
    let uneven = HOUR * 7 + Duration::from_micros(1_999);
    let length = prop::sample::select(vec![HOUR, uneven, HOUR * 24, WindowLimit::LENGTH_MAX]);
    let slices = prop_oneof![1 => Just(1), 1 => Just(WindowLimit::SLICES_MAX), 2 => 2..WindowLimit::SLICES_MAX];
    (prop_oneof![3 => 0i64..9, 1 => Just(Value::COUNTER_MAX)], length, slices).prop_map(|(max, length, slices)| {
        WindowLimit { max, length, slices: NonZeroU8::new(slices).expect("not zero") }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let holder = || prop_oneof![Just("h1".to_owned()), Just("h 2".to_owned())];
    let fence = || prop_oneof![4 => 0u64..5, 1 => large()];
    let queue = || of(KeyKind::Record);
    prop_oneof![
        8 => (with_when(plain()), value(), ttl()).prop_map(|((key, when), value, ttl)| Op::Set { key, value, ttl, when }),
        3 => with_when(any_kind()).prop_map(|(key, when)| Op::Delete { key, when }),
        1 => with_when(any_kind()).prop_map(|(key, when)| Op::Check { key, when }),
        5 => (plain(), number(), number(), number(), ttl()).prop_map(|(key, by, one, two, ttl)| {
            Op::Add { key, delta: Delta { by, min: one.min(two), max: one.max(two) }, ttl }
        }),
        2 => (of(KeyKind::Lease), holder()).prop_map(|(key, holder)| Op::AcquireLease { key, holder, ttl: HOUR }),
        1 => (of(KeyKind::Lease), holder(), fence())
            .prop_map(|(key, holder, fence)| Op::RenewLease { key, holder, fence, ttl: HOUR }),
        1 => (of(KeyKind::Lease), fence()).prop_map(|(key, fence)| Op::ReleaseLease { key, fence }),
        1 => (of(KeyKind::Lease), fence()).prop_map(|(key, fence)| Op::CheckFence { key, fence }),
        3 => (queue(), id(), 0usize..3).prop_map(|(outbox, id, n)| {
            Op::Enqueue { outbox, order_key: "k".repeat(n), id, payload: vec![n as u8; n].into() }
        }),
        2 => (queue(), 0u64..9, large()).prop_map(|(outbox, transaction, sequence)| {
            // A transaction comes from a store that has them; mostly there is none.
            Op::Acknowledge { outbox, up_to: OutboxPosition { transaction: transaction / 8, sequence } }
        }),
        1 => (queue(), id(), ttl()).prop_map(|(consumer, id, ttl)| Op::MarkInbox { consumer, id, ttl }),
        5 => (of(KeyKind::List), 0u8..9, prop_oneof![1u32..4, 1u32..=50], ttl())
            .prop_map(|(list, n, cap, ttl)| Op::Push { list, value: vec![n; n.into()].into(), cap, ttl }),
        3 => (of(KeyKind::Window), 0i64..6, limit()).prop_map(|(window, by, limit)| Op::Admit { window, by, limit }),
        1 => (of(KeyKind::Window), Just(Value::COUNTER_MAX), limit())
            .prop_map(|(window, by, limit)| Op::Admit { window, by, limit }),
        3 => prop_oneof![2 => 0u32..5, 1 => 5u32..30].prop_map(|max| Op::KeepChanges { max }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (namespace(), prop::collection::vec(op(), 0..=12)).prop_map(|(ns, mut ops)| {
            ops.retain(|op| ns == "a" || !matches!(op, Op::KeepChanges { .. }));
            Step::Apply(ns, ops)
        }),
        1 => Just(Step::Clear),
    ]
}

/// Without moments: each store has its own clock. The end of time is the same for both.
fn timeless(applied: Result<Vec<Applied>, StoreError>) -> String {
    match applied {
        Ok(mut applied) => {
            for one in &mut applied {
                if let Applied::Lease(grant) = one {
                    grant.expires_at = infra_types::Timestamp::from_millis(0);
                }
            }
            format!("{applied:?}")
        }
        Err(StoreError::LeaseHeld { index, key, holder, .. }) => format!("held {index} {key:?} {holder}"),
        Err(StoreError::WindowFull { index, key, used, retry_after }) => {
            format!("full {index} {key:?} {used} {}", retry_after.is_some())
        }
        Err(e) => format!("{e:?}"),
    }
}

fn entry(entry: &Entry) -> String {
    let ends = entry.expires_at.map(|at| at.as_millis() >= 9_223_372_036_854);
    format!("{:?} {:?} {ends:?}", entry.value, entry.version)
}

fn look() -> impl Strategy<Value = Look> {
    let after = [None, None, Some("a"), Some("x"), Some("x&"), Some("x%"), Some("xx"), Some("é\u{10FFFF}")];
    let limit = prop_oneof![Just(1), Just(2), Just(3), Just(7), Just(1_000)];
    (limit, prop::sample::select(after.to_vec()), prop_oneof![Just(0), 1u32..5, Just(49), Just(u32::MAX)])
        .prop_map(|(limit, after, skip)| Look { limit, after, skip })
}

/// Everything that can be read, as text.
async fn all(store: &dyn StateStore, look: &Look) -> String {
    let limit = look.limit;
    let mut seen = String::new();
    for ns in ["a", "b"].map(ns) {
        let names = ["x", "x%", "x*", "é\u{10FFFF}"];
        let kinds = [KeyKind::Cache, KeyKind::Record, KeyKind::Lease];
        let keys: Vec<Key> = names.iter().flat_map(|n| kinds.map(|kind| key(kind, n))).collect();
        for found in store.get_many(&ns, &keys).await.expect("a read") {
            seen += &format!("{:?}\n", found.as_ref().map(entry));
        }
        for prefix in ["x", "x%", "é", "é\u{10FFFF}"] {
            let mut scan = Scan { limit, after: look.after.map(str::to_owned), ..Scan::new(prefix) };
            loop {
                let page = store.scan(&ns, scan.clone()).await.expect("a scan");
                page.entries.iter().for_each(|(key, found)| seen += &format!("{key:?} {}\n", entry(found)));
                seen += &format!("{:?}\n", page.next);
                match page.next {
                    None => break,
                    next => scan.after = next,
                }
            }
        }
        for name in names {
            seen += &format!("{:?}\n", store.outbox_read(&ns, &key(KeyKind::Record, name), None, limit).await);
            let after = Some(OutboxPosition { transaction: 0, sequence: 4 });
            seen += &format!("{:?}\n", store.outbox_read(&ns, &key(KeyKind::Record, name), after, limit).await);
            let list = key(KeyKind::List, name);
            for range in [ListRange::newest(60), ListRange::oldest(limit), ListRange::newest(limit)] {
                let range = ListRange { skip: if range.limit == 60 { 0 } else { look.skip }, ..range };
                seen += &format!("{:?}\n", store.list_range(&ns, &list, range).await);
            }
        }
        for after in [None, Some(0), Some(3), Some(7), Some(30), Some(u64::MAX)] {
            match store.changes_read(&ns, after.map(ChangePosition), limit).await {
                Ok(read) => {
                    seen += &format!("{} {:?}\n", read.gap, read.next);
                    for change in read.changes {
                        let ends = change.expires_at.is_some();
                        seen += &format!("{:?} {:?} {:?} {ends}\n", change.position, change.key, change.version);
                    }
                }
                Err(e) => seen += &format!("{e:?}\n"),
            }
        }
    }
    seen
}

/// Any steps, and how to look after each.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(Step, Look)>> {
    prop::collection::vec((step(), look()), 1..30)
}

/// Does the steps to memory and to `store`, which is empty, and compares every answer and everything that can be read.
pub(crate) async fn agree(store: &dyn StateStore, steps: Vec<(Step, Look)>) -> TestCaseResult {
    let memory = MemoryStateStore::new(SystemClock::shared());
    for (step, look) in steps {
        match step {
            Step::Clear => {
                let ns = ns("b");
                prop_assert_eq!(memory.clear(&ns).await.ok(), store.clear(&ns).await.ok());
            }
            Step::Apply(name, ops) => {
                let batch = Batch { namespace: ns(name), ops };
                let (m, s) = (memory.apply(batch.clone()).await, store.apply(batch).await);
                prop_assert_eq!(timeless(m), timeless(s));
            }
        }
        prop_assert_eq!(all(&memory, &look).await, all(store, &look).await);
    }
    Ok(())
}
