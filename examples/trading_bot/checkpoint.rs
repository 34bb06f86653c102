//! How far a run is: written in the batch of every effect, so that a killed run goes on exactly there.

use std::sync::Arc;

use infra_factory::state_store::{Key, Op, StateStore, Ttl, When};
use infra_types::{BotId, Namespace, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::strategy::Strategy;

/// Everything that decides what the run does next, besides the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// Which input: a run goes on only with the same one.
    pub fingerprint: String,
    /// Which exchange behaviour.
    pub seed: u64,
    /// Events that are wholly done.
    pub events: u64,
    /// The replay's time.
    pub now: Timestamp,
    /// Reports of the exchange up to here are counted.
    pub polled: Timestamp,
    /// The strategy's state.
    pub strategy: Strategy,
    /// The time of each instrument's last quote, for the risk engine.
    pub quoted: Vec<Option<Timestamp>>,
    /// Quotes that the risk engine refused.
    pub quotes_refused: u64,
    /// The kill switch that `--halt-after` asked for was pulled, and working orders were taken back.
    pub is_halted: bool,
}

/// The checkpoint that operations of the moment carry along.
#[derive(Clone)]
pub(crate) struct Cursor {
    key: Key,
    current: Arc<Mutex<Checkpoint>>,
}

impl Cursor {
    /// Reads the checkpoint of `bot`, or begins with `fresh`.
    pub(crate) async fn open(
        store: &dyn StateStore,
        namespace: &Namespace,
        bot: &BotId,
        fresh: Checkpoint,
    ) -> Result<(Self, bool), String> {
        let key = Key::record(format!("bot/{bot}/checkpoint")).map_err(|e| e.to_string())?;
        let found = store.get(namespace, &key).await.map_err(|e| e.to_string())?;
        let (checkpoint, goes_on) = match found.as_ref().and_then(|entry| entry.value.as_bytes()) {
            None => (fresh, false),
            Some(bytes) => {
                let stored: Checkpoint =
                    serde_json::from_slice(bytes).map_err(|e| format!("the checkpoint of {bot} is damaged: {e}"))?;
                if stored.fingerprint != fresh.fingerprint || stored.seed != fresh.seed {
                    return Err(format!(
                        "bot {bot} stopped in the middle of another input or seed ({}): give that one, or another --bot-id or --data-dir",
                        stored.seed
                    ));
                }
                (stored, true)
            }
        };
        Ok((Self { key, current: Arc::new(Mutex::new(checkpoint)) }, goes_on))
    }

    /// The checkpoint as it stands.
    pub(crate) fn get(&self) -> Checkpoint {
        self.current.lock().clone()
    }

    /// Changes it; it is written by the next batch that carries it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Checkpoint)) {
        change(&mut self.current.lock());
    }

    /// The operation that writes it.
    pub(crate) fn op(&self) -> Op {
        let value = serde_json::to_vec(&*self.current.lock()).unwrap_or_default().into();
        Op::Set { key: self.key.clone(), value, ttl: Ttl::Never, when: When::Always }
    }
}
