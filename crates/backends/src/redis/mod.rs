//! A handle on a Redis: one server, a primary behind sentinels, or a cluster.

mod classify;
mod cluster;
mod config;
mod dial;
mod ear;
mod frame;
mod gate;
mod node;
mod script;
mod send;
mod sentinel;
mod server;
mod slot;
mod statistics;
mod stream;
mod subscribe;
mod tls;
mod url;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use infra_types::{Clock, Health, SystemClock};
use redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;

use self::{
    cluster::Cluster,
    dial::Dialer,
    node::{Node, Place},
    send::Payload,
};
pub use self::{
    config::{RedisConfig, RedisTls, RedisTopology},
    script::RedisScript,
    server::{Fsync, RedisServer},
    slot::key_slot,
    statistics::RedisStatistics,
    subscribe::{RedisMessage, RedisSubscription},
};
use crate::error::BackendError;

/// What an operation does, and so what it means when its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing: a lost answer is `Transient`.
    Read,
    /// May change something: a lost answer is `Ambiguous`.
    Write,
}

enum Router {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
}

struct Inner {
    dialer: Arc<Dialer>,
    router: Router,
}

/// A handle on a Redis; clones share the connections. Needs a tokio runtime; the first operation connects.
///
/// **Time**: an operation ends within `operation_timeout`, or within twice that if it has to wait for a connection first.
/// Connecting itself may take `connect_timeout` and goes on for the next operations. While attempts to connect fail there is one at a time, and between two of them (at most half a second)
/// operations get the last one's error at once.
///
/// **Once**: an operation is sent once. It is sent again only after a server said that it has not run it: to another node
/// of a cluster (`MOVED`, `ASK`), or with the script that the server did not know (`NOSCRIPT`). Where the answer to a
/// write is lost the error is `Ambiguous`; with `Connect`, nothing was sent.
///
/// **Cancel safety**: dropping the future of a read forgets it; a write whose future is dropped may or may not run.
#[derive(Clone)]
pub struct Redis(Arc<Inner>, Option<Arc<AtomicU64>>);

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("config", &self.0.dialer.config).finish_non_exhaustive()
    }
}

impl Redis {
    /// A handle; no I/O happens yet.
    ///
    /// # Errors
    /// `InvalidConfig` if the settings make no sense.
    pub fn new(config: RedisConfig) -> Result<Self, BackendError> {
        config.validate()?;
        let topology = config.topology.clone();
        let dialer = Arc::new(Dialer {
            config,
            counters: Arc::default(),
            server: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
        });
        let router = match topology {
            RedisTopology::Cluster { seeds } => Router::Cluster(Cluster::new(seeds, Arc::clone(&dialer))),
            one => Router::One(Node::new(Place::Primary(one), Arc::clone(&dialer))),
        };
        Ok(Self(Arc::new(Inner { dialer, router }), None))
    }

    /// The same connections, as a handle that refuses every operation (`FailedOver`) once another server took over, or the same after a
    /// restart, until [`accept_failover`](Self::accept_failover): what one server acknowledged the next may never have received. A ping
    /// is answered all the same.
    #[must_use]
    pub fn guarded(&self) -> Self {
        Self(Arc::clone(&self.0), Some(Arc::new(AtomicU64::new(self.statistics().failovers))))
    }

    /// Goes on with the servers there are now. For handles that are not [`guarded`](Self::guarded), and their other clones, it changes
    /// nothing.
    pub fn accept_failover(&self) {
        if let Some(accepted) = &self.1 {
            accepted.store(self.statistics().failovers, Ordering::Release);
        }
    }

    /// Whether servers take over from each other, which may lose what the one before acknowledged: with sentinels or a cluster.
    #[must_use]
    pub fn may_fail_over(&self) -> bool {
        !matches!(self.0.dialer.config.topology, RedisTopology::Standalone { .. })
    }

    /// Sends one command to the server that owns `slot_key` (a cluster's; any other has only one) and answers its reply.
    ///
    /// # Errors
    /// `Connect`, `Auth`, `Tls`, `TooOld`, `Evicts`, `NotDurable`, `Unverified`, `ReadOnly`, `Full`, `Denied`, `Transient`,
    /// `Unavailable`, `Closed`: it has not run. `Ambiguous`: a write may have run. `Other`: the server's refusal, as the
    /// script or command gave it.
    ///
    /// # Cancel safety
    /// See [`Redis`].
    pub async fn query(&self, slot_key: &[u8], cmd: &Cmd, access: Access) -> Result<Value, BackendError> {
        self.0.run(slot_key, Payload::One(cmd), access, self.1.as_deref()).await
    }

    /// Calls a script by its hash; `call` comes from [`RedisScript::call`]. One round trip, two where the server does not
    /// know the script yet.
    ///
    /// # Errors
    /// As [`Redis::query`].
    ///
    /// # Cancel safety
    /// See [`Redis`].
    pub async fn script(
        &self,
        slot_key: &[u8],
        script: &RedisScript,
        call: &Cmd,
        access: Access,
    ) -> Result<Value, BackendError> {
        self.0.run(slot_key, Payload::Script(script, call), access, self.1.as_deref()).await
    }

    /// Sends several commands in one go, all to the owner of `slot_key`, and answers each one's reply in order. With
    /// `atomic()` they are one transaction, which runs wholly or not at all.
    ///
    /// # Errors
    /// The outer error concerns all of them, as with [`Redis::query`]; the inner ones are the server's answers to single
    /// commands, which have not run.
    ///
    /// # Cancel safety
    /// See [`Redis`]; without `atomic()` a part of them may run.
    pub async fn pipeline(
        &self,
        slot_key: &[u8],
        pipeline: &Pipeline,
        access: Access,
    ) -> Result<Vec<Result<Value, BackendError>>, BackendError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        match self.0.run(slot_key, Payload::Many(pipeline), access, self.1.as_deref()).await? {
            Value::Array(replies) => {
                Ok(replies.into_iter().map(|reply| classify::reply("the server", reply)).collect())
            }
            other => Err(BackendError::Other { reason: format!("a pipeline was answered with {other:?}") }),
        }
    }

    /// Connects if there is no connection, and answers what the server says about itself.
    ///
    /// # Errors
    /// As [`Redis::query`].
    ///
    /// # Cancel safety
    /// Dropping it forgets the wait; the attempt goes on.
    pub async fn connect(&self) -> Result<Arc<RedisServer>, BackendError> {
        self.ping().await?;
        self.server().ok_or(BackendError::Closed)
    }

    /// What the server said about itself at the newest connection; none before the first.
    #[must_use]
    pub fn server(&self) -> Option<Arc<RedisServer>> {
        self.0.dialer.server.load_full()
    }

    /// Asks every server for a sign of life; the slowest answer's time.
    ///
    /// # Errors
    /// As [`Redis::query`]; with a cluster, if any primary does not answer.
    ///
    /// # Cancel safety
    /// Dropping it forgets it.
    pub async fn ping(&self) -> Result<Duration, BackendError> {
        let started = SystemClock.now();
        self.ping_all().await?;
        Ok(SystemClock.now().since(started))
    }

    /// How the server feels: `Up` with the time of a ping, or `Down` with the reason.
    ///
    /// # Cancel safety
    /// Dropping it forgets it.
    pub async fn health(&self) -> Health {
        match self.ping().await {
            Ok(took) => Health::up("answers").with_probe(took),
            Err(error) => Health::down(error.to_string()),
        }
    }

    /// What the handle has done.
    #[must_use]
    pub fn statistics(&self) -> RedisStatistics {
        self.0.dialer.counters.read()
    }

    /// What the ports put before their keys.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        &self.0.dialer.config.key_prefix
    }

    /// Whether keys live in slots, so that one operation may touch only keys with the same `{tag}`.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.0.router, Router::Cluster(_))
    }

    /// Ends the connections once the operations on them have their answers; every later operation is `Closed`. Calling it
    /// again does nothing.
    pub fn close(&self) {
        self.0.dialer.closed.store(true, Ordering::Release);
        match &self.0.router {
            Router::One(node) => node.close(),
            Router::Cluster(cluster) => cluster.close(),
        }
    }

    async fn ping_all(&self) -> Result<(), BackendError> {
        let nodes = match &self.0.router {
            Router::One(node) => vec![Arc::clone(node)],
            Router::Cluster(cluster) => {
                cluster.find(0).await?;
                cluster.nodes()
            }
        };
        let mut asked = JoinSet::new();
        for node in nodes {
            let inner = Arc::clone(&self.0);
            asked.spawn(async move { inner.run_on(node, Payload::One(&redis::cmd("PING")), Access::Read, None).await });
        }
        while let Some(answer) = asked.join_next().await {
            answer.map_err(|e| BackendError::Other { reason: e.to_string() })??;
        }
        Ok(())
    }
}
