//! Which PostgreSQL, and as whom.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::base::uid;

/// What to do where there is no PostgreSQL.
const MISSING: &str =
    "PostgreSQL 15 or newer is not installed: `apt-get install postgresql`, or `cargo xtask test` does it";
/// The oldest that the drivers are tested with.
const OLDEST: u32 = 15;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// Nothing: they are found in PATH.
    dir: Option<PathBuf>,
    /// As the server prints it.
    pub(super) version: String,
    /// Whom they run as, if not as us.
    pub(super) owner: Option<(u32, u32)>,
}

impl Programs {
    /// The newest in PATH or where Debian puts them.
    ///
    /// # Panics
    /// If there is none that is new enough.
    pub(super) fn find() -> Self {
        let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let dirs = debian.filter_map(|entry| Some(Some(entry.ok()?.path().join("bin"))));
        let found = dirs.chain([None]).filter_map(|dir| {
            let out = Command::new(program(dir.as_deref(), "postgres")).arg("--version").output().ok()?;
            let version = String::from_utf8(out.stdout).ok()?.trim().to_owned();
            // "postgres (PostgreSQL) 15.14 (Debian ...)", "postgres (PostgreSQL) 18beta1"
            let number = version.split(") ").nth(1)?;
            let major: u32 = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            (major >= OLDEST).then_some((major, dir, version))
        });
        let (_, dir, version) = found.max_by_key(|(major, ..)| *major).expect(MISSING);
        Self { dir, version, owner: (uid() == 0).then(unprivileged) }
    }

    /// A command that runs `name` as the server's user.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(self.dir.as_deref(), name));
        self.as_owner(&mut command);
        command
    }

    /// Runs `name` with `args`; answers what it printed.
    ///
    /// # Errors
    /// What it complained about.
    pub(super) fn run(&self, name: &str, args: &[&str]) -> Result<String, String> {
        output(self.command(name).args(args), name)
    }

    /// Makes `command` run as the server's user.
    pub(super) fn as_owner(&self, command: &mut Command) {
        // The directory we stand in may be closed to the other user.
        command.current_dir("/").env("LC_ALL", "C").env_remove("PGOPTIONS");
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
    }
}

/// Runs a command to its end.
pub(super) fn output(command: &mut Command, name: &str) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(|error| format!("{name} cannot be started: {error}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(format!("{name} failed: {}{}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout)))
    }
}

fn program(dir: Option<&Path>, name: &str) -> PathBuf {
    dir.map_or_else(|| name.into(), |dir| dir.join(name))
}

/// Root may not run PostgreSQL: the user `postgres`, else `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).expect("root needs a user `postgres` or `nobody` to run PostgreSQL as")
}
