//! What somebody who can write the tables can do to them, and what verification says.

use infra_audit_log::{
    AuditError, AuditLog, AuditQuery, Checkpoint, Fields, Frontier, NoteSigner, PostgresAuditLog, Tampering,
    Unanchored, Verdict, leaf_hash,
};
use infra_testkit::PostgresServer;
use infra_types::Symbol;

use crate::tools::{apart, event, open};

const EVENTS: u64 = 12;
/// The checkpoint covers so many; the rest was appended after it.
const ANCHORED: u64 = 9;

struct Scene {
    schema: String,
    log: PostgresAuditLog,
    checkpoint: Checkpoint,
}

impl Scene {
    async fn new() -> Self {
        Self::of(EVENTS).await
    }

    async fn of(events: u64) -> Self {
        let config = apart();
        let log = open(&config);
        log.append_batch((0..ANCHORED).map(event).collect()).await.unwrap();
        let signer = NoteSigner::from_seed("test", &[1; 32]).unwrap();
        let checkpoint = signer.sign(log.checkpoint(None).await.unwrap());
        log.append_batch((ANCHORED..events).map(event).collect()).await.unwrap();
        let scene = Self { schema: config.schema, log, checkpoint };
        scene.sql("ALTER TABLE audit_event DISABLE TRIGGER ALL; ALTER TABLE audit_head DISABLE TRIGGER ALL");
        scene
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

    /// As a superuser.
    fn sql(&self, sql: &str) -> String {
        PostgresServer::shared().psql(&format!("SET search_path = {}; {sql}", self.schema))
    }

    /// Makes leaf hashes and head fit whatever bytes stand there now, as a careful forger would.
    fn make_it_fit(&self) {
        let rows = self.sql(
            "UPDATE audit_event SET leaf_hash = sha256('\\x00'::bytea || data);
             SELECT encode(data, 'hex') FROM audit_event ORDER BY idx",
        );
        let mut frontier = Frontier::default();
        rows.lines().for_each(|data| frontier.push(leaf_hash(&hex::decode(data).unwrap())));
        let (size, nodes) = (frontier.size(), hex::encode(frontier.node_bytes()));
        self.sql(&format!("UPDATE audit_head SET size = {size}, frontier = '\\x{nodes}'"));
    }
}

fn tampered(at: impl Into<Option<u64>>, kind: Tampering) -> Verdict {
    Verdict::Tampered { first_bad_index: at.into(), kind }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_events_and_hashes() {
    let scene = Scene::new().await;
    scene.assert_sound().await;
    for idx in 0..EVENTS {
        for column in ["data", "leaf_hash"] {
            let flip = |at: u64| {
                scene.sql(&format!(
                    "UPDATE audit_event SET {column} = set_byte({column}, {at}, get_byte({column}, {at}) # 16)
                     WHERE idx = {idx}"
                ));
            };
            let at = 7 * idx % 32;
            flip(at);
            assert_eq!(scene.verdict().await, tampered(idx, Tampering::LeafHash), "{column} {idx} {at}");
            flip(at);
        }
    }
    scene.assert_sound().await;
    scene.sql("UPDATE audit_event SET data = data || '\\x00' WHERE idx = 5");
    assert_eq!(scene.verdict().await, tampered(5, Tampering::LeafHash));
    // A gigabyte in the place of an event is not fetched.
    scene.sql("UPDATE audit_event SET data = repeat('x', 70000)::bytea WHERE idx = 5");
    assert_eq!(scene.verdict().await, tampered(5, Tampering::Undecodable));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head() {
    let scene = Scene::new().await;
    let flip = |at: u64| {
        scene.sql(&format!("UPDATE audit_head SET frontier = set_byte(frontier, {at}, get_byte(frontier, {at}) # 16)"));
    };
    for at in [0, 17, 31, 32, 63] {
        flip(at);
        assert_eq!(scene.verdict().await, tampered(None, Tampering::Head), "byte {at}");
        let refused = scene.log.append(event(99)).await;
        assert!(matches!(refused, Err(AuditError::Corrupt { .. })), "this process knows another head: {refused:?}");
        flip(at);
    }
    scene.assert_sound().await;
    for size in [-1, 0, 1, EVENTS as i64 - 1, EVENTS as i64 + 1, 1 << 40] {
        scene.sql(&format!("UPDATE audit_head SET size = {size}"));
        assert!(matches!(scene.verdict().await, Verdict::Tampered { .. }), "size {size}");
        assert!(scene.log.append(event(99)).await.is_err(), "nothing may be built upon it");
    }
    scene.sql("DELETE FROM audit_head");
    assert_eq!(scene.verdict().await, tampered(None, Tampering::Head));
    assert!(matches!(scene.log.append(event(99)).await, Err(AuditError::Corrupt { .. })));
    scene.sql("ALTER TABLE audit_head DROP CONSTRAINT audit_head_pkey; INSERT INTO audit_head VALUES (1, 0, 0, ''), (1, 0, 0, '')");
    assert_eq!(scene.verdict().await, tampered(None, Tampering::Head));
}

#[tokio::test(flavor = "multi_thread")]
async fn search_columns_that_would_hide_an_event() {
    let changes = [
        "kind = 'USER_LOGOUT'",
        "symbol = 'X'",
        "symbol = NULL",
        "person = NULL",
        "person = 'bob'",
        "at = at + 1",
        "id = 'z'",
    ];
    for change in changes {
        let scene = Scene::new().await;
        scene.sql(&format!("UPDATE audit_event SET {change} WHERE idx = 4"));
        assert_eq!(scene.verdict().await, tampered(4, Tampering::SearchColumns), "{change}");
    }
    let scene = Scene::new().await;
    scene.sql("UPDATE audit_event SET symbol = 'X' WHERE idx = 4");
    let query = AuditQuery { symbol: Some(Symbol::new("X").unwrap()), ..AuditQuery::default() };
    assert!(matches!(scene.log.query(query).await, Err(AuditError::Corrupt { index: Some(4), .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_event_with_and_without_closing_the_gap() {
    for idx in [0, 4, ANCHORED - 1, ANCHORED, EVENTS - 1] {
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
        // This process has seen a longer log, so it knows better than the checkpoint.
        let refused = scene.log.append(event(99)).await;
        assert!(matches!(refused, Err(AuditError::Corrupt { index: Some(11), .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swapping_neighbours() {
    for idx in [0, 5, ANCHORED - 1, ANCHORED, EVENTS - 2] {
        let scene = Scene::new().await;
        scene.sql(&format!(
            "UPDATE audit_event SET idx = 1000 WHERE idx = {idx};
             UPDATE audit_event SET idx = {idx} WHERE idx = {idx} + 1;
             UPDATE audit_event SET idx = {idx} + 1 WHERE idx = 1000;"
        ));
        assert_eq!(scene.verdict().await, tampered(None, Tampering::Head), "{idx}");
        scene.make_it_fit();
        let caught = scene.verdict().await == tampered(None, Tampering::History);
        assert_eq!(caught, idx < ANCHORED, "{idx}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_off_the_end_down_to_nothing() {
    for left in [0, 1, ANCHORED - 1, ANCHORED, EVENTS - 1] {
        let scene = Scene::new().await;
        scene.sql(&if left == 0 {
            "TRUNCATE audit_event".into()
        } else {
            format!("DELETE FROM audit_event WHERE idx >= {left}")
        });
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

#[tokio::test(flavor = "multi_thread")]
async fn adding_events_beyond_the_head_or_before_the_first() {
    for idx in [-5, EVENTS as i64, i64::MAX] {
        let scene = Scene::new().await;
        scene.sql(&format!(
            "ALTER TABLE audit_event DROP CONSTRAINT audit_event_idx_check;
             INSERT INTO audit_event (idx, id, kind, at, leaf_hash, data)
             SELECT {idx}, 'x', kind, at, leaf_hash, data FROM audit_event WHERE idx = 0"
        ));
        let want = if idx < 0 { tampered(0, Tampering::Gap) } else { tampered(EVENTS, Tampering::Surplus) };
        assert_eq!(scene.verdict().await, want, "{idx}");
        assert_eq!(scene.log.append(event(99)).await.is_ok(), idx < 0, "{idx}");
    }
}

/// Without its primary key the table takes a second row of an index, which must not hide where verification turns a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_event_at_the_same_index() {
    const LONG: u64 = 600;
    let scene = Scene::of(LONG).await;
    scene.sql("ALTER TABLE audit_event DROP CONSTRAINT audit_event_pkey, DROP CONSTRAINT audit_event_id_key");
    for idx in [0, 1, 510, 511, 512, 513, LONG - 1] {
        let copy = format!(
            "INSERT INTO audit_event (idx, id, kind, symbol, person, at, leaf_hash, data)
             SELECT idx, id, kind, symbol, person, at, leaf_hash, data FROM audit_event WHERE idx = {idx}"
        );
        scene.sql(&copy);
        assert!(
            matches!(scene.verdict().await, Verdict::Tampered { kind: Tampering::Gap, .. }),
            "{idx}: {:?}",
            scene.verdict().await
        );
        scene.sql(&format!(
            "DELETE FROM audit_event WHERE ctid = (SELECT max(ctid) FROM audit_event WHERE idx = {idx})"
        ));
    }
    assert!(matches!(scene.verdict().await, Verdict::Ok { .. }));
    // The rows of a table that inherits are seen as well.
    scene.sql(
        "CREATE TABLE more () INHERITS (audit_event);
         INSERT INTO more SELECT * FROM ONLY audit_event WHERE idx = 3;",
    );
    assert!(matches!(scene.verdict().await, Verdict::Tampered { kind: Tampering::Gap, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_new_history_fits_itself_and_not_the_checkpoint() {
    for changed in [0, ANCHORED - 1, ANCHORED, EVENTS - 1] {
        let scene = Scene::new().await;
        let bytes = event(changed).with_details(Fields::new().with("n", "forged")).encode().unwrap();
        scene.sql(&format!("UPDATE audit_event SET data = '\\x{}' WHERE idx = {changed}", hex::encode(bytes)));
        scene.make_it_fit();
        let alone = scene.log.verify(None).await.unwrap();
        assert!(matches!(alone, Verdict::Unanchored { reason: Unanchored::NoCheckpoint, .. }));
        let caught = scene.verdict().await == tampered(None, Tampering::History);
        assert_eq!(caught, changed < ANCHORED, "{changed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_in_its_place() {
    let scene = Scene::new().await;
    let fresh = open(&apart());
    assert_eq!(fresh.verify(Some(&scene.checkpoint)).await.unwrap(), tampered(0, Tampering::Truncated));
    // Events of one's own, as many as there were.
    fresh.append_batch((100..100 + EVENTS).map(event).collect()).await.unwrap();
    assert_eq!(fresh.verify(Some(&scene.checkpoint)).await.unwrap(), tampered(None, Tampering::History));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_shape() {
    let scene = Scene::new().await;
    scene.sql("ALTER TABLE audit_event ALTER symbol TYPE bytea USING symbol::bytea");
    // The pool's connections know the old shape; a new handle does not.
    let config = apart().with_schema(scene.schema.clone());
    let fresh = open(&config);
    assert_eq!(fresh.verify(Some(&scene.checkpoint)).await.unwrap(), tampered(0, Tampering::Undecodable));
    scene.sql("DROP TABLE audit_event");
    assert!(scene.log.verify(Some(&scene.checkpoint)).await.is_err(), "no verdict is not a good one");
    assert!(scene.log.append(event(99)).await.is_err());
}
