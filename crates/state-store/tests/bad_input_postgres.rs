//! Bad input and bad servers: each is a typed error that says what to do, in a bounded time, and nothing is lost. On PostgreSQL.
//!
//! The list comes first; the cases that prove it are below, in the same order. There is no line about eviction: PostgreSQL does none.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod bad_input;
#[path = "bad_input/relay.rs"]
mod relay;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_backends::{PgSchema, Postgres, PostgresConfig};
use infra_state_store::{Batch, Delta, PostgresStateStore, StateStore, StoreError, create_state_store};
use infra_testkit::{FaultProxy, PostgresBuilder, PostgresServer, unique_name};
use infra_types::{ErrorKind, HealthStatus, SystemClock};
use tokio::task::block_in_place;

use self::{
    bad_input::{Kept, Line, SECRET, TIMEOUT, home, in_time, record, requests, walk},
    relay::relay,
};

const LIST: &[Line] = &[
    Line {
        wrong: "a URL that is none",
        variant: "Backend",
        kind: ErrorKind::Invalid,
        says: &["invalid "],
        case: |line| Box::pin(no_url(line)),
    },
    Line {
        wrong: "a URL where nobody listens",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["cannot connect to 127.0.0.1:", "nothing listens", "nothing was sent"],
        case: |line| Box::pin(nobody_listens(line)),
    },
    Line {
        wrong: "a URL where nobody answers",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["cannot connect to 127.0.0.1:", "in time", "nothing was sent"],
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
        says: &["version 14.", "at least 15.0", "upgrade it"],
        case: |line| Box::pin(too_old(line)),
    },
    Line {
        wrong: "a read-only replica",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["read-only", "connect to the primary"],
        case: |line| Box::pin(standby(line)),
    },
    Line {
        wrong: "a full disk under the tables: the server refuses what needs room",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["no space is left on the disk", "make room", "nothing was written"],
        case: |line| Box::pin(full_tables(line)),
    },
    Line {
        wrong: "a full disk under the log of changes: the server ends",
        variant: "Ambiguous",
        kind: ErrorKind::Ambiguous,
        says: &["may or may not be stored", "read before you go on"],
        case: |line| Box::pin(full_log(line)),
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
        case: |line| Box::pin(async { requests::sizes(line, &open(apart())).await }),
    },
    Line {
        wrong: "a value written by another codec",
        variant: "WrongCodec",
        kind: ErrorKind::Invalid,
        says: &["was written as", "use the program that wrote it, or migrate the value"],
        case: |line| Box::pin(async { requests::codecs(line, &open(apart())).await }),
    },
    Line {
        wrong: "tables of a later release",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["schema version 1000", "use the newer program"],
        case: |line| Box::pin(later_schema(line)),
    },
    Line {
        wrong: "tables that a later release made while the program of before was running",
        variant: "Backend",
        kind: ErrorKind::Permanent,
        says: &["schema version 1", "up to 0", "use the newer program"],
        case: |line| Box::pin(two_releases(line)),
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_has_its_answer() {
    walk(LIST).await;
}

fn start(builder: PostgresBuilder) -> PostgresServer {
    block_in_place(|| builder.start())
}

fn at(url: &str) -> PostgresConfig {
    PostgresConfig::from_url(url).unwrap().with_connect_timeout(TIMEOUT).with_operation_timeout(TIMEOUT)
}

/// A schema of the shared server that no other test has.
fn apart() -> PostgresConfig {
    at(&PostgresServer::shared().url()).with_schema(unique_name())
}

fn open(config: PostgresConfig) -> PostgresStateStore {
    PostgresStateStore::open(config, SystemClock::shared()).unwrap()
}

fn psql(server: &PostgresServer, sql: &str) -> String {
    block_in_place(|| server.psql(sql))
}

/// All that is in a schema, tables and rows.
fn dump(schema: &str) -> String {
    let sql = format!(
        "SELECT c.relname, query_to_xml(format('SELECT * FROM %I.%I t ORDER BY t::text', '{schema}', c.relname), true, false, '')
         FROM pg_class c WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r' ORDER BY 1"
    );
    psql(PostgresServer::shared(), &sql)
}

async fn no_url(line: &Line) -> StoreError {
    let mut last = None;
    for rest in ["h:port/d", "h:70000/d", "h/d?sslmode=prefer", "h/d?sslmod=require", "h/d#x", "h", ""] {
        last = create_state_store(&format!("postgres://u:{SECRET}@{rest}")).err().map(|e| line.fits(e));
        assert!(last.is_some(), "{rest}");
    }
    last.unwrap()
}

async fn nobody_listens(line: &Line) -> StoreError {
    let mut server = start(PostgresServer::builder());
    let mut kept = Kept::begin(&open(at(&server.url()))).await;
    let store = open(at(&server.url()));
    block_in_place(|| server.kill());
    line.refuses_all(&open(at(&server.url_with_password(SECRET)))).await;
    let e = line.refuses_all(&store).await;
    block_in_place(|| server.restart());
    kept.goes_on(&store).await;
    e
}

async fn nobody_answers(line: &Line) -> StoreError {
    let config = apart();
    let proxy = FaultProxy::start(PostgresServer::shared().addr()).await;
    let mut kept = Kept::begin(&open(config.clone())).await;
    let hasty = config.with_port(proxy.addr().port()).with_connect_timeout(Duration::from_millis(500));
    let store = open(hasty);
    proxy.black_hole();
    let e = line.refuses_all(&store).await;
    proxy.pass();
    kept.goes_on(&store).await;
    e
}

async fn wrong_password(line: &Line) -> StoreError {
    let server = start(PostgresServer::builder());
    let mut kept = Kept::begin(&open(at(&server.url()))).await;
    let store = open(at(&server.url_with_password(SECRET)));
    let e = line.refuses_all(&store).await;
    psql(&server, &format!("ALTER ROLE {} PASSWORD '{SECRET}'", server.user()));
    kept.goes_on(&store).await;
    e
}

async fn wrong_certificate(line: &Line) -> StoreError {
    let server = PostgresServer::shared_tls();
    let schema = unique_name();
    let right = open(at(&server.url()).with_schema(&schema));
    let mut kept = Kept::begin(&right).await;
    let with = |server: &PostgresServer, ca: std::path::PathBuf| {
        at(&format!("{}?sslmode=verify-full&sslrootcert={}", server.bare_url(), ca.display())).with_schema(&schema)
    };
    let e = line.refuses_all(&open(with(server, server.certificates().other_ca_file()))).await;
    // Certified by the right authority, for somebody else.
    let other = start(PostgresServer::builder().tls_for("db.example"));
    line.refuses_all(&open(with(&other, other.certificates().ca_file()))).await;
    assert_eq!(psql(&other, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'infra%'"), "0");
    kept.goes_on(&right).await;
    e
}

async fn too_old(line: &Line) -> StoreError {
    let (server, config) = (PostgresServer::shared(), apart());
    let mut kept = Kept::begin(&open(config.clone())).await;
    let version = psql(server, "SHOW server_version_num");
    let old = relay(server.addr(), version.clone(), format!("14{}", &version[2..])).await;
    let store = open(config.with_port(old.addr.port()));
    let e = line.refuses_all(&store).await;
    old.lies.store(false, Ordering::Relaxed);
    kept.goes_on(&store).await;
    e
}

async fn standby(line: &Line) -> StoreError {
    let primary = start(PostgresServer::builder());
    let standby = start(PostgresServer::builder().standby_of(&primary));
    let mut kept = Kept::begin(&open(at(&primary.url()))).await;
    let written = psql(&primary, "SELECT pg_current_wal_lsn()");
    while psql(&standby, &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) != "t" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let store = open(at(&standby.url()));
    let e = line.refuses_all(&store).await;
    assert_eq!(psql(&standby, "SELECT pg_promote()"), "t");
    kept.goes_on(&store).await;
    e
}

async fn full_tables(line: &Line) -> StoreError {
    // More than a file of the log, and no multiple of a page.
    let mut server = start(PostgresServer::builder().durable().file_bytes_max((5 << 20) + 512));
    let store = open(at(&server.url()));
    let mut kept = Kept::begin(&store).await;
    let e = line.fits(kept.fill(&store, 1 << 20, 10).await);
    // Refused wholly, again and again; reading goes on, and so does what needs no room.
    line.fits(kept.write(&store, 1 << 20).await.unwrap_err());
    kept.is_all_there(&store).await;
    kept.write(&store, 100).await.unwrap();
    block_in_place(|| server.set_file_bytes_max(None));
    kept.write(&store, 1 << 20).await.unwrap();
    kept.goes_on(&store).await;
    block_in_place(|| server.restart());
    kept.goes_on(&store).await;
    e
}

async fn full_log(line: &Line) -> StoreError {
    let mut server = start(PostgresServer::builder().durable());
    let store = open(at(&server.url()));
    let mut kept = Kept::begin(&store).await;
    // The log has files of 4 MiB: it shall end within one, with room for some batches, and before a table is as large.
    let place = "SELECT file_offset >> 20 FROM pg_walfile_name_offset(pg_current_wal_insert_lsn())";
    while psql(&server, place) != "1" {
        psql(&server, "SELECT pg_logical_emit_message(false, '', repeat('x', 500000))");
    }
    block_in_place(|| server.set_file_bytes_max(Some((3 << 20) + 512)));
    let e = line.fits(kept.fill(&store, 50 << 10, 40).await);
    // It cannot come back by itself; what comes now was never sent.
    let gone = in_time(store.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1)))).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable, "{gone}");
    block_in_place(|| {
        server.set_file_bytes_max(None);
        server.restart();
    });
    kept.goes_on(&store).await;
    e
}

async fn later_schema(line: &Line) -> StoreError {
    let config = apart();
    let schema = config.schema.clone();
    let mut kept = Kept::begin(&open(config.clone())).await;
    let server = PostgresServer::shared();
    psql(server, &format!("INSERT INTO {schema}.infra_schema (component, version, digest) VALUES ('state', 1000, 1)"));
    let before = dump(&schema);
    let store = open(config);
    let e = line.refuses_all(&store).await;
    assert!(before.contains("kept/1-0") && before == dump(&schema), "a refusal changes nothing");
    psql(server, &format!("DELETE FROM {schema}.infra_schema WHERE version = 1000"));
    kept.goes_on(&store).await;
    e
}

/// A program of before this release: it has tables of its own in the schema, and knows no step of the state's.
static BEFORE: PgSchema = PgSchema { component: "state", steps: &[] };
static OTHERS: PgSchema = PgSchema { component: "bus", steps: &["CREATE TABLE bus_t (n bigint PRIMARY KEY)"] };

async fn two_releases(line: &Line) -> StoreError {
    let config = apart();
    let old = Postgres::new(config.clone()).unwrap();
    old.ready(&OTHERS).await.unwrap();
    old.ready(&BEFORE).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (old, stop) = (old.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0i64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                old.execute(sqlx::query("INSERT INTO bus_t VALUES ($1)").bind(n)).await.unwrap();
            }
            n
        })
    };
    // Two of today's at once make the tables under it.
    let (one, two) = (open(config.clone()), open(config.clone()));
    let (home, key) = (home(), record("k"));
    let (mut kept, other) = tokio::join!(Kept::begin(&one), two.get(&home, &key));
    assert_eq!(other.unwrap(), None);
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    let count = psql(PostgresServer::shared(), &format!("SELECT count(*) FROM {}.bus_t", config.schema));
    assert_eq!(count, written.to_string(), "the program of before goes on and loses nothing");

    // Started anew, it refuses, and changes nothing.
    let before = dump(&config.schema);
    let late = Postgres::new(config.clone()).unwrap();
    late.ready(&OTHERS).await.unwrap();
    let e = line.refuses(async { late.ready(&BEFORE).await.map_err(StoreError::from) }).await;
    assert_eq!(dump(&config.schema), before);
    assert_eq!(in_time(two.health()).await.status, HealthStatus::Up);
    kept.goes_on(&two).await;
    e
}
