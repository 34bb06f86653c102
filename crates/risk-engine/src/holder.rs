//! Who holds what is held: a name with a lease, so that the orders of a process that died are noticed.

use std::time::Duration;

use infra_state_store::{Applied, Batch, Key, Op, StoreError};
use infra_types::{BotId, CorrelationId, InvalidValue};
use parking_lot::Mutex;

use crate::{engine::RiskEngine, error::RiskError, held::Known, ledger};

/// Under which name an engine holds what it approves, and for how long it is believed to live without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderConfig {
    /// The name: one process at a time has it. Few and for ever (a bot, a place), since the store keeps a row for each name.
    pub name: BotId,
    /// How long the name stays taken after the last renewal: 10 s.
    pub ttl: Duration,
    /// How often it is renewed: 2 s. At most a third of `ttl`, so that one lost reply costs nothing.
    pub renew_interval: Duration,
    /// How often this engine looks for orders of dead holders: 2 s.
    pub sweep_interval: Duration,
    /// How many orders of one account may be held at once, by all holders together; more opening orders are refused
    /// (`held_orders`), exits are not: 10,000.
    pub held_max: u32,
}

impl HolderConfig {
    /// The usual times under `name`.
    #[must_use]
    pub fn new(name: BotId) -> Self {
        Self {
            name,
            ttl: Duration::from_secs(10),
            renew_interval: Duration::from_secs(2),
            sweep_interval: Duration::from_secs(2),
            held_max: 10_000,
        }
    }

    /// The same with another lease: renewed five times in `ttl`, swept as often.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        (self.ttl, self.renew_interval, self.sweep_interval) = (ttl, ttl / 5, ttl / 5);
        self
    }

    /// The same with another limit on held orders.
    #[must_use]
    pub fn with_held_max(mut self, held_max: u32) -> Self {
        self.held_max = held_max;
        self
    }

    fn validate(&self) -> Result<(), InvalidValue> {
        let rule = if self.renew_interval.is_zero() || self.sweep_interval.is_zero() {
            "renew_interval and sweep_interval must be above zero"
        } else if self.renew_interval.saturating_mul(3) > self.ttl {
            "renew_interval must be at most a third of ttl"
        } else if self.ttl > Duration::from_secs(3_600) {
            "ttl must be at most an hour: so long would the orders of a dead process stay unnoticed"
        } else if self.held_max == 0 {
            "held_max must be above zero"
        } else {
            return Ok(());
        };
        Err(InvalidValue::new("holder", rule))
    }
}

/// How an engine stands to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderState {
    /// It never took its name: nothing is approved.
    Absent,
    /// It has the name under this fence.
    Holding {
        /// Greater than that of every holder of the name before.
        fence: u64,
    },
    /// Somebody took the name, or a sweeper retired it: nothing is approved until [`RiskEngine::join`].
    Lost {
        /// The fence that it had.
        fence: u64,
    },
}

/// The holder of one engine.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) config: HolderConfig,
    /// Unlike that of any other process that ever has the name.
    run: String,
    pub(crate) lease: Key,
    state: Mutex<HolderState>,
    /// What is known of held records.
    pub(crate) known: Known,
}

/// What stands as the holder of a name that was retired; a run's id never looks like this.
const RETIRED: &str = "retired";

impl Holder {
    pub(crate) fn state(&self) -> HolderState {
        *self.state.lock()
    }

    /// The fence that every approval names.
    pub(crate) fn fence(&self) -> Result<u64, RiskError> {
        match self.state() {
            HolderState::Holding { fence } => Ok(fence),
            HolderState::Absent => Err(self.lost(0)),
            HolderState::Lost { fence } => Err(self.lost(fence)),
        }
    }

    fn lost(&self, fence: u64) -> RiskError {
        RiskError::HolderLost { holder: self.config.name.clone(), fence }
    }

    /// Notes that `fence` is over; one that was taken since stays.
    pub(crate) fn lose(&self, fence: u64) -> RiskError {
        let mut state = self.state.lock();
        if *state == (HolderState::Holding { fence }) {
            *state = HolderState::Lost { fence };
        }
        self.lost(fence)
    }
}

/// The fence of a lease that one operation granted.
fn granted(applied: &[Applied]) -> Result<u64, RiskError> {
    match applied.first() {
        Some(Applied::Lease(grant)) => Ok(grant.fence),
        other => {
            let reason = format!("a lease operation answered {other:?}");
            Err(RiskError::Corrupt { key: ledger::HOLDERS.to_owned(), reason })
        }
    }
}

impl RiskEngine {
    /// The same engine with a name: every order that it approves is written down in the store as held by it, in the batch of the
    /// approval, until the order is over. Call [`RiskEngine::join`] before the first order, and keep a
    /// [guard](RiskEngine::guard).
    ///
    /// **A process that slept** for longer than its lease (stopped, swapped out, its machine suspended) goes on if nobody noticed: all
    /// that it holds is still its own. If somebody swept in between, its name was retired in the same moment in which its orders
    /// became orphans: every approval names the fence of the name, so it approves nothing more (`HolderLost`), also not with a batch
    /// that was on its way. It joins again, as a new holder, and reconciles or adopts what it held. What the venue reports of
    /// its old orders it settles at any time.
    ///
    /// # Errors
    /// `Invalid` for times that make no sense.
    pub fn with_holder(mut self, config: HolderConfig) -> Result<Self, RiskError> {
        config.validate()?;
        let lease = Key::lease(ledger::holder(&config.name))?;
        let run = CorrelationId::generate().to_string();
        let state = Mutex::new(HolderState::Absent);
        self.holder = Some(Holder { config, run, lease, state, known: Known::default() });
        Ok(self)
    }

    /// How this engine stands to its name, as it last heard; none if it has no name.
    #[must_use]
    pub fn holder_state(&self) -> Option<HolderState> {
        self.holder.as_ref().map(Holder::state)
    }

    pub(crate) fn holder(&self) -> Result<&Holder, RiskError> {
        let none = || InvalidValue::new("engine", "has no holder: build it with `with_holder`").into();
        self.holder.as_ref().ok_or_else(none)
    }

    /// Takes the name. What was held under it by a process before is not this one's: it becomes orphaned at the next sweep.
    /// Answers the fence. Joining again after the name was lost takes it anew.
    ///
    /// # Errors
    /// `Store(LeaseHeld)` while another process has the name, that of a process that was killed for up to its `ttl`;
    /// `Invalid` for an engine without a holder; what the store says.
    ///
    /// # Cancel safety
    /// The name may be taken or not; call again.
    pub async fn join(&self) -> Result<u64, RiskError> {
        let holder = self.holder()?;
        // Taking a name that ran out under our feet would make what we hold somebody else's: it is prolonged instead.
        if let Ok(fence) = holder.fence() {
            match self.renew().await {
                Ok(()) => return Ok(fence),
                Err(RiskError::HolderLost { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        let op = Op::AcquireLease { key: holder.lease.clone(), holder: holder.run.clone(), ttl: holder.config.ttl };
        let fence = granted(&self.store.apply(Batch::new(self.namespace.clone()).with(op)).await?)?;
        *holder.state.lock() = HolderState::Holding { fence };
        Ok(fence)
    }

    /// Prolongs the name. A name that ran out is prolonged too as long as nobody took or retired it: then nothing of
    /// ours was orphaned.
    ///
    /// # Errors
    /// `HolderLost` if it is somebody else's or was retired; what the store says.
    ///
    /// # Cancel safety
    /// The name may be prolonged or not; call again.
    pub async fn renew(&self) -> Result<(), RiskError> {
        let holder = self.holder()?;
        let fence = holder.fence()?;
        let (key, ttl) = (holder.lease.clone(), holder.config.ttl);
        let op = Op::RenewLease { key, holder: holder.run.clone(), fence, ttl };
        match self.store.apply(Batch::new(self.namespace.clone()).with(op)).await {
            Ok(_) => Ok(()),
            Err(StoreError::Fenced { .. }) => Err(holder.lose(fence)),
            Err(other) => Err(other.into()),
        }
    }

    /// Gives the name back, at the end of a run. What it still holds is orphaned by the next sweep of anybody.
    ///
    /// # Errors
    /// What the store says. A name that is lost already is no error.
    ///
    /// # Cancel safety
    /// The name may be given back or not; call again.
    pub async fn leave(&self) -> Result<(), RiskError> {
        let holder = self.holder()?;
        let Ok(fence) = holder.fence() else { return Ok(()) };
        let op = Op::ReleaseLease { key: holder.lease.clone(), fence };
        let left = self.store.apply(Batch::new(self.namespace.clone()).with(op)).await;
        match left {
            Ok(_) | Err(StoreError::Fenced { .. }) => {
                let _ = holder.lose(fence);
                Ok(())
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Takes a name whose lease ran out away from whoever had it, so that it approves nothing more; answers the newest fence of
    /// the name, which every live holder of it has. None if somebody has it and what it holds is his.
    pub(crate) async fn retire(&self, name: &BotId) -> Result<Option<u64>, RiskError> {
        let key = Key::lease(ledger::holder(name))?;
        // For as short as can be: whoever starts again under this name must wait for it.
        let op = Op::AcquireLease { key, holder: RETIRED.to_owned(), ttl: Duration::from_millis(1) };
        match self.store.apply(Batch::new(self.namespace.clone()).with(op)).await {
            Ok(applied) => granted(&applied).map(Some),
            Err(StoreError::LeaseHeld { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_make_no_sense_are_refused() {
        let good = || HolderConfig::new("bot-1".parse().unwrap());
        good().validate().unwrap();
        good().with_ttl(Duration::from_millis(100)).validate().unwrap();
        let slow = HolderConfig { renew_interval: Duration::from_secs(4), ..good() };
        let never = HolderConfig { sweep_interval: Duration::ZERO, ..good() };
        for bad in [slow, never, good().with_ttl(Duration::from_secs(4_000)), good().with_held_max(0)] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
