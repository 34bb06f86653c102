//! The switch as its users hold it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_state_store::{Key, StateStore};
use infra_types::{BotId, Clock, Decimal, Monotonic, Namespace};

use crate::{
    builder::{CompanionOps, EmergencyBuilder},
    error::EmergencyError,
    limit::LimitVerdict,
    notify::SubscriptionId,
    poller::PollerGuard,
    raise::Raised,
    state::{EmergencyState, Snapshot, Stance, Transition},
    view::{Decision, View},
};

/// Bytes of a reason that are kept: a halt must not fail because its reason is long.
const REASON_BYTES_MAX: usize = 1_024;

/// One process's view of the kill switch, and its lever.
///
/// Reading is synchronous and free of locks; everything that changes the state goes through the store by compare-and-swap.
pub struct EmergencyController {
    pub(crate) view: View,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) namespace: Namespace,
    pub(crate) key: Key,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) poll_interval: Duration,
    pub(crate) companions: Option<CompanionOps>,
    pub(crate) refreshes_failed: AtomicU64,
}

impl EmergencyController {
    /// A switch of this process alone: nobody else sees it, it ends with the process, it starts at NORMAL and needs no refresh.
    /// For a switch that a fleet shares and that survives restarts, use [`builder`](Self::builder).
    ///
    /// # Panics
    /// If `id` is not a valid [`BotId`]; [`try_new`](Self::try_new) reports it instead.
    #[must_use]
    pub fn new(id: impl AsRef<str>) -> Self {
        match Self::try_new(id) {
            Ok(controller) => controller,
            Err(e) => panic!("{e}"),
        }
    }

    /// As [`new`](Self::new), for an id that comes from outside.
    ///
    /// # Errors
    /// `Invalid` if `id` is not a valid [`BotId`].
    pub fn try_new(id: impl AsRef<str>) -> Result<Self, EmergencyError> {
        let id = BotId::new(id).map_err(|e| EmergencyError::invalid(e.to_string()))?;
        EmergencyBuilder::process_local(id)
    }

    /// A switch on a store that others share: the record `emergency/firm` of `namespace`. `clock` measures the lease and must
    /// count the time that a machine is suspended.
    pub fn builder(
        id: BotId,
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        clock: Arc<dyn Clock>,
    ) -> EmergencyBuilder {
        EmergencyBuilder::new(id, store, namespace, clock)
    }

    /// Who this controller is; the author of its automatic halts.
    #[must_use]
    pub fn id(&self) -> &BotId {
        self.view.id()
    }

    /// Whether this process is at NORMAL: one atomic load. Advisory, for a strategy that wants to save itself the work: it does
    /// not look at the lease. A gate asks [`stance`](Self::stance). False before the first refresh.
    #[must_use]
    pub fn can_trade(&self) -> bool {
        self.view.state() == EmergencyState::Normal
    }

    /// Whether every order may pass now, lease included, and if not, why.
    ///
    /// # Errors
    /// `Stopped` at ALERT, HALT or SHUTDOWN; `Unconfirmed` before the first refresh or when the lease ran out.
    pub fn assert_can_trade(&self) -> Result<(), EmergencyError> {
        if self.stance() == Stance::Open {
            return Ok(());
        }
        let Snapshot { state, reason, by, at, .. } = self.view.decided();
        if state == EmergencyState::Normal {
            return Err(EmergencyError::Unconfirmed);
        }
        Err(EmergencyError::Stopped { state, by, reason, at })
    }

    /// What a gate may let through now: the state, and no more than exits once `now()` has reached
    /// [`valid_until`](Self::valid_until).
    #[must_use]
    pub fn stance(&self) -> Stance {
        self.view.stance()
    }

    /// The state that this process enforces; HALT before the first refresh and while the record is unreadable.
    #[must_use]
    pub fn state(&self) -> EmergencyState {
        self.view.state()
    }

    /// The state with its reason, author, time and version.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.view.snapshot()
    }

    /// Until when, on the injected clock's `now`, the state counts as confirmed. Never goes back.
    #[must_use]
    pub fn valid_until(&self) -> Monotonic {
        self.view.valid_until()
    }

    /// Reads the durable state, tells the subscribers what changed, and extends the lease, reckoned from before the read. A stop
    /// of this process that the store has not taken yet is written.
    ///
    /// A store without a record means NORMAL at version 0.
    ///
    /// # Errors
    /// `Store` if it could not be read: the state stays and the lease runs on. `Damaged` and `WentBack`: this process is at HALT.
    /// `NotDurable` if the read went well but the stop could still not be written.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing but the read.
    pub async fn refresh(&self) -> Result<Snapshot, EmergencyError> {
        let outcome = self.confirm().await;
        if outcome.is_err() {
            self.refreshes_failed.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    async fn confirm(&self) -> Result<Snapshot, EmergencyError> {
        let (_, accepted) = self.read().await?;
        if !self.write_pending().await? {
            accepted?;
        }
        Ok(self.snapshot())
    }

    /// Writes the stop that the store has not taken yet; whether there was one.
    pub(crate) async fn write_pending(&self) -> Result<bool, EmergencyError> {
        let Some((ticket, decision)) = self.view.pending() else { return Ok(false) };
        match self.raise(&decision).await {
            Ok(Raised::Stored) => {
                self.view.settle(ticket);
                Ok(true)
            }
            Ok(Raised::CoveredByDamage(damage)) => {
                self.view.settle(ticket);
                Err(damage)
            }
            Err(cause) => Err(EmergencyError::NotDurable { state: decision.state, cause: Box::new(cause) }),
        }
    }

    /// How many refreshes failed.
    #[must_use]
    pub fn refreshes_failed(&self) -> u64 {
        self.refreshes_failed.load(Ordering::Relaxed)
    }

    /// Raises the state to ALERT. As [`halt`](Self::halt) in every other respect.
    ///
    /// # Errors
    /// As [`halt`](Self::halt).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn alert(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.escalate(self.decision(EmergencyState::Alert, by, reason)).await
    }

    /// Raises the state to HALT: in this process before this call first waits, then in the store for everybody. Does nothing to a
    /// record that is at HALT or beyond. Long reasons are cut at 1,024 bytes.
    ///
    /// # Errors
    /// `NotDurable` if the store did not take it. It holds in this process all the same and is written by the next refresh that
    /// can; its `kind()` is that of the cause. `Damaged` if the record is unreadable: that is a HALT for everybody already.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll leaves the halt in force in this process.
    pub async fn halt(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.escalate(self.decision(EmergencyState::Halt, by, reason)).await
    }

    /// Raises the state to SHUTDOWN. As [`halt`](Self::halt) in every other respect; it also replaces an unreadable record.
    ///
    /// # Errors
    /// As [`halt`](Self::halt).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn shutdown(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.escalate(self.decision(EmergencyState::Shutdown, by, reason)).await
    }

    /// Compares a figure with its limit, in one unit of the caller's choice. `current >= limit` is a breach; with `auto_halt` it
    /// halts, in this controller's name, with the figures as the reason. Falling back below the limit re-arms nothing.
    ///
    /// # Errors
    /// As [`halt`](Self::halt); never without a breach. Even then this process is halted.
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn check_risk_limit(
        &self,
        name: &str,
        current: Decimal,
        limit: Decimal,
        auto_halt: bool,
    ) -> Result<LimitVerdict, EmergencyError> {
        if current < limit {
            return Ok(LimitVerdict::Within { headroom: limit.saturating_sub(current) });
        }
        if auto_halt {
            let reason = format!("{name} is at {current}, its limit is {limit}");
            self.halt(self.id().as_str(), &reason).await?;
        }
        Ok(LimitVerdict::Breached { excess: current.saturating_sub(limit), halted: auto_halt })
    }

    /// Calls `handler` for every change of the state that this process enforces, in order, outside all locks, on the thread that
    /// brought the change. It must not block. One that panics is counted and harms neither the others nor the switch.
    pub fn subscribe(&self, handler: impl Fn(&Transition) + Send + Sync + 'static) -> SubscriptionId {
        self.view.notifier.subscribe(Arc::new(handler))
    }

    /// Ends a subscription; whether there was one. A call that is already under way may still reach the handler.
    pub fn unsubscribe(&self, id: SubscriptionId) -> bool {
        self.view.notifier.unsubscribe(id)
    }

    /// How many transitions were never told because handlers were too slow (256 may wait).
    #[must_use]
    pub fn notifications_dropped(&self) -> u64 {
        self.view.notifier.dropped()
    }

    /// How often a handler panicked.
    #[must_use]
    pub fn handler_panics(&self) -> u64 {
        self.view.notifier.panics()
    }

    /// Makes sure that the store holds what this process enforces: a refresh, and if the store lost what this process had
    /// already read, the enforced state is written back.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh), without `WentBack`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the write wholly done or wholly undone.
    pub async fn persist_state(&self) -> Result<Snapshot, EmergencyError> {
        match self.refresh().await {
            Err(e @ EmergencyError::WentBack { .. }) => {
                let decision = self.decision(self.state(), self.id().as_str(), &e.to_string());
                self.escalate(decision).await
            }
            other => other,
        }
    }

    /// Takes the durable state over, as a bot does when it starts: a [`refresh`](Self::refresh) by the project's own name. The
    /// state is never weaker afterwards than what the store holds, nor than what this process has stopped.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    ///
    /// # Cancel safety
    /// As [`refresh`](Self::refresh).
    pub async fn restore_state(&self) -> Result<Snapshot, EmergencyError> {
        self.refresh().await
    }

    /// Refreshes every poll interval until the guard, or the last handle to the controller, is dropped. When the store fails,
    /// the lease runs out and the stance closes to exits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_poller(self: &Arc<Self>) -> PollerGuard {
        PollerGuard::spawn(self)
    }

    fn decision(&self, state: EmergencyState, by: &str, reason: &str) -> Decision {
        let or = |text: &str, instead: &str| if text.trim().is_empty() { instead.to_owned() } else { clip(text) };
        Decision { state, by: or(by, "unknown"), reason: or(reason, "no reason given"), at: self.clock.wall() }
    }
}

/// The text, cut to what a record keeps.
pub(crate) fn clip(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl fmt::Debug for EmergencyController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmergencyController")
            .field("id", self.id())
            .field("namespace", &self.namespace)
            .field("snapshot", &self.snapshot())
            .finish_non_exhaustive()
    }
}
