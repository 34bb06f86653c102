//! A private master with two replicas and the three sentinels that watch it.

use std::{net::SocketAddr, time::Duration};

use super::{Mode, RedisBuilder, RedisServer};
use crate::{TestDir, home::Home, process::wait_until};

/// What the sentinels call the master.
const SERVICE: &str = "infra";
/// How many sentinels; two of them must agree that the master is gone.
const SENTINELS: usize = 3;
/// How many servers of data.
const SERVERS: usize = 3;
/// How long they may take to agree on anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A master with two replicas, watched by three sentinels that call it gone after a second of silence.
#[derive(Debug)]
pub struct RedisSentinel {
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
}

impl RedisSentinel {
    /// Starts all six and waits until the sentinels know the replicas and each other.
    ///
    /// # Panics
    /// If redis-server is not installed (the message says how to), or they do not agree within a minute.
    #[must_use]
    pub fn start() -> Self {
        let master = RedisServer::start();
        let mut servers = vec![master];
        for _ in 1..SERVERS {
            let replica = RedisServer::builder().replica_of(&servers[0]).start();
            servers.push(replica);
        }
        let up = |replica: &RedisServer| replica.cli(&["INFO", "replication"]).text().contains("master_link_status:up");
        wait_until(PATIENCE, || servers[1..].iter().all(up).then_some(())).expect("the replicas must follow");

        let sentinel = || {
            let builder = RedisBuilder::bare().mode(Mode::Sentinel);
            let builder = builder.sentinel(&format!("monitor {SERVICE} 127.0.0.1 {} 2", servers[0].port));
            let builder = builder.sentinel(&format!("down-after-milliseconds {SERVICE} 1000"));
            let builder = builder.sentinel(&format!("failover-timeout {SERVICE} 3000"));
            builder.start_in(Home::Private(TestDir::new()))
        };
        let sentinels: Vec<_> = (0..SENTINELS).map(|_| sentinel()).collect();
        let set = Self { sentinels, servers };
        set.wait_until_known();
        set
    }

    /// Where a client asks for the master.
    #[must_use]
    pub fn sentinels(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(RedisServer::addr).collect()
    }

    /// What the sentinels call the master.
    #[must_use]
    pub fn service(&self) -> &'static str {
        SERVICE
    }

    /// The servers of data; the first began as master.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The servers of data, to kill, stop and restart.
    #[must_use]
    pub fn servers_mut(&mut self) -> &mut [RedisServer] {
        &mut self.servers
    }

    /// The sentinels themselves, to kill, stop and restart.
    #[must_use]
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// The index of the server that all sentinels that live call master, if it lives and calls itself so.
    #[must_use]
    pub fn master(&self) -> Option<usize> {
        let mut named = self.sentinels.iter().filter(|sentinel| sentinel.process_runs()).map(|sentinel| {
            let address = sentinel.try_cli(&["SENTINEL", "get-master-addr-by-name", SERVICE]).ok()?.text();
            let port: u16 = address.lines().last()?.parse().ok()?;
            self.servers.iter().position(|server| server.port == port)
        });
        let first = named.next()??;
        if !named.all(|other| other == Some(first)) {
            return None;
        }
        let server = &self.servers[first];
        let role = server.try_cli(&["ROLE"]).ok()?.text();
        (server.process_runs() && role.starts_with("master")).then_some(first)
    }

    /// Kills the master (SIGKILL) and answers its index.
    ///
    /// # Panics
    /// If there is none.
    pub fn kill_master(&mut self) -> usize {
        let index = self.master().expect("there must be a master");
        self.servers[index].kill();
        index
    }

    /// Waits until the sentinels agree on another master than `old`, and answers its index.
    ///
    /// # Panics
    /// If that takes more than a minute.
    pub fn wait_for_new_master(&self, old: usize) -> usize {
        let new = wait_until(PATIENCE, || self.master().filter(|&new| new != old));
        new.expect("the sentinels must make another server the master")
    }

    fn wait_until_known(&self) {
        let knows = |sentinel: &RedisServer| {
            let state = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]).text();
            let lines: Vec<&str> = state.lines().collect();
            let field = |name: &str| lines.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
            field("num-slaves") == Some("2")
                && field("num-other-sentinels") == Some("2")
                && field("flags") == Some("master")
        };
        wait_until(PATIENCE, || self.sentinels.iter().all(knows).then_some(()))
            .expect("the sentinels must find the replicas and each other");
    }
}
