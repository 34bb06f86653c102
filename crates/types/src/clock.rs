//! Time comes in by parameter, so that a test or a replay owns it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::{Add, Sub},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;

use crate::timestamp::Timestamp;

/// A reading of a clock that never goes back: the time since that clock's own origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// A reading at `since_origin`.
    #[must_use]
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// The time since the clock's origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time since `earlier`; zero if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Monotonic {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

/// A pending sleep.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the time is, and how to wait for it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// For durations, leases and deadlines. Never goes back; counts the time a machine is suspended.
    fn now(&self) -> Monotonic;

    /// For records and expiry dates. May step in either direction.
    fn wall(&self) -> Timestamp;

    /// Resolves once `now() >= deadline`.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the wait and nothing else.
    fn sleep_until(&self, deadline: Monotonic) -> Sleep;

    /// Resolves after `duration`. Cancel-safe.
    fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now() + duration)
    }
}

/// The machine's clocks. On Linux `now` is `CLOCK_BOOTTIME`, so a lease runs out while a laptop sleeps; elsewhere it is
/// `std::time::Instant`, which may stand still in suspension.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clock, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Monotonic {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // The kernel guarantees 0 <= tv_nsec < 1e9 and a boot time that is not negative.
        Monotonic(Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0)))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Monotonic {
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Monotonic(ORIGIN.get_or_init(std::time::Instant::now).elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        let clock = *self;
        Box::pin(async move {
            // tokio's timer does not count suspension: sleep again for what is left by our clock.
            loop {
                let left = deadline.since(clock.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left).await;
            }
        })
    }
}

#[derive(Debug)]
struct Manual {
    now: Duration,
    wall: Timestamp,
    /// One entry a sleep that was polled: its deadline and who to wake.
    sleepers: BTreeMap<u64, (Duration, Waker)>,
    next_sleep: u64,
}

/// A clock that moves only when told to: for tests, backtests and replays. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<Manual>>);

impl Default for ManualClock {
    /// Starts at 2025-01-01T00:00:00Z with a monotonic reading of one hour, so that "an hour ago" exists.
    fn default() -> Self {
        Self::starting_at(Timestamp::from_millis(1_735_689_600_000))
    }
}

impl ManualClock {
    /// A clock whose wall time is `wall`.
    #[must_use]
    pub fn starting_at(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Manual {
            now: Duration::from_secs(3_600),
            wall,
            sleepers: BTreeMap::new(),
            next_sleep: 0,
        })))
    }

    /// Moves both clocks forward and wakes whoever waited for it.
    pub fn advance(&self, by: Duration) {
        let due: Vec<Waker> = {
            let mut t = self.0.lock();
            t.now = t.now.saturating_add(by);
            t.wall = t.wall.saturating_add(by);
            let now = t.now;
            t.sleepers.extract_if(.., |_, (at, _)| *at <= now).map(|(_, (_, waker))| waker).collect()
        };
        due.into_iter().for_each(Waker::wake);
    }

    /// Moves both clocks so that the wall time is `to`; does nothing if that is not later.
    pub fn advance_to(&self, to: Timestamp) {
        let by = to.since(self.wall());
        if !by.is_zero() {
            self.advance(by);
        }
    }

    /// Steps the wall clock alone, forward or back, as an operator or NTP would.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.lock().wall = wall;
    }
}

struct ManualSleep {
    clock: ManualClock,
    id: u64,
    deadline: Duration,
}

impl Future for ManualSleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut t = self.clock.0.lock();
        if t.now >= self.deadline {
            return Poll::Ready(());
        }
        t.sleepers.insert(self.id, (self.deadline, cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        self.clock.0.lock().sleepers.remove(&self.id);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Monotonic {
        Monotonic(self.0.lock().now)
    }

    fn wall(&self) -> Timestamp {
        self.0.lock().wall
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        let id = {
            let mut t = self.0.lock();
            t.next_sleep += 1;
            t.next_sleep
        };
        Box::pin(ManualSleep { clock: self.clone(), id, deadline: deadline.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clock_never_goes_back() {
        let clock = SystemClock;
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[tokio::test]
    async fn manual_sleepers_wake_when_the_clock_passes_them() {
        let clock = ManualClock::default();
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(5)));
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(4_999));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_millis(1));
        sleeper.await.unwrap();
    }

    #[test]
    fn the_wall_may_step_back_and_the_monotonic_may_not() {
        let clock = ManualClock::default();
        let (now, wall) = (clock.now(), clock.wall());
        clock.set_wall(wall.saturating_sub(Duration::from_secs(60)));
        assert_eq!(clock.now(), now);
        clock.advance_to(wall);
        assert_eq!(clock.wall(), wall);
    }
}
