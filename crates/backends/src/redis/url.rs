//! Reading a URL. Errors never repeat a part of it: whatever is misplaced may be the password.

use infra_types::Secret;
use percent_encoding::percent_decode_str;

use super::config::{RedisConfig, RedisTls, RedisTopology};
use crate::error::BackendError;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

fn broken(rule: &str) -> BackendError {
    BackendError::InvalidConfig { what: "Redis URL", rule: rule.to_owned() }
}

pub(super) fn parse(url: &str) -> Result<RedisConfig, BackendError> {
    let (scheme, rest) = url.trim().split_once("://").ok_or_else(|| {
        broken("it must start with redis://, rediss://, redis-cluster://, rediss-cluster://, redis-sentinel:// or rediss-sentinel://")
    })?;
    let (tls, kind) = match scheme {
        "redis" => (false, ""),
        "rediss" => (true, ""),
        "redis-cluster" => (false, "cluster"),
        "rediss-cluster" => (true, "cluster"),
        "redis-sentinel" => (false, "sentinel"),
        "rediss-sentinel" => (true, "sentinel"),
        _ => {
            return Err(broken(
                "the part before :// must be redis, rediss, redis-cluster, rediss-cluster, redis-sentinel or rediss-sentinel",
            ));
        }
    };
    if rest.contains(['?', '#']) {
        return Err(broken(
            "it may have no ? or #: options are set in the configuration, and in a password they are %3F and %23",
        ));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let (username, password) = credentials.map(parse_credentials).transpose()?.unwrap_or_default();
    let hosts = parse_hosts(hosts, if kind == "sentinel" { SENTINEL_PORT } else { PORT })?;
    let mut segments = path.trim_end_matches('/').split('/');
    let topology = match kind {
        "cluster" => RedisTopology::cluster(hosts),
        "sentinel" => {
            let service = segments.next().filter(|s| !s.is_empty());
            let service =
                service.ok_or_else(|| broken("after the sentinels comes /service, the name of the primary"))?;
            RedisTopology::sentinel(hosts, decode(service)?)
        }
        _ => {
            let [(host, port)] = <[_; 1]>::try_from(hosts)
                .map_err(|_| broken("several hosts need redis-cluster:// or redis-sentinel://"))?;
            RedisTopology::standalone(host, port)
        }
    };
    let db = match segments.next().filter(|s| !s.is_empty()) {
        None => 0,
        Some(db) => db.parse().map_err(|_| broken("the database after the last / must be a number"))?,
    };
    if segments.next().is_some() {
        return Err(broken("there are too many / after the host; in a password it is %2F"));
    }
    let mut config = RedisConfig::new(topology).with_db(db);
    (config.username, config.password) = (username, password.map(Secret::new));
    config.tls = tls.then(RedisTls::default);
    config.validate()?;
    Ok(config)
}

fn parse_credentials(text: &str) -> Result<(Option<String>, Option<String>), BackendError> {
    let (user, password) =
        text.split_once(':').ok_or_else(|| broken("before the @ comes user:password, or :password alone"))?;
    let filled = |part: &str| (!part.is_empty()).then(|| decode(part)).transpose();
    Ok((filled(user)?, filled(password)?))
}

fn decode(part: &str) -> Result<String, BackendError> {
    let text = percent_decode_str(part).decode_utf8();
    Ok(text.map_err(|_| broken("what is percent-encoded must be UTF-8"))?.into_owned())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, separated by commas.
fn parse_hosts(text: &str, default_port: u16) -> Result<Vec<(String, u16)>, BackendError> {
    text.split(',')
        .map(|one| {
            let (host, port) = match one.strip_prefix('[').map(|rest| rest.split_once(']')) {
                Some(None) => return Err(broken("the ] of an IPv6 address is missing")),
                Some(Some((host, ""))) => (host, None),
                Some(Some((host, port))) => (host, Some(port.strip_prefix(':').unwrap_or(""))),
                None => match one.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (one, None),
                },
            };
            if host.is_empty() {
                return Err(broken("a host is missing"));
            }
            let port = port.map_or(Ok(default_port), str::parse);
            match port {
                Ok(port) if port > 0 => Ok((host.to_owned(), port)),
                _ => Err(broken("a port must be a number from 1 to 65535; an IPv6 address stands in [ ]")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use infra_types::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    fn hosts(list: &[(&str, u16)]) -> Vec<(String, u16)> {
        list.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    }

    #[test]
    fn a_single_server() {
        let c = parse("redis://bot:p%40ss%2Fw%3Ard@db.local:6380/3").unwrap();
        assert_eq!(c.topology, RedisTopology::standalone("db.local", 6380));
        assert_eq!(c.username.as_deref(), Some("bot"));
        assert_eq!(c.password.unwrap().expose(), "p@ss/w:rd");
        assert_eq!((c.db, c.tls), (3, None));

        let c = parse("rediss://:only@[::1]").unwrap();
        assert_eq!(c.topology, RedisTopology::standalone("::1", 6379));
        assert_eq!((c.username, c.tls), (None, Some(RedisTls::default())));
        assert_eq!(
            parse("redis://localhost/").unwrap(),
            RedisConfig::new(RedisTopology::standalone("localhost", 6379))
        );
    }

    #[test]
    fn several_servers() {
        let c = parse("rediss-cluster://a:7000,b,[::2]:7002").unwrap();
        assert_eq!(c.topology, RedisTopology::cluster(hosts(&[("a", 7000), ("b", 6379), ("::2", 7002)])));
        assert!(c.tls.is_some());
        let c = parse("redis-sentinel://u:p@s1:26380,s2/prime/4").unwrap();
        assert_eq!(c.topology, RedisTopology::sentinel(hosts(&[("s1", 26380), ("s2", 26379)]), "prime"));
        assert_eq!((c.db, c.username.as_deref()), (4, Some("u")));
    }

    #[test]
    fn wrong_urls_are_named_and_never_shown() {
        for url in [
            "hunter2",
            "hunter2://h",
            "http://u:hunter2@h",
            "redis://u:hunter2@",
            "redis://u:hunter2@h:port",
            "redis://u:hunter2@h:0",
            "redis://u:hunter2@h:70000",
            "redis://u:hunter2@h/name",
            "redis://u:hunter2@h/1/2",
            "redis://u:hunter2@h/-1",
            "redis://u:hunter2/x@h",
            "redis://u:hunter2?x@h",
            "redis://hunter2@h",
            "redis://u:hunter2%ff@h",
            "redis://u:hunter2@h1,h2",
            "redis://u:hunter2@[::1",
            "redis://u:hunter2@[::1]6379",
            "redis://u:hunter2@::1",
            "redis://hunter2:@h",
            "redis-cluster://u:hunter2@h/1",
            "redis-cluster://u:hunter2@h,,i",
            "redis-sentinel://u:hunter2@h",
            "redis-sentinel://u:hunter2@h//1",
            "",
        ] {
            let error = parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_shows(url in "(redis|rediss-cluster|redis-sentinel)://[a-z:@/,\\[\\]%0-9]{0,12}SECRET[a-z:@/,\\[\\]%0-9]{0,12}") {
            match parse(&url) {
                Ok(config) => prop_assert!(config.validate().is_ok()),
                Err(error) => {
                    let text = format!("{error:?}{error}");
                    prop_assert!(!text.contains("SECRET"));
                }
            }
        }

        #[test]
        fn any_password_survives(password in "\\PC{1,20}") {
            let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
            let config = parse(&format!("redis://:{encoded}@h")).unwrap();
            prop_assert_eq!(config.password.as_ref().unwrap().expose(), &password);
            let text = format!("{config:?}");
            prop_assert!(password.len() < 6 || !text.contains(&password));
        }
    }
}
