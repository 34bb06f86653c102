//! The switch as its users hold it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_event_bus::EventBus;
use infra_state_store::{Key, StateStore};
use infra_types::{BotId, Clock, Decimal, Monotonic, Namespace, Scope};

use crate::{
    builder::{CompanionOps, EmergencyBuilder},
    error::EmergencyError,
    limit::LimitVerdict,
    notify::SubscriptionId,
    policy::RearmPolicy,
    poller::PollerGuard,
    push::{ListenGuard, Push, PushCounts},
    scopes::OrderScopes,
    state::{EmergencyState, Snapshot, Stance, Transition},
    stop::Stop,
    view::View,
};

/// One process's view of the kill switch, and its lever.
///
/// Asking is synchronous: one or two atomic loads while no narrower scope than the firm is stopped, a short lock else, and never
/// an allocation. Everything that changes the state goes through the store by compare-and-swap.
pub struct EmergencyController {
    pub(crate) view: View,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) namespace: Namespace,
    pub(crate) key: Key,
    pub(crate) history: Key,
    pub(crate) policy: RearmPolicy,
    pub(crate) push: Push,
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

    /// Whether the firm is at NORMAL in this process: one atomic load. Advisory, for a strategy that wants to save itself the
    /// work: it looks neither at the lease nor at narrower scopes. A gate asks [`stance_of`](Self::stance_of). False before the
    /// first refresh.
    #[must_use]
    pub fn can_trade(&self) -> bool {
        self.view.state() == EmergencyState::Normal
    }

    /// Whether every order may pass now that lies in these scopes, lease included.
    #[must_use]
    pub fn can_trade_in(&self, order: &OrderScopes<'_>) -> bool {
        self.stance_of(order) == Stance::Open
    }

    /// Whether every order may pass now as far as the firm goes, lease included, and if not, why.
    ///
    /// # Errors
    /// `Stopped` at ALERT, HALT or SHUTDOWN; `Unconfirmed` before the first refresh or when the lease ran out.
    pub fn assert_can_trade(&self) -> Result<(), EmergencyError> {
        self.assert_can_trade_in(&OrderScopes::default())
    }

    /// As [`assert_can_trade`](Self::assert_can_trade), for an order in these scopes; the error names the scope that stops it.
    ///
    /// # Errors
    /// As [`assert_can_trade`](Self::assert_can_trade).
    pub fn assert_can_trade_in(&self, order: &OrderScopes<'_>) -> Result<(), EmergencyError> {
        if self.can_trade_in(order) {
            return Ok(());
        }
        let Snapshot { scope, state, reason, by, at, .. } = self.view.decided(order);
        if state == EmergencyState::Normal {
            return Err(EmergencyError::Unconfirmed);
        }
        Err(EmergencyError::Stopped { scope, state, by, reason, at })
    }

    /// What a gate may let through now as far as the firm goes: the state, and no more than exits once `now()` has reached
    /// [`valid_until`](Self::valid_until).
    #[must_use]
    pub fn stance(&self) -> Stance {
        self.stance_of(&OrderScopes::default())
    }

    /// What a gate may let through now of an order in these scopes: the strongest stop that covers it, and no more than exits
    /// once the lease ran out.
    #[must_use]
    pub fn stance_of(&self, order: &OrderScopes<'_>) -> Stance {
        self.view.stance(order).1
    }

    /// The strongest state that covers an order in these scopes.
    #[must_use]
    pub fn state_of(&self, order: &OrderScopes<'_>) -> EmergencyState {
        self.view.stance(order).0
    }

    /// The state of the firm that this process enforces; HALT before the first refresh and while the record is unreadable.
    #[must_use]
    pub fn state(&self) -> EmergencyState {
        self.view.state()
    }

    /// The firm's state with its reason, author, time and version.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(&Scope::Firm)
    }

    /// The state of one scope by itself, with its reason, author, time and version. One that nobody stopped is at NORMAL, version 0.
    #[must_use]
    pub fn snapshot_of(&self, scope: &Scope) -> Snapshot {
        self.view.snapshot(scope)
    }

    /// The firm, and every narrower scope that is stopped, the widest kind first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.view.snapshots()
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
        if !self.write_pending(|_| true).await? {
            accepted?;
        }
        Ok(self.snapshot())
    }

    /// How many refreshes failed.
    #[must_use]
    pub fn refreshes_failed(&self) -> u64 {
        self.refreshes_failed.load(Ordering::Relaxed)
    }

    /// Raises the firm's state to ALERT. As [`halt`](Self::halt) in every other respect.
    ///
    /// # Errors
    /// As [`halt`](Self::halt).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn alert(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::alert(by, reason)).await
    }

    /// Raises the firm's state to HALT: in this process before this call first waits, then in the store for everybody. Does nothing
    /// to a record that is at HALT or beyond. Long reasons are cut at 1,024 bytes.
    ///
    /// # Errors
    /// `NotDurable` if the store did not take it. It holds in this process all the same and is written by the next refresh that
    /// can; its `kind()` is that of the cause. `Damaged` if the record is unreadable: that is a HALT for everybody already.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll leaves the halt in force in this process.
    pub async fn halt(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::halt(by, reason)).await
    }

    /// Raises the firm's state to SHUTDOWN. As [`halt`](Self::halt) in every other respect; it also replaces an unreadable record.
    ///
    /// # Errors
    /// As [`halt`](Self::halt).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn shutdown(&self, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::shutdown(by, reason)).await
    }

    /// Raises one scope to ALERT. As [`halt_in`](Self::halt_in).
    ///
    /// # Errors
    /// As [`halt_in`](Self::halt_in).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn alert_in(&self, scope: &Scope, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::alert(by, reason).in_scope(scope.clone())).await
    }

    /// Raises one scope to HALT. As [`halt`](Self::halt), except that reasons of narrower scopes than the firm are cut at 256 bytes
    /// and that an unreadable record does not take them: they hold in this process until it can be read again.
    ///
    /// # Errors
    /// As [`halt`](Self::halt). `TooManyScopes` if 1,000 scopes are stopped or wait to be written: stop a wider scope. As the cause
    /// of `NotDurable`, the stop holds in this process; by itself, it holds nowhere.
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn halt_in(&self, scope: &Scope, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::halt(by, reason).in_scope(scope.clone())).await
    }

    /// Raises one scope to SHUTDOWN. As [`halt_in`](Self::halt_in).
    ///
    /// # Errors
    /// As [`halt_in`](Self::halt_in).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn shutdown_in(&self, scope: &Scope, by: &str, reason: &str) -> Result<Snapshot, EmergencyError> {
        self.stop(Stop::shutdown(by, reason).in_scope(scope.clone())).await
    }

    /// Stops what `stop` says; what all the others come to. Answers the scope's snapshot.
    ///
    /// # Errors
    /// As [`halt_in`](Self::halt_in).
    ///
    /// # Cancel safety
    /// As [`halt`](Self::halt).
    pub async fn stop(&self, stop: Stop) -> Result<Snapshot, EmergencyError> {
        self.escalate(stop).await
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
            self.stop(Stop::halt(self.id().as_str(), &reason).automatic()).await?;
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
                let (by, reason) = (self.id().as_str(), e.to_string());
                let firm = match self.state() {
                    EmergencyState::Shutdown => Stop::shutdown(by, &reason),
                    _ => Stop::halt(by, &reason),
                };
                self.stop(firm.automatic()).await?;
                // The narrower stops that the store lost as well.
                self.refresh().await
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

    /// Tells every transition of this process to the others over `bus`, on the topic [`TRANSITION_TOPIC`](crate::TRANSITION_TOPIC),
    /// and refreshes at once when another one tells something or the bus lost something. The poll goes on behind it: without the bus
    /// a stop takes up to a poll interval to arrive, without the store the lease ends.
    ///
    /// On a bus whose live events stay in their process the bot gets a durable group of its own, which stays until
    /// [`ListenGuard::stop`]; so two processes of one bot id hear each transition once between them.
    ///
    /// # Errors
    /// `Bus` if it refuses the subscription.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a subscription that wakes nobody.
    pub async fn listen(self: &Arc<Self>, bus: Arc<dyn EventBus>) -> Result<ListenGuard, EmergencyError> {
        ListenGuard::start(self, bus).await
    }

    /// What became of pushes.
    #[must_use]
    pub fn push_counts(&self) -> PushCounts {
        self.push.counts()
    }

    /// Refreshes every poll interval until the guard, or the last handle to the controller, is dropped. When the store fails,
    /// the lease runs out and the stance closes to exits.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_poller(self: &Arc<Self>) -> PollerGuard {
        PollerGuard::spawn(self)
    }
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
