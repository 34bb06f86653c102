//! The open connections.
//!
//! Why not the driver's own pool: it asks every connection that comes back whether it is alive (a second round trip for
//! every statement), it hides the reason of a failed connect behind its own time limit, and it cannot say whether a
//! statement was sent. This one keeps the connections and nothing else.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use infra_types::{Clock, Monotonic, SystemClock};
use parking_lot::Mutex;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{config::PostgresConfig, connect, server::PostgresServer};
use crate::error::BackendError;

/// Counts since the handle was made; the first three and `listening` are of this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PostgresStatistics {
    /// Connections that are open, in use or idle.
    pub open: u64,
    /// Connections that wait for work.
    pub idle: u64,
    /// The most there may be.
    pub max: u64,
    /// Connections that were opened.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Operations that got no connection within their time.
    pub wait_timeouts: u64,
    /// Connections that the server or the network ended.
    pub lost: u64,
    /// Connections that were closed because their caller stopped waiting, by its deadline or by dropping the future.
    pub abandoned: u64,
    /// Writes whose outcome is unknown.
    pub ambiguous: u64,
    /// Listeners that are connected now, besides `open`.
    pub listening: u64,
    /// Times that a listener was interrupted, each of which was told.
    pub gaps: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    open: AtomicU64,
    connects: AtomicU64,
    connect_failures: AtomicU64,
    wait_timeouts: AtomicU64,
    lost: AtomicU64,
    abandoned: AtomicU64,
    pub(super) ambiguous: AtomicU64,
    pub(super) listening: AtomicU64,
    pub(super) gaps: AtomicU64,
}

#[derive(Debug)]
struct Idle {
    conn: PgConnection,
    born: Monotonic,
    since: Monotonic,
    /// How many losses had been seen when it was last known to live.
    epoch: u64,
}

enum Condition {
    Good,
    /// Past its time.
    Old,
    /// The server or the network ended it.
    Dead,
}

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) config: PostgresConfig,
    options: PgConnectOptionsCell,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
    pub(super) counters: Counters,
    closed: AtomicBool,
    /// Whether anybody ever tried, and whether the server was ever reached.
    pub(super) tried: AtomicBool,
    reached: AtomicBool,
}

/// The driver's options print the password in `Debug`.
struct PgConnectOptionsCell(PgConnectOptions);

impl std::fmt::Debug for PgConnectOptionsCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Pool {
    pub(super) fn new(config: PostgresConfig) -> Self {
        Self {
            options: PgConnectOptionsCell(connect::options(&config)),
            slots: Semaphore::new(usize::try_from(config.pool_max.get()).unwrap_or(1)),
            idle: Mutex::new(Vec::new()),
            counters: Counters::default(),
            closed: AtomicBool::new(false),
            tried: AtomicBool::new(false),
            reached: AtomicBool::new(false),
            config,
        }
    }

    /// A connection of a server that will do, before the deadline. Whatever goes wrong here: nothing was sent.
    pub(super) async fn take(&self, deadline: Instant) -> Result<Lease<'_>, BackendError> {
        let slot = self.slot(deadline).await?;
        while let Some(mut idle) = self.pop() {
            match self.condition(&mut idle, deadline).await {
                Condition::Good => return Ok(Lease::new(self, slot, idle.conn, idle.born, true)),
                Condition::Old => self.closed_one(),
                Condition::Dead => self.forget(&self.counters.lost),
            }
        }
        self.open(slot, deadline).await
    }

    /// What the driver is told for each connection.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options.0
    }

    /// A connection that was never used before.
    pub(super) async fn take_fresh(&self, deadline: Instant) -> Result<Lease<'_>, BackendError> {
        let slot = self.slot(deadline).await?;
        // Room for the new one: an idle one gives way, so that `pool_max` holds.
        let over = self.counters.open.load(Relaxed) >= u64::from(self.config.pool_max.get());
        if over && self.pop().is_some() {
            self.closed_one();
        }
        self.open(slot, deadline).await
    }

    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, BackendError> {
        self.tried.store(true, Relaxed);
        if self.closed.load(Relaxed) {
            return Err(BackendError::Closed);
        }
        match timeout_at(deadline, self.slots.acquire()).await {
            Ok(Ok(slot)) if !self.closed.load(Relaxed) => Ok(slot),
            Ok(_) => Err(BackendError::Closed),
            Err(_) => {
                self.counters.wait_timeouts.fetch_add(1, Relaxed);
                Err(BackendError::Busy)
            }
        }
    }

    async fn open<'p>(&'p self, slot: SemaphorePermit<'p>, deadline: Instant) -> Result<Lease<'p>, BackendError> {
        let (conn, server) = self.dial(deadline).await?;
        let lease = Lease::new(self, slot, conn, SystemClock.now(), false);
        if let Err(refused) = server.check() {
            lease.discard();
            return Err(refused);
        }
        Ok(lease)
    }

    /// A connection of its own; `server.check()` is the caller's. It counts as open until `closed_one`.
    pub(super) async fn dial(&self, deadline: Instant) -> Result<(PgConnection, PostgresServer), BackendError> {
        let limit = deadline.min(Instant::now() + self.config.connect_timeout);
        let sniff = !self.reached.load(Relaxed);
        let dialled = match timeout_at(limit, connect::dial(&self.config, &self.options.0, sniff)).await {
            Ok(answer) => answer,
            Err(_) => {
                let reason = "no answer in time: check host, port and firewall, and that it is a PostgreSQL server";
                Err(BackendError::Connect { target: self.config.target(), reason: reason.into() })
            }
        };
        let count = if dialled.is_ok() { &self.counters.connects } else { &self.counters.connect_failures };
        count.fetch_add(1, Relaxed);
        if dialled.is_ok() {
            self.reached.store(true, Relaxed);
            self.counters.open.fetch_add(1, Relaxed);
        }
        dialled
    }

    /// The connection that was used last: the hot ones stay hot, the others grow old and are closed.
    fn pop(&self) -> Option<Idle> {
        self.idle.lock().pop()
    }

    async fn condition(&self, idle: &mut Idle, deadline: Instant) -> Condition {
        let now = SystemClock.now();
        if now.since(idle.born) > self.config.lifetime_max || now.since(idle.since) > self.config.idle_timeout {
            return Condition::Old;
        }
        let known = idle.epoch == self.counters.lost.load(Relaxed);
        if known && now.since(idle.since) < self.config.recheck_after {
            return Condition::Good;
        }
        // A network that swallows everything must leave time for a fresh connection.
        let limit = deadline.min(Instant::now() + self.config.operation_timeout / 4);
        match timeout_at(limit, idle.conn.ping()).await {
            Ok(Ok(())) => Condition::Good,
            _ => Condition::Dead,
        }
    }

    /// One connection is no more, for the reason that `why` counts.
    fn forget(&self, why: &AtomicU64) {
        why.fetch_add(1, Relaxed);
        self.counters.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn closed_one(&self) {
        self.counters.open.fetch_sub(1, Relaxed);
    }

    fn give_back(&self, conn: PgConnection, born: Monotonic) {
        let now = SystemClock.now();
        let epoch = self.counters.lost.load(Relaxed);
        let surplus = {
            let mut idle = self.idle.lock();
            if self.closed.load(Relaxed) {
                Some(conn)
            } else {
                idle.push(Idle { conn, born, since: now, epoch });
                // The one that has waited longest, if too long: one a return is enough to keep up.
                let stale = idle.first().is_some_and(|first| now.since(first.since) > self.config.idle_timeout);
                stale.then(|| idle.remove(0).conn)
            }
        };
        if surplus.is_some() {
            self.counters.open.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Takes no more work, waits for what runs, says goodbye to the server.
    pub(super) async fn close(&self, patience: Duration) {
        self.closed.store(true, Relaxed);
        let drained = tokio::time::timeout(patience, self.slots.acquire_many(self.config.pool_max.get())).await;
        self.slots.close();
        drop(drained);
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in idle {
            // A server that is gone does not answer; dropping the socket says the same.
            let _ = tokio::time::timeout(Duration::from_millis(200), connection.conn.close()).await;
            self.counters.open.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn statistics(&self) -> PostgresStatistics {
        let c = &self.counters;
        PostgresStatistics {
            open: c.open.load(Relaxed),
            idle: self.idle.lock().len() as u64,
            max: u64::from(self.config.pool_max.get()),
            connects: c.connects.load(Relaxed),
            connect_failures: c.connect_failures.load(Relaxed),
            wait_timeouts: c.wait_timeouts.load(Relaxed),
            lost: c.lost.load(Relaxed),
            abandoned: c.abandoned.load(Relaxed),
            ambiguous: c.ambiguous.load(Relaxed),
            listening: c.listening.load(Relaxed),
            gaps: c.gaps.load(Relaxed),
        }
    }
}

/// A connection in use. Dropped without a verdict (the caller's future was dropped, its deadline passed), it is closed:
/// half a reply may be under way.
pub(super) struct Lease<'p> {
    pool: &'p Pool,
    conn: Option<PgConnection>,
    born: Monotonic,
    /// Whether it served somebody before.
    pub(super) reused: bool,
    _slot: SemaphorePermit<'p>,
}

impl<'p> Lease<'p> {
    fn new(pool: &'p Pool, slot: SemaphorePermit<'p>, conn: PgConnection, born: Monotonic, reused: bool) -> Self {
        Self { pool, conn: Some(conn), born, reused, _slot: slot }
    }

    #[expect(clippy::expect_used, reason = "only the methods that consume the lease take the connection out")]
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("a lease holds its connection until it ends")
    }

    /// The reply was read to its end.
    pub(super) fn keep(mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.give_back(conn, self.born);
        }
    }

    /// The other end is gone; the other idle connections are suspect from now on.
    pub(super) fn lost(mut self) {
        self.conn = None;
        self.pool.forget(&self.pool.counters.lost);
    }

    /// It works, but is not the one we want.
    pub(super) fn discard(mut self) {
        self.conn = None;
        self.pool.closed_one();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.conn.take().is_some() {
            self.pool.forget(&self.pool.counters.abandoned);
        }
    }
}
