//! Everything a bot needs, put together from a preset.

mod build;
mod console;
mod places;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod servers;

use std::{path::Path, sync::Arc};

use infra_audit_log::{AuditLog, Verdict};
use infra_config::{Backend, Config, Preset};
use infra_emergency::EmergencyController;
use infra_event_bus::EventBus;
use infra_latency_monitor::LatencyMonitor;
use infra_risk_engine::RiskEngine;
use infra_state_store::{OutboxRow, StateStore};
use infra_types::{BotId, Health, Namespace};

use self::places::{Anchor, Places};
pub use self::{build::InfrastructureBuilder, console::Console};
use crate::{
    error::FactoryError,
    gate::OrderGate,
    instance::InstanceLock,
    wiring::{outbox::Outbox, relay::Relay},
};

/// Builds the infrastructure of a preset by its name: `development`, `standalone`, `staging` or `production`; the environment's
/// variables are read on top of it.
///
/// # Errors
/// `Config` names every mistake, a misspelt preset too; the rest as [`InfrastructureBuilder::build`].
///
/// # Cancel safety
/// Dropping the future leaves at most a created data directory behind.
pub async fn create_infrastructure(preset: &str) -> Result<Infrastructure, FactoryError> {
    Infrastructure::builder(infra_config::get_config(preset)?).build().await
}

/// The parts, connected. Everything is handed out as a shared handle; [`Infrastructure::close`] ends them in order.
pub struct Infrastructure {
    bot: BotId,
    config: Config,
    places: Places,
    latency: Arc<dyn LatencyMonitor>,
    emergency: Arc<EmergencyController>,
    risk: Arc<RiskEngine>,
    gate: Arc<OrderGate>,
    outbox: Outbox,
    events_relay: Arc<Relay>,
    audit_relay: Arc<Relay>,
    anchor: Anchor,
    tasks: parking_lot::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    poller: parking_lot::Mutex<Option<infra_emergency::PollerGuard>>,
    /// Refreshes the kill switch when another process tells of a transition.
    listener: parking_lot::Mutex<Option<infra_emergency::ListenGuard>>,
    instance: parking_lot::Mutex<Option<InstanceLock>>,
    /// How far closing came; held while it goes on, so that a second caller waits for the first.
    closing: tokio::sync::Mutex<Closing>,
}

/// What closing has behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closing {
    Open,
    EventsTold,
    Anchored,
}

impl Drop for Infrastructure {
    /// Ends the relays of what was not closed: what waits in the outboxes is carried on by the next start.
    fn drop(&mut self) {
        self.tasks.get_mut().drain(..).for_each(|task| task.abort());
    }
}

impl std::fmt::Debug for Infrastructure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Infrastructure")
            .field("bot", &self.bot)
            .field("preset", &self.config.preset)
            .finish_non_exhaustive()
    }
}

/// Whether anything that this process writes is there after it: then one process a bot writes it, and it has files of its own.
fn outlives_process(config: &Config) -> bool {
    [Backend::Sqlite, Backend::Redis, Backend::Postgres].into_iter().any(|backend| config.uses(backend))
}

/// What could not be finished when the infrastructure was closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// One line for each part, in words; empty when all is done.
    pub unfinished: Vec<String>,
}

impl Infrastructure {
    /// The namespace of everything that money depends on.
    pub const LEDGER: &'static str = "ledger";
    /// The namespace of general state.
    pub const STATE: &'static str = "state";

    /// Builds the infrastructure of a preset; the environment's variables are read on top of it.
    ///
    /// # Errors
    /// As [`create_infrastructure`].
    ///
    /// # Cancel safety
    /// As [`create_infrastructure`].
    pub async fn from_preset(preset: Preset) -> Result<Self, FactoryError> {
        create_infrastructure(preset.as_str()).await
    }

    /// Starts to build from a configuration.
    #[must_use]
    pub fn builder(config: Config) -> InfrastructureBuilder {
        InfrastructureBuilder::new(config)
    }

    /// Which bot this is.
    #[must_use]
    pub fn bot(&self) -> &BotId {
        &self.bot
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where halts, limits, reservations, orders and outboxes live, in namespace [`Infrastructure::LEDGER`].
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn StateStore> {
        &self.places.ledger
    }

    /// Where everything else lives; in development and standalone the same store as the ledger.
    #[must_use]
    pub fn state(&self) -> &Arc<dyn StateStore> {
        &self.places.state
    }

    /// A store in this process for what is worthless after it: the last prices.
    #[must_use]
    pub fn market_data(&self) -> &Arc<dyn StateStore> {
        &self.places.market_data
    }

    /// The event bus. If it is on a server, what is published while that is lost is kept on the local disk and goes there when it is back
    /// ([`SpillingEventBus`](infra_event_bus::SpillingEventBus)).
    #[must_use]
    pub fn events(&self) -> &Arc<dyn EventBus> {
        &self.places.events
    }

    /// The audit log. Rows that must exist exactly if a batch does go through [`Infrastructure::outbox`] instead.
    #[must_use]
    pub fn audit(&self) -> &Arc<dyn AuditLog> {
        &self.places.audit
    }

    /// The kill switch.
    #[must_use]
    pub fn emergency(&self) -> &Arc<EmergencyController> {
        &self.emergency
    }

    /// Limits, positions and P&L.
    #[must_use]
    pub fn risk(&self) -> &Arc<RiskEngine> {
        &self.risk
    }

    /// The one way an order leaves.
    #[must_use]
    pub fn gate(&self) -> &Arc<OrderGate> {
        &self.gate
    }

    /// Latency figures.
    #[must_use]
    pub fn latency(&self) -> &Arc<dyn LatencyMonitor> {
        &self.latency
    }

    /// Operations that tell bus and audit log what a batch on the ledger does.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The namespace that operations on the ledger name.
    #[must_use]
    pub fn ledger_namespace(&self) -> Namespace {
        places::namespace(Self::LEDGER)
    }

    /// The namespace that operations on general state name.
    #[must_use]
    pub fn state_namespace(&self) -> Namespace {
        places::namespace(Self::STATE)
    }

    /// Where files go, if this preset has any.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        outlives_process(&self.config).then_some(self.config.data_dir.as_path())
    }

    /// Publishes the events that wait in the outbox now, instead of within a tenth of a second; how many there were.
    ///
    /// # Errors
    /// What store or bus say; the events stay.
    ///
    /// # Cancel safety
    /// Dropping the future may publish events again later, under the same ids.
    pub async fn relay_events(&self) -> Result<u64, FactoryError> {
        self.events_relay.flush().await
    }

    /// The oldest rows of the outboxes that bus or audit log refused for good (too large, an id used for something else): put aside
    /// here so that they hold up nothing, each told in the log as an error. Empty unless a row was composed wrongly.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn refused_rows(&self) -> Result<Vec<OutboxRow>, FactoryError> {
        let mut rows = self.events_relay.refused().await?;
        rows.extend(self.audit_relay.refused().await?);
        Ok(rows)
    }

    /// Wakes both relays, without waiting for them.
    pub fn wake_relays(&self) {
        self.events_relay.wake();
        self.audit_relay.wake();
    }

    /// Appends the audit rows that wait, signs a checkpoint of the log and keeps it outside the database.
    ///
    /// # Errors
    /// What store, log or checkpoint file say.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the older checkpoint or the newer one.
    pub async fn anchor_audit(&self) -> Result<(), FactoryError> {
        self.audit_relay.flush().await?;
        self.anchor.advance(self.places.audit.as_ref()).await
    }

    /// Checks the audit log against the checkpoint that is kept outside the database.
    ///
    /// # Errors
    /// If the log or the checkpoint cannot be read; a log that was tampered with is an answer, no error.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn verify_audit(&self) -> Result<Verdict, FactoryError> {
        let checkpoint = self.anchor.load().await?;
        Ok(self.places.audit.verify(checkpoint.as_ref()).await?)
    }

    /// How the parts feel, by name.
    pub async fn health(&self) -> Vec<(&'static str, Health)> {
        vec![
            ("ledger", self.places.ledger.health().await),
            ("state", self.places.state.health().await),
            ("events", self.places.events.health().await),
            ("audit", self.places.audit.health().await),
        ]
    }

    /// Ends everything in order: no new events, marks of profit and loss kept, outboxes emptied, the audit log anchored, stores closed.
    /// Idempotent.
    ///
    /// # Errors
    /// None: what could not be finished is in the report.
    ///
    /// # Cancel safety
    /// Call it again to go on.
    pub async fn close(&self) -> CloseReport {
        let mut unfinished = Vec::new();
        let mut note = |what: &str, e: &dyn std::fmt::Display| unfinished.push(format!("{what}: {e}"));
        let mut closing = self.closing.lock().await;
        drop(self.poller.lock().take());
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            // An aborted task answers that it was; there is nothing to learn from it.
            let _ = task.await;
        }
        let listener = self.listener.lock().take();
        if let Some(listener) = listener
            && let Err(e) = listener.stop().await
        {
            note("emergency", &e);
        }
        if *closing < Closing::EventsTold {
            // High-water marks that no fill followed yet.
            if let Err(e) = self.risk.checkpoint_moved().await {
                note("risk", &e);
            }
            if let Err(e) = self.events_relay.flush().await {
                note("events", &e);
            }
            if let Err(e) = self.places.events.close().await {
                note("events", &e);
            }
            *closing = Closing::EventsTold;
        }
        if *closing < Closing::Anchored {
            if let Err(e) = self.anchor_audit().await {
                note("audit", &e);
            }
            *closing = Closing::Anchored;
        }
        if let Err(e) = self.places.close().await {
            note("stores", &e);
        }
        // From here on another one of the same id may run, also while this handle still lives.
        drop(self.instance.lock().take());
        CloseReport { unfinished }
    }
}
