//! A thread that owns one connection and runs jobs on it, many to a commit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::SqliteConfig;
use crate::error::BackendError;

/// Jobs that may wait before callers do.
const QUEUE_MAX: usize = 1_024;
/// Jobs that share one commit at most: bounds how long other processes wait for the write lock.
const GROUP_MAX: usize = 64;

/// One batch: runs inside a transaction, and is told afterwards whether that was committed.
trait Job: Send {
    /// Whether its changes are to be kept.
    fn run(&mut self, conn: &Connection) -> bool;
    fn finish(self: Box<Self>, committed: Result<(), BackendError>);
}

struct TypedJob<T, E, F> {
    work: Option<F>,
    answer: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for TypedJob<T, E, F>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: From<BackendError> + Send,
{
    fn run(&mut self, conn: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        let answer = catch_unwind(AssertUnwindSafe(|| work(conn))).unwrap_or_else(|_| {
            Err(BackendError::Other { reason: "the batch panicked and was rolled back".into() }.into())
        });
        let keep = answer.is_ok();
        self.answer = Some(answer);
        keep
    }

    fn finish(self: Box<Self>, committed: Result<(), BackendError>) {
        let answer = match (committed, self.answer) {
            // A batch that answered an error was rolled back by itself, whatever became of the group.
            (_, Some(Err(e))) => Err(e),
            (Ok(()), Some(answer)) => answer,
            (Err(e), _) => Err(e.into()),
            (Ok(()), None) => Err(BackendError::Closed.into()),
        };
        // The caller may have stopped waiting; the batch stands all the same.
        let _ = self.reply.send(answer);
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Running(mpsc::Sender<Box<dyn Job>>, std::thread::JoinHandle<()>),
    Closed,
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    state: Mutex<State>,
}

impl Worker {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, state: Mutex::default() }
    }

    pub(super) async fn run<T, E, F>(&self, config: &SqliteConfig, writes: bool, work: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<BackendError> + Send + 'static,
    {
        let jobs = self.jobs(config, writes).await?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob { work: Some(work), answer: None, reply });
        jobs.send(job).await.map_err(|_| BackendError::Closed)?;
        answer.await.unwrap_or_else(|_| Err(BackendError::Closed.into()))
    }

    async fn jobs(&self, config: &SqliteConfig, writes: bool) -> Result<mpsc::Sender<Box<dyn Job>>, BackendError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Running(jobs, _) => return Ok(jobs.clone()),
            State::Closed => return Err(BackendError::Closed),
            State::Idle => {}
        }
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (opened, is_open) = oneshot::channel();
        let config = config.clone();
        let thread = std::thread::Builder::new().name(self.name.into()).spawn(move || match config.open() {
            Ok(conn) => {
                let _ = opened.send(Ok(()));
                serve(&conn, writes, queue);
            }
            Err(e) => {
                let _ = opened.send(Err(e));
            }
        });
        let thread = thread.map_err(|e| BackendError::Other { reason: format!("no thread for the database: {e}") })?;
        // A failed opening leaves the worker idle, so that the next use tries again.
        is_open.await.map_err(|_| BackendError::Closed)??;
        *state = State::Running(jobs.clone(), thread);
        Ok(jobs)
    }

    pub(super) async fn close(&self) {
        let before = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        if let State::Running(jobs, thread) = before {
            drop(jobs);
            // Joining blocks only for the batches that were already accepted.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn serve(conn: &Connection, writes: bool, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let committed = run_group(conn, writes, &mut group);
        for job in group {
            job.finish(committed.clone());
        }
    }
}

fn run_group(conn: &Connection, writes: bool, group: &mut [Box<dyn Job>]) -> Result<(), BackendError> {
    let sql = |text: &str| conn.prepare_cached(text).and_then(|mut s| s.execute([])).map_err(BackendError::from);
    sql(if writes { "BEGIN IMMEDIATE" } else { "BEGIN DEFERRED" })?;
    let alone = group.len() == 1;
    let mut ran = || {
        let mut kept = false;
        for job in group.iter_mut() {
            if !alone {
                sql("SAVEPOINT job")?;
            }
            let keep = job.run(conn);
            kept |= keep;
            if conn.is_autocommit() {
                // SQLite ends the whole transaction by itself where it must (a full disk, an I/O error).
                return Err(BackendError::RolledBack);
            }
            if !alone {
                if !keep {
                    sql("ROLLBACK TO job")?;
                }
                sql("RELEASE job")?;
            }
        }
        // A lone batch that failed is rolled back with its transaction.
        if kept { sql("COMMIT").map(|_| ()) } else { sql("ROLLBACK").map(|_| ()) }
    };
    let result = ran();
    if result.is_err() && !conn.is_autocommit() {
        let _ = sql("ROLLBACK");
    }
    result
}
