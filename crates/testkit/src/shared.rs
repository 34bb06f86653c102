//! One server for many test processes: the first starts it, the last to leave ends it.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    base::{base_dir, lock_file, open_for_passing},
    port::random,
    process::{signal, wait_until},
};

/// How long a process waits for another one that is starting the server.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many times in a row, a second apart, nobody must be found using the server before it ends.
const GRACE: &str = "3";
/// Held, shared, by every process that uses the server, until its death.
const USERS: &str = "users.lock";
/// Held by whoever starts or ends the server.
const START: &str = "start.lock";
/// Where the server is, for those who come later.
const ADDRESS: &str = "address";

/// Ends the servers once nobody holds `users.lock`. It outlives the process that started it. A process id may have been given to
/// somebody else, therefore only those are killed that still stand in the directory of this run.
const SUPERVISOR: &str = r#"
base=$1 run=$2 polite=$3 grace=$4
shift 4
ours() {
  for pid; do
    case $(readlink "/proc/$pid/cwd") in "$run" | "$run"/*) echo "$pid" ;; esac
  done
}
idle=0
while sleep 1; do
  [ -d "$run" ] || exit 0
  if flock -n -x "$base/users.lock" true; then idle=$((idle + 1)); else idle=0; fi
  [ "$idle" -ge "$grace" ] || continue
  idle=0
  exec 9>>"$base/start.lock"
  flock -x 9
  exec 8>>"$base/users.lock"
  if flock -n -x 8; then
    left=$(ours "$@")
    [ -z "$left" ] || kill -s "$polite" $left
    n=0
    while [ -n "$left" ] && [ "$n" -lt 50 ]; do sleep 0.1; left=$(ours "$@"); n=$((n + 1)); done
    [ -z "$left" ] || kill -KILL $left
    if grep -q -F -x "$run" "$base/address"; then rm -f "$base/address"; fi
    rm -rf "$run"
    exit 0
  fi
  exec 8>&- 9>&-
done
"#;

/// What can be shared.
pub(crate) trait Share: Sized {
    /// Sent to end it, before SIGKILL.
    const POLITE: &str;
    /// Starts it with its files below `dir`, which is empty.
    fn start_in(dir: &Path) -> Self;
    /// How another process finds it.
    fn describe(&self) -> String;
    /// Finds it again; nothing if it does not answer.
    fn attach(dir: &Path, description: &str) -> Option<Self>;
    /// Its processes.
    fn pids(&self) -> Vec<u32>;
    /// Lets its processes live on without this one.
    fn release(&mut self);
}

/// A server that others use, too.
#[derive(Debug)]
pub(crate) struct Joined<S> {
    pub(crate) server: S,
    // The lock says that this process uses the server; the system takes it back when the process ends, however it ends.
    _users: File,
}

/// Joins the users of the server called `variant`; starts it if it does not run.
pub(crate) fn join<S: Share>(variant: &str, start: impl FnOnce(&Path) -> S) -> Joined<S> {
    let base = base_of(variant);
    let starting = lock_file(&base.join(START));
    let users = lock_file(&base.join(USERS));
    wait_until(PATIENCE, || starting.try_lock().ok())
        .unwrap_or_else(|| panic!("another process is still starting {variant}: see {}", base.display()));
    // The supervisor takes this lock for moments, to see whether it can.
    wait_until(PATIENCE, || users.try_lock_shared().ok()).expect("nobody ends the server while we hold the other lock");
    if let Some(server) = known(&base) {
        return Joined { server, _users: users };
    }

    // Nobody answers: what is left is of a crash, or from before the machine was started.
    clear(&base);
    // Short: the path of a socket in it has a limit.
    let run = base.join(format!("run-{:08x}", random(1) >> 32));
    std::fs::create_dir(&run).expect("the directory is ours");
    open_for_passing(&run);
    let mut server = start(&run);
    supervise::<S>(&base, &run, &server.pids());
    server.release();
    let written = base.join("address.new");
    std::fs::write(&written, format!("{}\n{}", run.display(), server.describe())).expect("the directory is ours");
    std::fs::rename(&written, base.join(ADDRESS)).expect("the directory is ours");
    Joined { server, _users: users }
}

/// Where the locks and the address of a server are: each workspace has its own, so that two checkouts do not meet.
fn base_of(variant: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    let base = base_dir().join(format!("{variant}-{:08x}", hasher.finish() >> 32));
    match std::fs::create_dir(&base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{}: {error}", base.display()),
        _ => open_for_passing(&base),
    }
    base
}

fn known<S: Share>(base: &Path) -> Option<S> {
    let address = std::fs::read_to_string(base.join(ADDRESS)).ok()?;
    let (run, description) = address.split_once('\n')?;
    S::attach(Path::new(run), description)
}

/// Ends every process that stands in an old run's directory, and removes it.
fn clear(base: &Path) {
    let _ = std::fs::remove_file(base.join(ADDRESS));
    let runs = || {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir())
    };
    if runs().next().is_none() {
        return;
    }
    let standing = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(base) && cwd != base)
    };
    let ours = || -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(standing).collect()
    };
    wait_until(Duration::from_secs(10), || {
        let left = ours();
        if left.is_empty() {
            return Some(());
        }
        signal("KILL", &left);
        None
    });
    for run in runs() {
        let _ = std::fs::remove_dir_all(run);
    }
}

fn supervise<S: Share>(base: &Path, run: &Path, pids: &[u32]) {
    let missing = "sharing a server needs `flock`: `apt-get install util-linux`";
    let there = Command::new("flock").arg("--version").stdout(Stdio::null()).status();
    assert!(there.is_ok(), "{missing}");
    let mut sh = Command::new("sh");
    sh.args(["-c", SUPERVISOR, "infra-testkit-supervisor"]).arg(base).arg(run).args([S::POLITE, GRACE]);
    sh.args(pids.iter().map(u32::to_string)).current_dir("/");
    // A group of its own: what ends the test's group does not end it.
    let sh = sh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // Nobody waits for it on purpose: it outlives us.
    drop(sh.spawn().expect("sh can be started"));
}
