//! What a configuration must hold beyond its types: one table, one function a rule.

use std::time::Duration;

use infra_types::{Decimal, Scaled};

use crate::{
    config::Config,
    preset::Preset,
    sections::{Backend, PostgresTls, RedisTopology},
};

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) path: &'static str,
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

struct Rule {
    name: &'static str,
    /// Gives path, message and hint of everything that breaks it.
    check: fn(&Config) -> Vec<Broken>,
}

type Broken = (&'static str, &'static str, &'static str);

/// Seven years.
const RETENTION_DAYS_MIN: u32 = 2555;
/// A halt must reach every process within this time even when the store is down.
const LEASE_MAX: Duration = Duration::from_secs(5);

/// Every rule; each has a test of its name below.
const RULES: &[Rule] = &[
    Rule { name: "audit_retention", check: audit_retention },
    Rule { name: "database_tls", check: database_tls },
    Rule { name: "kill_switch", check: kill_switch },
    Rule { name: "limits_finite", check: limits_finite },
    Rule { name: "redis_topology", check: redis_topology },
    Rule { name: "sizes", check: sizes },
    Rule { name: "timeouts", check: timeouts },
];

/// What is broken, in the order of the table.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let all = |rule: &'static Rule| {
        let finding = |(path, message, hint)| Finding { rule: rule.name, path, message, hint };
        (rule.check)(config).into_iter().map(finding)
    };
    RULES.iter().flat_map(all).collect()
}

/// An entry is kept for seven years, and in production somewhere that outlives the process.
fn audit_retention(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    if config.audit.retention_days < RETENTION_DAYS_MIN {
        broken.push(("audit.retention_days", "audit entries must be kept for at least 2555 days", "set 2555 or more"));
    }
    if config.preset == Preset::Production && config.audit.backend == Backend::Memory {
        let message = "an audit trail in memory is gone when the process ends";
        broken.push(("audit.backend", message, "set postgres or another durable backend"));
    }
    broken
}

/// In production nothing goes over a wire in plain text.
fn database_tls(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    if config.preset != Preset::Production {
        return broken;
    }
    if config.uses(Backend::Postgres) && config.postgres.tls == PostgresTls::Disable {
        let hint = "set postgres.tls or sslmode in the address to verify-full, or use preset `staging`";
        broken.push(("postgres.tls", "production needs TLS to PostgreSQL", hint));
    }
    if config.uses(Backend::Redis) && !config.redis.tls {
        broken.push(("redis.tls", "production needs TLS to Redis", "use a rediss:// address, or preset `staging`"));
    }
    broken
}

/// A halt is confirmed often enough, stops every process in time, and in production survives a restart.
fn kill_switch(config: &Config) -> Vec<Broken> {
    let emergency = &config.emergency;
    let mut broken = Vec::new();
    if emergency.lease.is_zero() || emergency.lease > LEASE_MAX {
        broken.push(("emergency.lease", "a halt must bind every process within 5 s", "set more than 0s, at most 5s"));
    }
    if emergency.poll_interval.is_zero() || emergency.poll_interval >= emergency.lease {
        let message = "the halt state must be read more often than the lease ends";
        broken.push(("emergency.poll_interval", message, "set more than 0s and less than emergency.lease"));
    }
    if !emergency.rearm_second_person_within.is_zero() && emergency.rearm_persons.len() == 1 {
        let message = "a re-arm by two persons needs two who may";
        broken.push(("emergency.rearm_persons", message, "name another person, or nobody"));
    }
    if config.preset == Preset::Production && config.ledger.backend == Backend::Memory {
        let message = "a halt in memory is forgotten when the process ends";
        broken.push(("ledger.backend", message, "set postgres or another durable backend"));
    }
    broken
}

/// Every limit is above zero, fits a stored counter, and a share is not a percentage by mistake.
fn limits_finite(config: &Config) -> Vec<Broken> {
    let risk = &config.risk;
    let mut broken = Vec::new();
    for (path, limit) in [
        ("risk.max_order_notional", risk.max_order_notional),
        ("risk.max_order_qty", risk.max_order_qty),
        ("risk.max_position_notional", risk.max_position_notional),
    ] {
        if !Scaled::allowed(limit).is_ok_and(|scaled| scaled > Scaled::ZERO) {
            let message = "a limit must be at least 0.0001 and at most 900719925474.0991";
            broken.push((path, message, "set the most that you are ready to lose control of"));
        }
    }
    if risk.look_every < Duration::from_millis(10) || risk.look_every > Duration::from_secs(5) {
        let message = "losses must be looked at every 10ms to 5s";
        broken.push(("risk.look_every", message, "an alert has to be out within 5 s of the event"));
    }
    for (path, share, most, message) in [
        (
            "risk.max_portfolio_exposure_pct",
            risk.max_portfolio_exposure_pct,
            Decimal::TEN,
            "must be above 0 and at most 10",
        ),
        ("risk.max_daily_loss_pct", risk.max_daily_loss_pct, Decimal::ONE, "must be above 0 and at most 1"),
        ("risk.max_drawdown_pct", risk.max_drawdown_pct, Decimal::ONE, "must be above 0 and at most 1"),
    ] {
        if share <= Decimal::ZERO || share > most {
            broken.push((path, message, "it is a share of equity: 0.05 is five percent"));
        }
    }
    broken
}

/// The settings that belong to a topology are there, and others are not.
fn redis_topology(config: &Config) -> Vec<Broken> {
    let redis = &config.redis;
    let mut broken = Vec::new();
    let has_nodes = !redis.nodes.is_empty();
    let hint = "write redis.nodes as host1:port,host2:port";
    match redis.topology {
        RedisTopology::Standalone if has_nodes => {
            let hint = "set redis.topology to sentinel or cluster, or remove redis.nodes";
            broken.push(("redis.nodes", "a standalone server is named by redis.host", hint));
        }
        RedisTopology::Sentinel if !has_nodes => broken.push(("redis.nodes", "no sentinel is named", hint)),
        RedisTopology::Cluster if !has_nodes => broken.push(("redis.nodes", "no node of the cluster is named", hint)),
        _ => {}
    }
    let needs_service = redis.topology == RedisTopology::Sentinel;
    if needs_service && redis.service.as_deref().is_none_or(str::is_empty) {
        let hint = "set it to the name in the sentinels' `sentinel monitor NAME …`";
        broken.push(("redis.service", "the sentinels watch a primary by its name", hint));
    }
    if redis.topology == RedisTopology::Cluster && redis.db != 0 {
        broken.push(("redis.db", "a cluster has only database 0", "remove it"));
    }
    broken
}

/// Sizes and ports that are not nothing.
fn sizes(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    if config.logging.file_bytes_max < 4096 {
        broken.push(("logging.file_bytes_max", "a log file must hold at least 4096 bytes", "10485760 is 10 MiB"));
    }
    for (path, port) in [("redis.port", config.redis.port), ("postgres.port", config.postgres.port)] {
        if port == 0 {
            broken.push((path, "a port must be 1 to 65535", "remove it for the usual port"));
        }
    }
    for (path, empty) in [
        ("data_dir", config.data_dir.as_os_str().is_empty()),
        ("sqlite.file", config.sqlite.file.as_os_str().is_empty()),
        ("logging.file", config.logging.file.as_ref().is_some_and(|file| file.as_os_str().is_empty())),
        ("postgres.db", config.postgres.db.is_empty()),
        ("postgres.user", config.postgres.user.is_empty()),
        ("postgres.schema", config.postgres.schema.is_empty()),
        ("redis.key_prefix", config.redis.key_prefix.is_empty()),
    ] {
        if empty {
            broken.push((path, "may not be empty", "remove it for the default"));
        }
    }
    broken
}

/// No deadline is zero, and waits grow towards their maximum.
fn timeouts(config: &Config) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (path, timeout) in [
        ("state.operation_timeout", config.state.operation_timeout),
        ("ledger.operation_timeout", config.ledger.operation_timeout),
        ("sqlite.busy_timeout", config.sqlite.busy_timeout),
        ("redis.connect_timeout", config.redis.connect_timeout),
        ("postgres.connect_timeout", config.postgres.connect_timeout),
        ("resilience.backoff_first", config.resilience.backoff_first),
        ("resilience.breaker_open_for", config.resilience.breaker_open_for),
    ] {
        if timeout.is_zero() {
            broken.push((path, "must be longer than nothing", "write a duration such as 2s"));
        }
    }
    if config.resilience.backoff_max < config.resilience.backoff_first {
        let hint = "set it to resilience.backoff_first or more";
        broken.push(("resilience.backoff_max", "the longest wait is shorter than the first", hint));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConfigBuilder;

    /// The paths that a rule names after `settings` were applied to a preset.
    fn broken(preset: Preset, rule: &str, settings: &[(&str, &str)]) -> Vec<String> {
        let builder = settings.iter().fold(ConfigBuilder::new(preset), |b, (path, value)| b.set(*path, *value));
        match builder.build() {
            Ok(_) => Vec::new(),
            Err(error) => {
                let mine = |p: &&crate::Problem| p.rule == Some(rule);
                error.problems().iter().filter(mine).map(|p| p.path.clone()).collect()
            }
        }
    }

    #[test]
    fn the_presets_break_no_rule() {
        for preset in Preset::ALL {
            let config = ConfigBuilder::new(preset).build().unwrap();
            assert!(check(&config).is_empty(), "{preset}");
        }
    }

    #[test]
    fn audit_retention() {
        for preset in Preset::ALL {
            assert_eq!(
                broken(preset, "audit_retention", &[("audit.retention_days", "2554")]),
                ["audit.retention_days"]
            );
            assert!(broken(preset, "audit_retention", &[("audit.retention_days", "2555")]).is_empty());
        }
        assert_eq!(broken(Preset::Production, "audit_retention", &[("audit.backend", "memory")]), ["audit.backend"]);
        assert!(broken(Preset::Staging, "audit_retention", &[("audit.backend", "memory")]).is_empty());
    }

    #[test]
    fn database_tls() {
        let plain = [("postgres.url", "postgres://bot@db/x?sslmode=disable"), ("redis.url", "redis://cache")];
        assert_eq!(broken(Preset::Production, "database_tls", &plain), ["postgres.tls", "redis.tls"]);
        assert!(broken(Preset::Staging, "database_tls", &plain).is_empty());
        let kept = [("postgres.url", "postgres://bot@db/x"), ("redis.url", "rediss://cache")];
        assert!(broken(Preset::Production, "database_tls", &kept).is_empty());
        let unused = [
            ("redis.tls", "false"),
            ("state.backend", "postgres"),
            ("events.backend", "postgres"),
            ("events.market_data_backend", "memory"),
        ];
        assert!(broken(Preset::Production, "database_tls", &unused).is_empty());
    }

    #[test]
    fn kill_switch() {
        for (path, value) in [
            ("emergency.lease", "5001ms"),
            ("emergency.poll_interval", "0s"),
            ("emergency.poll_interval", "5s"),
            ("ledger.backend", "memory"),
        ] {
            assert_eq!(broken(Preset::Production, "kill_switch", &[(path, value)]), [path], "{value}");
        }
        assert!(
            broken(Preset::Production, "kill_switch", &[("emergency.lease", "0s")]).contains(&"emergency.lease".into())
        );
        assert!(broken(Preset::Production, "kill_switch", &[("ledger.backend", "sqlite")]).is_empty());
        let persons = |who| [("emergency.rearm_second_person_within", "10m"), ("emergency.rearm_persons", who)];
        assert_eq!(broken(Preset::Staging, "kill_switch", &persons("anna")), ["emergency.rearm_persons"]);
        assert!(broken(Preset::Staging, "kill_switch", &persons("anna, ben")).is_empty());
        assert!(broken(Preset::Staging, "kill_switch", &persons("")).is_empty());
    }

    #[test]
    fn limits_finite() {
        for path in ["risk.max_order_notional", "risk.max_order_qty", "risk.max_position_notional"] {
            for bad in ["0", "-1", "0.00001", "900719925474.0992"] {
                assert_eq!(broken(Preset::Development, "limits_finite", &[(path, bad)]), [path], "{bad}");
            }
            assert!(broken(Preset::Development, "limits_finite", &[(path, "900719925474.0991")]).is_empty());
        }
        for (bad, is_broken) in [("9ms", true), ("10ms", false), ("5s", false), ("5001ms", true)] {
            let found = broken(Preset::Development, "limits_finite", &[("risk.look_every", bad)]);
            assert_eq!(!found.is_empty(), is_broken, "{bad}");
        }
        for (path, most, above) in [
            ("risk.max_portfolio_exposure_pct", "10", "80"),
            ("risk.max_daily_loss_pct", "1", "5"),
            ("risk.max_drawdown_pct", "1", "1.0001"),
        ] {
            for bad in ["0", "-0.05", above] {
                assert_eq!(broken(Preset::Production, "limits_finite", &[(path, bad)]), [path], "{bad}");
            }
            assert!(broken(Preset::Production, "limits_finite", &[(path, most)]).is_empty());
        }
    }

    #[test]
    fn redis_topology() {
        let broken = |settings: &[(&str, &str)]| broken(Preset::Staging, "redis_topology", settings);
        let nodes = ("redis.nodes", "a:26379, [::1]:26380");
        let sentinel = ("redis.topology", "sentinel");
        let cluster = ("redis.topology", "cluster");
        assert_eq!(broken(&[nodes]), ["redis.nodes"]);
        assert_eq!(broken(&[sentinel]), ["redis.nodes", "redis.service"]);
        assert_eq!(broken(&[cluster, ("redis.db", "1")]), ["redis.nodes", "redis.db"]);
        assert!(broken(&[sentinel, nodes, ("redis.service", "main")]).is_empty());
        assert!(broken(&[cluster, nodes]).is_empty());
    }

    #[test]
    fn sizes() {
        for (path, bad) in
            [("logging.file_bytes_max", "4095"), ("redis.port", "0"), ("postgres.port", "0"), ("data_dir", "")]
        {
            assert_eq!(broken(Preset::Staging, "sizes", &[(path, bad)]), [path]);
        }
    }

    #[test]
    fn timeouts() {
        for path in ["state.operation_timeout", "ledger.operation_timeout", "redis.connect_timeout"] {
            assert_eq!(broken(Preset::Staging, "timeouts", &[(path, "0s")]), [path]);
        }
        assert_eq!(
            broken(Preset::Staging, "timeouts", &[("resilience.backoff_max", "1ms")]),
            ["resilience.backoff_max"]
        );
    }
}
