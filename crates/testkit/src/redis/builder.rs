//! The settings of a private redis-server.

use std::{fmt::Write as _, path::Path};

use super::{LOG, RedisServer, SETTINGS, SOCKET, launch};
use crate::{Certificates, TestDir, free_port, home::Home};

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    user: Option<String>,
    password: Option<String>,
}

impl Account {
    pub(super) fn auth(&self) -> Option<Vec<&str>> {
        let password = self.password.as_deref()?;
        Some(["AUTH"].into_iter().chain(self.user.as_deref()).chain([password]).collect())
    }

    /// `user:password@`, or nothing.
    pub(super) fn in_url(&self) -> String {
        match &self.password {
            Some(password) => {
                format!("{}:{}@", in_url(self.user.as_deref().unwrap_or_default()), in_url(password))
            }
            None => String::new(),
        }
    }
}

/// What its port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Plain,
    /// The port speaks only TLS; the testkit itself comes through a socket in the directory.
    Tls,
    /// A member of a cluster: it has a second port.
    Cluster,
    Sentinel,
}

/// What it takes to start the server again and to come in.
#[derive(Debug, Clone, Default)]
pub(super) struct Setup {
    pub(super) account: Account,
    pub(super) mode: Mode,
    pub(super) file_bytes_max: Option<u64>,
}

impl Setup {
    pub(super) fn args(&self) -> &[&str] {
        if self.mode == Mode::Sentinel { &["--sentinel"] } else { &[] }
    }
}

/// Settings of a [`RedisServer`].
#[derive(Debug, Clone)]
pub struct RedisBuilder {
    settings: Vec<(String, String)>,
    setup: Setup,
    hosts: Vec<String>,
}

impl RedisBuilder {
    pub(super) fn new() -> Self {
        let builder = Self::bare().config("save", "\"\"").config("appendonly", "yes").config("appendfsync", "always");
        // Else a replica waits five seconds for others to join its first copy.
        builder.config("repl-diskless-sync-delay", "0")
    }

    /// Without the settings that only a server of data knows.
    pub(super) fn bare() -> Self {
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        Self { settings: Vec::new(), setup: Setup::default(), hosts }
    }

    pub(super) fn mode(mut self, mode: Mode) -> Self {
        self.setup.mode = mode;
        self
    }

    /// Adds a line about what a sentinel watches.
    pub(super) fn sentinel(mut self, line: &str) -> Self {
        self.settings.push(("sentinel".to_owned(), line.to_owned()));
        self
    }

    /// Sets a line of redis.conf, with the value as it stands there (`"` around what holds spaces); the last of a name counts,
    /// except for `user`, which may come many times.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        if name != "user" {
            self.settings.retain(|(known, _)| known != name);
        }
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks everybody for this password (`requirepass`).
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.setup.account = Account { user: None, password: Some(password.to_owned()) };
        self.config("requirepass", &quoted(password))
    }

    /// Adds a user who may do everything and shuts out the one without a name; [`RedisServer::url`] names this user.
    #[must_use]
    pub fn acl_user(mut self, user: &str, password: &str) -> Self {
        self.setup.account = Account { user: Some(user.to_owned()), password: Some(password.to_owned()) };
        self.config("user", "default off")
            .config("user", &format!("{user} on {} ~* &* +@all", quoted(&format!(">{password}"))))
    }

    /// Speaks only TLS on its port, with a certificate for `localhost` and `127.0.0.1` from an authority of its own; see
    /// [`RedisServer::certificates`].
    #[must_use]
    pub fn tls(self) -> Self {
        self.mode(Mode::Tls).config("tls-auth-clients", "no")
    }

    /// As [`RedisBuilder::tls`], with a certificate for another host only.
    #[must_use]
    pub fn tls_for(mut self, host: &str) -> Self {
        self.hosts = vec![host.to_owned()];
        self.tls()
    }

    /// As [`RedisBuilder::tls`], and lets only those in that show a certificate of the same authority.
    #[must_use]
    pub fn tls_with_client_certificate(self) -> Self {
        self.tls().config("tls-auth-clients", "yes")
    }

    /// Lets no file of the server, the log included, grow beyond so many bytes (a multiple of 512), so that a write past that fails as
    /// on a full disk; [`RedisServer::set_file_bytes_max`] makes room.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.setup.file_bytes_max = Some(bytes);
        self
    }

    /// Makes the server a replica of `master`, which is read only.
    ///
    /// # Panics
    /// If `master` speaks TLS.
    #[must_use]
    pub fn replica_of(self, master: &RedisServer) -> Self {
        assert!(master.setup.mode == Mode::Plain, "a replica of a server with TLS is not provided for");
        let mut builder = self.config("replicaof", &format!("127.0.0.1 {}", master.port));
        if let Some(password) = &master.setup.account.password {
            builder = builder.config("masterauth", &quoted(password));
        }
        if let Some(user) = &master.setup.account.user {
            builder = builder.config("masteruser", user);
        }
        builder
    }

    /// Starts it.
    ///
    /// # Panics
    /// If redis-server is not installed (the message says how to), or does not answer within 30 s (with the server's log).
    #[must_use]
    pub fn start(self) -> RedisServer {
        self.start_in(Home::Private(TestDir::new()))
    }

    pub(super) fn start_in(self, home: Home) -> RedisServer {
        if self.setup.mode == Mode::Tls {
            let _ = Certificates::make(home.path(), &self.hosts, None);
        }
        let mut failure = String::new();
        for _ in 0..10 {
            let port = free_port();
            std::fs::write(home.path().join(SETTINGS), self.settings(&home, port)).expect("the directory is writable");
            match launch(&home, port, &self.setup) {
                Ok(process) => {
                    let pid = process.pid();
                    return RedisServer { process: Some(process), pid, port, setup: self.setup, home };
                }
                // Somebody else took the port between the look and the start.
                Err(error) if error.contains("in use") => failure = error,
                Err(error) => panic!("{error}"),
            }
            let _ = std::fs::remove_file(home.path().join(LOG));
        }
        panic!("{failure}");
    }

    fn settings(&self, home: &Home, port: u16) -> String {
        let dir = home.path().to_str().expect("the temporary directory has a name in UTF-8");
        let mut text = format!("bind 127.0.0.1\ndir {}\ndaemonize no\n", quoted(dir));
        let ports = match self.setup.mode {
            Mode::Plain | Mode::Sentinel => format!("port {port}\n"),
            Mode::Cluster => format!("port {port}\ncluster-port {}\n", free_port()),
            Mode::Tls => {
                let certificates = Certificates::of(home.path());
                let file = |path: &Path| quoted(path.to_str().expect("the temporary directory has a name in UTF-8"));
                format!(
                    "port 0\ntls-port {port}\nunixsocket {}\nunixsocketperm 700\n\
                     tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n",
                    file(&home.path().join(SOCKET)),
                    file(&certificates.server_file()),
                    file(&certificates.server_key_file()),
                    file(&certificates.ca_file()),
                )
            }
        };
        text.push_str(&ports);
        for (name, value) in &self.settings {
            writeln!(text, "{name} {value}").expect("writing to memory");
        }
        text
    }
}

/// As redis.conf takes a text with any characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// As a URL takes a text with any characters.
fn in_url(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to memory");
        }
        out
    })
}
