//! The settings of a private redis-server.

use std::fmt::Write as _;

use super::{LOG, RedisServer, SETTINGS, launch};
use crate::{TestDir, free_port, home::Home};

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

/// Settings of a [`RedisServer`].
#[derive(Debug, Clone)]
pub struct RedisBuilder {
    settings: Vec<(String, String)>,
    account: Account,
}

impl RedisBuilder {
    pub(super) fn new() -> Self {
        let builder = Self { settings: Vec::new(), account: Account::default() };
        builder.config("save", "\"\"").config("appendonly", "yes").config("appendfsync", "always")
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
        self.account = Account { user: None, password: Some(password.to_owned()) };
        self.config("requirepass", &quoted(password))
    }

    /// Adds a user who may do everything and shuts out the one without a name; [`RedisServer::url`] names this user.
    #[must_use]
    pub fn acl_user(mut self, user: &str, password: &str) -> Self {
        self.account = Account { user: Some(user.to_owned()), password: Some(password.to_owned()) };
        self.config("user", "default off")
            .config("user", &format!("{user} on {} ~* &* +@all", quoted(&format!(">{password}"))))
    }

    /// Makes the server a replica of `master`, which is read only.
    #[must_use]
    pub fn replica_of(self, master: &RedisServer) -> Self {
        let mut builder = self.config("replicaof", &format!("127.0.0.1 {}", master.port));
        if let Some(password) = &master.account.password {
            builder = builder.config("masterauth", &quoted(password));
        }
        if let Some(user) = &master.account.user {
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
        let mut failure = String::new();
        for _ in 0..10 {
            let port = free_port();
            std::fs::write(home.path().join(SETTINGS), self.settings(&home, port)).expect("the directory is writable");
            match launch(&home, port, &self.account, false, &[]) {
                Ok(process) => {
                    let pid = process.pid();
                    return RedisServer { process: Some(process), pid, port, account: self.account, tls: false, home };
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
        let mut text = format!("bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\n", quoted(dir));
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
