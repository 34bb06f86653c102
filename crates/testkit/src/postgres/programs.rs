//! Which PostgreSQL, and as whom.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    base::uid,
    process::{self, wait_until},
};

/// How long one program may run.
const PATIENCE: Duration = Duration::from_secs(120);

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
        self.limited(name, None)
    }

    /// The same with a limit on the size of its files.
    pub(super) fn limited(&self, name: &str, file_bytes_max: Option<u64>) -> Command {
        let mut command = process::command(program(self.dir.as_deref(), name), file_bytes_max);
        self.as_owner(&mut command);
        command
    }

    /// A command that runs a program of the system as the server's user.
    pub(super) fn other(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        self.as_owner(&mut command);
        command
    }

    /// Runs `name` with `args`; answers what it printed.
    ///
    /// # Errors
    /// What it complained about.
    pub(super) fn run(&self, name: &str, args: &[&str]) -> Result<String, String> {
        output(self.command(name).args(args), name, "").map(|(out, _)| out)
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

/// Runs a command to its end, at most two minutes, with `input` to read (short enough for a pipe to hold); answers what it printed
/// and what it complained about without failing.
pub(super) fn output(command: &mut Command, name: &str, input: &str) -> Result<(String, String), String> {
    let failed = |error: std::io::Error| format!("{name} cannot be run: {error}");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().map_err(failed)?;
    let (out, complaints) = (read_aside(child.stdout.take()), read_aside(child.stderr.take()));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended by itself says why on the other side.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = wait_until(PATIENCE, || child.try_wait().ok().flatten());
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let text = |reader: JoinHandle<Vec<u8>>| {
        let bytes = reader.join().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (out, complaints) = (text(out), text(complaints));
    match ended {
        Some(status) if status.success() => Ok((out, complaints)),
        Some(_) => Err(format!("{name} failed: {complaints}{out}")),
        None => Err(format!("{name} did not end within {PATIENCE:?}: {complaints}{out}")),
    }
}

fn read_aside(from: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
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
