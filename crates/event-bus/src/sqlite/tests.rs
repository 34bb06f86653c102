//! No hot statement walks a table.

use infra_backends::{Sqlite, SqliteConfig};

use super::{SCHEMA, append, claim, dead, delay, event, group, lane, settle};
use crate::BusError;

/// How SQLite goes about a statement, one line a step.
async fn plan(sqlite: &Sqlite, sql: &'static str) -> Vec<String> {
    let explain = move |conn: &rusqlite::Connection| {
        let mut select = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let arguments = vec![1; select.parameter_count()];
        let steps = select.query_map(rusqlite::params_from_iter(arguments), |r| r.get("detail"))?;
        Ok(steps.collect::<rusqlite::Result<_>>()?)
    };
    sqlite.read::<_, BusError, _>(explain).await.expect("the statement fits the schema")
}

#[tokio::test]
async fn every_hot_statement_goes_by_its_index() {
    let dir = tempfile::tempdir().expect("a directory for the file");
    let sqlite = Sqlite::new(SqliteConfig::new(dir.path().join("bus.db")));
    sqlite.ready(&SCHEMA).await.expect("the schema is good");
    // What each has to be found by.
    let statements = [
        (lane::HEADS, "INDEX bus_delivery_head (group_id=? AND priority=?)"),
        (lane::NEXT_OF_LANE, "INDEX bus_delivery_lane (group_id=? AND priority=? AND key=? AND seq>?)"),
        (lane::NEXT_DUE, "INDEX bus_delivery_wait (group_id=? AND free_at>?)"),
        (append::LAY_OUT, "INDEX bus_delivery_lane (group_id=? AND priority=? AND key=?)"),
        (settle::STEP_FORWARD, "INDEX bus_delivery_lane (group_id=? AND priority=? AND key=?)"),
        (append::FORGET, "INDEX bus_id_finished (seq<?)"),
        (claim::TAKE_OVER, "INDEX bus_delivery_lent (group_id=? AND consumer=?)"),
        (delay::DUE, "INDEX bus_delayed_until (until_ns>? AND until_ns<?)"),
        (delay::NEXT_DUE, "INDEX bus_delayed_until (until_ns>?)"),
        (group::OLDEST, "PRIMARY KEY (group_id=?)"),
        (group::IS_PENDING, "PRIMARY KEY (group_id=? AND seq<?)"),
        (event::PAGE, "INTEGER PRIMARY KEY (rowid>?)"),
        (dead::LETTERS, "INDEX sqlite_autoindex_bus_dead_1 (group_id=? AND seq>?)"),
        (dead::MAKE_ROOM, "INDEX sqlite_autoindex_bus_dead_1 (group_id=?"),
    ];
    for (sql, way) in statements {
        let steps = plan(&sqlite, sql).await;
        assert!(steps.iter().any(|step| step.contains(way)), "{sql}: {steps:#?}");
        let is_slow =
            |step: &String| step.starts_with("SCAN") && !step.contains("CONSTANT ROW") || step.contains("TEMP");
        assert!(!steps.iter().any(is_slow), "{sql}: {steps:#?}");
    }
    // It takes the first entries of an index that holds nothing else.
    let trim = plan(&sqlite, append::TRIM).await;
    assert!(trim.iter().any(|step| step.contains("COVERING INDEX bus_event_history")), "{trim:#?}");
    assert!(!trim.iter().any(|step| step.contains("TEMP")), "{trim:#?}");
}
