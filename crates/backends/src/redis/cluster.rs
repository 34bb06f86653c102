//! Which node of a cluster owns which slot.
//!
//! The driver's own cluster client sends a command again after its connection broke, which may run a write twice; this
//! router sends again only what a node said it has not run.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;
use redis::{ServerError, Value};

use super::{
    classify,
    dial::{Dialer, within},
    gate::Gate,
    node::{Node, Place},
    slot::SLOTS,
};
use crate::error::BackendError;

const NOBODY: u16 = u16::MAX;
/// The shortest time between two refreshes that errors ask for.
const REFRESH_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

#[derive(Clone)]
struct Map {
    owners: Box<[u16]>,
    nodes: Vec<Arc<Node>>,
    /// Counts whole refreshes.
    epoch: u64,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Arc<Node>> {
        self.nodes.get(usize::from(*self.owners.get(usize::from(slot))?))
    }
}

pub(super) struct Cluster {
    dialer: Arc<Dialer>,
    seeds: Vec<(String, u16)>,
    map: ArcSwapOption<Map>,
    gate: Gate,
    refreshing: AtomicBool,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<(String, u16)>, dialer: Arc<Dialer>) -> Arc<Self> {
        let (map, gate, refreshing) = (ArcSwapOption::empty(), Gate::default(), AtomicBool::new(false));
        Arc::new(Self { dialer, seeds, map, gate, refreshing })
    }

    /// The owner of a slot, if the map is there.
    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.map.load().as_ref()?.owner(slot).cloned()
    }

    /// The owner of a slot; asks the cluster if there is no map yet.
    pub(super) async fn find(self: &Arc<Self>, slot: u16) -> Result<Arc<Node>, BackendError> {
        self.dialer.is_open()?;
        let map = match self.map.load_full() {
            Some(map) => map,
            None => {
                let first = self.seeds.first().cloned().unwrap_or_default();
                within(self.dialer.config.patience(), &first.0, first.1, self.refresh(0)).await?
            }
        };
        map.owner(slot).cloned().ok_or_else(|| {
            self.refresh_soon();
            BackendError::Transient { reason: format!("no node of the cluster serves slot {slot}") }
        })
    }

    /// All nodes known to own slots.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        let Some(map) = self.map.load_full() else { return Vec::new() };
        let owns = |at: usize| map.owners.iter().any(|owner| usize::from(*owner) == at);
        map.nodes.iter().enumerate().filter(|(at, _)| owns(*at)).map(|(_, node)| Arc::clone(node)).collect()
    }

    /// The node that a `MOVED` or `ASK` names, and what that changes in the map.
    pub(super) fn redirected(self: &Arc<Self>, from: &Node, error: &ServerError) -> Option<Arc<Node>> {
        let (slot, address) = error.details()?.split_once(' ')?;
        let (host, port) = address.rsplit_once(':')?;
        // An empty host means: the one you are talking to.
        let host = if host.is_empty() { from.name().0 } else { host.to_owned() };
        let (slot, port) = (slot.parse::<usize>().ok()?, port.parse().ok()?);
        let moved = error.code() == "MOVED";
        let wanted = self.known(&host, port).unwrap_or_else(|| self.member(host.clone(), port));
        self.map.rcu(|map| {
            let mut map = Map::clone(map.as_ref()?);
            let at = map.nodes.iter().position(|node| Arc::ptr_eq(node, &wanted)).unwrap_or_else(|| {
                map.nodes.push(Arc::clone(&wanted));
                map.nodes.len() - 1
            });
            if let (true, Some(owner)) = (moved, map.owners.get_mut(slot)) {
                *owner = u16::try_from(at).unwrap_or(NOBODY);
            }
            Some(Arc::new(map))
        });
        if moved {
            self.refresh_soon();
        }
        Some(wanted)
    }

    fn known(&self, host: &str, port: u16) -> Option<Arc<Node>> {
        let map = self.map.load_full()?;
        let same = |node: &&Arc<Node>| matches!(&node.place, Place::Member(h, p) if h == host && *p == port);
        map.nodes.iter().find(same).cloned()
    }

    fn member(&self, host: String, port: u16) -> Arc<Node> {
        Node::new(Place::Member(host, port), Arc::clone(&self.dialer))
    }

    /// Has the map renewed in the background: once at a time, and not more often than the pause allows.
    pub(super) fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = Arc::clone(self);
        let seen = self.map.load().as_ref().map_or(0, |map| map.epoch);
        tokio::spawn(async move {
            let cluster = Refreshing(cluster);
            // A failure is kept by the gate for whoever asks next.
            let _ = cluster.0.refresh(seen).await;
            tokio::time::sleep(REFRESH_PAUSE).await;
        });
    }

    /// Asks the cluster anew who owns what.
    pub(super) async fn renew(self: &Arc<Self>) -> Result<(), BackendError> {
        let seen = self.map.load().as_ref().map_or(0, |map| map.epoch);
        self.refresh(seen).await.map(|_| ())
    }

    /// A map newer than epoch `seen`.
    async fn refresh(self: &Arc<Self>, seen: u64) -> Result<Arc<Map>, BackendError> {
        let newer = || self.map.load_full().filter(|map| map.epoch > seen);
        let cluster = Arc::clone(self);
        self.gate.pass(newer, move || async move { cluster.fetch().await }).await
    }

    async fn fetch(&self) -> Result<Arc<Map>, BackendError> {
        let mut candidates = self.nodes();
        candidates.sort_by_key(|node| node.live().is_err());
        for (host, port) in &self.seeds {
            if self.known(host, *port).is_none() {
                candidates.push(self.member(host.clone(), *port));
            }
        }
        let share = self.dialer.config.connect_timeout / u32::try_from(candidates.len().clamp(1, 4)).unwrap_or(1);
        let mut last = BackendError::Other { reason: "the cluster has no seeds".to_owned() };
        for node in candidates {
            let (host, port) = node.name();
            let asked = async {
                let live = node.acquire().await?;
                let mut cmd = redis::cmd("CLUSTER");
                cmd.arg("SLOTS");
                let reply = self.dialer.ask(&live.line, &cmd).await?;
                parse(&host, &classify::reply(&live.line.target, reply)?)
            };
            match within(share, &host, port, asked).await {
                Ok(ranges) => return Ok(self.adopt(&node, ranges)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Makes the map of what a node said. Nodes that stay keep their connections.
    fn adopt(&self, asked: &Arc<Node>, ranges: Vec<Range>) -> Arc<Map> {
        let old = self.map.load_full();
        let mut map = Map { owners: vec![NOBODY; SLOTS].into(), nodes: Vec::new(), epoch: 1 };
        map.epoch += old.as_ref().map_or(0, |old| old.epoch);
        for Range { first, last, host, port } in ranges {
            let same = |node: &Arc<Node>| matches!(&node.place, Place::Member(h, p) if *h == host && *p == port);
            let at = map.nodes.iter().position(same).unwrap_or_else(|| {
                let node = self.known(&host, port).or_else(|| same(asked).then(|| Arc::clone(asked)));
                map.nodes.push(node.unwrap_or_else(|| self.member(host.clone(), port)));
                map.nodes.len() - 1
            });
            if let Some(owners) = map.owners.get_mut(usize::from(first)..=usize::from(last)) {
                owners.fill(u16::try_from(at).unwrap_or(NOBODY));
            }
        }
        if let Some(old) = old {
            let owned = |at: usize| old.owners.iter().any(|owner| usize::from(*owner) == at);
            let gone = |node: &Arc<Node>| !map.nodes.iter().any(|kept| Arc::ptr_eq(kept, node));
            let lost = old.nodes.iter().enumerate().filter(|(at, node)| owned(*at) && gone(node)).count();
            self.dialer.counters.failovers.fetch_add(lost as u64, Ordering::Release);
        }
        let map = Arc::new(map);
        self.map.store(Some(Arc::clone(&map)));
        map
    }

    pub(super) fn close(&self) {
        if let Some(map) = self.map.swap(None) {
            map.nodes.iter().for_each(|node| node.close());
        }
    }
}

/// Allows the next refresh when this one ends, be it with its runtime.
struct Refreshing(Arc<Cluster>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.refreshing.store(false, Ordering::Release);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    host: String,
    port: u16,
}

/// Reads `CLUSTER SLOTS`; a node that does not know its own address is at `asked`.
fn parse(asked: &str, reply: &Value) -> Result<Vec<Range>, BackendError> {
    let unreadable = || BackendError::Other { reason: "CLUSTER SLOTS answered something unreadable".to_owned() };
    let slot = |value: Option<&Value>| match value {
        Some(Value::Int(n)) if *n < SLOTS as i64 => u16::try_from(*n).ok(),
        _ => None,
    };
    let Value::Array(entries) = reply else { return Err(unreadable()) };
    let ranges = entries.iter().map(|entry| {
        let Value::Array(entry) = entry else { return None };
        let (first, last) = (slot(entry.first())?, slot(entry.get(1))?);
        let Some(Value::Array(node)) = entry.get(2) else { return None };
        let host = match node.first()? {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            _ => asked.to_owned(),
        };
        let Some(Value::Int(port)) = node.get(1) else { return None };
        (first <= last).then_some(Range { first, last, host, port: u16::try_from(*port).ok()? })
    });
    ranges.collect::<Option<Vec<_>>>().ok_or_else(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read() {
        let text = b"*2\r\n*3\r\n:0\r\n:5460\r\n*2\r\n$9\r\n127.0.0.1\r\n:7000\r\n*3\r\n:5461\r\n:16383\r\n*2\r\n$0\r\n\r\n:7001\r\n";
        let ranges = parse("seed", &redis::parse_redis_value(text).unwrap()).unwrap();
        assert_eq!(ranges[0], Range { first: 0, last: 5460, host: "127.0.0.1".into(), port: 7000 });
        assert_eq!(ranges[1], Range { first: 5461, last: 16383, host: "seed".into(), port: 7001 });
        for wrong in [&b"+OK\r\n"[..], b"*1\r\n*1\r\n:0\r\n", b"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n"] {
            assert!(parse("seed", &redis::parse_redis_value(wrong).unwrap()).is_err());
        }
    }
}
