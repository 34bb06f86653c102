//! Installs the servers that the tests start for themselves, where they are missing.
//!
//! The tests start private servers on free ports; they never use one that is already running. Debian's packages start services
//! of their own on 6379 and 5432: harmless, and where `RUNLEVEL` is heeded (no systemd, as in most containers) they are told not
//! to. No service is ever stopped.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::CommandLine;
use crate::workspace::Workspace;

/// Redis has had what the scripts rely on since.
const REDIS_OLDEST: u32 = 7;
/// The oldest PostgreSQL that the drivers are tested with.
const POSTGRES_OLDEST: u32 = 15;
/// Where Debian keeps PostgreSQL's programs, which are not in PATH: `15/bin`, `17/bin`.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// What to do where we cannot.
const BY_HAND: &str = "`apt-get install redis-server postgresql` (Debian, Ubuntu), `dnf install redis postgresql-server` (Fedora) \
                       or `brew install redis postgresql@17` (then put its bin in PATH)";

/// Which servers the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers {
    /// The answer of `redis-server --version`.
    pub redis: Option<String>,
    /// The newest answer of `postgres --version`.
    pub postgres: Option<String>,
}

impl Servers {
    /// Asks each program for its version.
    pub fn look(dir: &Path) -> Self {
        let debian = fs::read_dir(DEBIAN_POSTGRES).into_iter().flatten();
        let mut places: Vec<PathBuf> = debian.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
        // An empty path: the one in PATH.
        places.push(PathBuf::new());
        let version = |program: PathBuf| ask(dir, &[&program.to_string_lossy(), "--version"]);
        // The server is nothing without the program that makes its directory.
        let complete = places.iter().filter(|place| version(place.join("initdb")).is_some());
        let postgres = complete.filter_map(|place| version(place.join("postgres"))).max_by_key(|said| major(said));
        Self { redis: version("redis-server".into()), postgres }
    }

    /// Debian's packages for what is missing or too old.
    pub fn lacks(&self) -> Vec<&'static str> {
        let old = |said: &Option<String>, oldest| said.as_deref().and_then(major).is_none_or(|found| found < oldest);
        let mut packages = Vec::new();
        if old(&self.redis, REDIS_OLDEST) {
            packages.push("redis-server");
        }
        if old(&self.postgres, POSTGRES_OLDEST) {
            packages.push("postgresql");
        }
        packages
    }

    /// One line for what is missing or too old.
    fn complaint(&self) -> String {
        let found = |said: &Option<String>| said.as_deref().map_or("none".to_owned(), |said| said.trim().to_owned());
        format!(
            "the tests need redis-server {REDIS_OLDEST} or newer (found: {}) and PostgreSQL {POSTGRES_OLDEST} or newer (found: {})",
            found(&self.redis),
            found(&self.postgres)
        )
    }
}

/// Looks, and installs what is missing.
///
/// # Errors
/// One line that says what to install, if that cannot be done here.
pub fn check(workspace: &Workspace) -> Result<String, Vec<String>> {
    let dir = &workspace.root;
    let mut servers = Servers::look(dir);
    let missing = servers.lacks();
    if !missing.is_empty() {
        let works = |words: &[&str]| ask(dir, words).is_some();
        let prefix: &[&str] = if !works(&["apt-get", "--version"]) {
            return Err(vec![format!("{}: install them with {BY_HAND}", servers.complaint())]);
        } else if ask(dir, &["id", "-u"]).is_some_and(|id| id.trim() == "0") {
            &[]
        } else if works(&["sudo", "-n", "true"]) {
            &["sudo", "-n"]
        } else {
            return Err(vec![format!("{}: as root, install them with {BY_HAND}", servers.complaint())]);
        };
        for command in install(prefix, &missing) {
            command.run(dir).map_err(|error| {
                vec![format!("{}: `{}` failed: {error}; {BY_HAND}", servers.complaint(), command.shell())]
            })?;
        }
        servers = Servers::look(dir);
        if !servers.lacks().is_empty() {
            return Err(vec![format!("{}, and the package manager has no newer one", servers.complaint())]);
        }
    }
    let number = |said: &Option<String>| said.as_deref().and_then(major).unwrap_or_default();
    Ok(format!("redis-server {}, PostgreSQL {}", number(&servers.redis), number(&servers.postgres)))
}

/// The commands that install these packages.
pub fn install(prefix: &[&str], packages: &[&str]) -> Vec<CommandLine> {
    // `env`, because sudo passes no variables on.
    let quiet = ["env", "RUNLEVEL=1", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let command = |rest: &[&str]| {
        let words = prefix.iter().chain(&quiet).chain(rest).map(|&word| word.to_owned()).collect();
        CommandLine { env: Vec::new(), words }
    };
    let chosen: Vec<&str> = ["install", "-y", "--no-install-recommends"].iter().chain(packages).copied().collect();
    vec![command(&["update"]), command(&chosen)]
}

fn ask(dir: &Path, words: &[&str]) -> Option<String> {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    CommandLine { env: Vec::new(), words }.output(dir).ok()
}

/// `Redis server v=7.0.15 sha=…` is 7, `postgres (PostgreSQL) 15.14 (Debian …)` is 15, `postgres (PostgreSQL) 18beta1` is 18.
fn major(said: &str) -> Option<u32> {
    said.split_whitespace().find_map(|word| {
        let word = word.trim_start_matches("v=");
        let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        word[..end].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(redis: &str, postgres: &str) -> Servers {
        Servers { redis: Some(redis.to_owned()), postgres: Some(postgres.to_owned()) }
    }

    #[test]
    fn what_the_servers_say_is_read() {
        assert_eq!(major("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"), Some(7));
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("no number here"), None);
    }

    #[test]
    fn only_what_is_missing_or_old_is_installed() {
        let complete = servers("Redis server v=7.0.15", "postgres (PostgreSQL) 15.1");
        assert!(complete.lacks().is_empty());
        assert_eq!(Servers { redis: None, ..complete.clone() }.lacks(), ["redis-server"]);
        assert_eq!(
            servers("Redis server v=6.0.16", "postgres (PostgreSQL) 13.2").lacks(),
            ["redis-server", "postgresql"]
        );
        assert_eq!(Servers::default().lacks(), ["redis-server", "postgresql"]);
    }

    #[test]
    fn the_commands_ask_nothing_and_start_no_service() {
        let shell =
            |prefix: &[&str]| install(prefix, &["redis-server"]).iter().map(CommandLine::shell).collect::<Vec<_>>();
        let expected = [
            "env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get update",
            "env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server",
        ];
        assert_eq!(shell(&[]), expected);
        assert_eq!(shell(&["sudo", "-n"])[0], format!("sudo -n {}", expected[0]));
    }

    #[test]
    fn the_complaint_is_one_line_that_says_what_to_install() {
        let line = format!("{}: install them with {BY_HAND}", servers("Redis server v=6.0.16\n", "x\n").complaint());
        assert_eq!(line.lines().count(), 1);
        for word in ["v=6.0.16", "redis-server 7", "PostgreSQL 15", "apt-get", "dnf", "brew"] {
            assert!(line.contains(word), "{word}: {line}");
        }
    }
}
