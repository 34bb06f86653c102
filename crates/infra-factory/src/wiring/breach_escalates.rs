//! A loss that reaches its limit halts the scope of the limit (the account, the strategy), whether an order comes or not; one that comes
//! near is told, and raises ALERT where the policy says so. Nothing here ever re-arms.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use infra_emergency::{EmergencyController, EmergencyError, LimitLevel, LimitPolicy, LimitReport, LimitWatch, Stop};
use infra_risk_engine::{Check, Decision, RiskEngine, RiskEvent, RiskEventKind, RiskEvents, Severity, code};
use infra_state_store::{Batch, StateStore};
use infra_types::{AccountId, BotId, Clock, Decimal, Envelope, Monotonic, Namespace, Scope, StrategyId, Topic};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    losses::{Figure, figures},
    outbox::{AuditRow, Outbox},
};

/// Where near and broken loss limits are told on the bus.
const TOPIC: &str = "risk:limits";
/// Limits of single scopes that are watched, and scopes that are looked at: beyond that a breach halts without hysteresis, and a
/// scope is looked at only while it holds something or an order is refused.
const WATCHED_MAX: usize = 16_384;
/// The least time between two looks: a storm of fills is looked at together.
const GAP: Duration = Duration::from_millis(10);
/// The least time between two checkpoints of what quotes moved: so much of a best or a worst a crash may forget.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// How losses are watched. Shares are of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossPolicy {
    /// Whether a warning raises the limit's scope to ALERT, which lets nothing through that adds risk until a person re-arms it.
    /// Default false: it is told only.
    pub alert_on_warning: bool,
    /// From this share on it warns, where the rule does not say another one. Default 0.80; above 0 and below 1.
    pub warn_at: Decimal,
    /// A warning is over below this share only. Default 0.70.
    pub clear_below: Decimal,
    /// How long a level that lasts is no news again. Default 60 s.
    pub notify_every: Duration,
    /// How often all losses are looked at, besides after each fill. Default 1 s.
    pub look_every: Duration,
    /// How often positions are read anew before a look: other processes may trade the same accounts. Default 5 s.
    pub reread_every: Duration,
}

impl Default for LossPolicy {
    fn default() -> Self {
        let LimitPolicy { warn_at, clear_below, notify_every, .. } = LimitPolicy::default();
        let (look_every, reread_every) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { alert_on_warning: false, warn_at, clear_below, notify_every, look_every, reread_every }
    }
}

/// What a watch is made of.
pub(crate) struct LossParts {
    pub(crate) bot: BotId,
    pub(crate) ledger: Arc<dyn StateStore>,
    pub(crate) namespace: Namespace,
    pub(crate) risk: Arc<RiskEngine>,
    pub(crate) switch: Arc<EmergencyController>,
    pub(crate) decision_clock: Arc<dyn Clock>,
    pub(crate) system_clock: Arc<dyn Clock>,
}

/// One limit of one scope.
struct Watched {
    watch: LimitWatch,
    level: Mutex<LimitLevel>,
    /// Something changed that could not be told yet.
    owes: AtomicBool,
}

pub(crate) struct LossWatch {
    parts: LossParts,
    outbox: Outbox,
    policy: LossPolicy,
    halt: bool,
    watched: Mutex<BTreeMap<(String, Scope), Arc<Watched>>>,
    /// Where this process traded.
    seen: Mutex<BTreeSet<Scope>>,
    reread: Mutex<Option<Monotonic>>,
    wake: Notify,
    unwatched: AtomicU64,
}

impl LossWatch {
    pub(crate) fn new(parts: LossParts, policy: LossPolicy, halt: bool) -> Self {
        Self {
            outbox: Outbox::of(&parts.bot),
            parts,
            policy,
            halt,
            watched: Mutex::default(),
            seen: Mutex::default(),
            reread: Mutex::default(),
            wake: Notify::new(),
            unwatched: AtomicU64::new(0),
        }
    }

    /// From now on these are looked at.
    pub(crate) fn saw(&self, account: &AccountId, strategy: &StrategyId) {
        let mut seen = self.seen.lock();
        for scope in [Scope::Account(account.clone()), Scope::Strategy(strategy.clone())] {
            if seen.len() < WATCHED_MAX || seen.contains(&scope) {
                seen.insert(scope);
            } else if self.unwatched.fetch_add(1, Relaxed) == 0 {
                tracing::error!(%scope, "too many scopes to look at their losses without positions or orders");
            }
        }
    }

    /// A fill changed what these have lost.
    pub(crate) fn filled(&self, account: &AccountId, strategy: &StrategyId) {
        self.saw(account, strategy);
        self.wake.notify_one();
    }

    /// Looks after each fill and every interval, for ever, and makes durable what quotes moved.
    pub(crate) async fn run(self: Arc<Self>) {
        let clock = Arc::clone(&self.parts.system_clock);
        let mut kept = clock.now();
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = clock.sleep(self.policy.look_every) => {}
            }
            self.look().await;
            if clock.now().since(kept) >= CHECKPOINT_EVERY {
                self.checkpoint().await;
                kept = clock.now();
            }
            clock.sleep(GAP).await;
        }
    }

    /// High-water marks, drawdowns and day starts that no fill followed are there after a crash too.
    async fn checkpoint(&self) {
        if let Err(e) = self.parts.risk.checkpoint_moved().await {
            tracing::warn!(error = %e, "marks of profit and loss could not be kept yet; the next time they are");
        }
    }

    /// A decision was made on fresh figures: what it found broken is broken.
    pub(crate) async fn refused(&self, decision: &Decision) {
        for check in decision.checks.iter().filter(|check| check.refuses()) {
            if let Some(figure) = broken(check) {
                self.weigh(&figure).await;
            }
        }
    }

    /// Looks at all losses once; what is near its limit or beyond it.
    pub(crate) async fn look(&self) -> Vec<LimitReport> {
        let now = self.parts.system_clock.now();
        let is_due = self.reread.lock().is_none_or(|last| now.since(last) >= self.policy.reread_every);
        let mut is_fresh = is_due && self.reread(now).await;
        let all = || figures(&self.parts.risk, self.seen.lock().clone());
        let mut found = all();
        // Whoever is to be stopped is stopped on what the ledger says. If it says nothing, on what is known.
        if !is_fresh && found.iter().any(|figure| self.is_worse(figure)) {
            is_fresh = self.reread(now).await;
            if is_fresh {
                found = all();
            }
        }
        let mut near = Vec::new();
        for figure in &found {
            if let Some(report) = self.weigh(figure).await
                && report.level > LimitLevel::Within
            {
                near.push(report);
            }
        }
        near
    }

    async fn reread(&self, now: Monotonic) -> bool {
        match self.parts.risk.restore().await {
            Ok(()) => {
                *self.reread.lock() = Some(now);
                true
            }
            Err(e) => {
                tracing::warn!(error = %e, "positions cannot be read anew; losses are reckoned by what is known");
                false
            }
        }
    }

    fn warn_at(&self, figure: &Figure) -> Decimal {
        let is_share = |share: &Decimal| *share > Decimal::ZERO && *share < Decimal::ONE;
        figure.warn_at.filter(is_share).unwrap_or(self.policy.warn_at)
    }

    /// Whether it is at a level that was not seen yet.
    fn is_worse(&self, figure: &Figure) -> bool {
        let level = if figure.value >= figure.limit {
            LimitLevel::Breached
        } else if figure.value >= figure.limit.saturating_mul(self.warn_at(figure)) {
            LimitLevel::Warned
        } else {
            return false;
        };
        let known = self.watched.lock().get(&(figure.rule.clone(), figure.scope.clone())).cloned();
        figure.value > Decimal::ZERO && known.is_none_or(|watched| *watched.level.lock() < level)
    }

    fn watched(&self, figure: &Figure) -> Option<Arc<Watched>> {
        let mut all = self.watched.lock();
        let key = (figure.rule.clone(), figure.scope.clone());
        if let Some(watched) = all.get(&key) {
            return Some(Arc::clone(watched));
        }
        if all.len() >= WATCHED_MAX {
            all.retain(|_, watched| *watched.level.lock() > LimitLevel::Within || watched.owes.load(Relaxed));
        }
        if all.len() >= WATCHED_MAX {
            return None;
        }
        let warn_at = self.warn_at(figure);
        let policy = LimitPolicy {
            scope: figure.scope.clone(),
            warn_at,
            clear_below: self.policy.clear_below.min(warn_at),
            alert: self.policy.alert_on_warning,
            halt: self.halt,
            notify_every: self.policy.notify_every,
        };
        let name = format!("{} of {} ({})", figure.code, figure.scope, figure.rule);
        let watch = LimitWatch::new(name, policy).inspect_err(|e| tracing::error!(error = %e, "a loss is not watched"));
        let level = Mutex::new(LimitLevel::Within);
        let watched = Arc::new(Watched { watch: watch.ok()?, level, owes: AtomicBool::new(false) });
        all.insert(key, Arc::clone(&watched));
        Some(watched)
    }

    /// Compares one loss with its limit, stops what is to be stopped, and tells what is news.
    async fn weigh(&self, figure: &Figure) -> Option<LimitReport> {
        // A limit that follows an equity of nothing is reached by no loss at all.
        if figure.value <= Decimal::ZERO && figure.limit <= Decimal::ZERO {
            return None;
        }
        let switch = &self.parts.switch;
        let Some(watched) = self.watched(figure) else {
            if self.halt && figure.value >= figure.limit {
                let reason = format!("{} is at {}, its limit is {}", figure.rule, figure.value, figure.limit);
                let stop = Stop::halt(switch.id().as_str(), &reason).automatic();
                unwritten(stop_or_wider(switch, stop, figure.scope.clone()).await.err());
            }
            return None;
        };
        let report = match watched.watch.check(switch, figure.value, figure.limit).await {
            Ok(report) => {
                *watched.level.lock() = report.level;
                if report.is_news && report.level > LimitLevel::Within {
                    watched.owes.store(true, Relaxed);
                }
                Some(report)
            }
            Err(e) => {
                watched.owes.store(true, Relaxed);
                let wider = matches!(e, EmergencyError::TooManyScopes { .. });
                if wider && self.halt && figure.value >= figure.limit {
                    let reason = format!("{} of {}: {e}", figure.rule, figure.scope);
                    unwritten(switch.stop(Stop::halt(switch.id().as_str(), &reason).automatic()).await.err());
                } else {
                    unwritten(Some(e));
                }
                None
            }
        };
        // What was not told the last time is told now, by what is known now.
        let is_near = figure.value >= figure.limit.saturating_mul(self.warn_at(figure));
        if watched.owes.swap(false, Relaxed) && is_near && !self.tell(figure).await {
            watched.owes.store(true, Relaxed);
        }
        report
    }

    /// Risk event, audit row and bus event in one batch; whether the ledger took them.
    async fn tell(&self, figure: &Figure) -> bool {
        let at = self.parts.decision_clock.wall();
        let is_broken = figure.value >= figure.limit;
        let kind = if is_broken { RiskEventKind::Breach } else { RiskEventKind::Warning };
        let mut event = RiskEvent::new(at, kind, figure.scope.clone(), figure.code);
        event.rule = Some(figure.rule.clone());
        match &figure.scope {
            Scope::Account(account) => event.account = Some(account.clone()),
            Scope::Strategy(strategy) => event.strategy = Some(strategy.clone()),
            _ => {}
        }
        if is_broken {
            event.severity = Severity::Critical;
        }
        let event = event.with_figures(figure.value, figure.limit);
        let batch = self.batch(&event, if is_broken { "breach" } else { "warn" });
        let Some(batch) = batch else { return true };
        match self.parts.ledger.apply(batch).await {
            Ok(_) => true,
            Err(e) => {
                tracing::warn!(error = %e, ?event, "a loss near its limit could not be told yet");
                false
            }
        }
    }

    /// The rows of one event; a fixed topic, and an event that always fits, leave nothing to fail.
    fn batch(&self, event: &RiskEvent, action: &str) -> Option<Batch> {
        let LossParts { bot, ledger, namespace, .. } = &self.parts;
        let kept = RiskEvents::new(Arc::clone(ledger), namespace.clone()).ok()?.op(event).ok()?;
        let text = |figure: Option<Decimal>| figure.unwrap_or_default().normalize().to_string();
        let details = BTreeMap::from([
            ("rule".to_owned(), event.rule.clone().unwrap_or_default()),
            ("code".to_owned(), event.code.clone()),
            ("value".to_owned(), text(event.value)),
            ("limit".to_owned(), text(event.limit)),
        ]);
        let row = AuditRow {
            id: format!("{bot}.{}.{action}", event.id),
            kind: "RISK_ALERT".into(),
            at: event.at,
            user: None,
            correlation: None,
            source: format!("bot/{bot}"),
            resource: format!("risk/{}", event.scope),
            action: action.to_owned(),
            symbol: None,
            details,
        };
        let topic = Topic::new(TOPIC).ok()?;
        let envelope = Envelope::new(topic, "risk_limits.v1", event.at, serde_json::to_vec(event).ok()?)
            .with_id(event.id.clone())
            .with_key(event.scope.to_string())
            .with_source(format!("bot/{bot}"));
        let mut batch = Batch::new(namespace.clone());
        batch.extend([kept, self.outbox.audit(&row), self.outbox.event(&envelope)]);
        Some(batch)
    }
}

/// What a refused order says about a loss.
fn broken(check: &Check) -> Option<Figure> {
    let is_loss = check.code == code::DAILY_LOSS || check.code == code::DRAWDOWN;
    // A check without a figure stands for an equity that nobody can reckon: a missing price is a refusal, and no loss.
    (is_loss && check.value > Decimal::ZERO).then(|| Figure {
        rule: check.rule.as_deref().unwrap_or(check.code).to_owned(),
        code: check.code,
        scope: check.scope.clone(),
        value: check.value,
        limit: check.limit,
        warn_at: None,
    })
}

/// Stops a scope; the firm, if no narrower scope can be stopped any more.
pub(crate) async fn stop_or_wider(
    switch: &EmergencyController,
    stop: Stop,
    scope: Scope,
) -> Result<(), EmergencyError> {
    match switch.stop(stop.clone().in_scope(scope)).await {
        Err(EmergencyError::TooManyScopes { .. }) => switch.stop(stop.in_scope(Scope::Firm)).await.map(drop),
        other => other.map(drop),
    }
}

fn unwritten(error: Option<EmergencyError>) {
    if let Some(e) = error {
        tracing::error!(error = %e, "a halt could not be written down; it holds in this process");
    }
}
