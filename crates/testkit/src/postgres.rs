//! A private PostgreSQL server.

mod builder;
mod programs;
mod share;
mod template;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{
    Certificates,
    home::Home,
    process::{PRLIMIT, ServerProcess, log_tail, wait_until},
};

pub use builder::PostgresBuilder;
use programs::Programs;
use template::{PASSWORD, USER, data_dir};

/// How long a start may take: a busy machine, recovery after a kill.
const START: Duration = Duration::from_secs(30);
/// What the server printed, in its directory.
const LOG: &str = "server.log";
/// Ends the server at once, but lets it clean up shared memory that outlives processes.
const POLITE: &str = "QUIT";

/// A PostgreSQL server of the test's own on a loopback port, with its files in a temporary directory. It ends with the guard; if
/// the test process itself is killed, a watching `sh` ends it and removes the directory.
///
/// Tests come as user `infra`, with a password, to the database `infra`, which that user owns; [`PostgresServer::psql`] is a
/// superuser.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<ServerProcess>,
    pid: u32,
    port: u16,
    programs: Programs,
    tls: bool,
    file_bytes_max: Option<u64>,
    // Last, so that the files outlive the process.
    home: Home,
}

impl PostgresServer {
    /// A server that is quick because it leaves syncing to the system; see [`PostgresBuilder::durable`].
    ///
    /// # Panics
    /// If PostgreSQL 15 or newer is not installed (the message says how to get it), or is not ready within 30 s (with its log).
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with other settings.
    #[must_use]
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::new()
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

    /// `postgres://infra:PASSWORD@127.0.0.1:PORT/infra`; with TLS also `?sslmode=verify-full&sslrootcert=FILE`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with_password(PASSWORD)
    }

    /// The same with another password (as a URL takes it), for what happens when it is wrong.
    #[must_use]
    pub fn url_with_password(&self, password: &str) -> String {
        let mut url = format!("postgres://{USER}:{password}@127.0.0.1:{}/{USER}", self.port);
        if self.tls {
            let ca = Certificates::of(self.home.path()).ca_file();
            url.push_str(&format!("?sslmode=verify-full&sslrootcert={}", ca.display()));
        }
        url
    }

    /// [`PostgresServer::url`] without what it says about TLS.
    #[must_use]
    pub fn bare_url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{USER}", self.port)
    }

    /// The certificates of a server with TLS.
    ///
    /// # Panics
    /// If the server has no TLS.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        assert!(self.tls, "the server has no TLS: start it with `builder().tls()`");
        Certificates::of(self.home.path())
    }

    /// The user that [`PostgresServer::url`] names; the database is called the same.
    #[must_use]
    pub fn user(&self) -> &'static str {
        USER
    }

    /// That user's password.
    #[must_use]
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The process id of the server (the postmaster) that was started last.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The server's directory: its log is `server.log`, its files are in `data`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// Ends the server and all its children with SIGKILL and waits until they are gone. A killed server stays killed: a second
    /// call does nothing.
    ///
    /// # Panics
    /// If the server is a shared one: others use it.
    pub fn kill(&mut self) {
        self.refuse_shared();
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again on the same port and files, which includes recovery; a running one is killed first.
    ///
    /// # Panics
    /// If the server is a shared one, or is not ready within 30 s, for instance because another process has taken the port.
    pub fn restart(&mut self) {
        self.kill();
        let mut failure = String::new();
        // The system may hold the port or the dead server's memory for a moment.
        let process = wait_until(Duration::from_secs(10), || {
            let started = launch(&self.programs, self.home.path(), self.port, self.file_bytes_max);
            started.map_err(|error| failure = error).ok()
        });
        let process = process.unwrap_or_else(|| panic!("{failure}"));
        self.pid = process.pid();
        self.process = Some(process);
    }

    /// Freezes the server and its children (SIGSTOP): connections stay open and nothing is answered.
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

    /// Changes [`PostgresBuilder::file_bytes_max`] for the running server and for all restarts; `None` as if somebody had made room
    /// on the disk.
    ///
    /// # Panics
    /// If the server is a shared one, or `prlimit` is not installed.
    pub fn set_file_bytes_max(&mut self, bytes: Option<u64>) {
        self.refuse_shared();
        self.file_bytes_max = bytes;
        if let Some(process) = &self.process {
            process.limit_files(bytes, || self.programs.other(PRLIMIT));
        }
    }

    /// Runs SQL as superuser in the database of the tests and answers the rows, one a line, fields parted by `|`.
    ///
    /// # Panics
    /// With the server's words, if the SQL fails.
    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`PostgresServer::psql`], for SQL that may fail and a server that may be down.
    ///
    /// # Errors
    /// What `psql` complained about; also if it has not ended after two minutes.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let socket = self.dir().join("s");
        let port = self.port.to_string();
        let mut psql = self.programs.command("psql");
        psql.env("PGCONNECT_TIMEOUT", "10").arg("-h").arg(socket);
        psql.args(["-p", &port, "-U", "postgres", "-d", USER, "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        programs::output(&mut psql, "psql", "").map(|(rows, _)| rows.trim_end().to_owned())
    }

    fn refuse_shared(&self) {
        assert!(
            matches!(self.home, Home::Private(_)),
            "a shared server is not this test's to stop: start a private one"
        );
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(Some(POLITE));
        }
    }
}

/// Starts the server on the data in `dir` and waits until it takes connections.
fn launch(programs: &Programs, dir: &Path, port: u16, file_bytes_max: Option<u64>) -> Result<ServerProcess, String> {
    let log = dir.join(LOG);
    let mut command = programs.limited("postgres", file_bytes_max);
    command.arg("-D").arg(data_dir(dir));
    let mut process = match ServerProcess::spawn(&mut command, &log, dir, Some(POLITE)) {
        Ok(process) => process,
        Err(error) if error.kind() == io::ErrorKind::NotFound => panic!("postgres has gone: install it again"),
        Err(error) => panic!("postgres cannot be started: {error}"),
    };
    let pid = process.pid().to_string();
    let ready = wait_until(START, || {
        if process.ended().is_some() {
            return Some(false);
        }
        // The server says in this file how far it is; a killed one may have left its own there.
        let state = std::fs::read_to_string(data_dir(dir).join("postmaster.pid")).ok()?;
        let mut lines = state.lines().map(str::trim);
        (lines.next() == Some(&pid) && lines.nth(6) == Some("ready")).then_some(true)
    });
    if ready == Some(true) {
        return Ok(process);
    }
    process.kill();
    Err(format!("postgres did not start on port {port}; {}", log_tail(&log)))
}
