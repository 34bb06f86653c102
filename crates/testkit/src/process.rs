//! A server process that ends with its guard, and also when the test process is killed.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// Ends what it watches and removes the directory once its stdin closes, which is what happens when the test process dies, by
/// whatever signal. It runs in a process group of its own, so that a signal to the test's group does not end it.
const WATCHER: &str = r#"
pids= polite=
while read -r word rest; do
  case $word in
    watch) pids=$rest ;;
    polite) polite=$rest ;;
    leave) exit 0 ;;
  esac
done
if [ -n "$pids" ]; then
  kill -CONT $pids
  if [ -n "$polite" ]; then
    kill -s "$polite" ${pids%% *}
    n=0
    while [ $n -lt 50 ] && kill -0 ${pids%% *}; do sleep 0.1; n=$((n + 1)); done
  fi
  kill -KILL $pids
  sleep 0.2
fi
rm -rf "$1"
"#;

/// Starts a program that may not write beyond a size in any file, in blocks of 512 bytes as POSIX has it: what is beyond is cut off or
/// refused, as on a full disk. Only the soft limit is set, so that it can be lifted again.
const LIMITED: &str = r#"trap "" XFSZ; ulimit -S -f "$1" || exit 1; shift; exec "$@""#;
/// The blocks of `ulimit -f`.
const BLOCK: u64 = 512;

/// Changes the limits of a running process.
pub(crate) const PRLIMIT: &str = "prlimit";

/// How often a bounded wait looks.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `done` answers something, at most `patience` (in looks, so that a stopped machine does not shorten it).
pub(crate) fn wait_until<T>(patience: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let looks = patience.as_millis() / LOOK.as_millis();
    for _ in 0..=looks {
        if let Some(answer) = done() {
            return Some(answer);
        }
        std::thread::sleep(LOOK);
    }
    None
}

/// A command that runs `program`, whose files grow no larger than `file_bytes_max`, if that is given.
pub(crate) fn command(program: impl AsRef<OsStr>, file_bytes_max: Option<u64>) -> Command {
    let Some(bytes) = file_bytes_max else { return Command::new(program) };
    let mut command = Command::new("sh");
    command.args(["-c", LIMITED, "sh", &(bytes / BLOCK).to_string()]).arg(program);
    command
}

/// Sends the signal called `name` (`KILL`, `STOP`, ...) to all of `pids`; those that are gone are passed over.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The builtin of `sh`: no other program, no `unsafe`. It fails only if a process is gone.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -s {name} {}", pids.join(" "))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Whether the process runs: a zombie, which only its parent can remove, does not.
pub(crate) fn alive(pid: u32) -> bool {
    match state_and_parent(pid) {
        Some((state, _)) => !matches!(state, 'Z' | 'X'),
        None => false,
    }
}

/// Who runs now with `pid` as parent.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&candidate| state_and_parent(candidate).is_some_and(|(state, parent)| parent == pid && state != 'Z'))
        .collect()
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold brackets itself.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The last lines of a log, for a panic message.
pub(crate) fn log_tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(30)..].join("\n");
    format!("{} says:\n{tail}", log.display())
}

/// A started server.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    watcher: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command` with its output added to `log`. If this process dies, the server gets the signal `polite` (if any), then
    /// SIGKILL, and `dir` is removed.
    pub(crate) fn spawn(command: &mut Command, log: &Path, dir: &Path, polite: Option<&str>) -> io::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut watcher = Command::new("sh")
            .args(["-c", WATCHER, "infra-testkit-watcher"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let spawned = out
            .try_clone()
            .and_then(|err: File| command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn());
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                order(&mut watcher, "leave");
                let _ = watcher.wait();
                return Err(error);
            }
        };
        if let Some(polite) = polite {
            order(&mut watcher, &format!("polite {polite}"));
        }
        order(&mut watcher, &format!("watch {}", child.id()));
        Ok(Self { child, watcher, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The process and its children, parent first.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut pids = vec![self.pid()];
        pids.extend(children(self.pid()));
        pids
    }

    /// Sends SIGSTOP to the server and its children; returns once all have stopped.
    pub(crate) fn stop(&mut self) {
        // The parent first, so that it starts no more children.
        signal("STOP", &[self.pid()]);
        let family = self.family();
        signal("STOP", &family);
        let pids: Vec<String> = family.iter().map(u32::to_string).collect();
        order(&mut self.watcher, &format!("watch {}", pids.join(" ")));
        let stopped = |pid: u32| state_and_parent(pid).is_none_or(|(state, _)| matches!(state, 'T' | 'Z' | 'X'));
        wait_until(Duration::from_secs(5), || family.iter().all(|&pid| stopped(pid)).then_some(()))
            .unwrap_or_else(|| panic!("the server does not stop; {}", log_tail(&self.log)));
    }

    /// Sends SIGCONT to the server and its children.
    pub(crate) fn resume(&mut self) {
        signal("CONT", &self.family());
        let pid = self.pid();
        order(&mut self.watcher, &format!("watch {pid}"));
    }

    /// Lets the files of the server and its children grow so far; `prlimit` is a command that runs that program as their user.
    pub(crate) fn limit_files(&self, bytes_max: Option<u64>, prlimit: impl Fn() -> Command) {
        let size = bytes_max.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        for pid in self.family() {
            let done = prlimit().args([&format!("--fsize={size}:"), "--pid", &pid.to_string()]).output();
            let done = done.unwrap_or_else(|error| panic!("prlimit cannot be run ({error}): install util-linux"));
            // A child may have ended in between.
            let complaints = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() || !alive(pid), "prlimit: {complaints}");
        }
    }

    /// Ends the server and its children with SIGKILL and waits until all are gone.
    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    /// Ends the server with a signal that it may handle, at last with SIGKILL.
    pub(crate) fn end(mut self, polite: Option<&str>) {
        if let Some(polite) = polite {
            signal("CONT", &self.family());
            signal(polite, &[self.pid()]);
            wait_until(Duration::from_secs(10), || self.ended());
        }
        self.kill_now();
    }

    /// Lets the server live on without this process.
    pub(crate) fn release(mut self) {
        order(&mut self.watcher, "leave");
        let _ = self.watcher.wait();
    }

    fn kill_now(&mut self) {
        if self.ended().is_none() {
            let family = self.family();
            // `Child::kill` first: it cannot hit a process that took over the id.
            let _ = self.child.kill();
            if family.len() > 1 {
                signal("KILL", &family[1..]);
            }
            let _ = self.child.wait();
            wait_until(Duration::from_secs(10), || family[1..].iter().all(|&pid| !alive(pid)).then_some(()));
        }
        order(&mut self.watcher, "leave");
        let _ = self.watcher.wait();
    }
}

/// Tells the watcher something; fails only if somebody ended it, and then it does no harm.
fn order(watcher: &mut Child, what: &str) {
    if let Some(stdin) = watcher.stdin.as_mut() {
        let _ = stdin.write_all(format!("{what}\n").as_bytes());
    }
}
