//! What somebody who can write the file can do to it, and what verification says.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

use std::{path::Path, sync::Arc};

use infra_audit_log::{
    AuditError, AuditEvent, AuditKind, AuditLog, AuditQuery, Checkpoint, Fields, Frontier, NoteSigner, SqliteAuditLog,
    Tampering, Unanchored, Verdict, leaf_hash,
};
use infra_backends::{Sqlite, SqliteConfig};
use infra_types::{EventId, ManualClock, Symbol, Timestamp, UserId};
use rusqlite::{Connection, params};

const EVENTS: u64 = 12;
/// The checkpoint covers so many; the rest was appended after it.
const ANCHORED: u64 = 9;

fn event(n: u64) -> AuditEvent {
    AuditEvent::new(
        EventId::new(format!("e-{n}")).unwrap(),
        AuditKind::BUILT_IN[n as usize % AuditKind::BUILT_IN.len()].clone(),
        Timestamp::from_millis(n as i64),
        "order/1",
        "place",
    )
    .with_symbol(Symbol::new("BTCUSDT").unwrap())
    .with_user(UserId::new("ann").unwrap())
    .with_details(Fields::new().with("n", n))
}

fn open(path: &Path) -> SqliteAuditLog {
    let db = Sqlite::new(SqliteConfig::new(path).with_synchronous(infra_backends::Synchronous::Normal));
    SqliteAuditLog::new(db, Arc::new(ManualClock::default()))
}

struct Scene {
    dir: tempfile::TempDir,
    log: SqliteAuditLog,
    attacker: Connection,
    checkpoint: Checkpoint,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = open(&dir.path().join("a.db"));
        log.append_batch((0..ANCHORED).map(event).collect()).await.unwrap();
        let signer = NoteSigner::from_seed("test", &[1; 32]).unwrap();
        let checkpoint = signer.sign(log.checkpoint(None).await.unwrap());
        log.append_batch((ANCHORED..EVENTS).map(event).collect()).await.unwrap();
        let attacker = Connection::open(dir.path().join("a.db")).unwrap();
        let disarm = "DROP TRIGGER audit_event_kept; DROP TRIGGER audit_event_stays;";
        attacker.execute_batch(disarm).unwrap();
        Self { dir, log, attacker, checkpoint }
    }

    async fn verdict(&self) -> Verdict {
        self.log.verify(Some(&self.checkpoint)).await.unwrap()
    }

    async fn assert_sound(&self) {
        let head = self.log.head().await.unwrap();
        assert_eq!(head.size, EVENTS);
        let want = Verdict::Ok { anchored_to: self.checkpoint.head(), head, first_index: 0 };
        assert_eq!(self.verdict().await, want);
    }

    fn sql(&self, sql: &str) {
        self.attacker.execute_batch(sql).unwrap();
    }

    fn blob(&self, sql: &str) -> Vec<u8> {
        self.attacker.query_row(sql, [], |r| r.get(0)).unwrap()
    }

    /// Makes leaf hashes, search columns and head fit whatever bytes stand there now, as a careful forger would.
    fn make_it_fit(&self) {
        let mut select = self.attacker.prepare("SELECT idx, data FROM audit_event ORDER BY idx").unwrap();
        let rows = select.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, Vec<u8>>(1)?))).unwrap();
        let mut frontier = Frontier::default();
        for row in rows {
            let (idx, data) = row.unwrap();
            let leaf = leaf_hash(&data);
            frontier.push(leaf);
            let update = "UPDATE audit_event SET leaf_hash = ?2 WHERE idx = ?1";
            self.attacker.execute(update, params![idx, leaf.as_bytes()]).unwrap();
        }
        let update = "UPDATE audit_head SET size = ?1, frontier = ?2";
        self.attacker.execute(update, params![frontier.size().cast_signed(), frontier.node_bytes()]).unwrap();
    }
}

fn tampered(at: impl Into<Option<u64>>, kind: Tampering) -> Verdict {
    Verdict::Tampered { first_bad_index: at.into(), kind }
}

#[tokio::test]
async fn every_byte_of_every_event_and_hash() {
    let scene = Scene::new().await;
    scene.assert_sound().await;
    for idx in 0..EVENTS {
        for column in ["data", "leaf_hash"] {
            let sound = scene.blob(&format!("SELECT {column} FROM audit_event WHERE idx = {idx}"));
            let put = |bytes: &[u8]| {
                let update = format!("UPDATE audit_event SET {column} = ?1 WHERE idx = {idx}");
                scene.attacker.execute(&update, [bytes]).unwrap();
            };
            for at in 0..sound.len() {
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << (at % 8);
                put(&bytes);
                assert_eq!(scene.verdict().await, tampered(idx, Tampering::LeafHash), "{column} {idx} {at}");
            }
            put(&sound);
        }
    }
    scene.assert_sound().await;
}

#[tokio::test]
async fn every_byte_of_the_head() {
    let scene = Scene::new().await;
    let sound = scene.blob("SELECT frontier FROM audit_head");
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        scene.attacker.execute("UPDATE audit_head SET frontier = ?1", [&bytes]).unwrap();
        assert_eq!(scene.verdict().await, tampered(None, Tampering::Head), "byte {at}");
    }
    scene.attacker.execute("UPDATE audit_head SET frontier = ?1", [&sound]).unwrap();
    for size in [0, 1, EVENTS - 1, EVENTS + 1, 1 << 40] {
        scene.sql(&format!("UPDATE audit_head SET size = {size}"));
        assert!(matches!(scene.verdict().await, Verdict::Tampered { .. }), "size {size}");
        assert!(scene.log.append(event(99)).await.is_err(), "nothing may be built upon it");
    }
    scene.sql("DELETE FROM audit_head");
    assert_eq!(scene.verdict().await, tampered(None, Tampering::Head));
    assert!(matches!(scene.log.append(event(99)).await, Err(AuditError::Corrupt { .. })));
}

#[tokio::test]
async fn search_columns_that_would_hide_an_event() {
    for change in [
        "kind = 'USER_LOGOUT'",
        "symbol = 'X'",
        "symbol = NULL",
        "user = NULL",
        "user = 'bob'",
        "at = at + 1",
        "id = 'z'",
    ] {
        let scene = Scene::new().await;
        scene.sql(&format!("UPDATE audit_event SET {change} WHERE idx = 4"));
        assert_eq!(scene.verdict().await, tampered(4, Tampering::SearchColumns), "{change}");
    }
    let scene = Scene::new().await;
    scene.sql("UPDATE audit_event SET symbol = 'X' WHERE idx = 4");
    let query = AuditQuery { symbol: Some(Symbol::new("X").unwrap()), ..AuditQuery::default() };
    assert!(matches!(scene.log.query(query).await, Err(AuditError::Corrupt { index: Some(4), .. })));
}

#[tokio::test]
async fn deleting_any_event_with_and_without_closing_the_gap() {
    for idx in 0..EVENTS {
        let scene = Scene::new().await;
        scene.sql(&format!("DELETE FROM audit_event WHERE idx = {idx}"));
        assert_eq!(scene.verdict().await, tampered(idx, Tampering::Gap), "{idx}");

        for later in idx + 1..EVENTS {
            scene.sql(&format!("UPDATE audit_event SET idx = {later} - 1 WHERE idx = {later}"));
        }
        assert!(matches!(scene.verdict().await, Verdict::Tampered { .. }), "{idx}");
        scene.make_it_fit();
        let verdict = scene.verdict().await;
        if idx < ANCHORED {
            assert_eq!(verdict, tampered(None, Tampering::History), "{idx}");
        } else {
            // Undetectable without a younger witness, and the verdict says how far the witness reaches.
            assert!(matches!(verdict, Verdict::Ok { anchored_to, .. } if anchored_to.size == ANCHORED));
        }
    }
}

#[tokio::test]
async fn swapping_any_two_neighbours() {
    for idx in 0..EVENTS - 1 {
        let scene = Scene::new().await;
        let swap = format!(
            "UPDATE audit_event SET idx = 1000 WHERE idx = {idx};
             UPDATE audit_event SET idx = {idx} WHERE idx = {idx} + 1;
             UPDATE audit_event SET idx = {idx} + 1 WHERE idx = 1000;"
        );
        scene.sql(&swap);
        assert_eq!(scene.verdict().await, tampered(None, Tampering::Head), "{idx}");
        scene.make_it_fit();
        let caught = scene.verdict().await == tampered(None, Tampering::History);
        assert_eq!(caught, idx < ANCHORED, "{idx}");
    }
}

#[tokio::test]
async fn cutting_off_the_end_down_to_nothing() {
    for left in 0..EVENTS {
        let scene = Scene::new().await;
        scene.sql(&format!("DELETE FROM audit_event WHERE idx >= {left}"));
        assert_eq!(scene.verdict().await, tampered(left, Tampering::Gap), "{left}");
        scene.make_it_fit();
        let verdict = scene.verdict().await;
        if left < ANCHORED {
            assert_eq!(verdict, tampered(left, Tampering::Truncated));
            assert!(scene.log.checkpoint(Some(&scene.checkpoint)).await.is_err(), "it is never signed");
        } else {
            assert!(matches!(verdict, Verdict::Ok { head, .. } if head.size == left));
        }
    }
}

#[tokio::test]
async fn adding_events_beyond_the_head_or_before_the_first() {
    for idx in [-5, EVENTS as i64, i64::MAX] {
        let scene = Scene::new().await;
        let data = event(50).encode().unwrap();
        let insert = "INSERT INTO audit_event (idx, id, kind, at, leaf_hash, data) VALUES (?1, 'x', 'X', 0, ?2, ?3)";
        scene.attacker.execute(insert, params![idx, leaf_hash(&data).as_bytes(), data]).unwrap();
        let want = if idx < 0 { tampered(0, Tampering::Gap) } else { tampered(EVENTS, Tampering::Surplus) };
        assert_eq!(scene.verdict().await, want, "{idx}");
        assert_eq!(scene.log.append(event(99)).await.is_ok(), idx < 0, "{idx}");
    }
}

#[tokio::test]
async fn a_whole_new_history_fits_itself_and_not_the_checkpoint() {
    for changed in 0..EVENTS {
        let scene = Scene::new().await;
        let bytes = event(changed).with_details(Fields::new().with("n", "forged")).encode().unwrap();
        let update = "UPDATE audit_event SET data = ?2 WHERE idx = ?1";
        scene.attacker.execute(update, params![changed.cast_signed(), bytes]).unwrap();
        scene.make_it_fit();
        let alone = scene.log.verify(None).await.unwrap();
        assert!(matches!(alone, Verdict::Unanchored { reason: Unanchored::NoCheckpoint, .. }));
        let caught = scene.verdict().await == tampered(None, Tampering::History);
        assert_eq!(caught, changed < ANCHORED, "{changed}");
    }
}

#[tokio::test]
async fn another_file_in_its_place() {
    let scene = Scene::new().await;
    let fresh = open(&scene.dir.path().join("b.db"));
    assert_eq!(fresh.verify(Some(&scene.checkpoint)).await.unwrap(), tampered(0, Tampering::Truncated));
    // Events of one's own, as many as there were.
    fresh.append_batch((100..100 + EVENTS).map(event).collect()).await.unwrap();
    assert_eq!(fresh.verify(Some(&scene.checkpoint)).await.unwrap(), tampered(None, Tampering::History));
}

#[tokio::test]
async fn the_file_itself_refuses_careless_changes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("a.db"));
    log.append(event(0)).await.unwrap();
    let someone = Connection::open(dir.path().join("a.db")).unwrap();
    for sql in ["DELETE FROM audit_event", "UPDATE audit_event SET symbol = 'X'", "UPDATE audit_event SET data = 7"] {
        assert!(someone.execute_batch(sql).is_err(), "{sql}");
    }
}

#[tokio::test]
async fn columns_of_another_type() {
    let scene = Scene::new().await;
    // A forger may rebuild the tables without their types.
    scene.sql(
        "CREATE TABLE loose AS SELECT * FROM audit_event;
         DROP TABLE audit_event;
         ALTER TABLE loose RENAME TO audit_event;
         UPDATE audit_event SET data = 'text' WHERE idx = 3;",
    );
    assert_eq!(scene.verdict().await, tampered(3, Tampering::Undecodable));
    scene.sql("DROP TABLE audit_event");
    assert!(scene.log.verify(Some(&scene.checkpoint)).await.is_err(), "no verdict is not a good one");
}

/// Bytes of the file itself, freelists, headers and index pages included: what `verify` calls sound reads as it was written.
#[tokio::test]
async fn bytes_of_the_file() {
    let scene = Scene::new().await;
    scene.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let file = std::fs::read(scene.dir.path().join("a.db")).unwrap();
    let all = scene.log.query(AuditQuery::default()).await.unwrap();
    let (mut caught, mut harmless) = (0, 0);
    for at in (0..file.len()).step_by(151) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = file.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(dir.path().join("a.db"), &bytes).unwrap();
        let log = open(&dir.path().join("a.db"));
        match log.verify(Some(&scene.checkpoint)).await {
            Ok(Verdict::Ok { .. }) => {
                assert_eq!(log.query(AuditQuery::default()).await.unwrap(), all, "byte {at}");
                harmless += 1;
            }
            Ok(Verdict::Unanchored { .. }) => panic!("byte {at}: the checkpoint was given"),
            Ok(_) | Err(_) => caught += 1,
        }
    }
    assert!(caught > 10 && harmless > 10, "{caught} caught, {harmless} harmless");
}
