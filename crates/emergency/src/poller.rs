//! Reading the state again and again.

use std::sync::{Arc, Weak};

use tokio::task::JoinHandle;

use crate::controller::EmergencyController;

/// Stops the poller when dropped. Without it, the lease runs out and the process lets only exits through.
#[derive(Debug)]
#[must_use = "dropping it stops the poller"]
pub struct PollerGuard(JoinHandle<()>);

impl PollerGuard {
    pub(crate) fn spawn(controller: &Arc<EmergencyController>) -> Self {
        Self(tokio::spawn(poll(Arc::downgrade(controller))))
    }
}

impl Drop for PollerGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn poll(controller: Weak<EmergencyController>) {
    // Not held while it sleeps, so that the last user's drop ends the poller too.
    while let Some(strong) = controller.upgrade() {
        // A failure is counted by `refresh`; there is nothing to do but to ask again while the lease runs out.
        let _ = strong.refresh().await;
        let sleep = strong.clock.sleep(strong.poll_interval);
        drop(strong);
        sleep.await;
    }
}
