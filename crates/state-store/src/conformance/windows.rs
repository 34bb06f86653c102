//! Sliding windows: never more than the limit in any stretch of the window's length.

use std::{num::NonZeroU8, sync::Arc, time::Duration};

use infra_types::SystemClock;

use super::{Fixture, tools::*};
use crate::{
    batch::{Applied, When},
    error::StoreError,
    op::Op,
    store::{StateStore, Value},
    window::WindowLimit,
};

const MS: Duration = Duration::from_millis(1);

/// Gone after [`SOON`] and one slice more: a real server can be waited for.
fn short(max: i64) -> WindowLimit {
    WindowLimit { max, length: SOON, slices: NonZeroU8::MIN.saturating_add(9) }
}

const SLICE: Duration = Duration::from_millis(SOON.as_millis() as u64 / 10);

async fn full(store: &dyn StateStore, op: Op) -> (i64, Option<Duration>) {
    match refused(store, op).await {
        StoreError::WindowFull { index: 0, used, retry_after, .. } => (used, retry_after),
        other => panic!("expected a full window, got {other:?}"),
    }
}

/// What fits is counted and told; what does not is refused and not counted.
pub async fn a_window_counts_up_to_its_limit(f: &dyn Fixture) {
    let store = f.store();
    assert_eq!(one(&*store, admit("w", 3, hourly(5))).await, Applied::Used(3));
    assert_eq!(one(&*f.second(), admit("w", 2, hourly(5))).await, Applied::Used(5));
    assert_eq!(full(&*store, admit("w", 1, hourly(5))).await.0, 5);
    assert_eq!(used(&*store, "w").await, 5);
    assert_eq!(used(&*store, "another").await, 0);
    let most = Value::COUNTER_MAX;
    assert_eq!(one(&*store, admit("big", most, hourly(most))).await, Applied::Used(most));
    assert_eq!(full(&*store, admit("big", most, hourly(most))).await.0, most);
    assert_eq!(full(&*store, admit("none", 1, hourly(0))).await, (0, None));
}

/// Zero is always welcome, also where the window is full or overfull.
pub async fn admitting_nothing_peeks(f: &dyn Fixture) {
    let store = f.store();
    assert_eq!(one(&*store, admit("w", 0, hourly(5))).await, Applied::Used(0));
    one(&*store, admit("w", 5, hourly(5))).await;
    for max in [5, 2, 0] {
        assert_eq!(one(&*store, admit("w", 0, hourly(max))).await, Applied::Used(5), "limit {max}");
    }
    assert_eq!(one(&*store, remove(&window("new"))).await, Applied::Existed(false));
    one(&*store, admit("new", 0, hourly(5))).await;
    assert_eq!(one(&*store, remove(&window("new"))).await, Applied::Existed(false), "peeking makes no window");
}

/// After the time that was told there is room, if nobody else takes it.
pub async fn the_time_to_wait_is_true(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, admit("w", 5, short(5))).await;
    match try_one(&*store, admit("w", 2, short(5))).await {
        Err(StoreError::WindowFull { used: 5, retry_after: Some(wait), .. }) => {
            assert!(wait > Duration::ZERO && wait <= SOON + SLICE, "{wait:?}");
            if f.has_exact_clock() {
                f.advance(wait - MS).await;
                assert_eq!(full(&*store, admit("w", 2, short(5))).await, (5, Some(MS)));
                f.advance(MS).await;
            } else {
                f.advance(wait).await;
            }
        }
        // The machine was busy for longer than the window.
        Ok(Applied::Used(2)) if !f.has_exact_clock() => return,
        other => panic!("expected a full window, got {other:?}"),
    }
    assert_eq!(one(&*store, admit("w", 2, short(5))).await, Applied::Used(2));
}

/// Waiting does not help: it says so.
pub async fn more_than_the_limit_has_no_time_to_wait(f: &dyn Fixture) {
    let store = f.store();
    assert_eq!(full(&*store, admit("w", 6, hourly(5))).await, (0, None));
    one(&*store, admit("w", 1, hourly(5))).await;
    assert_eq!(full(&*store, admit("w", 6, hourly(5))).await, (1, None));
    let (used, wait) = full(&*store, admit("w", 5, hourly(5))).await;
    assert_eq!(used, 1);
    assert!(wait.is_some_and(|wait| wait <= LONG + LONG / 10 && wait > LONG - LONG / 10), "{wait:?}");
}

/// Not a moment before its length, at most a slice after.
pub async fn what_was_counted_leaves_in_its_time(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, admit("w", 5, short(5))).await;
    if f.has_exact_clock() {
        f.advance(SOON - MS).await;
        assert_eq!(full(&*store, admit("w", 1, short(5))).await.0, 5);
        f.advance(SLICE + MS).await;
    } else {
        f.advance(SOON + SLICE).await;
    }
    assert_eq!(one(&*store, admit("w", 5, short(5))).await, Applied::Used(5));
}

/// Takes as much as it can get, one at a time, waits as it is told, and again: whatever the phase, no stretch of the window's length
/// holds more than the limit. One counter with a lifetime lets twice the limit pass around its end.
pub async fn a_burst_at_the_boundary_is_refused(f: &dyn Fixture) {
    const MAX: i64 = 4;
    let store = f.store();
    let real = SystemClock::shared();
    let phases = if f.has_exact_clock() { 10 } else { 2 };
    for phase in 0..phases {
        let name = format!("w{phase}");
        let limit = WindowLimit { slices: NonZeroU8::MIN.saturating_add(3), ..short(MAX) };
        let mut elapsed = Duration::ZERO;
        // Sent not before the first, answered not after the second.
        let mut admitted: Vec<(Duration, Duration)> = Vec::new();
        let now = |elapsed: Duration| if f.has_exact_clock() { elapsed } else { real.now().since_origin() };
        f.advance(MS * phase).await;
        // One alone, then the rest just before it leaves: the next ones must wait for the rest.
        for pause in [Duration::ZERO, SOON - SLICE, SLICE * 2, SOON / 2, SOON / 2] {
            f.advance(pause).await;
            elapsed += pause;
            let wanted = if pause.is_zero() { 1 } else { MAX + 1 };
            for _ in 0..wanted {
                let sent = now(elapsed);
                if try_one(&*store, admit(&name, 1, limit)).await.is_ok() {
                    admitted.push((sent, now(elapsed)));
                }
            }
        }
        // A server's clock may count in whole milliseconds.
        let surely = if f.has_exact_clock() { SOON } else { SOON - MS * 2 };
        for many in admitted.windows(MAX as usize + 1) {
            let stretch = many[MAX as usize].1.saturating_sub(many[0].0);
            assert!(stretch >= surely, "{} passed within {stretch:?} at phase {phase}", many.len());
        }
        assert!(admitted.len() > MAX as usize, "room comes back: {admitted:?}");
    }
}

/// A new limit holds at once; what was counted leaves as its own time said.
pub async fn a_limit_may_change(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, admit("w", 5, hourly(5))).await;
    full(&*store, admit("w", 1, hourly(5))).await;
    assert_eq!(one(&*store, admit("w", 1, hourly(6))).await, Applied::Used(6));
    assert_eq!(full(&*store, admit("w", 1, hourly(3))).await.0, 6);
    // A shorter window does not make what was counted leave earlier.
    assert_eq!(full(&*store, admit("w", 1, short(6))).await.0, 6);
    f.advance(SOON + SLICE).await;
    assert_eq!(full(&*store, admit("w", 1, short(6))).await.0, 6);
    // Nor does a longer one hold it longer.
    one(&*store, admit("v", 5, short(5))).await;
    one(&*store, admit("v", 1, hourly(6))).await;
    f.advance(SOON + SLICE).await;
    assert_eq!(one(&*store, admit("v", 0, hourly(6))).await, Applied::Used(1));
}

/// Windows of one slice and of sixty keep their limit alike, and let go of what they counted.
pub async fn every_number_of_slices_keeps_the_limit(f: &dyn Fixture) {
    const SLICES: [u8; 5] = [1, 2, 7, 59, 60];
    let store = f.store();
    let limit = |slices, length| WindowLimit { max: 3, length, slices: NonZeroU8::new(slices).expect("not zero") };
    for slices in SLICES {
        let name = format!("w{slices}");
        for n in 1..=3 {
            assert_eq!(one(&*store, admit(&name, 1, limit(slices, LONG))).await, Applied::Used(n));
        }
        full(&*store, admit(&name, 1, limit(slices, LONG))).await;
        one(&*store, admit(&format!("short{slices}"), 3, limit(slices, SOON))).await;
    }
    // At most a slice late, and the longest slice is the whole length.
    f.advance(SOON).await;
    f.advance(SOON).await;
    for slices in SLICES {
        let again = admit(&format!("short{slices}"), 3, limit(slices, SOON));
        assert_eq!(one(&*store, again).await, Applied::Used(3), "{slices} slices");
    }
}

/// Whether it refuses before or behind the window: nothing is counted.
pub async fn a_refused_batch_counts_nothing(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, admit("w", 2, hourly(5))).await;
    let doomed = batch()
        .with(admit("w", 1, hourly(5)))
        .with(admit("new", 1, hourly(5)))
        .delete(window("w"))
        .check(record("missing"), When::Exists);
    let refusal = store.apply(doomed).await;
    assert!(matches!(refusal, Err(StoreError::Mismatch { index: 3, .. })), "{refusal:?}");
    assert_eq!((used(&*store, "w").await, used(&*store, "new").await), (2, 0));
    // The window itself refuses: what came before it did not happen either.
    let over = store.apply(batch().set(record("k"), "v").with(admit("w", 4, hourly(5)))).await;
    assert!(matches!(over, Err(StoreError::WindowFull { index: 1, used: 2, .. })), "{over:?}");
    assert_eq!(get(&*store, &record("k")).await, None);
}

/// Per account and per symbol: both have room, or neither counts. Twice in one batch counts twice.
pub async fn two_windows_count_together_or_not_at_all(f: &dyn Fixture) {
    let store = f.store();
    let both = |by| batch().with(admit("account", by, hourly(10))).with(admit("symbol", by, hourly(3)));
    good(store.apply(both(2)).await);
    let over = store.apply(both(2)).await;
    assert!(matches!(over, Err(StoreError::WindowFull { index: 1, used: 2, .. })), "{over:?}");
    assert_eq!((used(&*store, "account").await, used(&*store, "symbol").await), (2, 2));
    let twice = |by| batch().with(admit("symbol", by, hourly(4))).with(admit("symbol", by, hourly(4)));
    let over = store.apply(twice(2)).await;
    assert!(matches!(over, Err(StoreError::WindowFull { index: 1, used: 4, .. })), "{over:?}");
    assert_eq!(good(store.apply(twice(1)).await), [Applied::Used(3), Applied::Used(4)]);
}

/// Whoever asks, over whichever handle: together they get the limit, exactly.
pub async fn many_at_once_get_the_limit_exactly(f: &dyn Fixture) {
    const MAX: i64 = 40;
    let got = together(f, |task, store| async move {
        let mut got = 0;
        for n in 0..5 {
            let by = 1 + ((task + n) % 2) as i64;
            match try_one(&*store, admit("w", by, hourly(MAX))).await {
                Ok(Applied::Used(used)) => {
                    assert!(used <= MAX, "{used}");
                    got += by;
                }
                Err(StoreError::WindowFull { used, retry_after, .. }) => {
                    assert!(used <= MAX && used + by > MAX && retry_after.is_some(), "{used} {retry_after:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        got
    })
    .await;
    // Somebody always asked for 1, so nothing was left over.
    assert_eq!(got.into_iter().sum::<i64>(), MAX);
    assert_eq!(used(&*f.store(), "w").await, MAX);
}

/// A deleted window has counted nothing, and so has a cleared one.
pub async fn deleting_a_window_resets_it(f: &dyn Fixture) {
    let store = f.store();
    one(&*store, admit("w", 5, hourly(5))).await;
    one(&*store, admit("cleared", 5, hourly(5))).await;
    assert_eq!(one(&*store, remove(&window("w"))).await, Applied::Existed(true));
    assert_eq!(one(&*store, remove(&window("w"))).await, Applied::Existed(false));
    assert_eq!(one(&*store, admit("w", 5, hourly(5))).await, Applied::Used(5));
    assert_eq!(good(store.clear(&home()).await), 2);
    assert_eq!((used(&*store, "w").await, used(&*f.second(), "cleared").await), (0, 0));
}

/// A window's key is no other key; conditions know whether it counts something.
pub async fn window_keys_belong_to_window_operations(f: &dyn Fixture) {
    let store: Arc<dyn StateStore> = f.store();
    one(&*store, Op::Check { key: window("w"), when: When::Absent }).await;
    one(&*store, admit("w", 1, hourly(5))).await;
    for key in [cache("w"), record("w")] {
        assert_eq!(get(&*store, &key).await, None);
    }
    let answers = [
        store.get(&home(), &window("w")).await.err(),
        store.get_many(&home(), &[record("w"), window("w")]).await.err(),
        Some(refused(&*store, put(&window("w"), Value::Counter(0))).await),
        Some(refused(&*store, Op::Admit { window: record("w"), by: 1, limit: hourly(5) }).await),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(StoreError::Invalid { .. })), "{answer:?}");
    }
    one(&*store, Op::Check { key: window("w"), when: When::Exists }).await;
    one(&*store, admit("soon", 1, short(5))).await;
    f.advance(SOON + SLICE).await;
    one(&*store, Op::Check { key: window("soon"), when: When::Absent }).await;
    assert_eq!(names(&*store, "w", 10).await, [""; 0]);
}
