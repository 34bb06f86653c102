//! One PostgreSQL server for many test processes.

use std::{path::Path, sync::OnceLock};

use super::{POLITE, PostgresBuilder, PostgresServer, data_dir, programs::Programs};
use crate::{
    home::Home,
    process::alive,
    shared::{Joined, Share, join},
};

impl PostgresServer {
    /// The server that all test processes of this workspace and user share: the first starts it, and it ends some seconds after the
    /// last one has. Tests keep apart by a schema or prefix of their own ([`crate::unique_name`]).
    ///
    /// # Panics
    /// As [`PostgresServer::start`], or if no other process gets it started within two minutes.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Joined<PostgresServer>> = OnceLock::new();
        &SERVER.get_or_init(|| join("postgres", Self::start_in)).server
    }

    /// As [`PostgresServer::shared`], with TLS.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn shared_tls() -> &'static Self {
        static SERVER: OnceLock<Joined<PostgresServer>> = OnceLock::new();
        let start = |dir: &Path| many(Self::builder().tls(), dir);
        &SERVER.get_or_init(|| join("postgres-tls", start)).server
    }
}

/// For the connections of many processes.
fn many(builder: PostgresBuilder, dir: &Path) -> PostgresServer {
    builder.config("max_connections", "500").start_in(Home::Shared(dir.to_owned()))
}

impl Share for PostgresServer {
    const POLITE: &str = POLITE;

    fn start_in(dir: &Path) -> Self {
        many(Self::builder(), dir)
    }

    fn describe(&self) -> String {
        format!("{} {} {}\n", self.pid, self.port, self.tls)
    }

    fn attach(dir: &Path, description: &str) -> Option<Self> {
        let mut fields = description.split_whitespace();
        let (pid, port) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let tls = fields.next()?.parse().ok()?;
        let state = std::fs::read_to_string(data_dir(dir).join("postmaster.pid")).ok()?;
        if !alive(pid) || state.lines().next()?.trim() != pid.to_string() {
            return None;
        }
        let programs = Programs::find();
        let home = Home::Shared(dir.to_owned());
        let server = Self { process: None, pid, port, programs, tls, file_bytes_max: None, home };
        server.try_psql("select 1").is_ok().then_some(server)
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
