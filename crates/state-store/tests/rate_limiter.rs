//! The rate limiter, the same on every store.
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{collections::VecDeque, sync::Arc, time::Duration};

use infra_state_store::{Decision, Key, MemoryStateStore, RateLimiter, StateStore, StateStoreExt, StoreError};
#[cfg(feature = "sqlite")]
use infra_testkit::TestDir;
use infra_types::{Clock, ManualClock, Namespace};
use tokio::sync::Barrier;

const WINDOW: Duration = Duration::from_millis(1_000);

fn home() -> Namespace {
    Namespace::new("rates").unwrap()
}

fn memory(clock: &ManualClock) -> Arc<dyn StateStore> {
    Arc::new(MemoryStateStore::new(Arc::new(clock.clone())))
}

#[cfg(feature = "sqlite")]
fn sqlite(dir: &TestDir, clock: &ManualClock) -> Arc<dyn StateStore> {
    use infra_backends::{SqliteConfig, Synchronous};
    let config = SqliteConfig::new(dir.file("rates.db")).with_synchronous(Synchronous::Normal);
    Arc::new(infra_state_store::SqliteStateStore::open(config, Arc::new(clock.clone())))
}

async fn answers(store: Arc<dyn StateStore>, clock: ManualClock) {
    let limiter = RateLimiter::new(store.clone(), home());
    let ms = |n| Some(Duration::from_millis(n));
    let yes = |remaining| Decision { allowed: true, remaining, retry_after: None };
    // The clock starts at the beginning of a slice: what comes in it leaves 100 ms after its window.
    assert_eq!(limiter.allow("a", 3, WINDOW).await.unwrap(), yes(2));
    clock.advance(Duration::from_millis(500));
    assert_eq!(limiter.allow_n("a", 2, 3, WINDOW).await.unwrap(), yes(0));
    let full = limiter.allow("a", 3, WINDOW).await.unwrap();
    assert_eq!(full, Decision { allowed: false, remaining: 0, retry_after: ms(600) });
    let more = limiter.allow_n("a", 4, 3, WINDOW).await.unwrap();
    assert_eq!(more, Decision { allowed: false, remaining: 0, retry_after: None });
    assert_eq!(limiter.allow_n("a", 0, 3, WINDOW).await.unwrap(), yes(0));
    assert_eq!(limiter.allow("b", 3, WINDOW).await.unwrap(), yes(2), "another key has its own window");
    let other = RateLimiter::new(store.clone(), Namespace::new("others").unwrap());
    assert_eq!(other.allow("a", 3, WINDOW).await.unwrap(), yes(2), "another namespace too");

    let peek = limiter.peek("a", 3, WINDOW).await.unwrap();
    assert_eq!(peek, Decision { allowed: false, remaining: 0, retry_after: None });
    assert_eq!(limiter.peek("a", 5, WINDOW).await.unwrap(), yes(2));
    assert_eq!(limiter.peek("never", 3, WINDOW).await.unwrap(), yes(3));

    // As told, and not a millisecond before.
    clock.advance(Duration::from_millis(599));
    assert!(!limiter.allow("a", 3, WINDOW).await.unwrap().allowed);
    clock.advance(Duration::from_millis(1));
    assert!(limiter.allow("a", 3, WINDOW).await.unwrap().allowed);

    assert!(limiter.reset("a").await.unwrap());
    assert!(!limiter.reset("a").await.unwrap());
    assert_eq!(limiter.allow("a", 3, WINDOW).await.unwrap(), yes(2));
    store.clear(&home()).await.unwrap();
    assert_eq!(limiter.peek("a", 3, WINDOW).await.unwrap(), yes(3));

    for (key, n, max, window) in [
        ("a", u64::MAX, 1, WINDOW),
        ("a", 1, 1 << 53, WINDOW),
        ("a", 1, 1, Duration::from_millis(9)),
        ("a", 1, 1, Duration::from_secs(367 * 86_400)),
    ] {
        let e = limiter.allow_n(key, n, max, window).await;
        assert!(matches!(e, Err(StoreError::Invalid { .. })), "{e:?}");
    }
    assert!(matches!(limiter.allow("", 1, WINDOW).await, Err(StoreError::InvalidKey { .. })));
}

/// A burst on each side of every boundary: no stretch of the window's length ever holds more than the limit.
async fn boundary(store: Arc<dyn StateStore>, clock: ManualClock) {
    let limiter = RateLimiter::new(store, home());
    let (max, mut allowed, mut total) = (10, VecDeque::new(), 0);
    for step in 0..400 {
        for _ in 0..3 {
            if limiter.allow("burst", max, WINDOW).await.unwrap().allowed {
                allowed.push_back(clock.wall());
                total += 1;
            }
        }
        let wall = clock.wall();
        while allowed.front().is_some_and(|at| wall.since(*at) >= WINDOW) {
            allowed.pop_front();
        }
        assert!(allowed.len() <= 10, "{} in one window at step {step}", allowed.len());
        clock.advance(Duration::from_millis(if step % 7 == 0 { 1 } else { 29 }));
    }
    // About ten seconds: what leaves late costs at most a tenth.
    assert!((88..=110).contains(&total), "{total}");
}

async fn many(stores: [Arc<dyn StateStore>; 2]) {
    const TASKS: usize = 16;
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let limiter = RateLimiter::new(stores[n % 2].clone(), home());
            let start = start.clone();
            tokio::spawn(async move {
                start.wait().await;
                let mut allowed = 0;
                for _ in 0..20 {
                    allowed += u64::from(limiter.allow("shared", 100, WINDOW).await.unwrap().allowed);
                }
                allowed
            })
        })
        .collect();
    let mut allowed = 0;
    for task in tasks {
        allowed += task.await.unwrap();
    }
    assert_eq!(allowed, 100);
    assert_eq!(stores[0].peek(&home(), &Key::window("rate:shared").unwrap()).await.unwrap(), 100);
}

#[tokio::test]
async fn memory_answers() {
    let clock = ManualClock::default();
    answers(memory(&clock), clock).await;
}

#[tokio::test]
async fn memory_holds_at_the_boundary() {
    let clock = ManualClock::default();
    boundary(memory(&clock), clock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_admits_as_many_as_allowed() {
    let store = memory(&ManualClock::default());
    many([store.clone(), store]).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_answers() {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    answers(sqlite(&dir, &clock), clock).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_holds_at_the_boundary() {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    boundary(sqlite(&dir, &clock), clock).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_admits_as_many_as_allowed() {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    many([sqlite(&dir, &clock), sqlite(&dir, &clock)]).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_restart_does_not_forget() {
    let (dir, clock) = (TestDir::new(), ManualClock::default());
    let store = sqlite(&dir, &clock);
    assert!(RateLimiter::new(store.clone(), home()).allow_n("a", 5, 5, WINDOW).await.unwrap().allowed);
    store.close().await.unwrap();
    drop(store);
    let again = RateLimiter::new(sqlite(&dir, &clock), home());
    assert!(!again.allow("a", 5, WINDOW).await.unwrap().allowed);
}
