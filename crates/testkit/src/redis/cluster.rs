//! A private Redis Cluster: three masters with a replica each.

use std::{net::SocketAddr, path::Path, time::Duration};

use super::{Mode, RedisServer, Reply};
use crate::{TestDir, home::Home, process::wait_until};

/// How many masters; as many replicas.
const MASTERS: usize = 3;
/// How many servers.
pub(super) const NODES: usize = 2 * MASTERS;
/// How many slots a cluster has, by its specification.
const SLOTS: usize = 16_384;
/// How long the nodes may take to agree on anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the nodes keep their files.
pub(super) enum Kept<'a> {
    Private,
    Shared(&'a Path),
}

impl Kept<'_> {
    pub(super) fn home(&self, index: usize) -> Home {
        match self {
            Self::Private => Home::Private(TestDir::new()),
            Self::Shared(dir) => Home::Shared(dir.join(format!("node-{index}"))),
        }
    }
}

/// Six redis-servers that form a cluster: nodes 0 to 2 start as masters of a third of the slots each, nodes 3 to 5 as their replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

/// A slot on its way from one master to another: the old one answers `ASK` for what it no longer has, the new one takes `ASKING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMove {
    /// Which slot.
    pub slot: u16,
    /// Index of the master that gives it away.
    pub from: usize,
    /// Index of the master that gets it.
    pub to: usize,
}

impl RedisCluster {
    /// A cluster whose nodes call another dead after a second.
    ///
    /// # Panics
    /// If redis-server is not installed (the message says how to), or the nodes do not agree within a minute.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Kept::Private, 1_000)
    }

    pub(super) fn start_with(kept: Kept<'_>, timeout_ms: u32) -> Self {
        let timeout_ms = timeout_ms.to_string();
        let start = |home: Home| {
            let builder = RedisServer::builder().mode(Mode::Cluster).config("cluster-enabled", "yes");
            let builder =
                builder.config("cluster-node-timeout", &timeout_ms).config("cluster-replica-validity-factor", "0");
            builder.start_in(home)
        };
        let homes: Vec<Home> = (0..NODES).map(|index| kept.home(index)).collect();
        for home in homes.iter().filter(|home| matches!(home, Home::Shared(_))) {
            std::fs::create_dir(home.path()).expect("the directory is new");
        }
        let nodes = std::thread::scope(|scope| {
            let threads: Vec<_> = homes.into_iter().map(|home| scope.spawn(move || start(home))).collect();
            threads.into_iter().map(|thread| thread.join().expect("every node must start")).collect()
        });
        let cluster = Self { nodes };
        cluster.form();
        cluster
    }

    pub(super) fn of(nodes: Vec<RedisServer>) -> Self {
        Self { nodes }
    }

    /// Makes the started servers one cluster.
    fn form(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            node.done(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if index < MASTERS {
                let (first, last) = (SLOTS * index / MASTERS, SLOTS * (index + 1) / MASTERS - 1);
                node.done(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
        }
        // Everybody meets everybody: waiting for the rumour takes longer.
        for (index, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[index + 1..] {
                let bus = other.cli(&["CONFIG", "GET", "cluster-port"]).text();
                let bus = bus.lines().last().unwrap_or_default().to_owned();
                node.done(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &bus]);
            }
        }
        let ids: Vec<String> = self.nodes.iter().map(RedisServer::cluster_id).collect();
        self.wait("meet", |node| {
            let known = node.cli(&["CLUSTER", "NODES"]).text();
            let met = ids.iter().all(|id| known.lines().any(|line| line.starts_with(id.as_str())));
            met && !known.contains("handshake")
        });
        for (index, replica) in self.nodes[MASTERS..].iter().enumerate() {
            replica.done(&["CLUSTER", "REPLICATE", &ids[index]]);
        }
        self.wait_until_whole();
    }

    /// The six servers.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The six servers, to kill, stop and restart.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// Where a client may ask for the layout of the cluster.
    #[must_use]
    pub fn seeds(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(RedisServer::addr).collect()
    }

    /// The same as URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key, as the servers compute it.
    ///
    /// # Panics
    /// If no node answers.
    #[must_use]
    pub fn slot_of(&self, key: &str) -> u16 {
        let answers = self.alive().map(|node| node.try_cli(&["CLUSTER", "KEYSLOT", key]));
        let slot = answers.flatten().find_map(|reply| reply.text().parse().ok());
        slot.expect("a node must answer")
    }

    /// The index of the master that has `slot` now, if the nodes that live agree on one that lives.
    #[must_use]
    pub fn master_of(&self, slot: u16) -> Option<usize> {
        let mut owners = self.alive().map(|node| self.owner_as_seen_by(node, slot));
        let first = owners.next()??;
        (owners.all(|owner| owner == Some(first)) && self.nodes[first].process_runs()).then_some(first)
    }

    /// Kills the master of `slot` (SIGKILL) and answers its index.
    ///
    /// # Panics
    /// If the slot has no master, or the cluster is a shared one.
    pub fn kill_master_of(&mut self, slot: u16) -> usize {
        let index = self.master_of(slot).expect("the slot must have a master");
        self.nodes[index].kill();
        index
    }

    /// Waits until another master than `old` has `slot` and all nodes that live call the cluster whole; answers the new one's index.
    ///
    /// # Panics
    /// If that takes more than a minute.
    pub fn wait_for_failover(&self, slot: u16, old: usize) -> usize {
        let new = wait_until(PATIENCE, || self.master_of(slot).filter(|&new| new != old));
        let new = new.expect("a replica must take over");
        self.wait("recover", RedisServer::cluster_is_ok);
        new
    }

    /// Waits until every node that lives calls the cluster whole and every replica has its master's data.
    ///
    /// # Panics
    /// If that takes more than a minute.
    pub fn wait_until_whole(&self) {
        self.wait("agree", |node| {
            let role = node.cli(&["INFO", "replication"]).text();
            node.cluster_is_ok() && (role.contains("role:master") || role.contains("master_link_status:up"))
        });
    }

    /// Starts to move `slot` to another master, which makes the old one answer `ASK` for keys that it does not have.
    ///
    /// # Panics
    /// If the slot has no master.
    #[must_use]
    pub fn begin_move(&self, slot: u16) -> SlotMove {
        let from = self.master_of(slot).expect("the slot must have a master");
        let is_master = |&index: &usize| {
            index != from
                && self.nodes[index].process_runs()
                && self.nodes[index].cli(&["INFO", "replication"]).text().contains("role:master")
        };
        let to = (0..NODES).find(is_master).expect("there must be another master");
        let text = slot.to_string();
        let (giver, taker) = (&self.nodes[from], &self.nodes[to]);
        taker.done(&["CLUSTER", "SETSLOT", &text, "IMPORTING", &giver.cluster_id()]);
        giver.done(&["CLUSTER", "SETSLOT", &text, "MIGRATING", &taker.cluster_id()]);
        SlotMove { slot, from, to }
    }

    /// Moves the keys of a slot whose move has begun, and answers how many.
    ///
    /// # Panics
    /// If a node refuses.
    pub fn move_keys(&self, moving: SlotMove) -> usize {
        let (giver, taker) = (&self.nodes[moving.from], self.nodes[moving.to].port.to_string());
        let mut moved = 0;
        loop {
            let Reply::Array(keys) = giver.cli(&["CLUSTER", "GETKEYSINSLOT", &moving.slot.to_string(), "100"]) else {
                panic!("GETKEYSINSLOT must answer a list");
            };
            if keys.is_empty() {
                return moved;
            }
            for key in keys {
                let Reply::Bulk(Some(key)) = key else { panic!("a key is bytes") };
                let args: [&[u8]; 6] = [b"MIGRATE", b"127.0.0.1", taker.as_bytes(), &key, b"0", b"5000"];
                giver.done(&args);
                moved += 1;
            }
        }
    }

    /// Ends a move: from now on the old master answers `MOVED`. Keys must have been moved.
    ///
    /// # Panics
    /// If a node refuses, or the others do not hear of it within a minute.
    pub fn finish_move(&self, moving: SlotMove) {
        let id = self.nodes[moving.to].cluster_id();
        let slot = moving.slot.to_string();
        // The one that gets it first, or the slot could be nobody's.
        self.nodes[moving.to].done(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        self.nodes[moving.from].done(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        wait_until(PATIENCE, || (self.master_of(moving.slot) == Some(moving.to)).then_some(()))
            .expect("all nodes must hear of the move");
    }

    /// Moves `slot` with its keys to another master, whose index it answers.
    ///
    /// # Panics
    /// As the three steps.
    pub fn move_slot(&self, slot: u16) -> SlotMove {
        let moving = self.begin_move(slot);
        self.move_keys(moving);
        self.finish_move(moving);
        moving
    }

    fn alive(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| node.process_runs())
    }

    fn owner_as_seen_by(&self, node: &RedisServer, slot: u16) -> Option<usize> {
        // [[first, last, [ip, port, id, ...], replicas...], ...]
        let Reply::Array(ranges) = node.try_cli(&["CLUSTER", "SLOTS"]).ok()? else { return None };
        ranges.iter().find_map(|range| {
            let Reply::Array(range) = range else { return None };
            let [Reply::Integer(first), Reply::Integer(last), Reply::Array(master), ..] = range.as_slice() else {
                return None;
            };
            let Reply::Integer(port) = master.get(1)? else { return None };
            let held = (*first..=*last).contains(&i64::from(slot));
            held.then(|| self.nodes.iter().position(|node| i64::from(node.port) == *port))?
        })
    }

    fn wait(&self, what: &str, done: impl Fn(&RedisServer) -> bool) {
        let all = wait_until(PATIENCE, || self.alive().all(&done).then_some(()));
        all.unwrap_or_else(|| {
            let views = self.alive().map(|node| node.cli(&["CLUSTER", "NODES"]).text()).collect::<Vec<_>>();
            panic!("the nodes do not {what}: {}", views.join("\n"))
        });
    }
}

impl RedisServer {
    /// A command that must not be refused.
    pub(super) fn done<A: AsRef<[u8]>>(&self, args: &[A]) {
        if let Reply::Error(refusal) = self.cli(args) {
            let command: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg.as_ref())).collect();
            panic!("redis refused {}: {refusal}", command.join(" "));
        }
    }

    fn cluster_id(&self) -> String {
        self.cli(&["CLUSTER", "MYID"]).text()
    }

    fn cluster_is_ok(&self) -> bool {
        self.cli(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
    }

    /// Whether it was not killed; a shared one counts as alive.
    pub(super) fn process_runs(&self) -> bool {
        self.process.is_some() || matches!(self.home, Home::Shared(_))
    }
}
