//! What the server says about itself, and whether that will do.

use redis::Value;

use super::config::RedisConfig;
use crate::error::BackendError;

const NEEDED: &str = "7.0";

/// When the server brings a write to its disk, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fsync {
    /// No append-only file: snapshots at most, a crash of the server loses everything since the last one.
    Off,
    /// The operating system decides; a crash of the server loses nothing, a power cut up to half a minute.
    No,
    /// Once a second; a power cut loses about the last second.
    EverySec,
    /// Before each answer; an answered write survives a power cut.
    Always,
}

impl std::fmt::Display for Fsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "appendonly no",
            Self::No => "appendfsync no",
            Self::EverySec => "appendfsync everysec",
            Self::Always => "appendfsync always",
        })
    }
}

/// What a server said about itself when it was last connected to. With a cluster: the newest node, with the weakest
/// `fsync` seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisServer {
    /// Its version, like `7.0.15`; none if it does not tell.
    pub version: Option<String>,
    /// When it brings writes to its disk; none if it does not tell.
    pub fsync: Option<Fsync>,
    /// What it does when its memory is full; none if it does not tell.
    pub maxmemory_policy: Option<String>,
    /// Its identity, new at each start; none if it does not tell.
    pub run_id: Option<String>,
    /// Whether it is a node of a cluster.
    pub cluster: bool,
}

/// The kind of server that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Primary,
    ClusterNode,
}

/// Judges the replies to `INFO` and `CONFIG GET appendfsync`.
pub(super) fn judge(
    info: &Result<String, String>,
    appendfsync: &Result<String, String>,
    expected: Expected,
    config: &RedisConfig,
) -> Result<RedisServer, BackendError> {
    let text = match info {
        Ok(text) => text.as_str(),
        Err(_) if config.allow_unverified => "",
        Err(reason) => return Err(unverified("version and role", reason)),
    };
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    };
    let unless_allowed = |found: Option<String>, what| match found {
        None if !config.allow_unverified => Err(unverified(what, "INFO does not hold it")),
        found => Ok(found),
    };
    let version = unless_allowed(field("redis_version"), "version")?;
    if let Some(found) = version.as_ref().filter(|v| major(v) < 7) {
        return Err(BackendError::TooOld { found: found.clone(), needed: NEEDED });
    }
    let mode = field("redis_mode").unwrap_or_default();
    let wrong = |rule: &str| BackendError::InvalidConfig { what: "Redis topology", rule: rule.to_owned() };
    match (mode.as_str(), expected) {
        ("sentinel", _) => {
            return Err(wrong("the server is a sentinel: name it in redis-sentinel:// with its service"));
        }
        ("cluster", Expected::Primary) => {
            return Err(wrong("the server is a node of a cluster: use redis-cluster://"));
        }
        ("standalone", Expected::ClusterNode) => {
            return Err(wrong("the server is not a node of a cluster: use redis://"));
        }
        _ => {}
    }
    if field("loading").as_deref() == Some("1") {
        // Until its data is read it calls its append-only file off, whatever its configuration says.
        return Err(BackendError::Transient { reason: "LOADING the server reads its data from the disk".to_owned() });
    }
    let role = unless_allowed(field("role"), "role")?;
    if role.as_deref() == Some("slave") && expected == Expected::Primary {
        return Err(BackendError::ReadOnly);
    }
    let policy = unless_allowed(field("maxmemory_policy"), "maxmemory-policy")?;
    if let Some(policy) = policy.as_ref().filter(|p| *p != "noeviction" && !config.allow_eviction) {
        return Err(BackendError::Evicts { policy: policy.clone() });
    }
    let fsync = match (field("aof_enabled").as_deref(), appendfsync) {
        (Some("0"), _) => Some(Fsync::Off),
        (_, Ok(value)) => Some(match value.as_str() {
            "always" => Fsync::Always,
            "everysec" => Fsync::EverySec,
            _ => Fsync::No,
        }),
        (_, Err(_)) => None,
    };
    if let (Err(reason), false) = (appendfsync, config.allow_unverified) {
        return Err(unverified("appendfsync setting", reason));
    }
    if let Some(needed) = config.min_fsync.filter(|needed| fsync.is_none_or(|found| found < *needed)) {
        let found = fsync.map_or_else(|| "an unknown setting".to_owned(), |found| found.to_string());
        return Err(BackendError::NotDurable { found, needed: needed.to_string() });
    }
    Ok(RedisServer { version, fsync, maxmemory_policy: policy, run_id: field("run_id"), cluster: mode == "cluster" })
}

fn unverified(what: &'static str, reason: &str) -> BackendError {
    BackendError::Unverified { what, reason: reason.to_owned() }
}

/// The first number of a version; the newest there is for what is none, for it is not known to be old.
fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
}

/// The text of a reply, or the server's words why there is none.
pub(super) fn text(reply: Option<&Value>) -> Result<String, String> {
    match reply {
        Some(Value::BulkString(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Some(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => Ok(text.clone()),
        Some(Value::ServerError(e)) => Err(format!("{} {}", e.code(), e.details().unwrap_or_default())),
        Some(Value::Array(items)) => match items.get(1) {
            Some(value) => text(Some(value)),
            None => Err("the answer is empty".to_owned()),
        },
        _ => Err("the answer is of another kind".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, role: &str, policy: &str, aof: u8, mode: &str) -> Result<String, String> {
        Ok(format!(
            "# Server\r\nredis_version:{version}\r\nredis_mode:{mode}\r\nrun_id:abc\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n\
             aof_enabled:{aof}\r\nrole:{role}\r\n"
        ))
    }

    fn fine() -> Result<String, String> {
        info("7.0.15", "master", "noeviction", 1, "standalone")
    }

    #[test]
    fn a_good_server_is_described() {
        let server = judge(&fine(), &Ok("always".into()), Expected::Primary, &RedisConfig::default()).unwrap();
        assert_eq!(server.version.as_deref(), Some("7.0.15"));
        assert_eq!((server.fsync, server.run_id.as_deref()), (Some(Fsync::Always), Some("abc")));
        assert!(!server.cluster);
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let config = RedisConfig::default();
        let fsync = || Ok("everysec".to_owned());
        let judged = |i, c: &RedisConfig| judge(&i, &fsync(), Expected::Primary, c).unwrap_err();
        let old = judged(info("6.2.14", "master", "noeviction", 1, "standalone"), &config);
        assert!(matches!(&old, BackendError::TooOld { found, needed: "7.0" } if found == "6.2.14"), "{old}");
        let evicts = judged(info("7.2.0", "master", "allkeys-lru", 1, "standalone"), &config);
        assert!(evicts.to_string().contains("noeviction"), "{evicts}");
        let replica = judged(info("7.2.0", "slave", "noeviction", 1, "standalone"), &config);
        assert!(matches!(replica, BackendError::ReadOnly));
        for mode in ["cluster", "sentinel"] {
            let wrong = judged(info("7.2.0", "master", "noeviction", 1, mode), &config);
            assert!(matches!(wrong, BackendError::InvalidConfig { .. }));
        }
        let weak = judged(fine(), &config.clone().with_min_fsync(Fsync::Always));
        assert!(matches!(weak, BackendError::NotDurable { .. }), "{weak}");
        let silent = judge(&fine(), &Err("NOPERM no".into()), Expected::Primary, &config).unwrap_err();
        assert!(matches!(silent, BackendError::Unverified { .. }), "{silent}");
        let mute = judge(&Err("NOPERM no".into()), &fsync(), Expected::Primary, &config).unwrap_err();
        assert!(matches!(mute, BackendError::Unverified { .. }), "{mute}");
    }

    #[test]
    fn a_server_that_loads_is_not_called_forgetful() {
        let text = info("7.0.15", "master", "noeviction", 0, "standalone").unwrap().replace("# Memory", "loading:1");
        let durable = RedisConfig::default().with_min_fsync(Fsync::Always);
        let loading = judge(&Ok(text), &Ok("always".into()), Expected::Primary, &durable).unwrap_err();
        assert_eq!(loading.kind(), infra_types::ErrorKind::Transient, "{loading}");
    }

    #[test]
    fn what_is_accepted_is_accepted_only_as_far_as_asked() {
        let denied = || Err("NOPERM no".to_owned());
        let lax = RedisConfig::default().with_allow_unverified(true);
        assert_eq!(judge(&denied(), &denied(), Expected::Primary, &lax).unwrap().fsync, None);
        assert_eq!(judge(&fine(), &denied(), Expected::Primary, &lax).unwrap().version.as_deref(), Some("7.0.15"));
        let evicts = info("7.0.0", "master", "volatile-ttl", 0, "standalone");
        assert!(judge(&evicts, &denied(), Expected::Primary, &lax).is_err(), "eviction is another question");
        let cache = lax.with_allow_eviction(true);
        assert_eq!(judge(&evicts, &denied(), Expected::Primary, &cache).unwrap().fsync, Some(Fsync::Off));
        let durable = cache.with_min_fsync(Fsync::No);
        assert!(judge(&denied(), &denied(), Expected::Primary, &durable).is_err(), "unknown is not durable");
    }
}
