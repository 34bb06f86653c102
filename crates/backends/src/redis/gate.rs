//! One attempt at a time, shared by all who wait, with a pause after a failure.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use infra_types::{Backoff, Clock, Jitter, Monotonic, SystemClock};
use tokio::sync::Mutex;

use crate::error::BackendError;

#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    not_before: Monotonic,
    last: Option<BackendError>,
}

/// Lets one attempt run and tells everyone else its outcome.
#[derive(Debug, Default, Clone)]
pub(super) struct Gate(Arc<Mutex<Attempts>>);

impl Gate {
    /// `ready()` if it has something, else the outcome of one attempt. During the pause after a failed attempt everyone
    /// gets its error at once.
    ///
    /// The attempt runs in a task of its own: it ends even if all who wait for it stop waiting.
    pub(super) async fn pass<T, R, M, F>(&self, ready: R, make: M) -> Result<T, BackendError>
    where
        T: Send + 'static,
        R: Fn() -> Option<T>,
        M: FnOnce() -> F,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let mut attempts = Arc::clone(&self.0).lock_owned().await;
        if let Some(made) = ready() {
            return Ok(made);
        }
        if let Some(error) = attempts.last.as_ref().filter(|_| SystemClock.now() < attempts.not_before) {
            return Err(error.clone());
        }
        let work = make();
        let task = tokio::spawn(async move {
            let outcome = work.await;
            match &outcome {
                Ok(_) => *attempts = Attempts::default(),
                Err(error) => {
                    attempts.failures = attempts.failures.saturating_add(1);
                    attempts.not_before = SystemClock.now() + pause(attempts.failures);
                    attempts.last = Some(error.clone());
                }
            }
            outcome
        });
        task.await.unwrap_or_else(|e| Err(BackendError::Transient { reason: format!("connecting was given up: {e}") }))
    }
}

/// 10 ms at first, doubling to half a second; spread, so that a fleet does not come back in step.
fn pause(failures: u32) -> Duration {
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500), 2, Jitter::Equal);
    // A hasher's keys are random: enough to spread delays, and no generator is needed.
    backoff.unwrap_or_default().delay(failures, RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn refused() -> BackendError {
        BackendError::Connect { target: "t".into(), reason: "refused".into() }
    }

    #[tokio::test]
    async fn a_thousand_waiters_make_one_attempt() {
        let (gate, tries) = (Gate::default(), Arc::new(AtomicU32::new(0)));
        let waiters: Vec<_> = (0..1_000)
            .map(|_| {
                let (gate, tries) = (gate.clone(), Arc::clone(&tries));
                tokio::spawn(async move {
                    let make = || async move {
                        tries.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                        Err::<(), _>(refused())
                    };
                    gate.pass(|| None, make).await
                })
            })
            .collect();
        for waiter in waiters {
            assert!(matches!(waiter.await.unwrap(), Err(BackendError::Connect { .. })));
        }
        let tries = tries.load(Ordering::Relaxed);
        // More than one only if this machine stalls for longer than a pause.
        assert!(tries < 20, "{tries} attempts");
    }

    #[tokio::test]
    async fn an_attempt_outlives_its_waiter() {
        let (gate, done) = (Gate::default(), Arc::new(tokio::sync::Notify::new()));
        let (go, going) = tokio::sync::oneshot::channel::<()>();
        let finished = Arc::clone(&done);
        let make = || async move {
            going.await.unwrap();
            finished.notify_one();
            Ok(7)
        };
        let asked = gate.clone();
        let waiter = tokio::spawn(async move { asked.pass(|| None, make).await });
        tokio::task::yield_now().await;
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        done.notified().await;
        assert_eq!(gate.pass(|| Some(8), || async { Ok(9) }).await.unwrap(), 8);
    }

    #[test]
    fn pauses_are_short_and_bounded() {
        assert!((1..40).map(pause).all(|p| p >= Duration::from_millis(10) && p <= Duration::from_millis(500)));
    }
}
