//! One lane worker of a durable subscription: handles the events of its shard one after another.

use std::{collections::HashSet, sync::Arc, time::Duration};

use infra_types::{Backoff, Monotonic, Timestamp};
use tokio::sync::mpsc;

use super::{call::call, core::Core, sub::Sub};
use crate::{
    OnRetry, SubscribeOptions,
    broker::{Claimed, Outcome},
    handler::{Delivered, HandlerError},
};

/// An event to handle.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) claimed: Claimed,
    /// Which claim it came with; a key's events of one claim are released together.
    pub(crate) batch: u64,
    /// Until when the claim holds unless it is extended.
    pub(crate) valid_until: Monotonic,
}

/// The end of a job. `took` is none if it was not begun.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    pub(crate) outcome: Outcome,
    pub(crate) took: Option<Duration>,
}

pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    pub(crate) sub: Arc<Sub>,
    pub(crate) options: SubscribeOptions,
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) on_retry: OnRetry,
    pub(crate) ended: mpsc::UnboundedSender<Ended>,
}

impl Worker {
    pub(crate) async fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        // Keys that failed in the current claim: their later events are given back so that they follow the retry.
        let mut batch = 0;
        let mut failed: HashSet<String> = HashSet::new();
        while let Some(job) = jobs.recv().await {
            if job.batch != batch {
                batch = job.batch;
                failed.clear();
            }
            let (seq, attempt) = (job.claimed.seq, job.claimed.attempt);
            let key = &job.claimed.envelope.key;
            let ends = *self.sub.stop.borrow() || *self.sub.paused.borrow();
            let (outcome, took) = if failed.contains(key) || ends || self.is_lost(&job) {
                failed.insert(key.clone());
                (Outcome::Release, None)
            } else if self.options.is_expired(&job.claimed.envelope, self.core.clock.wall()) {
                self.sub.tally(&self.core).add(|c| &c.expired, 1);
                (Outcome::Ack, None)
            } else {
                let event = Delivered { envelope: job.claimed.envelope.clone(), attempt, is_replay: false };
                let (result, took) = call(&self.options.handler, event, &self.core.clock, self.options.timeout).await;
                let outcome = self.judge(result, &job.claimed);
                if matches!(outcome, Outcome::Retry { steps_aside: false, .. }) {
                    failed.insert(key.clone());
                }
                (outcome, Some(took))
            };
            if self.ended.send(Ended { seq, attempt, outcome, took }).is_err() {
                return;
            }
        }
    }

    /// The process was suspended, or the store out of reach, for longer than the lease: another consumer may have it by now.
    fn is_lost(&self, job: &Job) -> bool {
        let extended = self.sub.durable().map_or(job.valid_until, |d| d.extended_until());
        self.core.clock.now() > job.valid_until.max(extended)
    }

    fn judge(&self, result: Result<(), HandlerError>, claimed: &Claimed) -> Outcome {
        match result {
            Ok(()) => Outcome::Ack,
            Err(HandlerError::Poison(error)) => Outcome::Dead { error },
            Err(HandlerError::Retry(error)) if claimed.attempt >= self.max_attempts => Outcome::Dead { error },
            Err(HandlerError::Retry(error)) => {
                let delay = self.backoff.delay(claimed.attempt, spread(claimed));
                let at: Timestamp = self.core.clock.wall().saturating_add(delay);
                Outcome::Retry { at, error, steps_aside: self.on_retry == OnRetry::Skip }
            }
        }
    }
}

/// 64 bits that are spread evenly over events and attempts, and equal in every replay (FNV-1a, finished by splitmix64).
fn spread(claimed: &Claimed) -> u64 {
    let id = claimed.envelope.id.as_str().bytes();
    let hash = id.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut z = hash.wrapping_add(u64::from(claimed.attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
