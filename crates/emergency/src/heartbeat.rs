//! A bot's sign of life, for those that watch it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_state_store::{Applied, Batch, Entry, Key, Op, StateStore, StoreError, Ttl, When};
use infra_types::{BotId, Clock, EventId, Namespace, Scope, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{controller::EmergencyController, error::EmergencyError};

/// What the records of bots are named by.
pub(crate) const BOTS: &str = "emergency/bot/";

const SCHEMA: u32 = 1;

/// Scopes that one bot's death may halt.
const HALTS_MAX: usize = 16;

/// How a [`Heartbeat`] beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// How often. Default 2 s.
    pub interval: Duration,
    /// How long a silence makes the bot dead, by the store's clock. Default 10 s; at least twice the interval.
    pub ttl: Duration,
    /// What is halted when it is dead; at most 16 scopes. Default: nothing, only the watcher's callback runs.
    pub halts: Vec<Scope>,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), ttl: Duration::from_secs(10), halts: Vec::new() }
    }
}

/// Whether a bot lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BotLife {
    /// It beats, or did when it was seen last.
    Alive,
    /// It said goodbye.
    Stopped,
    /// It fell silent, and a watcher found that out.
    Dead,
}

/// What became of the work that a death causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeathOutcome {
    /// A watcher is at it, or the next one will be.
    Pending,
    /// Everything was halted and the callback did its work; in its words.
    Done(String),
    /// Given up after the last attempt, and why.
    Failed(String),
}

/// A bot that fell silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotDeath {
    /// Which bot.
    pub bot: BotId,
    /// Which run of it; a bot that comes back is another one.
    pub run: String,
    /// When it was found out, by the watcher's wall clock.
    pub at: Timestamp,
    /// What was, or is to be, halted because of it.
    pub halts: Vec<Scope>,
    /// Who found it out, or took it over from a watcher that died.
    pub watcher: BotId,
    /// How often the callback was begun.
    pub attempts: u32,
    /// How it ended.
    pub outcome: DeathOutcome,
}

/// A bot as its record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotRecord {
    schema: u32,
    /// Which bot.
    pub bot: BotId,
    /// The run that beats, or beat last.
    pub run: String,
    /// Whether it lives.
    pub life: BotLife,
    /// When this run began, by its wall clock.
    pub since: Timestamp,
    /// How long a silence makes it dead, in milliseconds.
    pub ttl_ms: u64,
    /// What is halted when it is dead.
    pub halts: Vec<Scope>,
    /// The last death, of this run or an earlier one.
    pub death: Option<BotDeath>,
}

impl BotRecord {
    /// The record, if it is one that this program knows.
    pub(crate) fn read(entry: &Entry) -> Option<Self> {
        let record: Self = serde_json::from_slice(entry.value.as_bytes()?).ok()?;
        (record.schema == SCHEMA).then_some(record)
    }

    pub(crate) fn set(&self, key: &Key, when: When) -> Result<Op, EmergencyError> {
        let json = serde_json::to_vec(self).map_err(|e| EmergencyError::invalid(e.to_string()))?;
        Ok(Op::Set { key: key.clone(), value: json.into(), ttl: Ttl::Never, when })
    }
}

/// The lease that a bot beats, and its record.
pub(crate) fn keys(bot: &BotId) -> Result<(Key, Key), EmergencyError> {
    Ok((Key::lease(format!("emergency/beat/{bot}"))?, Key::record(format!("{BOTS}{bot}"))?))
}

/// Beats a durable lease, so that somebody notices when this bot falls silent: its process died, hangs, or lost the store.
///
/// A bot that comes back does not un-halt anything.
#[derive(Debug)]
pub struct Heartbeat {
    bot: BotId,
    /// Unique to this object, not to the bot.
    run: String,
    store: Arc<dyn StateStore>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    config: HeartbeatConfig,
    lease: Key,
    record: Key,
    fence: tokio::sync::Mutex<Option<u64>>,
    missed: AtomicU64,
}

impl Heartbeat {
    /// A heartbeat of the controller's bot, in its store. It does not beat yet.
    ///
    /// # Errors
    /// `Invalid` unless the interval is above zero, the time to live at least twice that, and at most 16 scopes are to be halted.
    pub fn new(switch: &EmergencyController, config: HeartbeatConfig) -> Result<Self, EmergencyError> {
        if config.interval.is_zero() || config.ttl < config.interval * 2 || config.halts.len() > HALTS_MAX {
            let rule = "a heartbeat needs an interval above zero, at least two of them in its time to live, and at most 16 scopes";
            return Err(EmergencyError::invalid(rule));
        }
        let bot = switch.id().clone();
        let (lease, record) = keys(&bot)?;
        Ok(Self {
            run: format!("{bot}/{}", EventId::generate()),
            bot,
            store: Arc::clone(&switch.store),
            namespace: switch.namespace.clone(),
            clock: Arc::clone(&switch.clock),
            config,
            lease,
            record,
            fence: tokio::sync::Mutex::new(None),
            missed: AtomicU64::new(0),
        })
    }

    /// Beats once. The first beat, and the first one after the bot was declared dead, registers the bot as alive.
    ///
    /// # Errors
    /// `AlreadyBeating` while another run of the bot, or a watcher that buries it, has the lease: wait for it. `DeclaredDead` once,
    /// when a watcher was faster: its orders were canceled and its scopes halted; reconcile before the next beat. `Store` if
    /// the store failed; the time goes on.
    ///
    /// # Cancel safety
    /// A dropped beat is done or not; the next one repeats it.
    pub async fn beat(&self) -> Result<(), EmergencyError> {
        let mut held = self.fence.lock().await;
        let beaten = match *held {
            Some(fence) => self.renew(fence).await.map(|()| fence),
            None => self.register().await,
        };
        match beaten {
            Ok(fence) => {
                *held = Some(fence);
                Ok(())
            }
            Err(e) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                if matches!(e, EmergencyError::DeclaredDead { .. }) {
                    *held = None;
                }
                Err(e)
            }
        }
    }

    async fn renew(&self, fence: u64) -> Result<(), EmergencyError> {
        let (key, holder, ttl) = (self.lease.clone(), self.run.clone(), self.config.ttl);
        let batch = Batch::new(self.namespace.clone()).with(Op::RenewLease { key, holder, fence, ttl });
        match self.store.apply(batch).await {
            Ok(_) => Ok(()),
            Err(StoreError::Fenced { .. }) => Err(EmergencyError::DeclaredDead { bot: self.bot.clone() }),
            Err(e) => Err(e.into()),
        }
    }

    async fn register(&self) -> Result<u64, EmergencyError> {
        let entry = self.store.get(&self.namespace, &self.record).await?;
        let when = entry.as_ref().map_or(When::Absent, |e| e.version.map_or(When::Exists, When::Version));
        let record = BotRecord {
            schema: SCHEMA,
            bot: self.bot.clone(),
            run: self.run.clone(),
            life: BotLife::Alive,
            since: self.clock.wall(),
            ttl_ms: u64::try_from(self.config.ttl.as_millis()).unwrap_or(u64::MAX),
            halts: self.config.halts.clone(),
            death: entry.as_ref().and_then(BotRecord::read).and_then(|r| r.death),
        };
        let (key, holder, ttl) = (self.lease.clone(), self.run.clone(), self.config.ttl);
        let batch = Batch::new(self.namespace.clone())
            .with(Op::AcquireLease { key, holder, ttl })
            .with(record.set(&self.record, when)?);
        match self.store.apply(batch).await {
            Ok(applied) => match applied.first() {
                Some(Applied::Lease(grant)) => Ok(grant.fence),
                _ => Err(EmergencyError::invalid("the store granted a lease without a fence")),
            },
            Err(StoreError::LeaseHeld { holder, expires_at, .. }) => {
                Err(EmergencyError::AlreadyBeating { bot: self.bot.clone(), holder, until: expires_at })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Says goodbye: no watcher minds the silence that follows.
    ///
    /// # Errors
    /// `DeclaredDead` if a watcher was faster; `Store`: the silence will be noticed.
    ///
    /// # Cancel safety
    /// A dropped goodbye is said or not.
    pub async fn stop(&self) -> Result<(), EmergencyError> {
        let mut held = self.fence.lock().await;
        let Some(fence) = *held else { return Ok(()) };
        let entry = self.store.get(&self.namespace, &self.record).await?;
        let mut batch = Batch::new(self.namespace.clone()).with(Op::ReleaseLease { key: self.lease.clone(), fence });
        if let Some((mut record, version)) = entry.and_then(|e| Some((BotRecord::read(&e)?, e.version?))) {
            record.life = BotLife::Stopped;
            batch = batch.with(record.set(&self.record, When::Version(version))?);
        }
        match self.store.apply(batch).await {
            Ok(_) => {
                *held = None;
                Ok(())
            }
            Err(StoreError::Fenced { .. } | StoreError::Mismatch { .. }) => {
                *held = None;
                Err(EmergencyError::DeclaredDead { bot: self.bot.clone() })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// How many beats failed.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Beats every interval until the guard is dropped. **Then the bot falls silent**: say goodbye with [`stop`](Self::stop) first, or be
    /// taken for dead.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(self: &Arc<Self>) -> HeartbeatGuard {
        let beating = Arc::clone(self);
        HeartbeatGuard(tokio::spawn(async move {
            loop {
                // Counted there; there is nothing to do but to beat again.
                let _ = beating.beat().await;
                beating.clock.sleep(beating.config.interval).await;
            }
        }))
    }
}

/// Ends the beating when dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the beating, and the bot is taken for dead"]
pub struct HeartbeatGuard(JoinHandle<()>);

impl Drop for HeartbeatGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
