//! What only Redis has: its settings, its refusals, and other people's keys.
#![cfg(feature = "redis")]

use std::{sync::Arc, time::Duration};

use infra_backends::{Pem, RedisConfig, RedisTls};
use infra_state_store::{
    Applied, Batch, Capability, Delta, Key, Op, OutboxPosition, RedisStateStore, Scan, StateStore, StateStoreExt,
    StoreError, Ttl, Value, Version, When, create_state_store,
};
use infra_testkit::{RedisServer, Reply, unique_name};
use infra_types::{ErrorKind, HealthStatus, Namespace, SystemClock};

fn home() -> Namespace {
    Namespace::new("home").expect("a valid namespace")
}

fn record(name: &str) -> Key {
    Key::record(name).expect("a valid key")
}

fn cache(name: &str) -> Key {
    Key::cache(name).expect("a valid key")
}

fn config(server: &RedisServer) -> RedisConfig {
    RedisConfig::from_url(&server.url()).expect("a valid URL")
}

fn open(config: RedisConfig) -> RedisStateStore {
    RedisStateStore::open(config, SystemClock::shared()).expect("a valid configuration")
}

/// A store on the shared server, and what its keys in `home` begin with.
fn apart() -> (RedisStateStore, &'static RedisServer, String) {
    let (server, prefix) = (RedisServer::shared(), format!("{}:", unique_name()));
    let store = open(config(server).with_key_prefix(&prefix));
    (store, server, format!("{prefix}state:{{home}}:"))
}

async fn write(store: &RedisStateStore, name: &str) -> Result<Applied, StoreError> {
    let batch = Batch::new(home()).set(record(name), "v");
    store.apply(batch).await.map(|applied| applied[0])
}

async fn names(store: &RedisStateStore, prefix: &str) -> Vec<String> {
    let page = store.scan(&home(), Scan::new(prefix)).await.expect("a scan");
    page.entries.iter().map(|(key, _)| key.name().to_owned()).collect()
}

#[tokio::test]
async fn nothing_is_connected_before_the_first_use() {
    let server = RedisServer::start();
    let store = create_state_store(&server.url()).unwrap();
    assert_eq!(store.health().await.status, HealthStatus::NeverConnected);
    let connections = server.cli(&["INFO", "stats"]).text();
    assert!(connections.contains("total_connections_received"), "{connections}");
    assert!(!store.info().has(Capability::SurvivePowerCut), "not known before the first use");
    assert_eq!(store.get(&home(), &record("k")).await.unwrap(), None);
    assert!(store.info().has(Capability::SurvivePowerCut));
    let health = store.health().await;
    assert_eq!((health.status, health.probe.is_some()), (HealthStatus::Up, true), "{health:?}");
    store.close().await.unwrap();
    assert_eq!(store.health().await.status, HealthStatus::Down);
}

#[tokio::test]
async fn a_server_that_is_away_is_down_and_may_come_back() {
    let mut server = RedisServer::start();
    let store = open(config(&server).with_connect_timeout(Duration::from_secs(2)));
    write(&store, "k").await.unwrap();
    server.kill();
    let e = write(&store, "k").await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Ambiguous), "{e:?}");
    assert_eq!(store.health().await.status, HealthStatus::Down);
    server.restart();
    while store.health().await.status != HealthStatus::Up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(write(&store, "l").await.unwrap(), Applied::Version(Version(2)));
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused() {
    let server = RedisServer::builder().config("maxmemory", "100mb").config("maxmemory-policy", "allkeys-lru").start();
    let e = write(&open(config(&server)), "k").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Permanent && e.to_string().contains("noeviction"), "{e}");
    assert_eq!(server.cli(&["DBSIZE"]), Reply::Integer(0));
    write(&open(config(&server).with_allow_eviction(true)), "k").await.unwrap();
}

#[tokio::test]
async fn a_durable_store_needs_a_server_that_syncs() {
    for (setting, value) in [("appendfsync", "everysec"), ("appendonly", "no")] {
        let server = RedisServer::builder().config(setting, value).start();
        let durable = open(config(&server)).durable();
        let e = write(&durable, "k").await.unwrap_err();
        assert!(e.kind() == ErrorKind::Permanent && e.to_string().contains("appendfsync always"), "{e}");
        assert_eq!(durable.health().await.status, HealthStatus::Down);
        let store = open(config(&server));
        write(&store, "k").await.unwrap();
        assert!(!store.info().has(Capability::SurvivePowerCut));
    }
    let server = RedisServer::start();
    let durable = open(config(&server)).durable();
    write(&durable, "k").await.unwrap();
    assert!(durable.info().has(Capability::SurvivePowerCut));
}

#[tokio::test]
async fn a_durable_store_waits_for_somebody_to_look_after_a_failover() {
    let mut server = RedisServer::start();
    let plain = config(&server).with_connect_timeout(Duration::from_secs(2));
    let (durable, other) = (open(plain.clone()).durable(), open(plain));
    write(&durable, "k").await.unwrap();
    server.restart();
    // The first ones may meet the dead connection.
    let refused = loop {
        match write(&durable, "k").await {
            Err(e) if e.to_string().contains("took over") => break e,
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Ambiguous), "{e:?}"),
            Ok(_) => panic!("nobody has looked yet"),
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(durable.get(&home(), &record("k")).await.is_err());
    assert_eq!(durable.health().await.status, HealthStatus::Down);
    let found = other.get(&home(), &record("k")).await.unwrap().and_then(|e| e.version);
    assert_eq!(found, Some(Version(1)), "nothing was sent");
    durable.acknowledge_failover();
    assert_eq!(write(&durable, "k").await.unwrap(), Applied::Version(Version(2)));
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let server = RedisServer::start();
    let store = open(config(&server));
    write(&store, "k").await.unwrap();
    let counter = record("n");
    for round in 1..=3 {
        let _ = server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(store.increment(&home(), &counter, 1).await.unwrap(), round, "once, not twice");
        let _ = server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(names(&store, "k").await, ["k"]);
    }
}

#[tokio::test]
async fn without_memory_a_batch_is_refused_whole_and_removing_works() {
    let server = RedisServer::builder().config("enable-debug-command", "yes").start();
    let store = open(config(&server));
    let outbox = record("out");
    let all = |n: i64| {
        let mut batch = Batch::new(home()).with(Op::KeepChanges { max: 10 });
        batch.extend([
            Op::Push { list: Key::list("l").unwrap(), value: "x".into(), cap: 5, ttl: Ttl::Never },
            Op::Enqueue {
                outbox: outbox.clone(),
                order_key: "o".into(),
                id: infra_types::EventId::new(n.to_string()).unwrap(),
                payload: "p".into(),
            },
        ]);
        batch.set(record("a"), Value::Counter(n)).add(record("b"), Delta::unbounded(1)).set(cache("c"), "v")
    };
    store.apply(all(1)).await.unwrap();
    let before = server.cli(&["DEBUG", "DIGEST"]);
    assert!(matches!(before, Reply::Status(_)), "{before:?}");
    let _ = server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let pushed = Op::Push { list: Key::list("m").unwrap(), value: "x".into(), cap: 5, ttl: Ttl::Never };
    for batch in [
        all(2),
        Batch::new(home()).set(cache("c"), "w"),
        Batch::new(home()).with(Op::Set {
            key: cache("c"),
            value: "w".into(),
            ttl: Ttl::After(Duration::from_secs(9)),
            when: When::Always,
        }),
        Batch::new(home()).with(pushed),
    ] {
        let e = store.apply(batch).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && e.to_string().contains("memory"), "{e}");
    }
    assert_eq!(store.health().await.status, HealthStatus::Down);
    let _ = server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(server.cli(&["DEBUG", "DIGEST"]), before);
    let _ = server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    // Reading goes on, and so does what makes room.
    assert_eq!(names(&store, "a").await, ["a"]);
    assert!(store.delete(&home(), &cache("c")).await.unwrap());
    let up_to = OutboxPosition { transaction: 0, sequence: u64::MAX };
    store.apply(Batch::new(home()).with(Op::Acknowledge { outbox: outbox.clone(), up_to })).await.unwrap();
    assert_eq!(store.clear(&home()).await.unwrap(), 3);
    let _ = server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    store.apply(all(3)).await.unwrap();
}

#[tokio::test]
async fn other_peoples_keys_are_corrupt_and_stay() {
    let (store, server, base) = apart();
    write(&store, "fine").await.unwrap();
    let whole = || server.cli(&["GET", &format!("{base}r:fine")]).text();
    assert_eq!(whole(), "b 1 -\nv");
    for (what, command) in [
        ("r:k", &["LPUSH", "", "x"][..]),
        ("r:k", &["SET", "", "hello"]),
        ("r:k", &["SET", "", "z 1 -\nfrom a later release"]),
        ("r:k", &["SET", "", "n 1 -\nfive"]),
        ("i", &["SET", "", "x"]),
        ("e", &["SET", "", "x"]),
        ("n", &["SET", "", "x"]),
    ] {
        let (store, server, base) = apart();
        write(&store, "fine").await.unwrap();
        let mut command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        command[1] = format!("{base}{what}");
        let _ = server.cli(&["DEL", &command[1]]);
        let _ = server.cli(&command);
        // Before it is a write that would have gone well by itself.
        let soon = Ttl::After(Duration::from_secs(9));
        let batch = Batch::new(home()).set(cache("before"), "v").set_when(record("t"), "v", soon, When::Always);
        let batch = batch.add(record("k"), Delta::unbounded(1));
        let e = store.apply(batch).await.unwrap_err();
        assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e:?}");
        assert!(!store.exists(&home(), &cache("before")).await.unwrap(), "{what}");
        if what == "r:k" {
            let e = store.get(&home(), &record("k")).await.unwrap_err();
            assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e:?}");
        }
    }
    for (what, op) in [
        ("l:k", Op::AcquireLease { key: Key::lease("k").unwrap(), holder: "h".into(), ttl: Duration::from_secs(1) }),
        ("v:k", Op::Push { list: Key::list("k").unwrap(), value: "x".into(), cap: 5, ttl: Ttl::Never }),
        ("o:k", Op::Acknowledge { outbox: record("k"), up_to: OutboxPosition::default() }),
    ] {
        let (store, server, base) = apart();
        let _ = server.cli(&["HSET", &format!("{base}{what}"), "f", "v"]);
        let e = store.apply(Batch::new(home()).with(op)).await.unwrap_err();
        assert!(matches!(e, StoreError::Corrupt { .. }), "{what}: {e:?}");
        assert_eq!(server.cli(&["HGET", &format!("{base}{what}"), "f"]).text(), "v");
    }
}

#[tokio::test]
async fn numbers_that_somebody_removed_are_noticed_before_anything_is_written() {
    let (store, server, base) = apart();
    let enqueue = |id: &str| Op::Enqueue {
        outbox: record("out"),
        order_key: "o".into(),
        id: infra_types::EventId::new(id).unwrap(),
        payload: "p".into(),
    };
    store.apply(Batch::new(home()).with(enqueue("1")).with(enqueue("2"))).await.unwrap();
    assert_eq!(server.cli(&["DEL", &format!("{base}n")]), Reply::Integer(1));
    let e = store.apply(Batch::new(home()).set(cache("c"), "v").with(enqueue("3"))).await.unwrap_err();
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert!(!store.exists(&home(), &cache("c")).await.unwrap());
}

#[tokio::test]
async fn records_that_somebody_removed_leave_the_index() {
    let (store, server, base) = apart();
    for name in ["a", "ab", "ac"] {
        write(&store, name).await.unwrap();
    }
    assert_eq!(server.cli(&["DEL", &format!("{base}r:ab")]), Reply::Integer(1));
    let page = store.scan(&home(), Scan { limit: 2, ..Scan::new("a") }).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (2, None));
    assert_eq!(names(&store, "a").await, ["a", "ac"]);
    assert_eq!(server.cli(&["ZCARD", &format!("{base}i")]), Reply::Integer(2));
}

#[tokio::test]
async fn writes_sweep_what_expired_from_the_index() {
    let (store, server, base) = apart();
    let mut batch = Batch::new(home());
    for n in 0..150 {
        let (key, ttl) = (record(&format!("k{n:03}")), Ttl::After(Duration::from_millis(5)));
        batch = batch.set_when(key, "v", ttl, When::Always);
    }
    store.apply(batch).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(names(&store, "k").await, Vec::<String>::new());
    for left in [50, 0] {
        write(&store, "new").await.unwrap();
        assert_eq!(server.cli(&["ZCARD", &format!("{base}i")]), Reply::Integer(left + 1), "one is new");
        assert_eq!(server.cli(&["ZCARD", &format!("{base}e")]), Reply::Integer(left));
    }
}

#[tokio::test]
async fn clear_leaves_every_other_key() {
    let server = RedisServer::shared();
    let unique = unique_name();
    // As patterns, each of these would match the others.
    let prefixes = [format!("{unique}*"), format!("{unique}?"), format!("{unique}[*]"), format!("{unique}\\*")];
    let stores: Vec<RedisStateStore> =
        prefixes.iter().map(|prefix| open(config(server).with_key_prefix(prefix))).collect();
    let spaces = ["home", "home-2", "hom"].map(|name| Namespace::new(name).unwrap());
    for store in &stores {
        for ns in &spaces {
            store.set(ns, &record("k"), "v", Ttl::Never).await.unwrap();
            store.set(ns, &cache("k"), "v", Ttl::Never).await.unwrap();
        }
    }
    let foreign = format!("{}state:{{home}}", prefixes[0]);
    let _ = server.cli(&["SET", &foreign, "v"]);
    assert_eq!(stores[0].clear(&spaces[0]).await.unwrap(), 2);
    for (at, store) in stores.iter().enumerate() {
        for ns in &spaces {
            let expected = (at, ns) != (0, &spaces[0]);
            assert_eq!(store.exists(ns, &record("k")).await.unwrap(), expected, "{} {ns}", prefixes[at]);
        }
    }
    assert_eq!(server.cli(&["GET", &foreign]).text(), "v");
}

#[tokio::test]
async fn a_user_without_a_right_is_refused_before_anything_is_written() {
    let server = RedisServer::start();
    let rights = ["ACL", "SETUSER", "bot", "on", ">pw", "~infra:*", "+@all", "-zadd"];
    assert_eq!(server.cli(&rights), Reply::Status("OK".to_owned()));
    let url = format!("redis://bot:pw@127.0.0.1:{}", server.port());
    let store = open(RedisConfig::from_url(&url).unwrap());
    let e = write(&store, "k").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Permanent && e.to_string().contains("ZADD"), "{e}");
    assert_eq!(server.cli(&["DBSIZE"]), Reply::Integer(0));
    let _ = server.cli(&["ACL", "SETUSER", "bot", "+zadd"]);
    write(&store, "k").await.unwrap();
    // Keys that are not the user's.
    let e = write(&open(RedisConfig::from_url(&url).unwrap().with_key_prefix("other:")), "k").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Permanent, "{e}");
}

#[tokio::test]
async fn wrong_credentials_urls_and_certificates_say_what_to_do() {
    let server = RedisServer::builder().password("right").start();
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port());
    for wrong in [url("hunter2"), format!("redis://127.0.0.1:{}", server.port())] {
        let store = create_state_store(&wrong).unwrap();
        let e = store.get(&home(), &record("k")).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Permanent && e.to_string().contains("password"), "{e}");
        assert!(!format!("{e:?}{e}{store:?}{:?}", store.health().await).contains("hunter2"));
    }
    assert_eq!(create_state_store(&url("right")).unwrap().get(&home(), &record("k")).await.unwrap(), None);

    let server = RedisServer::shared_tls();
    let with = |ca| RedisTls::default().with_ca(Pem::file(ca));
    let wrong = open(config(server).with_tls(with(server.certificates().other_ca_file())));
    let e = write(&wrong, "k").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Permanent && e.to_string().contains("TLS"), "{e}");
    let plain = open(RedisConfig::from_url(&server.url().replace("rediss", "redis")).unwrap());
    let e = write(&plain, "k").await.unwrap_err();
    assert!(e.to_string().contains("TLS"), "{e}");
    let prefix = format!("{}:", unique_name());
    let right = config(server).with_tls(with(server.certificates().ca_file())).with_key_prefix(prefix);
    write(&open(right), "k").await.unwrap();
}

#[tokio::test]
async fn a_replica_takes_no_writes() {
    let primary = RedisServer::start();
    let replica = RedisServer::builder().replica_of(&primary).start();
    let e = write(&open(config(&replica)), "k").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && e.to_string().contains("primary"), "{e}");
    // A primary that becomes a replica under a running client.
    let store = open(config(&primary));
    write(&store, "k").await.unwrap();
    let port = replica.port().to_string();
    let _ = replica.cli(&["REPLICAOF", "NO", "ONE"]);
    let _ = primary.cli(&["REPLICAOF", "127.0.0.1", &port]);
    let e = write(&store, "k").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
}

#[tokio::test]
async fn a_server_that_is_busy_with_another_script_says_so_in_time() {
    let server = Arc::new(RedisServer::builder().config("busy-reply-threshold", "50").start());
    let store = open(config(&server));
    write(&store, "k").await.unwrap();
    let hog = {
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.cli(&["EVAL", "while true do end", "0"]))
    };
    let e = loop {
        match write(&store, "k").await {
            Ok(_) => tokio::task::yield_now().await,
            Err(e) => break e,
        }
    };
    assert!(e.kind() == ErrorKind::Transient && e.to_string().contains("BUSY"), "{e}");
    let _ = server.cli(&["SCRIPT", "KILL"]);
    assert!(matches!(hog.await.unwrap(), Reply::Error(_)));
    write(&store, "k").await.unwrap();
}

#[tokio::test]
async fn a_prefix_with_braces_is_refused() {
    for prefix in ["a{b", "a}b", "{}"] {
        let refused = RedisStateStore::open(RedisConfig::default().with_key_prefix(prefix), SystemClock::shared());
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{prefix}");
    }
}
