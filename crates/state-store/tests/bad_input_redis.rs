//! Bad input and bad servers: each is a typed error that says what to do, in a bounded time, and nothing is lost. On Redis.
//!
//! The list comes first; the cases that prove it are below, in the same order.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod bad_input;
#[path = "bad_input/relay.rs"]
mod relay;

use std::{sync::atomic::Ordering, time::Duration};

use infra_backends::{Pem, RedisConfig, RedisTls};
use infra_state_store::{Batch, Delta, RedisStateStore, Scan, StateStore, StoreError, create_state_store};
use infra_testkit::{FaultProxy, RedisServer, Reply};
use infra_types::{ErrorKind, Secret, SystemClock};
use tokio::task::block_in_place;

use self::{
    bad_input::{Kept, LIMIT, Line, SECRET, TIMEOUT, home, in_time, record, requests, walk},
    relay::relay,
};

const LIST: &[Line] = &[
    Line {
        wrong: "a URL that is none",
        variant: "Backend",
        kind: ErrorKind::Invalid,
        says: &["invalid Redis URL: "],
        case: |line| Box::pin(no_url(line)),
    },
    Line {
        wrong: "a URL where nobody listens",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["cannot connect to 127.0.0.1:", "nothing was sent"],
        case: |line| Box::pin(nobody_listens(line)),
    },
    Line {
        wrong: "a URL where nobody answers",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["cannot connect to 127.0.0.1:", "nothing was sent"],
        case: |line| Box::pin(nobody_answers(line)),
    },
    Line {
        wrong: "a wrong password",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["refuses the credentials", "check user name and password"],
        case: |line| Box::pin(wrong_password(line)),
    },
    Line {
        wrong: "a wrong TLS certificate",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["no TLS with 127.0.0.1:", "certificate"],
        case: |line| Box::pin(wrong_certificate(line)),
    },
    Line {
        wrong: "a server that is too old",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["version 6.", "at least 7.0", "upgrade it"],
        case: |line| Box::pin(too_old(line)),
    },
    Line {
        wrong: "a read-only replica",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["read-only", "connect to the primary"],
        case: |line| Box::pin(replica(line)),
    },
    Line {
        wrong: "a full disk, synced every second: the server refuses writes",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["MISCONF", "AOF", "nothing was changed", "repair the server"],
        case: |line| Box::pin(full_disk_every_second(line)),
    },
    Line {
        wrong: "a full disk, synced always: the server ends",
        variant: "Ambiguous",
        kind: ErrorKind::Ambiguous,
        says: &["may or may not be stored", "read before you go on"],
        case: |line| Box::pin(full_disk_always(line)),
    },
    Line {
        wrong: "a policy that evicts",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["allkeys-lru", "set `maxmemory-policy noeviction`"],
        case: |line| Box::pin(evicts(line)),
    },
    Line {
        wrong: "a key over the limits",
        variant: "InvalidKey",
        kind: ErrorKind::Invalid,
        says: &["a key "],
        case: |line| Box::pin(async { requests::keys(line) }),
    },
    Line {
        wrong: "a value, a batch or a read over the limits",
        variant: "TooLarge",
        kind: ErrorKind::Invalid,
        says: &["too large", "at most"],
        case: |line| Box::pin(async { requests::sizes(line, &open(config(&start(RedisServer::builder())))).await }),
    },
    Line {
        wrong: "a value written by another codec",
        variant: "WrongCodec",
        kind: ErrorKind::Invalid,
        says: &["was written as", "use the program that wrote it, or migrate the value"],
        case: |line| Box::pin(async { requests::codecs(line, &open(config(&start(RedisServer::builder())))).await }),
    },
    Line {
        wrong: "data in the layout of a later release",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["schema version 2", "up to 1", "use the newer program"],
        case: |line| Box::pin(later_layout(line)),
    },
    Line {
        wrong: "data that a later release moved on while this program runs",
        variant: "Corrupt",
        kind: ErrorKind::Corrupt,
        says: &["stop and restore"],
        case: |line| Box::pin(moved_on(line)),
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_has_its_answer() {
    walk(LIST).await;
}

fn start(builder: infra_testkit::RedisBuilder) -> RedisServer {
    block_in_place(|| builder.config("enable-debug-command", "yes").start())
}

fn config(server: &RedisServer) -> RedisConfig {
    at(&server.url())
}

fn at(url: &str) -> RedisConfig {
    RedisConfig::from_url(url).unwrap().with_connect_timeout(TIMEOUT).with_operation_timeout(TIMEOUT)
}

fn open(config: RedisConfig) -> RedisStateStore {
    RedisStateStore::open(config, SystemClock::shared()).unwrap()
}

fn info(server: &RedisServer, field: &str) -> String {
    let text = server.cli(&["INFO"]).text();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO must tell {field}")).to_owned()
}

/// All that the server has, in one number.
fn digest(server: &RedisServer) -> String {
    let Reply::Status(digest) = server.cli(&["DEBUG", "DIGEST"]) else { panic!("DEBUG must be allowed") };
    digest
}

async fn no_url(line: &Line) -> StoreError {
    let mut last = None;
    for url in ["h:port", "h:0", "h:70000", "h/name", "h/1/2", "[::1", ""] {
        last = create_state_store(&format!("redis://u:{SECRET}@{url}")).err().map(|e| line.fits(e));
    }
    last.unwrap()
}

async fn nobody_listens(line: &Line) -> StoreError {
    let mut server = start(RedisServer::builder());
    let mut kept = Kept::begin(&open(config(&server))).await;
    let store = open(config(&server).with_password(Secret::new(SECRET.into())));
    block_in_place(|| server.kill());
    let e = line.refuses_all(&store).await;
    // The right one is away as well.
    let store = open(config(&server));
    line.refuses_all(&store).await;
    block_in_place(|| server.restart());
    kept.goes_on(&store).await;
    e
}

async fn nobody_answers(line: &Line) -> StoreError {
    let server = start(RedisServer::builder());
    let proxy = FaultProxy::start(server.addr()).await;
    let mut kept = Kept::begin(&open(config(&server))).await;
    let store = open(at(&format!("redis://{}", proxy.addr())).with_connect_timeout(Duration::from_millis(300)));
    proxy.black_hole();
    let e = line.refuses_all(&store).await;
    proxy.pass();
    kept.goes_on(&store).await;
    e
}

async fn wrong_password(line: &Line) -> StoreError {
    let server = start(RedisServer::builder().password("right"));
    let mut kept = Kept::begin(&open(config(&server))).await;
    let store = open(config(&server).with_password(Secret::new(SECRET.into())));
    let e = line.refuses_all(&store).await;
    line.refuses_all(&open(at(&format!("redis://{}", server.addr())))).await;
    let _ = server.cli(&["CONFIG", "SET", "requirepass", SECRET]);
    kept.goes_on(&store).await;
    e
}

async fn wrong_certificate(line: &Line) -> StoreError {
    let server = start(RedisServer::builder().tls());
    let trusting = |ca| config(&server).with_tls(RedisTls::default().with_ca(Pem::file(ca)));
    let right = open(trusting(server.certificates().ca_file()));
    let mut kept = Kept::begin(&right).await;
    let e = line.refuses_all(&open(trusting(server.certificates().other_ca_file()))).await;
    // Certified by the right authority, for somebody else.
    let other = start(RedisServer::builder().tls_for("cache.example"));
    let tls = RedisTls::default().with_ca(Pem::file(other.certificates().ca_file()));
    line.refuses_all(&open(config(&other).with_tls(tls))).await;
    assert_eq!(other.cli(&["DBSIZE"]), Reply::Integer(0));
    kept.goes_on(&right).await;
    e
}

async fn too_old(line: &Line) -> StoreError {
    let server = start(RedisServer::builder());
    let mut kept = Kept::begin(&open(config(&server))).await;
    let old = relay(server.addr(), "redis_version:7.".into(), "redis_version:6.".into()).await;
    let store = open(at(&format!("redis://{}", old.addr)));
    let e = line.refuses_all(&store).await;
    old.lies.store(false, Ordering::Relaxed);
    kept.goes_on(&store).await;
    e
}

async fn replica(line: &Line) -> StoreError {
    let primary = start(RedisServer::builder());
    let replica = start(RedisServer::builder().replica_of(&primary));
    let mut kept = Kept::begin(&open(config(&primary))).await;
    while info(&replica, "master_link_status") != "up" || info(&replica, "master_sync_in_progress") != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while info(&primary, "master_repl_offset") != info(&replica, "slave_repl_offset") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = open(config(&replica));
    let e = line.refuses_all(&store).await;
    let _ = replica.cli(&["REPLICAOF", "NO", "ONE"]);
    kept.goes_on(&store).await;
    e
}

async fn full_disk_every_second(line: &Line) -> StoreError {
    let builder = RedisServer::builder().config("appendfsync", "everysec").file_bytes_max(256 << 10);
    let mut server = start(builder);
    let store = open(config(&server));
    let mut kept = Kept::begin(&store).await;
    let e = line.fits(kept.fill(&store, 8 << 10, 100).await);
    // Refused wholly, again and again; reading goes on.
    line.refuses(store.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1)))).await;
    assert_eq!(in_time(store.health()).await.status, infra_types::HealthStatus::Down);
    kept.is_all_there(&store).await;
    // The last that was answered is in the server's memory only: whoever restarts it before there is room loses that.
    assert_ne!(info(&server, "aof_buffer_length"), "0");

    block_in_place(|| server.set_file_bytes_max(None));
    kept.goes_on(&store).await;
    while info(&server, "aof_buffer_length") != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    block_in_place(|| server.restart());
    kept.goes_on(&store).await;
    e
}

async fn full_disk_always(line: &Line) -> StoreError {
    let mut server = start(RedisServer::builder().file_bytes_max(256 << 10));
    let store = open(config(&server));
    let mut kept = Kept::begin(&store).await;
    let e = line.fits(kept.fill(&store, 8 << 10, 100).await);
    // It has ended; what comes now was never sent.
    let gone = kept.write(&store, 100).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable, "{gone}");
    block_in_place(|| {
        server.set_file_bytes_max(None);
        server.restart();
    });
    kept.goes_on(&store).await;
    e
}

async fn evicts(line: &Line) -> StoreError {
    let server = start(RedisServer::builder());
    let before = open(config(&server));
    let mut kept = Kept::begin(&before).await;
    let _ = server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let store = open(config(&server));
    let e = line.refuses_all(&store).await;
    // The policy is looked at with each connection: a handle that had one finds out with the next.
    let _ = server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let late = tokio::time::timeout(LIMIT, async {
        loop {
            match kept.write(&before, 100).await {
                Err(e) if e.kind() == ErrorKind::Permanent => break e,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    line.fits(late.await.unwrap());
    let _ = server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    kept.goes_on(&store).await;
    kept.goes_on(&before).await;
    e
}

async fn later_layout(line: &Line) -> StoreError {
    let server = start(RedisServer::builder());
    let mut kept = Kept::begin(&open(config(&server).with_key_prefix("bots:"))).await;
    let _ = server.cli(&["SET", "bots:state:layout", "2"]);
    let before = digest(&server);
    let store = open(config(&server).with_key_prefix("bots:"));
    let e = line.refuses_all(&store).await;
    assert_eq!(digest(&server), before, "a refusal changes nothing");
    // It is about this prefix only.
    Kept::begin(&open(config(&server).with_key_prefix("other:"))).await;
    // What is no number is not guessed at.
    let _ = server.cli(&["SET", "bots:state:layout", "two"]);
    let odd = in_time(store.get(&home(), &record("k"))).await.unwrap_err();
    assert_eq!(odd.kind(), ErrorKind::Corrupt, "{odd}");
    let _ = server.cli(&["SET", "bots:state:layout", "1"]);
    kept.goes_on(&store).await;
    e
}

async fn moved_on(line: &Line) -> StoreError {
    let server = start(RedisServer::builder());
    let store = open(config(&server));
    let mut kept = Kept::begin(&store).await;
    let (numbers, moved) = ("infra:state:{home}:n", "infra:state:{home}:r:kept/1-0");
    for key in [numbers, moved] {
        assert_eq!(server.cli(&["COPY", key, &format!("saved:{key}")]), Reply::Integer(1));
    }
    // As `redis/keys.rs` says that it will be done.
    let _ = server.cli(&["HSET", numbers, "last", "layout 2"]);
    let _ = server.cli(&["SET", moved, "B 1 -\nv"]);
    let before = digest(&server);
    for batch in [
        Batch::new(home()).set(record("k"), "v"),
        Batch::new(home()).add(record("k"), Delta::unbounded(1)),
        Batch::new(home()).delete(record("kept/2-0")),
    ] {
        line.refuses(store.apply(batch)).await;
    }
    line.refuses(store.scan(&home(), Scan::new("kept/"))).await;
    let e = line.refuses(store.get(&home(), &record("kept/1-0"))).await;
    assert_eq!(digest(&server), before, "a refusal changes nothing");
    for key in [numbers, moved] {
        let _ = server.cli(&["RENAME", &format!("saved:{key}"), key]);
    }
    kept.goes_on(&store).await;
    e
}
