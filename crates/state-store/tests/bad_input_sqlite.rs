//! Bad input and bad files: each is a typed error that says what to do, in a bounded time, and nothing is lost. On SQLite.
//!
//! The list comes first; the cases that prove it are below, in the same order. There is no server, so there are no lines about
//! passwords, certificates, old servers and eviction; the file of a newer program is in `sqlite.rs`.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod bad_input;

use infra_backends::{Sqlite, SqliteConfig};
use infra_state_store::{Batch, Delta, SqliteStateStore, StateStore, StoreError, create_state_store};
use infra_testkit::TestDir;
use infra_types::{ErrorKind, HealthStatus, SystemClock};

use self::bad_input::{Kept, Line, SECRET, TIMEOUT, home, in_time, record, requests, walk};

const LIST: &[Line] = &[
    Line {
        wrong: "a name without a file",
        variant: "Invalid",
        kind: ErrorKind::Invalid,
        says: &["write sqlite:PATH"],
        case: |line| Box::pin(async { line.fits(create_state_store("sqlite:").err().unwrap()) }),
    },
    Line {
        wrong: "a directory that is not there",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["cannot open", "check that it exists and that this user may write there"],
        case: |line| Box::pin(no_directory(line)),
    },
    Line {
        wrong: "a file that is no database",
        variant: "Corrupt",
        kind: ErrorKind::Corrupt,
        says: &["not a database", "stop and restore"],
        case: |line| Box::pin(no_database(line)),
    },
    Line {
        wrong: "a file that may only be read",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["read-only", "grant write access"],
        case: |line| Box::pin(read_only(line)),
    },
    Line {
        wrong: "a full disk",
        variant: "Backend",
        kind: ErrorKind::Unavailable,
        says: &["no space is left on the disk", "make room", "nothing was written"],
        case: |line| Box::pin(full_disk(line)),
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
        case: |line| Box::pin(async { requests::sizes(line, &open(&TestDir::new())).await }),
    },
    Line {
        wrong: "a value written by another codec",
        variant: "WrongCodec",
        kind: ErrorKind::Invalid,
        says: &["was written as", "use the program that wrote it, or migrate the value"],
        case: |line| Box::pin(async { requests::codecs(line, &open(&TestDir::new())).await }),
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_has_its_answer() {
    walk(LIST).await;
}

fn config(path: std::path::PathBuf) -> SqliteConfig {
    SqliteConfig::new(path).with_busy_timeout(TIMEOUT)
}

fn open(dir: &TestDir) -> SqliteStateStore {
    SqliteStateStore::open(config(dir.file("state.db")), SystemClock::shared())
}

/// Changes a setting of the connection that writes.
async fn pragma(handle: &Sqlite, name: &'static str, value: i64) {
    let set = move |conn: &rusqlite::Connection| Ok(conn.pragma_update(None, name, value).map_err(|e| e.to_string()));
    handle.write::<_, StoreError, _>(set).await.unwrap().unwrap();
}

async fn no_directory(line: &Line) -> StoreError {
    let dir = TestDir::new();
    let path = dir.file("missing").join("state.db");
    let store = SqliteStateStore::open(config(path.clone()), SystemClock::shared());
    let e = line.refuses_all(&store).await;
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    Kept::default().goes_on(&store).await;
    e
}

async fn no_database(line: &Line) -> StoreError {
    let dir = TestDir::new();
    let text = SECRET.repeat(1_000);
    std::fs::write(dir.file("state.db"), &text).unwrap();
    let store = open(&dir);
    let e = line.refuses_all(&store).await;
    assert_eq!(std::fs::read_to_string(dir.file("state.db")).unwrap(), text, "what it is stays");
    std::fs::remove_file(dir.file("state.db")).unwrap();
    Kept::default().goes_on(&store).await;
    e
}

/// Opened so, because the rights of a file do not hold for every user that runs tests.
async fn read_only(line: &Line) -> StoreError {
    let dir = TestDir::new();
    let right = open(&dir);
    let mut kept = Kept::begin(&right).await;
    let path = format!("file:{}?mode=ro", dir.file("state.db").display());
    let store = SqliteStateStore::open(config(path.into()), SystemClock::shared());
    line.refuses(store.clear(&home())).await;
    let e = line.refuses(store.apply(Batch::new(home()).set(record("k"), SECRET))).await;
    assert_eq!(in_time(store.health()).await.status, HealthStatus::Down);
    // Reading goes on.
    kept.is_all_there(&store).await;
    kept.goes_on(&right).await;
    e
}

async fn full_disk(line: &Line) -> StoreError {
    let dir = TestDir::new();
    let handle = Sqlite::new(config(dir.file("state.db")));
    let store = SqliteStateStore::new(handle.clone(), SystemClock::shared());
    let mut kept = Kept::begin(&store).await;
    // SQLite has one answer for a full disk and for its own limit.
    pragma(&handle, "max_page_count", 500).await;
    let e = line.fits(kept.fill(&store, 50 << 10, 100).await);
    // Refused wholly, again and again; reading goes on, and so does what needs no room.
    line.fits(kept.write(&store, 50 << 10).await.unwrap_err());
    kept.is_all_there(&store).await;
    store.apply(Batch::new(home()).add(record("n"), Delta::unbounded(1))).await.unwrap();
    pragma(&handle, "max_page_count", 1 << 20).await;
    kept.goes_on(&store).await;
    store.close().await.unwrap();
    handle.close().await;
    kept.goes_on(&open(&dir)).await;
    e
}
