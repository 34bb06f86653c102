//! The settings of a private PostgreSQL server.

use std::{
    fmt::Write as _,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use super::{
    LOG, PostgresServer, launch,
    programs::{Programs, output},
    template::{copy_to, data_dir},
};
use crate::{Certificates, TestDir, base::open_for_passing, free_port, home::Home};

/// Settings of a [`PostgresServer`].
#[derive(Debug, Clone)]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
    /// Whom the server's certificate is for, if it has TLS.
    hosts: Option<Vec<String>>,
    client_certificate: bool,
    /// Socket directory and port of the server that this one follows.
    primary: Option<(PathBuf, u16)>,
    file_bytes_max: Option<u64>,
}

impl PostgresBuilder {
    pub(super) fn new() -> Self {
        let defaults = [
            ("listen_addresses", "127.0.0.1"),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("max_wal_size", "256MB"),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            // Files in the data directory: memory under /dev/shm would outlive a killed server.
            ("dynamic_shared_memory_type", "mmap"),
            ("unix_socket_permissions", "0700"),
            ("password_encryption", "scram-sha-256"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("timezone", "UTC"),
        ];
        let settings = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { settings, hosts: None, client_certificate: false, primary: None, file_bytes_max: None }
    }

    /// Sets a line of postgresql.conf; the value without quotes.
    #[must_use]
    pub fn config(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes to disk before it answers (`fsync`, `full_page_writes`, `synchronous_commit`), as in production. Without this a
    /// commit survives the death of the server's processes, because the system has the bytes, but not the machine's.
    #[must_use]
    pub fn durable(self) -> Self {
        self.config("fsync", "on").config("full_page_writes", "on").config("synchronous_commit", "on")
    }

    /// Lets sessions only read (`default_transaction_read_only`), as a server does that an operator has set so.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.config("default_transaction_read_only", "on")
    }

    /// Follows `primary` as a hot standby, which only reads. `primary` must outlive it.
    #[must_use]
    pub fn standby_of(mut self, primary: &PostgresServer) -> Self {
        self.primary = Some((primary.dir().join("s"), primary.port()));
        self
    }

    /// Lets no file of the server grow beyond so many bytes (a multiple of 512), so that a write past that fails as on a full disk;
    /// [`PostgresServer::set_file_bytes_max`] makes room. Below 4 MiB, the size of a file of its log of changes here, that log is what
    /// has no room; above it, the tables. Only a size that is no multiple of the 8 KiB of a page makes it say that the disk is full:
    /// it takes a page that is written in part as the sign of that.
    #[must_use]
    pub fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Takes only connections with TLS, with a certificate for `localhost` and `127.0.0.1` from an authority of its own; see
    /// [`PostgresServer::certificates`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.hosts = Some(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]);
        self
    }

    /// As [`PostgresBuilder::tls`], with a certificate for another host only.
    #[must_use]
    pub fn tls_for(mut self, host: &str) -> Self {
        self.hosts = Some(vec![host.to_owned()]);
        self
    }

    /// As [`PostgresBuilder::tls`], and lets only those in that show a certificate of the same authority (and the password).
    #[must_use]
    pub fn tls_with_client_certificate(mut self) -> Self {
        self.client_certificate = true;
        self.tls()
    }

    /// Starts it.
    ///
    /// # Panics
    /// If PostgreSQL 15 or newer is not installed (the message says how to get it), or is not ready within 30 s (with its log).
    #[must_use]
    pub fn start(self) -> PostgresServer {
        self.start_in(Home::Private(TestDir::new()))
    }

    pub(super) fn start_in(self, home: Home) -> PostgresServer {
        let programs = Programs::find();
        let dir = home.path();
        // PostgreSQL may run as another user and has to get there.
        open_for_passing(dir);
        let copied = match &self.primary {
            None => copy_to(&programs, &data_dir(dir)),
            Some((socket, port)) => copy_of(&programs, socket, *port, &data_dir(dir)),
        };
        copied.unwrap_or_else(|error| panic!("no data directory: {error}"));
        make_dir(&programs, &dir.join("s"));
        if let Some(hosts) = &self.hosts {
            let _ = Certificates::make(dir, hosts, programs.owner);
        }
        let template = read(&data_dir(dir).join("postgresql.conf"));
        write(&data_dir(dir).join("pg_hba.conf"), &self.access());

        let mut failure = String::new();
        for _ in 0..10 {
            let port = free_port();
            write(&data_dir(dir).join("postgresql.conf"), &format!("{template}\n{}", self.settings(dir, port)));
            match launch(&programs, dir, port, self.file_bytes_max) {
                Ok(process) => {
                    let pid = process.pid();
                    return PostgresServer {
                        process: Some(process),
                        pid,
                        port,
                        programs,
                        tls: self.hosts.is_some(),
                        file_bytes_max: self.file_bytes_max,
                        home,
                    };
                }
                // Somebody else took the port between the look and the start.
                Err(error) if error.contains("in use") => failure = error,
                Err(error) => panic!("{error}"),
            }
            let _ = std::fs::remove_file(dir.join(LOG));
        }
        panic!("{failure}");
    }

    fn settings(&self, dir: &Path, port: u16) -> String {
        let socket_dir = dir.join("s").display().to_string();
        let mut own = vec![("port", port.to_string()), ("unix_socket_directories", socket_dir)];
        if self.hosts.is_some() {
            let certificates = Certificates::of(dir);
            own.push(("ssl", "on".to_owned()));
            own.push(("ssl_cert_file", certificates.server_file().display().to_string()));
            own.push(("ssl_key_file", certificates.server_key_file().display().to_string()));
            own.push(("ssl_ca_file", certificates.ca_file().display().to_string()));
        }
        let all = self.settings.iter().map(|(name, value)| (name.as_str(), value));
        all.chain(own.iter().map(|(name, value)| (*name, value))).fold(String::new(), |mut text, (name, value)| {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("writing to memory");
            text
        })
    }

    /// pg_hba.conf: whoever reaches the socket in the private directory is trusted, the network asks for a password.
    fn access(&self) -> String {
        let network = match (&self.hosts, self.client_certificate) {
            (None, _) => "host all all 127.0.0.1/32 scram-sha-256",
            (Some(_), false) => "hostssl all all 127.0.0.1/32 scram-sha-256",
            (Some(_), true) => "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
        };
        format!("local all all trust\nlocal replication all trust\n{network}\n")
    }
}

/// A copy of a running server that goes on following it.
fn copy_of(programs: &Programs, socket: &Path, port: u16, data: &Path) -> Result<(), String> {
    make_dir(programs, data);
    let mut copy = programs.command("pg_basebackup");
    copy.arg("-h").arg(socket).arg("-D").arg(data).args(["-p", &port.to_string(), "-U", "postgres"]);
    copy.args(["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
    output(&mut copy, "pg_basebackup", "").map(drop)
}

/// A directory that only the server's user enters.
fn make_dir(programs: &Programs, path: &Path) {
    std::fs::DirBuilder::new().mode(0o700).create(path).expect("the directory is new");
    if let Some((uid, gid)) = programs.owner {
        chown(path, Some(uid), Some(gid)).expect("root may give files away");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes over a file and so keeps its owner.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
