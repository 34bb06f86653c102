//! One venue of a procedure.

use std::{sync::Arc, time::Duration};

use infra_types::{Monotonic, Scope, Venue};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    CancelFailed, CancelOrders, CancelProgress, ProcedureConfig,
    report::{OPEN_NAMED_MAX, VenueReport, VenueStatus},
};
use crate::{controller::EmergencyController, state::EmergencyState};

/// How often it is looked whether the scope was re-armed.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct VenueRun {
    pub(super) switch: Arc<EmergencyController>,
    pub(super) orders: Arc<dyn CancelOrders>,
    pub(super) config: ProcedureConfig,
    pub(super) places: Arc<Semaphore>,
    pub(super) scope: Scope,
    pub(super) venue: Venue,
    pub(super) report: VenueReport,
    pub(super) news: mpsc::Sender<(Venue, VenueReport)>,
    pub(super) dice: u64,
}

impl VenueRun {
    pub(super) async fn run(mut self) {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
        let deadline = self.switch.clock.now() + self.config.deadline;
        let rearmed = Self::until_rearmed(Arc::clone(&self.switch), self.scope.clone());
        let status = tokio::select! {
            status = self.until_canceled(deadline) => status,
            () = rearmed => VenueStatus::Rearmed,
        };
        self.report.status = status;
        // Whoever is slow to take the news holds up no other venue.
        drop(place);
        // Nobody listens once the procedure was dropped.
        let _ = self.news.send((self.venue.clone(), self.report.clone())).await;
    }

    async fn until_canceled(&mut self, deadline: Monotonic) -> VenueStatus {
        loop {
            self.report.status = VenueStatus::Running;
            self.report.attempts = self.report.attempts.saturating_add(1);
            match self.attempt(deadline).await {
                Ok(CancelProgress { canceled, open }) => {
                    self.report.canceled = self.report.canceled.saturating_add(canceled);
                    self.report.open_count = u64::try_from(open.len()).unwrap_or(u64::MAX);
                    self.report.problem = None;
                    self.report.open = open;
                    self.report.open.truncate(OPEN_NAMED_MAX);
                    if self.report.open_count == 0 {
                        return VenueStatus::Canceled;
                    }
                }
                Err(CancelFailed(problem)) => self.report.problem = Some(problem),
            }
            let wait = self.config.backoff.delay(self.report.attempts, self.roll());
            if self.switch.clock.now() + wait >= deadline {
                return VenueStatus::GaveUp;
            }
            // Progress may be passed over; the end is not.
            let _ = self.news.try_send((self.venue.clone(), self.report.clone()));
            self.switch.clock.sleep(wait).await;
        }
    }

    /// One call, in a task of its own so that its panic is its own, within its time.
    async fn attempt(&self, deadline: Monotonic) -> Result<CancelProgress, CancelFailed> {
        let (orders, venue, scope) = (Arc::clone(&self.orders), self.venue.clone(), self.scope.clone());
        let mut call = JoinSet::new();
        call.spawn(async move { orders.cancel_all(&venue, &scope).await });
        let until = deadline.min(self.switch.clock.now() + self.config.attempt_timeout);
        tokio::select! {
            ended = call.join_next() => match ended {
                Some(Ok(result)) => result,
                _ => Err(CancelFailed("canceling panicked".into())),
            },
            () = self.switch.clock.sleep_until(until) => Err(CancelFailed("no answer in time".into())),
        }
    }

    async fn until_rearmed(switch: Arc<EmergencyController>, scope: Scope) {
        while switch.snapshot_of(&scope).state >= EmergencyState::Halt {
            switch.clock.sleep(LOOK).await;
        }
    }

    /// `SplitMix64`: evenly spread, and different for each venue and attempt.
    fn roll(&self) -> u64 {
        let mut z = self.dice.wrapping_add(u64::from(self.report.attempts).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
