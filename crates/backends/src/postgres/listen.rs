//! Being woken by `NOTIFY`, with every interruption told.
//!
//! Why a task of its own: what nobody reads stays in one queue of the whole database server, and once that is full every `NOTIFY`
//! there fails. The task reads at once and remembers only that there was something.

use std::{
    collections::VecDeque,
    fmt,
    future::{pending, poll_fn},
    hash::{BuildHasher, Hasher, RandomState},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use infra_types::{Backoff, Jitter};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{PgQuery, Postgres, ear::Ear};
use crate::error::BackendError;

/// The longest name of a channel, in bytes: the server cuts off what is longer, and would listen to another one.
const CHANNEL_MAX: usize = 63;
/// A listener that lived for so long begins anew with short pauses.
const STEADY: Duration = Duration::from_secs(5);

/// What a listener tells, in this order: `Failed`s while it does not work, `Listening`, `Notified`s, one `Gap`, and from the front.
/// Whatever is not read yet when the next comes is coalesced: there are never more than five.
#[derive(Debug, Clone)]
pub enum PostgresSignal {
    /// The server listens for us from here on: what is committed after this wakes us, or a gap does. Told each time, so also at
    /// the end of a gap.
    Listening,
    /// Somebody notified the channel, once or a million times since the last signal was read.
    Notified,
    /// Listening was interrupted: notifications until the next `Listening` are lost. Told as soon as it is known; interruptions
    /// that come before it is read are one.
    Gap {
        /// What happened.
        reason: String,
    },
    /// An attempt to listen failed; the next one comes by itself. Told once, and again when the reason is another one. After
    /// `Closed` there is no further attempt.
    Failed(BackendError),
}

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<VecDeque<PostgresSignal>>,
    bell: Notify,
    /// Whether the server listens for us now.
    listening: AtomicBool,
    over: AtomicBool,
}

impl Shared {
    fn tell(&self, signal: PostgresSignal) {
        let mut told = self.told.lock();
        match &signal {
            PostgresSignal::Notified if matches!(told.back(), Some(PostgresSignal::Notified)) => return,
            PostgresSignal::Failed(_) if matches!(told.back(), Some(PostgresSignal::Failed(_))) => _ = told.pop_back(),
            // Whatever woke before is woken by the gap as well.
            PostgresSignal::Gap { .. } => {
                let gap = told.iter().position(|signal| matches!(signal, PostgresSignal::Gap { .. }));
                told.truncate(gap.unwrap_or(usize::MAX));
                told.retain(|signal| !matches!(signal, PostgresSignal::Notified));
            }
            _ => {}
        }
        told.push_back(signal);
        self.bell.notify_one();
    }

    fn gap(&self, postgres: &Postgres, reason: String) {
        self.listening.store(false, Relaxed);
        postgres.pool().counters.gaps.fetch_add(1, Relaxed);
        self.tell(PostgresSignal::Gap { reason });
    }
}

/// Listens to one channel over a connection of its own; see [`Postgres::listen`]. Dropping it ends the connection.
pub struct PostgresListener {
    postgres: Postgres,
    channel: Arc<str>,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    /// Whether a task ended before its time, with its runtime.
    restarted: bool,
}

impl fmt::Debug for PostgresListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listening = self.shared.listening.load(Relaxed);
        f.debug_struct("PostgresListener")
            .field("channel", &self.channel)
            .field("listening", &listening)
            .finish_non_exhaustive()
    }
}

impl Drop for PostgresListener {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Postgres {
    /// Listens to `channel` over a connection besides those of the pool; no I/O happens before the first
    /// [`next`](PostgresListener::next). It connects again by itself until it is dropped: after 25 to 50 ms at first, after 1 to 2 s
    /// at most. A pooler in between must keep sessions.
    ///
    /// # Errors
    /// `InvalidConfig` if the name is empty, longer than 63 bytes or holds a NUL.
    pub fn listen(&self, channel: &str) -> Result<PostgresListener, BackendError> {
        if channel.is_empty() || channel.len() > CHANNEL_MAX || channel.contains('\0') {
            let rule = format!("its name must have 1 to {CHANNEL_MAX} bytes and no NUL");
            return Err(BackendError::InvalidConfig { what: "PostgreSQL channel", rule });
        }
        let (postgres, channel) = (self.clone(), channel.into());
        Ok(PostgresListener { postgres, channel, shared: Arc::default(), task: None, restarted: false })
    }

    /// The statement that wakes whoever listens to `channel`, when its transaction commits; equal ones in a transaction are one.
    /// Commits that notify wait for each other, across the whole server: one notification for many writes.
    pub fn notify_query(channel: &str) -> PgQuery<'_> {
        sqlx::query("SELECT pg_catalog.pg_notify($1, '')").bind(channel)
    }
}

impl PostgresListener {
    /// The next thing there is to tell; waits for it as long as it takes. Needs a tokio runtime.
    ///
    /// **Nothing is lost silently**: any interruption is a `Gap` before the next `Listening`. A server that brings nothing any more
    /// without a word is given up within 3 s (asked each second, 2 s for an answer), also while nobody polls.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> PostgresSignal {
        loop {
            if let Some(signal) = self.shared.told.lock().pop_front() {
                return signal;
            }
            if self.shared.over.load(Relaxed) {
                return pending().await;
            }
            let (postgres, channel, shared) = (&self.postgres, &self.channel, &self.shared);
            let failures = u32::from(self.restarted);
            let task = self.task.get_or_insert_with(|| {
                tokio::spawn(run(postgres.clone(), Arc::clone(channel), Arc::clone(shared), failures))
            });
            let mut bell = pin!(shared.bell.notified());
            let ended = poll_fn(|cx| match bell.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => Pin::new(&mut *task).poll(cx).map(|_| true),
            });
            if ended.await {
                self.task = None;
                self.restarted = true;
                if self.shared.listening.load(Relaxed) {
                    self.shared.gap(&self.postgres, "the runtime that listened has ended".to_owned());
                }
            }
        }
    }
}

/// Listens until the handle is closed.
async fn run(postgres: Postgres, channel: Arc<str>, shared: Arc<Shared>, mut failures: u32) {
    let mut told = None;
    loop {
        if failures > 0 {
            tokio::time::sleep(pause(failures)).await;
        }
        match Ear::open(&postgres, &channel).await {
            Ok(mut ear) => {
                let since = Instant::now();
                shared.listening.store(true, Relaxed);
                shared.tell(PostgresSignal::Listening);
                let reason = ear.listen(&postgres, || shared.tell(PostgresSignal::Notified)).await;
                drop(ear);
                shared.gap(&postgres, reason);
                (told, failures) = (None, if since.elapsed() < STEADY { failures } else { 0 });
            }
            Err(error) => {
                let closed = matches!(error, BackendError::Closed);
                shared.over.store(closed, Relaxed);
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    told = Some(text);
                    shared.tell(PostgresSignal::Failed(error));
                }
                if closed {
                    return;
                }
            }
        }
        failures = failures.saturating_add(1);
    }
}

fn pause(failures: u32) -> Duration {
    let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), 2, Jitter::Equal);
    // A hasher's keys are random: enough to spread delays, and no generator is needed.
    backoff.unwrap_or_default().delay(failures, RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(signals: impl IntoIterator<Item = PostgresSignal>) -> String {
        let shared = Shared::default();
        signals.into_iter().for_each(|signal| shared.tell(signal));
        let told = shared.told.lock();
        assert!(told.len() <= 5);
        let letter = |signal: &PostgresSignal| match signal {
            PostgresSignal::Listening => 'L',
            PostgresSignal::Notified => 'N',
            PostgresSignal::Gap { .. } => 'G',
            PostgresSignal::Failed(_) => 'F',
        };
        told.iter().map(letter).collect()
    }

    #[test]
    fn what_nobody_reads_is_coalesced() {
        let of = |letters: &str| {
            told(letters.chars().map(|letter| match letter {
                'L' => PostgresSignal::Listening,
                'N' => PostgresSignal::Notified,
                'G' => PostgresSignal::Gap { reason: String::new() },
                _ => PostgresSignal::Failed(BackendError::Busy),
            }))
        };
        assert_eq!(of("LNNNN"), "LN");
        assert_eq!(of("FFFL"), "FL");
        assert_eq!(of("LNG"), "LG");
        assert_eq!(of("NGFL"), "GFL");
        assert_eq!(of("NGFLNNGFFLN"), "GFLN", "interruptions that nobody heard of are one");
        assert_eq!(of(&"LNGF".repeat(1_000)), "LGF");
        assert_eq!(of(&"FLNG".repeat(1_000)), "FLG");
    }
}
