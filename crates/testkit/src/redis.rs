//! A private redis-server.

mod builder;
mod client;
mod cluster;
mod sentinel;
mod share;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use crate::{
    Certificates,
    home::Home,
    process::{PRLIMIT, ServerProcess, command, log_tail, wait_until},
};

pub use builder::RedisBuilder;
use builder::{Mode, Setup};
use client::Client;
pub use client::Reply;
pub use cluster::{RedisCluster, SlotMove};
pub use sentinel::RedisSentinel;

/// How long a start may take: a busy machine, a long append-only file.
const START: Duration = Duration::from_secs(30);
/// Where the server keeps its settings, in its directory.
const SETTINGS: &str = "redis.conf";
/// What the server printed, in its directory.
const LOG: &str = "server.log";
/// A way in that is there whatever the TCP port asks for.
const SOCKET: &str = "redis.sock";
/// What to do where there is no Redis.
const MISSING: &str = "redis-server is not installed: `apt-get install redis-server`, or `cargo xtask test` does it";

/// A redis-server of the test's own on a loopback port, with its files in a temporary directory. It ends with the guard (SIGKILL);
/// if the test process itself is killed, a watching `sh` ends it and removes the directory.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<ServerProcess>,
    pid: u32,
    port: u16,
    setup: Setup,
    // Last, so that the files outlive the process.
    home: Home,
}

impl RedisServer {
    /// A server that writes every change to disk before it answers (`appendonly yes`, `appendfsync always`), without a password.
    ///
    /// # Panics
    /// If redis-server is not installed (the message says how to), or does not answer within 30 s (with the server's log).
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with other settings.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder::new()
    }

    /// The port on 127.0.0.1, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Address and port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://` with TLS, with user and password if the server asks for them.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.setup.mode == Mode::Tls { "rediss" } else { "redis" };
        format!("{scheme}://{}127.0.0.1:{}", self.setup.account.in_url(), self.port)
    }

    /// The certificates of a server with TLS.
    ///
    /// # Panics
    /// If the server has no TLS.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        assert!(self.setup.mode == Mode::Tls, "the server has no TLS: start it with `builder().tls()`");
        Certificates::of(self.home.path())
    }

    /// The process id of the server that was started last.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The server's directory: its log is `server.log`, its settings `redis.conf`.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Ends the server with SIGKILL and waits for its end. The port stays reserved for [`RedisServer::restart`] only in that
    /// nothing else here takes it on purpose. A killed server stays killed: a second call does nothing.
    ///
    /// # Panics
    /// If the server is a shared one: others use it.
    pub fn kill(&mut self) {
        self.refuse_shared();
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again on the same port and files; a running one is killed first.
    ///
    /// # Panics
    /// If the server is a shared one, or does not answer within 30 s, for instance because another process has taken the port.
    pub fn restart(&mut self) {
        self.kill();
        // The system may hold the port for a moment, or an outgoing connection sit on it.
        let process = wait_until(Duration::from_secs(10), || launch(&self.home, self.port, &self.setup).ok());
        let process =
            process.unwrap_or_else(|| panic!("redis does not start again; {}", log_tail(&self.home.path().join(LOG))));
        self.pid = process.pid();
        self.process = Some(process);
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Panics
    /// If the server is a shared one, or killed.
    pub fn stop_process(&mut self) {
        self.refuse_shared();
        self.process.as_mut().expect("a killed server cannot be stopped: restart it first").stop();
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Panics
    /// If the server is a shared one, or killed.
    pub fn continue_process(&mut self) {
        self.refuse_shared();
        self.process.as_mut().expect("a killed server cannot go on: restart it first").resume();
    }

    /// Changes [`RedisBuilder::file_bytes_max`] for the running server and for all restarts; `None` as if somebody had made room on
    /// the disk.
    ///
    /// # Panics
    /// If the server was started without such a limit (a new one would end it by a signal), or `prlimit` is not installed.
    pub fn set_file_bytes_max(&mut self, bytes: Option<u64>) {
        assert!(self.setup.file_bytes_max.is_some(), "start the server with `builder().file_bytes_max(…)`");
        self.setup.file_bytes_max = bytes;
        if let Some(process) = &self.process {
            process.limit_files(bytes, || Command::new(PRLIMIT));
        }
    }

    /// Sends one command on a connection of its own, as the server's user, and answers what the server said.
    ///
    /// # Panics
    /// If the server does not answer within 10 s.
    pub fn cli<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        self.try_cli(args).unwrap_or_else(|error| {
            panic!("redis on port {} does not answer: {error}; {}", self.port, log_tail(&self.dir().join(LOG)))
        })
    }

    /// As [`RedisServer::cli`], for a server that may be down.
    ///
    /// # Errors
    /// The connection fails or breaks, or no answer comes within 10 s.
    pub fn try_cli<A: AsRef<[u8]>>(&self, args: &[A]) -> io::Result<Reply> {
        connect(&self.home, self.port, &self.setup)?.command(args)
    }

    fn refuse_shared(&self) {
        assert!(
            matches!(self.home, Home::Private(_)),
            "a shared server is not this test's to stop: start a private one"
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

/// Starts redis-server with the settings file in `home` and waits until it answers as this very process.
fn launch(home: &Home, port: u16, setup: &Setup) -> Result<ServerProcess, String> {
    let dir = home.path();
    let log = dir.join(LOG);
    let mut command = command("redis-server", setup.file_bytes_max);
    command.arg(dir.join(SETTINGS)).args(setup.args()).current_dir(dir);
    let mut process = match ServerProcess::spawn(&mut command, &log, dir, None) {
        Ok(process) => process,
        Err(error) if error.kind() == io::ErrorKind::NotFound => panic!("{MISSING}"),
        Err(error) => panic!("redis-server cannot be started: {error}"),
    };
    let pid = process.pid();
    let answer = wait_until(START, || {
        if process.ended().is_some() {
            return Some(Err("it ended at once"));
        }
        // On a port that another server took the wrong one answers: ask who it is.
        let info = connect(home, port, setup).and_then(|mut client| client.command(&["INFO", "server"])).ok()?;
        let Reply::Bulk(_) = info else { return None };
        if !info.text().lines().any(|line| line == format!("process_id:{pid}")) {
            return None;
        }
        let loaded = connect(home, port, setup).and_then(|mut client| client.command(&["PING"])).ok()?;
        (loaded == Reply::Status("PONG".to_owned())).then_some(Ok(()))
    });
    match answer {
        Some(Ok(())) => Ok(process),
        other => {
            process.kill();
            let why = other.and_then(Result::err).unwrap_or("it does not answer PING");
            Err(format!("redis-server did not start on port {port}: {why}; {}", log_tail(&log)))
        }
    }
}

fn connect(home: &Home, port: u16, setup: &Setup) -> io::Result<Client> {
    let mut client = if setup.mode == Mode::Tls {
        Client::unix(&home.path().join(SOCKET))?
    } else {
        Client::tcp((Ipv4Addr::LOCALHOST, port).into())?
    };
    if let Some(auth) = setup.account.auth()
        && let Reply::Error(refusal) = client.command(&auth)?
    {
        return Err(io::Error::other(refusal));
    }
    Ok(client)
}
