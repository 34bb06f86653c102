//! What a SQLite handle promises, on real files.
#![cfg(feature = "sqlite")]

use infra_backends::{BackendError, Schema, Sqlite, SqliteConfig};

static V1: Schema = Schema { component: "state", steps: &["CREATE TABLE state_t (n INTEGER)"] };
static V2: Schema =
    Schema { component: "state", steps: &["CREATE TABLE state_t (n INTEGER)", "ALTER TABLE state_t ADD m INTEGER"] };
static EDITED: Schema = Schema { component: "state", steps: &["CREATE TABLE state_t (n TEXT)"] };

fn open(dir: &tempfile::TempDir) -> Sqlite {
    Sqlite::new(SqliteConfig::new(dir.path().join("t.db")))
}

async fn count(db: &Sqlite) -> i64 {
    db.read::<_, BackendError, _>(|c| Ok(c.query_row("SELECT count(*) FROM state_t", [], |r| r.get(0))?))
        .await
        .expect("it works")
}

async fn insert(db: &Sqlite, n: i64, fail: bool) -> Result<(), BackendError> {
    db.write(move |c| {
        c.execute("INSERT INTO state_t (n) VALUES (?1)", [n])?;
        if fail { Err(BackendError::Other { reason: "refused".into() }) } else { Ok(()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn grouped_batches_fail_one_by_one() {
    let dir = tempfile::tempdir().expect("it works");
    let db = open(&dir);
    db.ready(&V1).await.expect("it works");
    let tasks: Vec<_> = (0..500)
        .map(|n| {
            let db = db.clone();
            tokio::spawn(async move { insert(&db, n, n % 3 == 0).await })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.expect("it works").is_err(), n % 3 == 0);
    }
    assert_eq!(count(&db).await, 333);
}

#[tokio::test]
async fn a_panicking_batch_changes_nothing_and_harms_nobody() {
    let dir = tempfile::tempdir().expect("it works");
    let db = open(&dir);
    db.ready(&V1).await.expect("it works");
    let answer = db
        .write::<(), BackendError, _>(|c| {
            c.execute("INSERT INTO state_t (n) VALUES (1)", [])?;
            panic!("on purpose")
        })
        .await;
    assert!(answer.is_err());
    insert(&db, 2, false).await.expect("it works");
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn a_newer_file_is_refused_and_untouched() {
    let dir = tempfile::tempdir().expect("it works");
    open(&dir).ready(&V2).await.expect("it works");
    let e = open(&dir).ready(&V1).await.unwrap_err();
    assert!(matches!(e, BackendError::NewerSchema { found: 2, known: 1, .. }), "{e}");
    let e = open(&dir).ready(&EDITED).await.unwrap_err();
    assert!(matches!(e, BackendError::NewerSchema { .. } | BackendError::ChangedMigration { .. }), "{e}");
    open(&dir).ready(&V2).await.expect("it works");
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let dir = tempfile::tempdir().expect("it works");
    open(&dir).ready(&V1).await.expect("it works");
    let e = open(&dir).ready(&EDITED).await.unwrap_err();
    assert!(matches!(e, BackendError::ChangedMigration { version: 1, .. }), "{e}");
}

#[tokio::test]
async fn what_cannot_be_opened_says_so_and_may_be_tried_again() {
    let dir = tempfile::tempdir().expect("it works");
    let path = dir.path().join("missing").join("t.db");
    let db = Sqlite::new(SqliteConfig::new(&path));
    assert!(matches!(db.ready(&V1).await, Err(BackendError::Open { .. })));
    std::fs::create_dir(path.parent().expect("it works")).unwrap();
    db.ready(&V1).await.expect("it works");

    let garbage = dir.path().join("garbage.db");
    std::fs::write(&garbage, vec![7u8; 8192]).expect("it works");
    let e = Sqlite::new(SqliteConfig::new(&garbage)).ready(&V1).await.unwrap_err();
    assert!(matches!(e, BackendError::Corrupt { .. }), "{e}");
    assert_eq!(std::fs::read(&garbage).expect("it works"), vec![7u8; 8192]);
}

#[tokio::test]
async fn closing_finishes_then_refuses() {
    let dir = tempfile::tempdir().expect("it works");
    let db = open(&dir);
    db.ready(&V1).await.expect("it works");
    insert(&db, 1, false).await.expect("it works");
    db.close().await;
    db.close().await;
    assert!(matches!(insert(&db, 2, false).await, Err(BackendError::Closed)));
    assert_eq!(count(&open(&dir)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_what_was_answered_is_there() {
    let dir = tempfile::tempdir().expect("it works");
    let db = open(&dir);
    db.ready(&V2).await.expect("it works");
    let limit = |pages: i64| {
        let db = db.clone();
        async move {
            db.write::<_, BackendError, _>(move |c| Ok(c.pragma_update(None, "max_page_count", pages)?))
                .await
                .expect("set")
        }
    };
    limit(30).await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                db.write::<_, BackendError, _>(|c| {
                    c.execute("INSERT INTO state_t (n, m) VALUES (1, zeroblob(3000))", [])?;
                    Ok(())
                })
                .await
            })
        })
        .collect();
    let mut answered = 0;
    let mut full = 0;
    for task in tasks {
        match task.await.expect("it works") {
            Ok(()) => answered += 1,
            Err(BackendError::Full) => full += 1,
            Err(e) => assert!(matches!(e, BackendError::RolledBack), "{e}"),
        }
    }
    assert!(full > 0);
    assert_eq!(count(&db).await, answered);
    limit(1_000).await;
    insert(&db, 1, false).await.expect("there is room again");
    assert_eq!(count(&db).await, answered + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_may_open_a_new_file_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().expect("it works");
        let handles: Vec<_> = (0..8).map(|_| open(&dir)).collect();
        let tasks: Vec<_> = handles.into_iter().map(|db| tokio::spawn(async move { db.ready(&V1).await })).collect();
        for task in tasks {
            task.await.expect("it works").expect("nobody is turned away");
        }
    }
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    for name in [":memory:", "", "file:x?mode=memory&cache=shared"] {
        let dir = tempfile::tempdir().unwrap();
        let path = if name.starts_with("file:") { dir.path().join(name) } else { name.into() };
        let sqlite = Sqlite::new(SqliteConfig::new(&path));
        let answer = sqlite.write(|conn| Ok::<_, BackendError>(conn.execute("CREATE TABLE t (x)", []).is_ok())).await;
        if name.starts_with("file:") {
            assert!(answer.unwrap() && path.exists(), "a name is a file, whatever it looks like");
        } else {
            let e = answer.unwrap_err();
            assert!(matches!(&e, BackendError::Open { reason, .. } if reason.contains("no file")), "{name:?}: {e}");
        }
    }
}
