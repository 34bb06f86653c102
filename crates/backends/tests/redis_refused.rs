//! Servers and settings that will not do: each a typed error that says what to do, in bounded time.
#![expect(clippy::unwrap_used, reason = "helpers of a test end it like the test itself")]

use std::time::Duration;

use infra_backends::{Access, BackendError, Fsync, Pem, Redis, RedisConfig, RedisTls, RedisTopology};
use infra_testkit::{RedisServer, free_port};
use infra_types::{Clock, ErrorKind, Secret, SystemClock};
use redis::{Value, cmd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(port: u16) -> RedisConfig {
    RedisConfig::new(RedisTopology::standalone("127.0.0.1", port)).with_connect_timeout(Duration::from_secs(1))
}

/// The error of the first write, which must come in time and show no secret.
async fn refused(config: RedisConfig) -> BackendError {
    let limit = config.connect_timeout + config.operation_timeout + Duration::from_millis(500);
    let redis = Redis::new(config).unwrap();
    let started = SystemClock.now();
    let mut set = cmd("SET");
    set.arg("key").arg("value");
    let error = redis.query(b"key", &set, Access::Write).await.unwrap_err();
    assert!(SystemClock.now().since(started) < limit, "too late: {error}");
    let text = format!("{error} {error:?} {redis:?}");
    assert!(!text.contains("hunter2") && !text.contains("-----BEGIN"), "{text}");
    assert_ne!(error.kind(), ErrorKind::Ambiguous, "nothing was sent: {error}");
    error
}

async fn works(config: RedisConfig) -> Redis {
    let redis = Redis::new(config).unwrap();
    assert_eq!(redis.query(b"", &cmd("PING"), Access::Read).await.unwrap(), Value::SimpleString("PONG".into()));
    redis
}

#[tokio::test]
async fn nobody_there() {
    assert!(matches!(refused(config(free_port())).await, BackendError::Connect { .. }));
    let nowhere = RedisConfig::new(RedisTopology::standalone("no-such-host.invalid", 6379));
    assert!(matches!(refused(nowhere).await, BackendError::Connect { .. }));
}

#[tokio::test]
async fn wrong_settings_are_refused_before_any_io() {
    let cluster = RedisTopology::cluster(vec![("h".into(), 1)]);
    for wrong in [
        RedisConfig::new(RedisTopology::standalone("", 1)),
        RedisConfig::new(RedisTopology::cluster(Vec::new())),
        RedisConfig::new(cluster).with_db(1),
        RedisConfig::new(RedisTopology::sentinel(vec![("h".into(), 1)], "")),
        RedisConfig::default().with_username("u"),
        RedisConfig::default().with_operation_timeout(Duration::ZERO),
    ] {
        assert_eq!(Redis::new(wrong).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn wrong_password() {
    let server = RedisServer::builder().password("right").start();
    let none = refused(config(server.port())).await;
    assert!(matches!(&none, BackendError::Auth { reason, .. } if reason.contains("none is configured")), "{none}");
    let wrong = refused(config(server.port()).with_password(Secret::new("hunter2".into()))).await;
    assert!(matches!(&wrong, BackendError::Auth { reason, .. } if reason.contains("WRONGPASS")), "{wrong}");
    assert_eq!(wrong.kind(), ErrorKind::Permanent);
    works(RedisConfig::from_url(&server.url()).unwrap()).await;
    let open = RedisServer::start();
    let needless = refused(config(open.port()).with_password(Secret::new("hunter2".into()))).await;
    assert!(matches!(needless, BackendError::Auth { .. }), "{needless}");
}

#[tokio::test]
async fn users_and_their_rights() {
    let server = RedisServer::builder()
        .config("user", "blind on >hunter2 ~* +@all -config")
        .config("user", "deaf on >hunter2 ~* +@all -info -config -client")
        .start();
    let user = |name: &str| config(server.port()).with_username(name).with_password(Secret::new("hunter2".into()));
    let blind = refused(user("blind")).await;
    assert!(matches!(&blind, BackendError::Unverified { what: "appendfsync setting", .. }), "{blind}");
    let deaf = refused(user("deaf")).await;
    assert!(matches!(&deaf, BackendError::Unverified { what: "version and role", .. }), "{deaf}");
    let redis = works(user("blind").with_allow_unverified(true)).await;
    assert_eq!(redis.server().unwrap().fsync, None);
    let redis = works(user("deaf").with_allow_unverified(true)).await;
    assert_eq!(redis.server().unwrap().version, None);
    let denied = redis.query(b"", &cmd("INFO"), Access::Read).await.unwrap_err();
    assert!(matches!(denied, BackendError::Denied { .. }), "{denied}");
}

#[tokio::test]
async fn tls_and_its_certificates() {
    let server = RedisServer::builder().tls().start();
    let certificates = server.certificates();
    let with = |tls: RedisTls| config(server.port()).with_tls(tls);
    works(with(RedisTls::default().with_ca(Pem::text(certificates.ca_pem())))).await;
    works(with(RedisTls::default().with_ca(Pem::file(certificates.ca_file())))).await;

    let stranger = refused(with(RedisTls::default().with_ca(Pem::text(certificates.other_ca_pem())))).await;
    assert!(matches!(stranger, BackendError::Tls { .. }), "{stranger}");
    assert_eq!(stranger.kind(), ErrorKind::Permanent);
    let name = RedisTls::default().with_ca(Pem::file(certificates.ca_file())).with_server_name("other.example");
    let misnamed = refused(with(name)).await;
    assert!(matches!(misnamed, BackendError::Tls { .. }), "{misnamed}");
    let missing = refused(with(RedisTls::default().with_ca(Pem::file("/no/such/file.pem")))).await;
    assert_eq!(missing.kind(), ErrorKind::Invalid, "{missing}");
    let empty = refused(with(RedisTls::default().with_ca(Pem::text("hunter2")))).await;
    assert_eq!(empty.kind(), ErrorKind::Invalid, "{empty}");

    let plain = refused(config(server.port())).await;
    assert!(plain.to_string().contains("rediss://"), "{plain}");
    let other = RedisServer::start();
    let backwards = config(other.port()).with_tls(RedisTls::default().with_ca(Pem::file(certificates.ca_file())));
    let backwards = refused(backwards).await;
    assert!(matches!(backwards, BackendError::Tls { .. } | BackendError::Connect { .. }), "{backwards}");
}

#[tokio::test]
async fn tls_with_client_certificates() {
    let server = RedisServer::builder().tls_with_client_certificate().start();
    let certificates = server.certificates();
    let ca = || RedisTls::default().with_ca(Pem::file(certificates.ca_file()));
    let client = ca().with_client(Pem::text(certificates.client_pem()), Pem::file(certificates.client_key_file()));
    works(config(server.port()).with_tls(client)).await;
    let anonymous = refused(config(server.port()).with_tls(ca())).await;
    assert!(matches!(&anonymous, BackendError::Tls { .. } | BackendError::Connect { .. }), "{anonymous}");
    assert!(anonymous.to_string().contains("certificate"), "{anonymous}");
    let halves = ca().with_client(Pem::text(certificates.client_pem()), Pem::text(certificates.client_pem()));
    assert_eq!(refused(config(server.port()).with_tls(halves)).await.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_certificate_for_another_host() {
    let server = RedisServer::builder().tls_for("other.example").start();
    let ca = RedisTls::default().with_ca(Pem::file(server.certificates().ca_file()));
    assert!(matches!(refused(config(server.port()).with_tls(ca.clone())).await, BackendError::Tls { .. }));
    works(config(server.port()).with_tls(ca.with_server_name("other.example"))).await;
}

/// A listener that answers `say` to everything, or nothing.
async fn listener(say: Option<&'static [u8]>) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(say) = say else {
                kept.push(stream);
                continue;
            };
            tokio::spawn(async move {
                let mut buffer = [0; 1_024];
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) && stream.write_all(say).await.is_ok() {}
            });
        }
    });
    port
}

#[tokio::test]
async fn no_redis_at_all() {
    for say in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\x15\x03\x01\x00\x02\x02\x46", b"220 mail ready\r\n"] {
        let error = refused(config(listener(Some(say)).await)).await;
        assert!(matches!(error, BackendError::Connect { .. }), "{error}");
    }
    for tls in [None, Some(RedisTls::default())] {
        let mut silent = config(listener(None).await);
        silent.tls = tls;
        let error = refused(silent).await;
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid), "{error}");
    }
}

/// A relay to `port` that changes what the server says, byte for byte.
async fn relay(port: u16, from: &'static str, to: &'static str) -> u16 {
    assert_eq!(from.len(), to.len());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..n]).replace(from, to);
                    if to_client.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    own
}

#[tokio::test]
async fn too_old() {
    let server = RedisServer::start();
    let error = refused(config(relay(server.port(), "redis_version:7.", "redis_version:6.").await)).await;
    assert!(matches!(&error, BackendError::TooOld { found, needed: "7.0" } if found.starts_with("6.")), "{error}");
}

#[tokio::test]
async fn a_server_that_may_evict() {
    let server = RedisServer::builder().config("maxmemory-policy", "allkeys-lru").start();
    let error = refused(config(server.port())).await;
    assert!(matches!(&error, BackendError::Evicts { policy } if policy == "allkeys-lru"), "{error}");
    assert!(error.to_string().contains("noeviction"));
    works(config(server.port()).with_allow_eviction(true)).await;
}

#[tokio::test]
async fn a_server_that_is_not_durable_enough() {
    let server = RedisServer::builder().config("appendonly", "no").start();
    let error = refused(config(server.port()).with_min_fsync(Fsync::EverySec)).await;
    assert!(matches!(error, BackendError::NotDurable { .. }), "{error}");
    let redis = works(config(server.port())).await;
    assert_eq!(redis.server().unwrap().fsync, Some(Fsync::Off));
}

#[tokio::test]
async fn a_replica() {
    let master = RedisServer::start();
    let replica = RedisServer::builder().replica_of(&master).start();
    assert!(matches!(refused(config(replica.port())).await, BackendError::ReadOnly));
    // It became one while connected: the write was refused, and the next one finds out before it sends.
    let redis = works(config(master.port())).await;
    master.cli(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]);
    let mut set = cmd("SET");
    set.arg("key").arg("value");
    for _ in 0..3 {
        let error = redis.query(b"key", &set, Access::Write).await.unwrap_err();
        assert!(matches!(error, BackendError::ReadOnly), "{error}");
    }
    master.cli(&["REPLICAOF", "NO", "ONE"]);
    let mut answer = redis.query(b"key", &set, Access::Write).await;
    while answer.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = redis.query(b"key", &set, Access::Write).await;
    }
}

#[tokio::test]
async fn a_full_server() {
    let server = RedisServer::builder().config("maxmemory", "3mb").start();
    let redis = works(config(server.port())).await;
    let big = vec![b'x'; 1 << 20];
    let mut last = Ok(Value::Nil);
    for n in 0..8 {
        let mut set = cmd("SET");
        set.arg(n).arg(&big);
        last = redis.query(b"key", &set, Access::Write).await;
    }
    assert!(matches!(last, Err(BackendError::Full)), "{last:?}");
    server.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let script = infra_backends::RedisScript::new("return redis.call('SET', KEYS[1], ARGV[1])");
    let mut call = script.call(1);
    call.arg("k").arg("v");
    let error = redis.script(b"k", &script, &call, Access::Write).await.unwrap_err();
    assert!(matches!(error, BackendError::Full), "{error:?}");
    assert_eq!(server.cli(&["EXISTS", "k"]).text(), "0");
    assert!(redis.query(b"0", cmd("GET").arg(0), Access::Read).await.is_ok(), "reading goes on");
}

#[tokio::test]
async fn the_wrong_topology() {
    let server = RedisServer::start();
    let seeds = vec![("127.0.0.1".to_owned(), server.port())];
    let cluster = RedisConfig::new(RedisTopology::cluster(seeds.clone()));
    assert_eq!(refused(cluster).await.kind(), ErrorKind::Invalid);
    let sentinel = RedisConfig::new(RedisTopology::sentinel(seeds, "prime"));
    let error = refused(sentinel).await;
    assert!(error.to_string().contains("SENTINEL") || error.to_string().contains("sentinel"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there() {
    let server = RedisServer::start();
    let error = refused(config(server.port()).with_db(99)).await;
    assert!(matches!(&error, BackendError::InvalidConfig { what: "Redis database", .. }), "{error}");
}
