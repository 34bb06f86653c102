//! From a configuration to running parts.

use std::{sync::Arc, time::Duration};

use infra_audit_log::AuditError;
use infra_config::{Config, EmergencySection};
use infra_emergency::{EmergencyController, EmergencyError, RearmPolicy};
use infra_event_bus::BusError;
use infra_latency_monitor::{LatencyConfig, LatencyMonitor, MemoryLatencyMonitor};
use infra_risk_engine::{RiskEngine, RiskLimits};
use infra_state_store::{Key, StateStore, StoreError};
use infra_types::{BotId, Clock, Currency, ErrorKind, Namespace, SystemClock};

use super::{
    Infrastructure,
    places::{Anchor, Places, namespace},
};
use crate::{
    error::FactoryError,
    gate::{GateConfig, GateParts, LossPolicy, OrderGate},
    instance::InstanceLock,
    limits,
    wiring::{
        halt_rows,
        limit_rows::LimitRows,
        outbox::Outbox,
        relay::{Relay, ToAudit, ToBus},
    },
};

/// How long the kill switch may take to be confirmed.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// What may be set besides the configuration.
#[derive(Debug)]
pub struct InfrastructureBuilder {
    config: Config,
    decision_clock: Option<Arc<dyn Clock>>,
    firm_currency: Option<Currency>,
    risk_limits: Option<RiskLimits>,
    gate: GateConfig,
}

impl InfrastructureBuilder {
    pub(super) fn new(config: Config) -> Self {
        let losses = LossPolicy {
            alert_on_warning: config.risk.alert_on_warning,
            look_every: config.risk.look_every,
            ..LossPolicy::default()
        };
        let halt_on_breach = config.emergency.auto_halt_on_limit;
        let gate = GateConfig { halt_on_breach, losses, ..GateConfig::default() };
        Self { config, decision_clock: None, firm_currency: None, risk_limits: None, gate }
    }

    /// The clock that decisions are dated by: a replay brings its own. Leases, tokens and latency keep the machine's. Losses are then
    /// not looked at by the machine's clock either: call [`OrderGate::check_losses`].
    #[must_use]
    pub fn decision_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.decision_clock = Some(clock);
        self
    }

    /// What exposure of the whole firm is counted in. Default USDT.
    #[must_use]
    pub fn firm_currency(mut self, currency: Currency) -> Self {
        self.firm_currency = Some(currency);
        self
    }

    /// Limits in full, instead of those that the configuration's `risk` section gives. Which of these and those that are stored in the
    /// ledger are followed is the configuration's `risk.limits`.
    #[must_use]
    pub fn risk_limits(mut self, limits: RiskLimits) -> Self {
        self.risk_limits = Some(limits);
        self
    }

    /// How the gate waits and gives up.
    #[must_use]
    pub fn gate(mut self, gate: GateConfig) -> Self {
        self.gate = gate;
        self
    }

    /// Opens and migrates the stores, confirms the kill switch within five seconds, restores positions, and starts the relays.
    ///
    /// # Errors
    /// What is wrong with the configuration, the data directory or the stores; `AlreadyRunning`; `Unconfirmed`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most a created data directory and migrated tables behind.
    pub async fn build(self) -> Result<Infrastructure, FactoryError> {
        let Self { config, decision_clock, firm_currency, risk_limits, gate } = self;
        let bot = config.bot_id.clone();
        let system = SystemClock::shared();
        let is_live = decision_clock.is_none();
        let decision_clock = decision_clock.unwrap_or_else(SystemClock::shared);
        let mut places = Places::open(&config, &system)?;
        let outlives_process = super::outlives_process(&config);
        let instance = outlives_process.then(|| InstanceLock::take(&config.data_dir, &bot)).transpose()?;

        let ledger = namespace(Infrastructure::LEDGER);
        let emergency = kill_switch(&config.emergency, &bot, &places.ledger, &system)?;
        // What is wrong with a store is said to be that, not to be a matter of the kill switch.
        reach(&places.ledger, &ledger).await?;
        reach(&places.state, &namespace(Infrastructure::STATE)).await?;
        match until_confirmed(|| places.events.status("a group that nobody has"), BusError::kind).await {
            // The bus knows its groups, so it can be reached.
            Ok(_) | Err(BusError::NoGroup { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        until_confirmed(|| places.audit.head(), AuditError::kind).await?;
        confirm(&emergency).await?;

        let firm_currency = firm_currency.map_or_else(|| Currency::new("USDT"), Ok);
        let firm_currency = firm_currency.map_err(infra_risk_engine::RiskError::from)?;
        let risk_limits = risk_limits.unwrap_or_else(|| limits::from_config(&config.risk, firm_currency));
        let store = Arc::clone(&places.ledger);
        let given = risk_limits.clone();
        let risk = Arc::new(RiskEngine::new(store, ledger.clone(), Arc::clone(&decision_clock), risk_limits)?);
        risk.restore().await?;
        limits::settle_on(&risk, config.risk.limits, given, &LimitRows::new(&bot, &places.ledger, &ledger)?).await?;

        let latency: Arc<dyn LatencyMonitor> =
            Arc::new(MemoryLatencyMonitor::new(LatencyConfig::default(), Arc::clone(&system))?);
        let parts = GateParts {
            bot: bot.clone(),
            ledger: Arc::clone(&places.ledger),
            namespace: ledger.clone(),
            risk: Arc::clone(&risk),
            emergency: Arc::clone(&emergency),
            decision_clock,
            system_clock: Arc::clone(&system),
            approve_latency: latency.register("gate", "approve"),
            place_latency: latency.register("gate", "place"),
            report_latency: latency.register("gate", "report"),
        };
        let gate = Arc::new(OrderGate::new(parts, gate));

        let outbox = Outbox::of(&bot);
        let relay = |queue: &Key, refused: &Key, carrier| {
            let (queue, refused) = (queue.clone(), refused.clone());
            Relay::new(Arc::clone(&places.ledger), ledger.clone(), queue, refused, carrier, Arc::clone(&system))
        };
        let [events_refused, audit_refused] = outbox.refused_queues();
        let (to_bus, to_audit) = (ToBus(Arc::clone(&places.unspilled_events)), ToAudit(Arc::clone(&places.audit)));
        let events_relay = relay(outbox.events_queue(), events_refused, Box::new(to_bus) as _);
        let audit_relay = relay(outbox.audit_queue(), audit_refused, Box::new(to_audit) as _);
        let anchor = Anchor::new(&config)?;
        places.spill_events(&config, &bot, &system).await?;
        // A halt is heard at once where the bus lives, and with the next poll where it does not.
        let listener = emergency.listen(Arc::clone(&places.unspilled_events)).await?;
        // Nothing may fail any more once tasks run.
        let mut tasks: Vec<_> = [&events_relay, &audit_relay].map(|r| tokio::spawn(Arc::clone(r).run())).into();
        if is_live {
            tasks.push(tokio::spawn(Arc::clone(gate.losses()).run()));
        }
        let poller = emergency.spawn_poller();
        Ok(Infrastructure {
            bot,
            config,
            places,
            latency,
            emergency,
            risk,
            gate,
            outbox,
            events_relay,
            audit_relay,
            anchor,
            tasks: parking_lot::Mutex::new(tasks),
            poller: parking_lot::Mutex::new(Some(poller)),
            listener: parking_lot::Mutex::new(Some(listener)),
            instance: parking_lot::Mutex::new(instance),
            closing: tokio::sync::Mutex::new(super::Closing::Open),
        })
    }
}

/// The kill switch as the configuration wants it; nothing is read yet.
pub(super) fn kill_switch(
    section: &EmergencySection,
    bot: &BotId,
    ledger: &Arc<dyn StateStore>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<EmergencyController>, EmergencyError> {
    let mut policy = RearmPolicy::new();
    for person in &section.rearm_persons {
        policy = policy.entitle(person.clone());
    }
    if !section.rearm_second_person_within.is_zero() {
        policy = policy.two_person(section.rearm_second_person_within);
    }
    if !section.rearm_cool_down.is_zero() {
        policy = policy.cool_down(section.rearm_cool_down);
    }
    let namespace = namespace(Infrastructure::LEDGER);
    let switch = EmergencyController::builder(bot.clone(), Arc::clone(ledger), namespace, Arc::clone(clock))
        .lease(section.lease)
        .poll_interval(section.poll_interval)
        .rearm_policy(policy)
        .companion_ops(halt_rows::companion(bot.clone()))
        .build()?;
    Ok(Arc::new(switch))
}

/// Asks a store until it answers. One that cannot be opened at all says so at once.
async fn reach(store: &Arc<dyn StateStore>, namespace: &Namespace) -> Result<(), FactoryError> {
    let probe = infra_state_store::Key::record("probe")?;
    until_confirmed(|| store.get(namespace, &probe), StoreError::kind).await?;
    Ok(())
}

/// Asks until the state of the kill switch is known.
pub(super) async fn confirm(emergency: &EmergencyController) -> Result<(), FactoryError> {
    until_confirmed(|| emergency.refresh(), EmergencyError::kind)
        .await
        .map(|_| ())
        .map_err(|e| FactoryError::Unconfirmed { reason: e.to_string() })
}

/// Repeats a question for [`CONFIRM_TIMEOUT`] while a later try may help.
async fn until_confirmed<T, E, F>(ask: impl Fn() -> F, kind: impl Fn(&E) -> ErrorKind) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let clock = SystemClock;
    let deadline = clock.now() + CONFIRM_TIMEOUT;
    loop {
        match ask().await {
            Err(e) if kind(&e).is_retryable() && clock.now() < deadline => {
                clock.sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}
