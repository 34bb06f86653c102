//! Sending one operation: once, except where a server said that it has not run it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerError, Value};

use super::{Access, Inner, RedisScript, Router, classify, dial::Live, node::Node, slot::key_slot};
use crate::error::BackendError;

/// How often a cluster may send an operation on to another node.
const REDIRECTS: u32 = 5;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    One(&'a Cmd),
    Script(&'a RedisScript, &'a Cmd),
    Many(&'a Pipeline),
}

/// How far an operation got, for when its time is up.
struct Progress {
    node: Arc<Node>,
    live: Arc<Live>,
    /// What `live` had read when the operation came to it.
    reads: u64,
    /// Whether it may be with a server that has not said that it did not run it.
    sent: bool,
}

impl Progress {
    fn new(node: Arc<Node>, live: Arc<Live>) -> Self {
        let reads = live.line.wire.reads();
        Self { node, live, reads, sent: false }
    }
}

/// What is to be sent before the payload, in the same write.
#[derive(Clone, Copy, Default)]
struct Preface {
    load: bool,
    asking: bool,
}

impl Inner {
    /// Sends `payload` to whoever owns `slot_key`. Server errors inside an array are the caller's.
    pub(super) async fn run(
        &self,
        slot_key: &[u8],
        payload: Payload<'_>,
        access: Access,
        guard: Option<&AtomicU64>,
    ) -> Result<Value, BackendError> {
        let node = self.owner(slot_key).await?;
        self.run_on(node, payload, access, guard).await
    }

    /// Who owns `slot_key`.
    pub(super) async fn owner(&self, slot_key: &[u8]) -> Result<Arc<Node>, BackendError> {
        match &self.router {
            Router::One(node) => Ok(Arc::clone(node)),
            Router::Cluster(cluster) => {
                let slot = key_slot(slot_key);
                match cluster.owner(slot) {
                    Some(node) => Ok(node),
                    None => cluster.find(slot).await,
                }
            }
        }
    }

    /// Sends `payload` to one server.
    pub(super) async fn run_on(
        &self,
        node: Arc<Node>,
        payload: Payload<'_>,
        access: Access,
        guard: Option<&AtomicU64>,
    ) -> Result<Value, BackendError> {
        self.dialer.counters.commands.fetch_add(1, Ordering::Relaxed);
        let live = self.live(&node).await?;
        self.refuse_failover(guard)?;
        let mut progress = Progress::new(node, live);
        let limit = self.dialer.config.operation_timeout;
        match tokio::time::timeout(limit, self.steps(&mut progress, payload, access, guard)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out(&progress, access)),
        }
    }

    /// Refuses where another server took over since somebody looked, if the handle asks for that. A failover is counted before a
    /// connection of the new server can be had, so nothing is sent to it unseen.
    fn refuse_failover(&self, guard: Option<&AtomicU64>) -> Result<(), BackendError> {
        let seen = |accepted: &AtomicU64| accepted.load(Ordering::Acquire);
        match guard {
            Some(accepted) if self.dialer.counters.failovers.load(Ordering::Acquire) > seen(accepted) => {
                Err(BackendError::FailedOver)
            }
            _ => Ok(()),
        }
    }

    /// A connection to `node`, made if need be.
    async fn live(&self, node: &Arc<Node>) -> Result<Arc<Live>, BackendError> {
        let acquired = node.acquire().await;
        if let (Err(_), Router::Cluster(cluster)) = (&acquired, &self.router) {
            cluster.refresh_soon();
        }
        acquired
    }

    async fn steps(
        &self,
        at: &mut Progress,
        payload: Payload<'_>,
        access: Access,
        guard: Option<&AtomicU64>,
    ) -> Result<Value, BackendError> {
        let mut preface = Preface::default();
        let mut redirects = 0;
        loop {
            let before = at.live.line.wire.writes();
            at.sent = true;
            let error = match send(&at.live, payload, preface).await {
                Ok(Value::ServerError(error)) => error,
                Ok(value) => match payload {
                    Payload::Many(_) => match all_redirected(&value) {
                        Some(error) => error,
                        None => {
                            self.distrust_any(&at.node, &value);
                            return Ok(value);
                        }
                    },
                    _ => return Ok(value),
                },
                Err(error) => match aborted(&error) {
                    Some(error) => error,
                    None => return Err(self.broken(&at.live, before, &error, access)),
                },
            };
            // From here on a server has said that it did not run the operation.
            at.sent = false;
            match (error.code(), &self.router, payload) {
                ("NOSCRIPT", _, Payload::Script(..)) if !preface.load => {
                    self.dialer.counters.script_loads.fetch_add(1, Ordering::Relaxed);
                    preface.load = true;
                    continue;
                }
                ("MOVED" | "ASK", Router::Cluster(cluster), _) if redirects < REDIRECTS => {
                    let asking = error.code() == "ASK";
                    if guard.is_some() && !asking {
                        // Whether the slot only moved or its primary is gone is for the whole map to tell.
                        cluster.renew().await?;
                        self.refuse_failover(guard)?;
                    }
                    // ASKING counts for one command only, so a transaction cannot use it.
                    let transaction = matches!(payload, Payload::Many(pipeline) if pipeline.is_transaction());
                    if let (false, Some(next)) = (asking && transaction, cluster.redirected(&at.node, &error)) {
                        self.dialer.counters.redirects.fetch_add(1, Ordering::Relaxed);
                        redirects += 1;
                        // A node that does not know the script says so itself.
                        preface = Preface { load: false, asking };
                        let live = self.live(&next).await?;
                        *at = Progress::new(next, live);
                        continue;
                    }
                }
                _ => self.distrust(&at.node, error.code()),
            }
            return Err(classify::refusal(&at.live.line.target, &error));
        }
    }

    /// Has the next operation look for the primary where this answer means that it is another server now.
    fn distrust(&self, node: &Node, code: &str) {
        if code == "READONLY" {
            node.bury();
        }
        if let (Router::Cluster(cluster), "READONLY" | "CLUSTERDOWN") = (&self.router, code) {
            cluster.refresh_soon();
        }
    }

    fn distrust_any(&self, node: &Node, replies: &Value) {
        let Value::Array(replies) = replies else { return };
        for reply in replies {
            if let Value::ServerError(error) = reply {
                self.distrust(node, error.code());
            }
        }
    }

    /// The connection broke while the operation was on it.
    fn broken(&self, live: &Live, before: u64, error: &RedisError, access: Access) -> BackendError {
        let wire = &live.line.wire;
        if error.kind() == ErrorKind::Client {
            return BackendError::InvalidConfig { what: "Redis command", rule: error.to_string() };
        }
        wire.bury();
        if let Router::Cluster(cluster) = &self.router {
            cluster.refresh_soon();
        }
        let target = live.line.target.clone();
        if wire.writes() == before {
            let reason = "the connection had ended; the next operation makes a new one".to_owned();
            return BackendError::Connect { target, reason };
        }
        classify::lost(access, format!("the connection to {target} ended before the answer: {error}"))
    }

    /// The operation's time is up. A connection that brought nothing at all in that time is given up with everything that
    /// still waits in it, so that none of it is run much later.
    fn timed_out(&self, at: &Progress, access: Access) -> BackendError {
        self.dialer.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        let (line, limit) = (&at.live.line, self.dialer.config.operation_timeout);
        if let Router::Cluster(cluster) = &self.router {
            cluster.refresh_soon();
        }
        if !at.sent {
            let reason = format!("no connection to the right node within {limit:?}");
            return BackendError::Connect { target: line.target.clone(), reason };
        }
        if line.wire.reads() == at.reads {
            line.cut();
        }
        classify::lost(access, format!("{} did not answer within {limit:?}", line.target))
    }
}

async fn send(live: &Live, payload: Payload<'_>, preface: Preface) -> Result<Value, RedisError> {
    let mut conn = live.line.conn.clone();
    match payload {
        Payload::One(cmd) | Payload::Script(_, cmd) if !preface.load && !preface.asking => {
            conn.send_packed_command(cmd).await
        }
        Payload::One(cmd) | Payload::Script(_, cmd) => {
            let mut all = redis::pipe();
            if let (true, Payload::Script(script, _)) = (preface.load, payload) {
                all.add_command(script.load());
            }
            // Right before its command: the permission ends with the next one.
            if preface.asking {
                all.cmd("ASKING");
            }
            all.add_command(cmd.clone());
            let replies = conn.send_packed_commands(&all, 0, all.len()).await?;
            Ok(replies.into_iter().next_back().unwrap_or_default())
        }
        Payload::Many(pipeline) if pipeline.is_transaction() => {
            let replies = conn.send_packed_commands(pipeline, pipeline.len() + 1, 1).await?;
            Ok(replies.into_iter().next().unwrap_or_default())
        }
        Payload::Many(pipeline) if preface.asking => {
            let mut all = redis::pipe();
            for cmd in pipeline.cmd_iter() {
                all.cmd("ASKING").add_command(cmd.clone());
            }
            let replies = conn.send_packed_commands(&all, 0, all.len()).await?;
            Ok(Value::Array(replies.into_iter().skip(1).step_by(2).collect()))
        }
        Payload::Many(pipeline) => Ok(Value::Array(conn.send_packed_commands(pipeline, 0, pipeline.len()).await?)),
    }
}

/// The redirection of a pipeline of which no command has run. Where some have, the caller gets each answer.
fn all_redirected(value: &Value) -> Option<ServerError> {
    let Value::Array(replies) = value else { return None };
    let redirection = |reply: &Value| match reply {
        Value::ServerError(error) if matches!(error.code(), "MOVED" | "ASK") => Some(error.clone()),
        _ => None,
    };
    let first = redirection(replies.first()?)?;
    replies.iter().all(|reply| redirection(reply).as_ref() == Some(&first)).then_some(first)
}

/// Why a transaction was refused as a whole, before any of it ran.
fn aborted(error: &RedisError) -> Option<ServerError> {
    if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        return None;
    }
    error.clone().into_server_errors()?.first().map(|(_, error)| error.clone())
}
