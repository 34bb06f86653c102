//! A person's way to the ledger of running bots, from a process of its own that trades nothing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use infra_config::{Backend, Config, LimitsFrom, RiskSection};
use infra_emergency::{EmergencyController, TRANSITION_TOPIC};
use infra_event_bus::Delivery;
use infra_risk_engine::{Enabled, LimitSet, Override, RiskEngine, RiskError, RiskLimits};
use infra_state_store::Key;
use infra_types::{
    AccountId, BotId, Clock, Currency, Envelope, Order, OrderId, StrategyId, SystemClock, Topic, UserId,
};

use super::{
    Infrastructure,
    places::{Places, namespace},
};
use crate::{
    error::FactoryError,
    gate::{self, Orphan},
    limits,
    wiring::{
        limit_rows::LimitRows,
        outbox::Outbox,
        relay::{Relay, ToAudit, ToBus},
    },
};

/// How long audit log and bus may take to hear of a transition before it is left to wait for them.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// The kill switch and the limits of the bots that share a configuration's ledger. It takes no bot's place: any number may be open beside them.
///
/// What is done with it is durable, and seen by every bot, as soon as the ledger has it. Audit log and event bus hear of it
/// through the outbox of bot id [`Console::ID`], which [`Console::tell`] carries on.
pub struct Console {
    emergency: Arc<EmergencyController>,
    places: Places,
    bot: BotId,
    section: RiskSection,
    /// Who may do what a bot obeys; everybody who gives a name if nobody is listed.
    persons: Vec<UserId>,
    to_bus: Arc<Relay>,
    to_audit: Arc<Relay>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}

impl Console {
    /// Whose outbox it writes to; not an id for a bot.
    pub const ID: &'static str = "infra:console";

    /// Opens the ledger and reads the kill switch. Bus and audit log are not asked: a halt must not wait for them.
    ///
    /// # Errors
    /// `NothingShared` if every process has a ledger of its own, or a file that no bot has made yet; what the store says.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn open(config: &Config) -> Result<Self, FactoryError> {
        let nothing = |reason: String| Err(FactoryError::NothingShared { reason });
        match config.ledger.backend {
            Backend::Memory => {
                let preset = config.preset;
                return nothing(format!("preset {preset} keeps the ledger in the memory of each bot"));
            }
            // Opening would make an empty one, and a halt in it would stop nobody.
            Backend::Sqlite if !config.sqlite_path().exists() => {
                return nothing(format!(
                    "there is no {}: is the data directory right?",
                    config.sqlite_path().display()
                ));
            }
            _ => {}
        }
        let system = SystemClock::shared();
        let places = Places::open(config, &system)?;
        let ledger = namespace(Infrastructure::LEDGER);
        let bot = BotId::new(Self::ID).map_err(infra_risk_engine::RiskError::from)?;
        let emergency = super::build::kill_switch(&config.emergency, &bot, &places.ledger, &system)?;
        let outbox = Outbox::of(&bot);
        let relay = |queue: &Key, refused: &Key, carrier| {
            let (queue, refused, clock) = (queue.clone(), refused.clone(), Arc::clone(&system));
            Relay::new(Arc::clone(&places.ledger), ledger.clone(), queue, refused, carrier, clock)
        };
        let [events_refused, audit_refused] = outbox.refused_queues();
        let bus = ToBus(Arc::clone(&places.unspilled_events));
        let audit = ToAudit(Arc::clone(&places.audit));
        let to_bus = relay(outbox.events_queue(), events_refused, Box::new(bus) as _);
        let to_audit = relay(outbox.audit_queue(), audit_refused, Box::new(audit) as _);
        super::build::confirm(&emergency).await?;
        let (section, persons) = (config.risk.clone(), config.emergency.rearm_persons.clone());
        Ok(Self { emergency, places, bot, section, persons, to_bus, to_audit })
    }

    /// The kill switch.
    #[must_use]
    pub fn emergency(&self) -> &Arc<EmergencyController> {
        &self.emergency
    }

    /// An engine beside those of the bots, which decides nothing; the stored limits are read.
    async fn risk(&self) -> Result<RiskEngine, FactoryError> {
        let currency = Currency::new("USDT").map_err(RiskError::from)?;
        let (store, clock) = (Arc::clone(&self.places.ledger), SystemClock::shared());
        let given = limits::from_config(&self.section, currency);
        let risk = RiskEngine::new(store, namespace(Infrastructure::LEDGER), clock, given)?;
        risk.reload_limits().await?;
        Ok(risk)
    }

    fn rows(&self) -> Result<LimitRows, RiskError> {
        LimitRows::new(&self.bot, &self.places.ledger, &namespace(Infrastructure::LEDGER))
    }

    /// Which limits a bot of this configuration follows when it starts.
    #[must_use]
    pub fn limits_from(&self) -> LimitsFrom {
        self.section.limits
    }

    /// The limits that every bot of the ledger decides by; version 0 if none are stored, with what the configuration says.
    ///
    /// # Errors
    /// What the ledger says; `Risk` if what is stored cannot be read.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn limits(&self) -> Result<LimitSet, FactoryError> {
        Ok(self.risk().await?.limits())
    }

    /// The newest stored versions, at most `max` (1 to 1,000), the newest first.
    ///
    /// # Errors
    /// As [`Console::limits`].
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn limit_history(&self, max: usize) -> Result<Vec<LimitSet>, FactoryError> {
        Ok(self.risk().await?.limit_history(max).await?)
    }

    /// Access to critical functions is by named persons (RTS 6 art. 18): those that may re-arm.
    fn entitled(&self, by: &UserId) -> Result<(), FactoryError> {
        if self.persons.is_empty() || self.persons.contains(by) {
            return Ok(());
        }
        Err(FactoryError::NotEntitled { user: by.to_string() })
    }

    /// Stores limits as the next version after `base`, with their audit row; from then on no bot decides by older ones.
    ///
    /// # Errors
    /// `NotEntitled`; `Risk` with every mistake, or if another version than `base` is stored; what the ledger says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave them stored, never half.
    pub async fn set_limits(
        &self,
        base: u64,
        limits: RiskLimits,
        by: UserId,
        reason: &str,
    ) -> Result<LimitSet, FactoryError> {
        self.entitled(&by)?;
        let rows = self.rows()?;
        Ok(self.risk().await?.set_limits(base, limits, by, reason, &|set| rows.limits(set)).await?)
    }

    /// Lets a strategy that reached its number of executions act again, with its audit row.
    ///
    /// # Errors
    /// `NotEntitled`; `Risk` without a reason; what the ledger says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it enabled, never half.
    pub async fn enable_strategy(
        &self,
        strategy: &StrategyId,
        by: UserId,
        reason: &str,
    ) -> Result<Enabled, FactoryError> {
        self.entitled(&by)?;
        let rows = self.rows()?;
        Ok(self.risk().await?.enable_strategy(strategy, by, reason, &|enabled| rows.enabled(enabled)).await?)
    }

    /// Asks that exactly this order be let past `rules` once, within `life` (a day at most); another person grants it.
    ///
    /// # Errors
    /// `NotEntitled`; `Risk` for a rule that is not in the limits, no rule, no reason, or too long a life; what the ledger says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it asked for, never half.
    pub async fn request_override(
        &self,
        order: &Order,
        rules: BTreeSet<String>,
        by: UserId,
        reason: &str,
        life: Duration,
    ) -> Result<Override, FactoryError> {
        self.entitled(&by)?;
        let told = self.rows()?;
        let risk = self.risk().await?;
        Ok(risk.request_override(order, rules, by, reason, life, &|asked| told.requested(asked)).await?)
    }

    /// Grants what another person asked for.
    ///
    /// # Errors
    /// `NotEntitled`; `Risk` if nothing was asked, it is over or granted already, or the same person asked; what the ledger says.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it granted, never half.
    pub async fn grant_override(
        &self,
        account: &AccountId,
        order: &OrderId,
        by: UserId,
    ) -> Result<Override, FactoryError> {
        self.entitled(&by)?;
        let rows = self.rows()?;
        Ok(self.risk().await?.grant_override(account, order, by, &|granted| rows.granted(granted)).await?)
    }

    /// The open orders of bots that died: nobody looks after them, and each counts until the venue's word ends it.
    ///
    /// # Errors
    /// What the ledger says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, FactoryError> {
        Ok(gate::orphans(&self.places.ledger, &namespace(Infrastructure::LEDGER)).await?)
    }

    /// Has every bot look at the kill switch now instead of with its next poll, and tells audit log and bus what was done here, now or by an
    /// earlier console that could not. What cannot be told within 5 s waits in the ledger for the next one; the list says why.
    ///
    /// # Cancel safety
    /// Dropping the future may tell some rows again later, under the same ids.
    pub async fn tell(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        match tokio::time::timeout(TELL_TIMEOUT, self.nudge()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => waiting.push(format!("bots see it with their next poll: {e}")),
            Err(_) => waiting.push("bots see it with their next poll: the event bus does not answer".to_owned()),
        }
        for (what, relay) in [("audit log", &self.to_audit), ("event bus", &self.to_bus)] {
            match tokio::time::timeout(TELL_TIMEOUT, relay.flush()).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => waiting.push(format!("{what}: {e}")),
                Err(_) => waiting.push(format!("{what}: no answer within {TELL_TIMEOUT:?}")),
            }
        }
        waiting
    }

    /// Tells bots to read the kill switch. It carries nothing that they believe: the ledger has the word.
    async fn nudge(&self) -> Result<(), FactoryError> {
        let bus = &self.places.unspilled_events;
        let delivery = if bus.info().live_between_processes { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
        let topic = Topic::new(TRANSITION_TOPIC).map_err(infra_event_bus::BusError::from)?;
        let event = Envelope::new(topic, "emergency.nudge.v1", SystemClock.wall(), Vec::new());
        bus.publish(event.with_source(Self::ID), delivery).await?;
        Ok(())
    }

    /// Closes the stores.
    ///
    /// # Errors
    /// What could not be closed.
    ///
    /// # Cancel safety
    /// Call it again to go on.
    pub async fn close(&self) -> Result<(), FactoryError> {
        self.places.close().await
    }
}
