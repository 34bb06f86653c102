//! The log in a PostgreSQL schema: shared by hosts, as durable as the server is.
//!
//! One row an event, one row for the head (`postgres/*.sql`). Whoever appends locks the head row first, so indices are given in the
//! order of the commits and without gaps, whichever process or host appends; a sequence would leave gaps and know no order. The tree
//! is computed here; see `append.rs` for how that is one round trip, and `line.rs` for how callers share a commit. The stored bytes
//! are what counts: the columns beside them serve searching, and verification compares them.
//!
//! A lost answer leaves no doubt for long. `head` then waits for the lock and raises the head's turn, which makes every append void
//! that was sent before and has not arrived: what it answers holds the lost events or they never come.

mod append;
mod line;
mod read;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{BackendError, PgSchema, Postgres, PostgresConfig};
use infra_types::{Clock, ErrorKind, Health, HealthStatus};
use parking_lot::Mutex;
use sqlx::Row;
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock};

use self::{append::Tip, line::Line};
use crate::{
    codec::Prepared,
    error::AuditError,
    event::AuditEvent,
    log::{AuditInfo, AuditLog, AuditPage, AuditQuery, Receipt, Statistics},
    note::Checkpoint,
    tree::TreeHead,
    verify::{Tampering, Verdict, Verifier},
};

static SCHEMA: PgSchema = PgSchema {
    component: "audit",
    steps: &[concat!(include_str!("postgres/tables.sql"), include_str!("postgres/append.sql"))],
};

fn damaged(index: Option<u64>, reason: &str) -> AuditError {
    AuditError::Corrupt { index, reason: reason.into() }
}

/// A reply that our tables and functions do not give.
fn unreadable(e: sqlx::Error) -> AuditError {
    damaged(None, &format!("the server's answer does not read as this library's: {e}"))
}

/// What the server says that an answered commit is worth.
#[derive(Debug, Clone)]
struct Durability {
    fsync: String,
    synchronous_commit: String,
}

impl Durability {
    fn holds(&self) -> bool {
        self.fsync == "on" && self.synchronous_commit != "off"
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fsync {}, synchronous_commit {}", self.fsync, self.synchronous_commit)
    }
}

/// A log in a PostgreSQL schema, which other ports, processes and hosts may share.
pub struct PostgresAuditLog {
    postgres: Postgres,
    /// Times the health probe.
    clock: Arc<dyn Clock>,
    line: Arc<Line>,
    /// Whether it is closed; appends hold it for reading, so that closing waits for them.
    closed: Arc<RwLock<bool>>,
    /// Whether closing the log closes the connections: nobody else has the handle.
    owns_handle: bool,
    must_be_durable: bool,
    /// None before the first use, which asks once, however many callers come at once.
    durability: Mutex<Option<Durability>>,
    was_asked: OnceCell<()>,
    was_used: AtomicBool,
}

impl PostgresAuditLog {
    /// A log on a handle that others may use as well; no I/O happens yet. `clock` times the health probe. Closing the log leaves
    /// the handle open.
    #[must_use]
    pub fn new(postgres: Postgres, clock: Arc<dyn Clock>) -> Self {
        Self {
            line: Arc::new(Line::new(postgres.clone())),
            postgres,
            clock,
            closed: Arc::default(),
            owns_handle: false,
            must_be_durable: false,
            durability: Mutex::new(None),
            was_asked: OnceCell::new(),
            was_used: AtomicBool::new(false),
        }
    }

    /// A log with connections of its own; closing it closes them. No I/O happens yet.
    ///
    /// # Errors
    /// `Backend` with kind `Invalid` for a setting that makes no sense.
    pub fn open(config: PostgresConfig, clock: Arc<dyn Clock>) -> Result<Self, AuditError> {
        Ok(Self { owns_handle: true, ..Self::new(Postgres::new(config)?, clock) })
    }

    /// Refuses everything on a server that does not wait for its disk (`fsync` or `synchronous_commit` is `off`), instead of only
    /// saying so in `info`.
    #[must_use]
    pub fn require_durable(mut self) -> Self {
        self.must_be_durable = true;
        self
    }

    async fn ready(&self) -> Result<OwnedRwLockReadGuard<bool>, AuditError> {
        let open = Arc::clone(&self.closed).read_owned().await;
        if *open {
            return Err(AuditError::Closed);
        }
        self.was_used.store(true, Ordering::Release);
        self.postgres.ready(&SCHEMA).await?;
        self.was_asked.get_or_try_init(async || self.ask_durability().await.map(drop)).await?;
        Ok(open)
    }

    async fn ask_durability(&self) -> Result<Durability, AuditError> {
        let sql = "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commits";
        let rows = self.postgres.read(|| sqlx::query(sql)).await?;
        let row = rows.first().ok_or_else(|| damaged(None, "the server's answer has no row"))?;
        let text = |name: &str| row.try_get::<String, _>(name).map_err(unreadable);
        let found = Durability { fsync: text("fsync")?, synchronous_commit: text("commits")? };
        if self.must_be_durable && !found.holds() {
            let needed = "fsync on and synchronous_commit other than off".into();
            return Err(BackendError::NotDurable { found: found.to_string(), needed }.into());
        }
        *self.durability.lock() = Some(found.clone());
        Ok(found)
    }

    /// The head, after waiting for whoever appends; takes nothing for granted that was sent before and has not arrived.
    async fn settle(&self) -> Result<TreeHead, AuditError> {
        let answer = self.postgres.write(sqlx::query("SELECT * FROM audit_settle()")).await;
        let rows = answer.map_err(|e| match e {
            // Nothing was appended, so nothing is in doubt but the answer.
            BackendError::Ambiguous { reason } => {
                let message = format!("no answer from the server ({reason}): ask for the head again");
                AuditError::Backend { message, kind: ErrorKind::Transient }
            }
            other => other.into(),
        })?;
        let row = rows.first().ok_or_else(|| damaged(None, "the server's answer has no row"))?;
        Ok(Tip::read(row)?.frontier.head())
    }

    /// Asks as an append would: behind the lock of the head row.
    async fn probe(&self) -> Result<(TreeHead, Durability), AuditError> {
        let _open = self.ready().await?;
        let durability = self.ask_durability().await?;
        let rows = self.postgres.write(sqlx::query("SELECT * FROM audit_look('{}')")).await?;
        let row = rows.first().ok_or_else(|| damaged(None, "the server's answer has no row"))?;
        Ok((Tip::read(row)?.frontier.head(), durability))
    }

    async fn is_closed(&self) -> bool {
        *self.closed.read().await
    }
}

#[async_trait]
impl AuditLog for PostgresAuditLog {
    async fn append_batch(&self, events: Vec<AuditEvent>) -> Result<Vec<Receipt>, AuditError> {
        let batch = Prepared::all(events)?;
        let open = self.ready().await?;
        if self.line.unsettled().is_some() {
            return Err(AuditError::Unsettled);
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.line.append(batch, open).await
    }

    async fn query(&self, query: AuditQuery) -> Result<AuditPage, AuditError> {
        query.validate()?;
        let _open = self.ready().await?;
        read::query(&self.postgres, &query).await
    }

    async fn statistics(&self) -> Result<Statistics, AuditError> {
        let _open = self.ready().await?;
        read::statistics(&self.postgres).await
    }

    async fn head(&self) -> Result<TreeHead, AuditError> {
        let _open = self.ready().await?;
        let Some(lost) = self.line.unsettled() else { return read::head(&self.postgres).await };
        let head = self.settle().await?;
        self.line.settle(lost);
        Ok(head)
    }

    async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verdict, AuditError> {
        let bad = |first_bad_index, kind| Ok(Verdict::Tampered { first_bad_index, kind });
        // The head first: what is appended afterwards is left out, so that the log need not stand still.
        let stated = {
            let _open = self.ready().await?;
            read::stated_head(&self.postgres).await?
        };
        let Some((stated, newest)) = stated else { return bad(None, Tampering::Head) };
        if newest.is_some_and(|newest| newest >= stated.size) {
            return bad(Some(stated.size), Tampering::Surplus);
        }
        let mut verifier = Verifier::new(checkpoint);
        let mut last = None;
        loop {
            // Each page begins with the last row of the one before, so that a second row of the same index cannot hide between two.
            let rows = {
                let _open = self.ready().await?;
                read::stored_rows(&self.postgres, last.unwrap_or(i64::MIN)).await?
            };
            let overlap = usize::from(last.is_some());
            if overlap == 1 && rows.first().map(|row| row.index) != last {
                return bad(Some(verifier.size().saturating_sub(1)), Tampering::Gap);
            }
            if rows.len() == overlap {
                return Ok(verifier.finish(stated));
            }
            last = rows.last().map(|row| row.index);
            for row in rows.into_iter().skip(overlap) {
                if verifier.size() == stated.size && u64::try_from(row.index).is_ok_and(|index| index >= stated.size) {
                    return Ok(verifier.finish(stated));
                }
                if let Err(verdict) = row.check(&mut verifier) {
                    return Ok(verdict);
                }
            }
        }
    }

    async fn health(&self) -> Health {
        let target = self.postgres.config().target();
        if !self.was_used.load(Ordering::Acquire) && !self.is_closed().await {
            let detail = format!("{target} was not used yet");
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        if self.line.unsettled().is_some() {
            return Health::degraded("an append ended without an answer: ask for the head, then append it again");
        }
        let start = self.clock.now();
        match self.probe().await {
            Ok((head, durability)) => Health::up(format!("{} events at {target}, {durability}", head.size)),
            Err(e) => Health::down(e.to_string()),
        }
        .with_probe(self.clock.now().since(start))
    }

    /// `survives_power_cut` is only claimed once the server was asked, which the first use does and each `health` does again.
    fn info(&self) -> AuditInfo {
        AuditInfo {
            backend: "postgres",
            survives_process: true,
            survives_power_cut: self.durability.lock().as_ref().is_some_and(Durability::holds),
            shared_between_processes: true,
            shared_between_hosts: true,
            capacity: None,
        }
    }

    async fn close(&self) -> Result<(), AuditError> {
        *self.closed.write().await = true;
        if self.owns_handle {
            self.postgres.close().await;
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresAuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.postgres.config();
        let (target, schema) = (config.target(), &config.schema);
        f.debug_struct("PostgresAuditLog").field("target", &target).field("schema", schema).finish_non_exhaustive()
    }
}
