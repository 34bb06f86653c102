//! One connection that only listens to a channel. Its deadlines and its beat are tokio's time, as all waits for the driver are: the decision
//! clock of a replay must not end a connection.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use sqlx::{
    Acquire, Connection, PgConnection,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Postgres, classify, classify::Phase, connect};
use crate::error::BackendError;

/// How often the server is asked for a sign of life.
const BEAT: Duration = Duration::from_secs(1);
/// How long its answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection that listens, and counts as listening.
pub(super) struct Ear {
    listener: Option<PgListener>,
    postgres: Postgres,
}

impl Ear {
    pub(super) async fn open(postgres: &Postgres, channel: &str) -> Result<Self, BackendError> {
        let pool = postgres.pool();
        if pool.is_closed() {
            return Err(BackendError::Closed);
        }
        let (config, limit) = (postgres.config(), postgres.config().connect_timeout);
        // The driver listens over connections of its own pool only, which hides why a connect fails: so the server is judged first,
        // over another connection.
        postgres.with_own_connection(Instant::now() + limit, judged, true).await?;
        let one = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(limit)
            .connect_lazy_with(pool.options().clone().application_name("infra-listen"));
        let listening = async {
            let listener = PgListener::connect_with(&one).await.map_err(|e| connect::explain(config, &e))?;
            pool.counters.listening.fetch_add(1, Relaxed);
            let mut ear = Self { listener: Some(listener), postgres: postgres.clone() };
            if let Some(listener) = &mut ear.listener {
                listener.eager_reconnect(false);
                listener.listen(channel).await.map_err(|e| classify::statement(&e, Phase::NoEffect))?;
            }
            Ok(ear)
        };
        timeout(limit, listening).await.unwrap_or_else(|_| {
            let reason = format!("no answer to LISTEN within {limit:?}");
            Err(BackendError::Connect { target: config.target(), reason })
        })
    }

    /// Calls `notified` for each notification until the connection ends; answers why it did.
    pub(super) async fn listen(&mut self, postgres: &Postgres, notified: impl Fn()) -> String {
        let target = postgres.config().target();
        let Some(listener) = &mut self.listener else { return "it never listened".to_owned() };
        let mut beat = Instant::now() + BEAT;
        loop {
            // Waiting is the one thing here that may be given up half-way; the question below is not.
            match timeout_at(beat, listener.try_recv()).await {
                Ok(Ok(Some(_))) => notified(),
                Ok(Ok(None)) => return format!("{target} ended the connection"),
                Ok(Err(error)) => return format!("the connection to {target} broke: {error}"),
                Err(_) => {}
            }
            if Instant::now() < beat {
                continue;
            }
            if postgres.pool().is_closed() {
                return BackendError::Closed.to_string();
            }
            match timeout(ANSWER, ping(listener)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return format!("the connection to {target} broke: {error}"),
                Err(_) => return format!("{target} gave no sign of life for {ANSWER:?}"),
            }
            // What came before the answer waits in the driver.
            while listener.next_buffered().is_some() {
                notified();
            }
            beat = Instant::now() + BEAT;
        }
    }
}

async fn judged(_: &mut PgConnection) -> Result<(), BackendError> {
    Ok(())
}

async fn ping(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    listener.acquire().await?.ping().await
}

impl Drop for Ear {
    /// Ends the connection at once. Left alone the driver would say goodbye in a task of the current runtime, which needs an answer:
    /// with a server that is silent, connection and task stay until the system gives up after a quarter of an hour. A runtime that is
    /// shut down before it runs anything drops the task, and the socket with it.
    fn drop(&mut self) {
        self.postgres.pool().counters.listening.fetch_sub(1, Relaxed);
        let Ok(elsewhere) = tokio::runtime::Builder::new_current_thread().build() else { return };
        let current = elsewhere.enter();
        drop(self.listener.take());
        drop(current);
        elsewhere.shutdown_background();
    }
}
