//! Running statements: one deadline each, and an honest answer to "did it happen".

use std::{future::Future, pin::Pin, sync::atomic::Ordering::Relaxed};

use futures::TryStreamExt;
use sqlx::{
    Either, Executor, PgConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Postgres,
    classify::{self, Phase},
    pool::Lease,
};
use crate::error::BackendError;

/// One prepared statement with its arguments, as `sqlx::query(…).bind(…)` makes it.
pub type PgQuery<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// A pending piece of work in a transaction.
pub type PgWork<'t, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 't>>;

/// Reads the whole reply: an error that comes after the last row (a deferred constraint) is an error.
async fn collect(conn: &mut PgConnection, query: PgQuery<'_>) -> Result<(Vec<PgRow>, u64), sqlx::Error> {
    let (mut rows, mut affected) = (Vec::new(), 0u64);
    let mut reply = conn.fetch_many(query);
    while let Some(item) = reply.try_next().await? {
        match item {
            Either::Left(done) => affected = affected.saturating_add(done.rows_affected()),
            Either::Right(row) => rows.push(row),
        }
    }
    Ok((rows, affected))
}

/// Gives the connection back or ends it, as the error demands.
fn settle(lease: Lease<'_>, e: &sqlx::Error) {
    if classify::is_loss(e) {
        lease.lost();
    } else if classify::ends_connection(e) {
        lease.discard();
    } else {
        lease.keep();
    }
}

impl Postgres {
    /// Runs one reading statement and answers all its rows. `query` builds the statement; it is asked twice if a
    /// connection from the pool turns out to be dead, which is safe since a read changes nothing.
    ///
    /// # Errors
    /// `Busy` if there was no connection or the server gave up in time, `Transient` if the answer did not come or the
    /// connection died, `Connect` and its relatives if there is no server, `Closed`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection it used and changes nothing else.
    pub async fn read<'q>(&self, query: impl Fn() -> PgQuery<'q>) -> Result<Vec<PgRow>, BackendError> {
        let deadline = self.deadline();
        let mut lease = self.pool().take(deadline).await?;
        loop {
            let reused = lease.reused;
            match timeout_at(deadline, collect(lease.conn(), query())).await {
                Ok(Ok((rows, _))) => {
                    lease.keep();
                    return Ok(rows);
                }
                Ok(Err(e)) => {
                    settle(lease, &e);
                    if !(reused && classify::is_loss(&e)) {
                        return Err(classify::statement(&e, Phase::NoEffect));
                    }
                    lease = self.pool().take_fresh(deadline).await?;
                }
                Err(_) => return Err(BackendError::Transient { reason: self.too_late() }),
            }
        }
    }

    /// Runs one statement that commits itself and answers its rows. One round trip once the statement is prepared on the
    /// connection. It is sent at most once.
    ///
    /// # Errors
    /// `Ambiguous` if it was sent and no definite answer came; every other error means that nothing was written. The
    /// table of SQLSTATEs is in this crate's `src/postgres/classify.rs`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection it used; the statement may or may not take effect.
    pub async fn write(&self, query: PgQuery<'_>) -> Result<Vec<PgRow>, BackendError> {
        self.write_counted(query).await.map(|(rows, _)| rows)
    }

    /// As [`write`](Self::write), and answers how many rows were affected.
    ///
    /// # Errors
    /// As `write`.
    ///
    /// # Cancel safety
    /// As `write`.
    pub async fn execute(&self, query: PgQuery<'_>) -> Result<u64, BackendError> {
        self.write_counted(query).await.map(|(_, affected)| affected)
    }

    async fn write_counted(&self, query: PgQuery<'_>) -> Result<(Vec<PgRow>, u64), BackendError> {
        let deadline = self.deadline();
        let mut lease = self.pool().take(deadline).await?;
        if Instant::now() >= deadline {
            lease.keep();
            return Err(BackendError::Busy);
        }
        let failed = match timeout_at(deadline, collect(lease.conn(), query)).await {
            Ok(Ok(answer)) => {
                lease.keep();
                return Ok(answer);
            }
            Ok(Err(e)) => {
                settle(lease, &e);
                classify::statement(&e, Phase::AutoCommit)
            }
            Err(_) => BackendError::Ambiguous { reason: self.too_late() },
        };
        self.count_ambiguous(&failed);
        Err(failed)
    }

    /// Runs `work` in one transaction (`READ COMMITTED`) and commits it if it answers `Ok`; otherwise nothing is changed.
    /// Prefer one statement or one function call: a transaction costs two more round trips. The deadline covers it all.
    ///
    /// ```no_run
    /// # async fn example(postgres: infra_backends::Postgres) -> Result<(), infra_backends::BackendError> {
    /// postgres
    ///     .transaction(|tx| Box::pin(async move {
    ///         tx.execute(sqlx::query("UPDATE a SET n = n - $1").bind(5i64)).await?;
    ///         tx.execute(sqlx::query("UPDATE b SET n = n + $1").bind(5i64)).await?;
    ///         Ok::<_, infra_backends::BackendError>(())
    ///     }))
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `work` answers, or the database's failure; `Ambiguous` only if the answer to `COMMIT` was lost.
    ///
    /// # Cancel safety
    /// Dropping the future before `COMMIT` is sent leaves nothing written; after, it may be committed, never half.
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut PgTransaction<'_>) -> PgWork<'t, T, E>,
        E: From<BackendError>,
    {
        self.transact("BEGIN", work).await
    }

    /// Runs several reads on one snapshot: `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`.
    ///
    /// # Errors
    /// What `work` answers, or the database's failure; never `Ambiguous`.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection it used and changes nothing else.
    pub async fn snapshot<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut PgTransaction<'_>) -> PgWork<'t, T, E>,
        E: From<BackendError>,
    {
        self.transact("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", work).await
    }

    async fn transact<T, E, F>(&self, begin: &'static str, work: F) -> Result<T, E>
    where
        F: for<'t> FnOnce(&'t mut PgTransaction<'_>) -> PgWork<'t, T, E>,
        E: From<BackendError>,
    {
        let deadline = self.deadline();
        let late = || BackendError::Transient { reason: self.too_late() };
        let mut lease = self.pool().take(deadline).await?;
        loop {
            let reused = lease.reused;
            match timeout_at(deadline, lease.conn().execute(sqlx::raw_sql(begin))).await {
                Ok(Ok(_)) => break,
                Ok(Err(e)) => {
                    settle(lease, &e);
                    if !(reused && classify::is_loss(&e)) {
                        return Err(classify::statement(&e, Phase::NoEffect).into());
                    }
                    // Nothing but BEGIN was sent.
                    lease = self.pool().take_fresh(deadline).await?;
                }
                Err(_) => return Err(late().into()),
            }
        }
        let mut tx = PgTransaction { conn: lease.conn(), failed: None };
        let answer = timeout_at(deadline, work(&mut tx)).await;
        let failed = tx.failed;
        let value = match (answer, failed) {
            (Err(_), _) => return Err(late().into()),
            (Ok(Ok(value)), None) => value,
            // `work` swallowed an error: the server would answer COMMIT with a rollback, and call it success.
            (Ok(Ok(_)), Some(_)) => {
                self.roll_back(lease, deadline).await;
                return Err(BackendError::RolledBack.into());
            }
            (Ok(Err(error)), Some(Failure::Connection)) => {
                lease.lost();
                return Err(error);
            }
            (Ok(Err(error)), _) => {
                self.roll_back(lease, deadline).await;
                return Err(error);
            }
        };
        let phase = if begin == "BEGIN" { Phase::Commit } else { Phase::NoEffect };
        let failed = match timeout_at(deadline, lease.conn().execute(sqlx::raw_sql("COMMIT"))).await {
            Ok(Ok(_)) => {
                lease.keep();
                return Ok(value);
            }
            Ok(Err(e)) => {
                settle(lease, &e);
                classify::statement(&e, phase)
            }
            Err(_) if phase == Phase::Commit => BackendError::Ambiguous { reason: self.too_late() },
            Err(_) => late(),
        };
        self.count_ambiguous(&failed);
        Err(failed.into())
    }

    /// Keeps the connection if the rollback is answered in time; closing it rolls back as well.
    async fn roll_back(&self, mut lease: Lease<'_>, deadline: Instant) {
        match timeout_at(deadline, lease.conn().execute(sqlx::raw_sql("ROLLBACK"))).await {
            Ok(Ok(_)) => lease.keep(),
            Ok(Err(e)) => settle(lease, &e),
            Err(_) => drop(lease),
        }
    }

    fn count_ambiguous(&self, error: &BackendError) {
        if matches!(error, BackendError::Ambiguous { .. }) {
            self.pool().counters.ambiguous.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Failure {
    Statement,
    Connection,
}

/// A transaction that is under way. Its statements are not committed, so none of its errors is `Ambiguous`.
#[derive(Debug)]
pub struct PgTransaction<'c> {
    conn: &'c mut PgConnection,
    failed: Option<Failure>,
}

impl PgTransaction<'_> {
    /// Runs one statement and answers all its rows. After an error the transaction can only be rolled back.
    ///
    /// # Errors
    /// As the server says; nothing is written.
    ///
    /// # Cancel safety
    /// None: drop the whole transaction instead.
    pub async fn rows(&mut self, query: PgQuery<'_>) -> Result<Vec<PgRow>, BackendError> {
        self.run(query).await.map(|(rows, _)| rows)
    }

    /// Runs one statement and answers how many rows it affected.
    ///
    /// # Errors
    /// As the server says; nothing is written.
    ///
    /// # Cancel safety
    /// None: drop the whole transaction instead.
    pub async fn execute(&mut self, query: PgQuery<'_>) -> Result<u64, BackendError> {
        self.run(query).await.map(|(_, affected)| affected)
    }

    async fn run(&mut self, query: PgQuery<'_>) -> Result<(Vec<PgRow>, u64), BackendError> {
        if self.failed.is_some() {
            return Err(BackendError::RolledBack);
        }
        collect(self.conn, query).await.map_err(|e| {
            self.failed = Some(if classify::ends_connection(&e) { Failure::Connection } else { Failure::Statement });
            classify::statement(&e, Phase::NoEffect)
        })
    }
}
