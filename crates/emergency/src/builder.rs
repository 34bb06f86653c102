//! What a controller is made of.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use infra_state_store::{Key, MemoryStateStore, Op, StateStore};
use infra_types::{BotId, Clock, Namespace, SystemClock};

use crate::{
    controller::EmergencyController,
    durable::{Found, HISTORY, KEY, Record},
    error::EmergencyError,
    policy::RearmPolicy,
    push::Push,
    state::Transition,
    view::View,
};

/// Rows for the batch of each transition, e.g. of an outbox: they are stored if and only if the transition is. Called again
/// when a swap has to be repeated. An operation that the store refuses keeps the transition from being written.
pub type CompanionOps = Arc<dyn Fn(&Transition) -> Vec<Op> + Send + Sync>;

/// Settings of an [`EmergencyController`] on a shared store.
#[must_use]
pub struct EmergencyBuilder {
    id: BotId,
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    lease: Duration,
    poll_interval: Duration,
    companions: Option<CompanionOps>,
    policy: RearmPolicy,
}

impl EmergencyBuilder {
    pub(crate) fn new(id: BotId, store: Arc<dyn StateStore>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self {
            id,
            store,
            namespace,
            clock,
            lease: Duration::from_secs(2),
            poll_interval: Duration::from_millis(250),
            companions: None,
            policy: RearmPolicy::new(),
        }
    }

    /// How long one read of the state is trusted; 2 s unless set. No process trades longer than this after a stop that it could
    /// not see.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long the poller waits between two reads; 250 ms unless set.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Rows to be stored with each transition, in its batch.
    pub fn companion_ops(mut self, companions: CompanionOps) -> Self {
        self.companions = Some(companions);
        self
    }

    /// Who may re-arm, when, and how many it takes; no rules unless set.
    pub fn rearm_policy(mut self, policy: RearmPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Makes the controller. It has read nothing yet and lets nothing through but exits: refresh it, or spawn its poller.
    ///
    /// # Errors
    /// `Invalid` if the poll interval is zero or not shorter than the lease.
    pub fn build(self) -> Result<EmergencyController, EmergencyError> {
        if self.poll_interval.is_zero() || self.poll_interval >= self.lease {
            let rule = "the poll interval must be longer than zero and shorter than the lease";
            return Err(EmergencyError::invalid(format!("{rule}: {:?}, {:?}", self.poll_interval, self.lease)));
        }
        Ok(EmergencyController {
            view: View::new(self.id, self.lease, Arc::clone(&self.clock)),
            store: self.store,
            namespace: self.namespace,
            key: Key::record(KEY)?,
            history: Key::list(HISTORY)?,
            policy: self.policy,
            push: Push::default(),
            clock: self.clock,
            poll_interval: self.poll_interval,
            companions: self.companions,
            refreshes_failed: AtomicU64::new(0),
        })
    }

    /// A controller whose store nobody else can reach: its state needs no confirmation and its lease never ends.
    pub(crate) fn process_local(id: BotId) -> Result<EmergencyController, EmergencyError> {
        let clock = SystemClock::shared();
        let store = Arc::new(MemoryStateStore::new(Arc::clone(&clock)));
        let namespace = Namespace::new("emergency").map_err(|e| EmergencyError::invalid(e.to_string()))?;
        let controller = Self::new(id, store, namespace, clock).lease(Duration::MAX).build()?;
        let began = controller.view.begin();
        controller.view.accept(&began, &Found::Record(Record::absent(), infra_state_store::When::Absent))?;
        Ok(controller)
    }
}

impl fmt::Debug for EmergencyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmergencyBuilder")
            .field("id", &self.id)
            .field("namespace", &self.namespace)
            .field("lease", &self.lease)
            .field("poll_interval", &self.poll_interval)
            .finish_non_exhaustive()
    }
}
