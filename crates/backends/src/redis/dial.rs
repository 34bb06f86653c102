//! One new connection: TCP, TLS, login, and the questions that decide whether the server will do.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use infra_types::Secret;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, Value,
    aio::MultiplexedConnection,
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{net::TcpStream, task::AbortHandle};

use super::{
    config::RedisConfig,
    server::{self, Expected, RedisServer},
    statistics::Counters,
    stream::{Counted, Transport, Wire},
    tls,
};
use crate::error::BackendError;

/// Messages that may wait between the tasks and the connection's driver.
const QUEUE: usize = 1_024;

/// A connection whose driver ends with it.
pub(super) struct Line {
    pub(super) conn: MultiplexedConnection,
    pub(super) wire: Arc<Wire>,
    pub(super) target: String,
    driver: AbortHandle,
}

impl Line {
    /// Ends it at once: nothing that still waits in it is sent later.
    pub(super) fn cut(&self) {
        self.wire.bury();
        self.driver.abort();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A connection whose server will do.
pub(super) struct Live {
    pub(super) line: Line,
    pub(super) server: Arc<RedisServer>,
}

/// Counts an open connection as long as it is kept, and buries it afterwards.
pub(super) struct Open {
    wire: Arc<Wire>,
    counters: Arc<Counters>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wire.bury();
        self.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens connections as one configuration says.
pub(super) struct Dialer {
    pub(super) config: RedisConfig,
    pub(super) counters: Arc<Counters>,
    pub(super) server: ArcSwapOption<RedisServer>,
    pub(super) closed: AtomicBool,
}

impl Dialer {
    /// An error once the handle is closed.
    pub(super) fn is_open(&self) -> Result<(), BackendError> {
        if self.closed.load(Ordering::Acquire) { Err(BackendError::Closed) } else { Ok(()) }
    }

    /// A connection to a data server, checked. At most `limit`.
    pub(super) async fn dial(
        &self,
        host: &str,
        port: u16,
        expected: Expected,
        limit: Duration,
    ) -> Result<Live, BackendError> {
        let (user, password) = (self.config.username.as_deref(), self.config.password.as_ref());
        let work = async {
            let line = self.open(host, port, user, password).await?;
            let server = Arc::new(self.check(&line, expected).await?);
            Ok(Live { line, server })
        };
        let live = within(limit, host, port, work).await?;
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        let mut seen = RedisServer::clone(&live.server);
        if let (Expected::ClusterNode, Some(before)) = (expected, self.server.load_full()) {
            // None is the weakest: nothing is known.
            seen.fsync = seen.fsync.min(before.fsync);
        }
        self.server.store(Some(Arc::new(seen)));
        Ok(live)
    }

    /// A connection that has logged in and was asked nothing.
    pub(super) async fn open(
        &self,
        host: &str,
        port: u16,
        user: Option<&str>,
        password: Option<&Secret<String>>,
    ) -> Result<Line, BackendError> {
        let target = format!("{host}:{port}");
        let unreachable = |reason: String| BackendError::Connect { target: target.clone(), reason };
        let io = self.transport(host, port).await?;
        let wire = Arc::new(Wire::default());
        // Without login and SET INFO this does no I/O; our own deadline replaces the driver's 500 ms.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let settings = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
        let stream = Counted { io, wire: Arc::clone(&wire), gathered: false };
        let (conn, driver) = MultiplexedConnection::new_with_config(&info, stream, settings)
            .await
            .map_err(|e| unreachable(e.to_string()))?;
        let open = self.counted(&wire);
        let driver = tokio::spawn(async move {
            let _open = open;
            driver.await;
        });
        let line = Line { conn, wire, target, driver: driver.abort_handle() };
        if let Some(password) = password {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = user {
                auth.arg(user);
            }
            auth.arg(password.expose());
            if let Value::ServerError(e) = self.ask(&line, &auth).await? {
                let reason = format!("{} {}", e.code(), e.details().unwrap_or_default());
                return Err(BackendError::Auth { target: line.target.clone(), reason });
            }
        }
        Ok(line)
    }

    /// TCP, and TLS on it if that is wanted.
    pub(super) async fn transport(&self, host: &str, port: u16) -> Result<Transport, BackendError> {
        let target = format!("{host}:{port}");
        let unreachable = |reason: String| BackendError::Connect { target: target.clone(), reason };
        let tcp =
            TcpStream::connect((host, port)).await.map_err(|e| unreachable(format!("{e}; is the server running?")))?;
        tcp.set_nodelay(true).map_err(|e| unreachable(e.to_string()))?;
        // A peer that vanished is noticed even if nothing is sent.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(|e| unreachable(e.to_string()))?;
        Ok(match &self.config.tls {
            None => Transport::Plain(tcp),
            Some(settings) => Transport::Tls(Box::new(tls::wrap(settings, host, &target, tcp).await?)),
        })
    }

    /// Counts a connection as open until what this returns is dropped.
    pub(super) fn counted(&self, wire: &Arc<Wire>) -> Open {
        self.counters.open.fetch_add(1, Ordering::Relaxed);
        Open { wire: Arc::clone(wire), counters: Arc::clone(&self.counters) }
    }

    /// One question during the handshake.
    pub(super) async fn ask(&self, line: &Line, cmd: &Cmd) -> Result<Value, BackendError> {
        let reply = line.conn.clone().send_packed_command(cmd).await;
        reply.map_err(|e| self.failed_handshake(&line.target, &e))
    }

    async fn check(&self, line: &Line, expected: Expected) -> Result<RedisServer, BackendError> {
        let mut questions = redis::pipe();
        questions.cmd("INFO").cmd("CONFIG").arg("GET").arg("appendfsync");
        // Only for the operator's CLIENT LIST: a refusal is no reason to fail.
        questions.cmd("CLIENT").arg("SETNAME").arg("infra");
        questions.cmd("SELECT").arg(self.config.db);
        let replies = line.conn.clone().send_packed_commands(&questions, 0, 4).await;
        let replies = replies.map_err(|e| self.failed_handshake(&line.target, &e))?;
        if let Some(Value::ServerError(e)) = replies.first()
            && e.code() == "NOAUTH"
        {
            let reason = "it asks for a password and none is configured".to_owned();
            return Err(BackendError::Auth { target: line.target.clone(), reason });
        }
        let server =
            server::judge(&server::text(replies.first()), &server::text(replies.get(1)), expected, &self.config)?;
        match replies.get(3) {
            Some(Value::ServerError(e)) if self.config.db != 0 => Err(BackendError::InvalidConfig {
                what: "Redis database",
                rule: format!("the server must have database {}: {}", self.config.db, e.details().unwrap_or_default()),
            }),
            _ => Ok(server),
        }
    }

    fn failed_handshake(&self, target: &str, error: &RedisError) -> BackendError {
        let io = error.source().and_then(|e| e.downcast_ref::<std::io::Error>());
        if let (Some(io), true) = (io, self.config.tls.is_some())
            && io.get_ref().is_some_and(|e| e.is::<rustls::Error>())
        {
            return tls::failure(target, io);
        }
        let advice = match (error.kind(), self.config.tls.is_some()) {
            (ErrorKind::Parse, _) => {
                "what answers there is no Redis; check host and port, and whether it wants TLS (rediss://)"
            }
            (_, false) => {
                "it ended the connection before it answered; check host and port, and whether it wants TLS (rediss://)"
            }
            (_, true) => {
                "it ended the connection before it answered; check host and port, and the client certificate if it wants one"
            }
        };
        BackendError::Connect { target: target.to_owned(), reason: advice.to_owned() }
    }
}

/// `work`, or the error that says that connecting took too long.
pub(super) async fn within<T>(
    limit: Duration,
    host: &str,
    port: u16,
    work: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let reason = format!("no connection within {limit:?}; check host, port, TLS and firewall");
        Err(BackendError::Connect { target: format!("{host}:{port}"), reason })
    })
}
