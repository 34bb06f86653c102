//! The connections to one server: found live or made, never waited for by two.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    config::RedisTopology,
    dial::{Dialer, Live, within},
    gate::Gate,
    sentinel,
    server::Expected,
};
use crate::error::BackendError;

/// How the server is found.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A server by itself, or the primary that sentinels name.
    Primary(RedisTopology),
    /// One node of a cluster.
    Member(String, u16),
}

#[derive(Default)]
struct Slot {
    live: ArcSwapOption<Live>,
    gate: Gate,
}

/// One server.
pub(super) struct Node {
    pub(super) place: Place,
    dialer: Arc<Dialer>,
    slots: Box<[Slot]>,
    next: AtomicUsize,
    /// The run id behind the last connection.
    identity: Mutex<Option<String>>,
}

impl Node {
    pub(super) fn new(place: Place, dialer: Arc<Dialer>) -> Arc<Self> {
        let slots = (0..dialer.config.connections.get()).map(|_| Slot::default()).collect();
        Arc::new(Self { place, dialer, slots, next: AtomicUsize::new(0), identity: Mutex::new(None) })
    }

    /// Whose turn it is.
    fn turn(&self) -> usize {
        match self.slots.len() {
            1 => 0,
            several => self.next.fetch_add(1, Ordering::Relaxed) % several,
        }
    }

    /// A connection not known to be dead, at once; or where one is missing.
    pub(super) fn live(&self) -> Result<Arc<Live>, usize> {
        let at = self.turn();
        alive(&self.slots[at]).ok_or(at)
    }

    /// A connection; makes it if there is none. Waits for at most the shorter of the two timeouts; connecting goes on without its
    /// waiters, for the next ones.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Arc<Live>, BackendError> {
        let at = match self.live() {
            Ok(live) => return Ok(live),
            Err(at) => at,
        };
        self.dialer.is_open()?;
        let slot = &self.slots[at];
        let node = Arc::clone(self);
        let passed = slot.gate.pass(|| alive(slot), move || async move { node.connect(at).await });
        let (host, port) = self.name();
        within(self.dialer.config.patience(), &host, port, passed).await
    }

    async fn connect(&self, at: usize) -> Result<Arc<Live>, BackendError> {
        let limit = self.dialer.config.connect_timeout;
        let dialed = match &self.place {
            Place::Primary(RedisTopology::Standalone { host, port }) => {
                self.dialer.dial(host, *port, Expected::Primary, limit).await
            }
            Place::Primary(topology) => sentinel::dial(&self.dialer, topology).await,
            Place::Member(host, port) => self.dialer.dial(host, *port, Expected::ClusterNode, limit).await,
        };
        let live = match dialed {
            Ok(live) => Arc::new(live),
            Err(error) => {
                self.dialer.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        };
        // Counted before anybody can get hold of the connection: who wants to look first must never send on it unseen.
        let before = std::mem::replace(&mut *self.identity.lock(), live.server.run_id.clone());
        if matches!(self.place, Place::Primary(_)) && before.is_some() && before != live.server.run_id {
            self.dialer.counters.failovers.fetch_add(1, Ordering::Release);
        }
        if self.slots[at].live.swap(Some(Arc::clone(&live))).is_some() {
            self.dialer.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        // Closed meanwhile: whoever closed may have been here before this connection was.
        self.dialer.is_open().inspect_err(|_| self.close())?;
        Ok(live)
    }

    /// Keeps new operations from the connections there are; those that wait for an answer still get it.
    pub(super) fn bury(&self) {
        for live in self.slots.iter().filter_map(|slot| slot.live.load_full()) {
            live.line.wire.bury();
        }
    }

    /// Lets go of the connections; each ends when the last operation on it does.
    pub(super) fn close(&self) {
        for slot in &self.slots {
            slot.live.store(None);
        }
    }

    pub(super) fn name(&self) -> (String, u16) {
        match &self.place {
            Place::Primary(RedisTopology::Standalone { host, port }) | Place::Member(host, port) => {
                (host.clone(), *port)
            }
            Place::Primary(
                RedisTopology::Sentinel { sentinels: several, .. } | RedisTopology::Cluster { seeds: several },
            ) => several.first().cloned().unwrap_or_default(),
        }
    }
}

fn alive(slot: &Slot) -> Option<Arc<Live>> {
    slot.live.load_full().filter(|live| !live.line.wire.is_dead())
}
