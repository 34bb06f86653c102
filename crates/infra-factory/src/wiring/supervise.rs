//! What goes on beside the trading: halts cancel, bots watch each other, and the ledger is compared with the venues.

use std::{sync::Arc, time::Duration};

use infra_emergency::{
    DeadMan, DeadManConfig, DeadManGuard, HaltProcedure, Heartbeat, HeartbeatConfig, HeartbeatGuard, ProcedureConfig,
    ProcedureGuard,
};
use infra_types::Clock;
use tokio::task::JoinHandle;

use super::{
    death_cancels::CancelForDead,
    halt_cancels::{CancelThroughGate, Venues},
};
use crate::{
    Infrastructure,
    error::FactoryError,
    gate::{NotAtVenue, OrderGate},
};

/// How a bot is supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct SuperviseConfig {
    /// How working orders are cancelled when trading is halted.
    pub on_halt: ProcedureConfig,
    /// How this bot shows that it lives, and what is halted when it does not.
    pub heartbeat: HeartbeatConfig,
    /// How this bot watches the others; none: it does not.
    pub dead_man: Option<DeadManConfig>,
    /// How often the orders of this bot are compared with the venues. Default 30 s.
    pub reconcile_every: Duration,
}

impl Default for SuperviseConfig {
    fn default() -> Self {
        Self {
            on_halt: ProcedureConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            dead_man: Some(DeadManConfig::default()),
            reconcile_every: Duration::from_secs(30),
        }
    }
}

/// Ends the supervision when dropped; for a bot that stops on purpose, [`Supervision::stop`] says goodbye first.
#[must_use = "dropping it ends the supervision"]
pub struct Supervision {
    procedure: Arc<HaltProcedure>,
    heartbeat: Arc<Heartbeat>,
    _on_halt: ProcedureGuard,
    _beat: HeartbeatGuard,
    _watch: Option<DeadManGuard>,
    reconcile: JoinHandle<()>,
}

impl std::fmt::Debug for Supervision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervision").finish_non_exhaustive()
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.reconcile.abort();
    }
}

impl Supervision {
    /// What cancels working orders on a halt: its progress and its reports.
    #[must_use]
    pub fn on_halt(&self) -> &Arc<HaltProcedure> {
        &self.procedure
    }

    /// Says goodbye, so that nobody takes this bot for dead, and ends the supervision.
    ///
    /// # Errors
    /// What the store says; without the goodbye the others find this bot silent and cancel its orders.
    ///
    /// # Cancel safety
    /// Dropping the future ends the supervision, with or without the goodbye.
    pub async fn stop(self) -> Result<(), FactoryError> {
        Ok(self.heartbeat.stop().await?)
    }
}

impl Infrastructure {
    /// Compares the open orders of this bot with the venues, and from then on: cancels them when their scope is halted, shows that this bot
    /// lives and watches the others, and repeats the comparison. Approved orders that a venue never had are given up.
    ///
    /// # Errors
    /// `NoVenue` if a venue has open orders of this bot and no sink; what ledger or gate say.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future may leave some orders reconciled; calling again goes on.
    pub async fn supervise(&self, venues: Venues, config: SuperviseConfig) -> Result<Supervision, FactoryError> {
        let (gate, switch) = (Arc::clone(self.gate()), self.emergency());
        reconcile(&gate, &venues).await?;
        let cancel = Arc::new(CancelThroughGate { gate: Arc::clone(&gate), venues: venues.clone() });
        let procedure = Arc::new(HaltProcedure::new(Arc::clone(switch), cancel, config.on_halt)?);
        let heartbeat = Arc::new(Heartbeat::new(switch, config.heartbeat)?);
        heartbeat.beat().await?;
        let on_death =
            Arc::new(CancelForDead { by: self.bot().clone(), gate: Arc::clone(&gate), venues: venues.clone() });
        let watch = config.dead_man.map(|config| DeadMan::new(Arc::clone(switch), on_death, config)).transpose()?;
        let every = config.reconcile_every;
        let clock = infra_types::SystemClock;
        let task = tokio::spawn(async move {
            loop {
                clock.sleep(every).await;
                if let Err(e) = reconcile(&gate, &venues).await {
                    tracing::warn!(error = %e, "orders could not be compared with the venues; trying again");
                }
            }
        });
        Ok(Supervision {
            _on_halt: procedure.attach(),
            _beat: heartbeat.spawn(),
            _watch: watch.map(|watch| Arc::new(watch).spawn()),
            reconcile: task,
            procedure,
            heartbeat,
        })
    }
}

/// Asks each venue about this bot's open orders there.
async fn reconcile(gate: &OrderGate, venues: &Venues) -> Result<(), FactoryError> {
    for order in gate.open_orders().await? {
        let venue = &order.order.instrument.venue;
        if !venues.contains_key(venue) {
            return Err(FactoryError::NoVenue { venue: venue.to_string(), order: order.order.id.to_string() });
        }
    }
    for (venue, sink) in venues {
        let found = gate.reconcile_at(venue, sink.as_ref(), NotAtVenue::Discard).await?;
        if found.unknown + found.missing > 0 {
            tracing::warn!(%venue, ?found, "orders that the venue could not tell about go on counting");
        }
    }
    Ok(())
}
