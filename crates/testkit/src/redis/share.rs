//! One Redis for many test processes.

use std::{fmt::Write as _, path::Path, sync::OnceLock};

use super::{
    Mode, RedisCluster, RedisServer, Reply, Setup,
    cluster::{Kept, NODES},
};
use crate::{
    home::Home,
    shared::{Joined, Share, join},
};

impl RedisServer {
    /// The server that all test processes of this workspace and user share: the first starts it, and it ends some seconds after the
    /// last one has. Tests keep apart by a prefix of their own ([`crate::unique_name`]).
    ///
    /// # Panics
    /// As [`RedisServer::start`], or if no other process gets it started within two minutes.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Joined<RedisServer>> = OnceLock::new();
        &SERVER.get_or_init(|| join("redis", Self::start_in)).server
    }

    /// As [`RedisServer::shared`], with TLS.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn shared_tls() -> &'static Self {
        static SERVER: OnceLock<Joined<RedisServer>> = OnceLock::new();
        let start = |dir: &Path| Self::builder().tls().start_in(Home::Shared(dir.to_owned()));
        &SERVER.get_or_init(|| join("redis-tls", start)).server
    }

    fn find(home: Home, line: &str, mode: Mode) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (pid, port) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let server = Self { process: None, pid, port, setup: Setup { mode, ..Setup::default() }, home };
        // On a port that another server took the wrong one answers: ask who it is.
        let info = server.try_cli(&["INFO", "server"]).ok()?.text();
        let alive = info.lines().any(|line| line == format!("process_id:{pid}"));
        (alive && server.try_cli(&["PING"]).ok()? == Reply::Status("PONG".to_owned())).then_some(server)
    }
}

impl Share for RedisServer {
    const POLITE: &str = "KILL";

    fn start_in(dir: &Path) -> Self {
        Self::builder().start_in(Home::Shared(dir.to_owned()))
    }

    fn describe(&self) -> String {
        format!("{} {} {}\n", self.pid, self.port, self.setup.mode == Mode::Tls)
    }

    fn attach(dir: &Path, description: &str) -> Option<Self> {
        let mode = if description.trim_end().ends_with("true") { Mode::Tls } else { Mode::Plain };
        Self::find(Home::Shared(dir.to_owned()), description, mode)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.pid]
    }

    fn release(&mut self) {
        if let Some(process) = self.process.take() {
            process.release();
        }
    }
}

impl RedisCluster {
    /// The cluster that all test processes of this workspace and user share, as [`RedisServer::shared`]. Its nodes give each other
    /// more time than those of a private one, so that a busy machine does not look like a dead master.
    ///
    /// # Panics
    /// As [`RedisCluster::start`], or if no other process gets it started within two minutes.
    #[must_use]
    pub fn shared() -> &'static Self {
        static CLUSTER: OnceLock<Joined<RedisCluster>> = OnceLock::new();
        &CLUSTER.get_or_init(|| join("redis-cluster", Self::start_in)).server
    }
}

impl Share for RedisCluster {
    const POLITE: &str = "KILL";

    fn start_in(dir: &Path) -> Self {
        Self::start_with(Kept::Shared(dir), 10_000)
    }

    fn describe(&self) -> String {
        self.nodes().iter().fold(String::new(), |mut text, node| {
            writeln!(text, "{} {}", node.pid, node.port).expect("writing to memory");
            text
        })
    }

    fn attach(dir: &Path, description: &str) -> Option<Self> {
        let kept = Kept::Shared(dir);
        let find = |(index, line)| RedisServer::find(kept.home(index), line, Mode::Cluster);
        let nodes: Vec<RedisServer> = description.lines().enumerate().map(find).collect::<Option<_>>()?;
        (nodes.len() == NODES).then(|| Self::of(nodes))
    }

    fn pids(&self) -> Vec<u32> {
        self.nodes().iter().map(RedisServer::pid).collect()
    }

    fn release(&mut self) {
        self.nodes_mut().iter_mut().for_each(Share::release);
    }
}
