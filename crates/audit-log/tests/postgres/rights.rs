//! What the tables themselves refuse, and how few rights an appender needs.

use infra_audit_log::{AuditLog, AuditQuery, Verdict};
use infra_testkit::PostgresServer;

use crate::tools::{apart, event, open};

const CARELESS: [&str; 8] = [
    "UPDATE audit_event SET symbol = 'X'",
    "UPDATE audit_event SET data = '' WHERE idx = 0",
    "DELETE FROM audit_event",
    "TRUNCATE audit_event",
    "DELETE FROM audit_head",
    "TRUNCATE audit_head",
    "UPDATE audit_head SET size = 0, frontier = ''",
    "UPDATE audit_head SET frontier = frontier || frontier",
];

#[tokio::test]
async fn the_tables_refuse_careless_changes() {
    let config = apart();
    let (server, log) = (PostgresServer::shared(), open(&config));
    log.append_batch((0..3).map(event).collect()).await.unwrap();
    for sql in CARELESS {
        // In a session that replays another server's changes, too.
        for session in ["", "SET session_replication_role = replica;"] {
            let refused =
                server.try_psql(&format!("{session} SET search_path = {}; {sql}", config.schema)).unwrap_err();
            assert!(refused.contains("never") || refused.contains("only grows"), "{sql}: {refused}");
        }
    }
    assert_eq!(log.checkpoint(None).await.unwrap().size, 3);
}

/// A user that owns nothing appends, reads and verifies, and can neither change events nor switch the guards off.
#[tokio::test]
async fn an_appender_needs_no_ownership() {
    let config = apart();
    let (server, schema) = (PostgresServer::shared(), &config.schema);
    let owner = open(&config);
    owner.append(event(0)).await.unwrap();
    let user = format!("{schema}_writer");
    server.psql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'secret';
         GRANT CONNECT ON DATABASE infra TO {user};
         GRANT USAGE ON SCHEMA {schema} TO {user};
         GRANT SELECT ON {schema}.infra_schema TO {user};
         GRANT SELECT, INSERT ON {schema}.audit_event TO {user};
         GRANT SELECT, UPDATE ON {schema}.audit_head TO {user}"
    ));
    let mut theirs = config.clone().with_password("secret".to_owned());
    theirs.user.clone_from(&user);
    let log = open(&theirs);
    assert_eq!(log.append_batch(vec![event(1), event(0)]).await.unwrap().iter().map(|r| r.index).sum::<u64>(), 1);
    assert_eq!(log.query(AuditQuery::default()).await.unwrap().events.len(), 2);
    assert!(matches!(log.verify(None).await.unwrap(), Verdict::Unanchored { head, .. } if head.size == 2));

    let guards = [
        "ALTER TABLE audit_event DISABLE TRIGGER audit_event_stays",
        "DROP TABLE audit_event CASCADE",
        "DROP TRIGGER audit_head_grows ON audit_head",
        "SET session_replication_role = replica",
        "ALTER FUNCTION audit_refuse() RENAME TO x",
    ];
    for sql in CARELESS.iter().chain(&guards) {
        let as_them = format!("SET SESSION AUTHORIZATION {user}; SET search_path = {schema}; {sql}");
        assert!(server.try_psql(&as_them).is_err(), "{sql}");
    }
    assert_eq!(owner.checkpoint(None).await.unwrap().size, 2);
    log.close().await.unwrap();
    server.psql(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
}
