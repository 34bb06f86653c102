//! Rows that somebody or something has damaged.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use infra_backends::{BackendError, Sqlite, SqliteConfig};
use infra_event_bus::{
    GroupStatus, Limits, Pattern, SqliteBroker, StartFrom,
    broker::{Append, Broker, Claim, GroupSpec, Shards},
};
use infra_types::{Envelope, Timestamp, Topic};

fn append(data: &str) -> Append {
    let event = Envelope::new(Topic::new("t").expect("good"), "test.v1", Timestamp::EPOCH, data.to_owned());
    Append { envelope: Arc::new(event), is_priority: false }
}

/// What cannot be read is a hole in the history, stays a dead letter, and keeps nothing delayed behind it.
#[tokio::test]
async fn an_unreadable_row_stays_where_it_is_and_stands_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = || Sqlite::new(SqliteConfig::new(dir.path().join("bus.db")));
    let broker = SqliteBroker::new(file(), Limits::default());
    let (now, later) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
    let spec = GroupSpec { name: "g".into(), pattern: Pattern::new("*").unwrap(), from: StartFrom::New };
    broker.open_group(spec).await.unwrap();
    for answer in broker.append(vec![append("1"), append("2")]).await {
        answer.unwrap();
    }
    for data in ["3", "4"] {
        broker.delay(append(data), later, now).await.unwrap();
    }
    let damage = "UPDATE bus_event SET correlation = 'no id' WHERE seq = 1;
                  UPDATE bus_event SET time_ns = 'no time' WHERE seq = 1;
                  UPDATE bus_delayed SET topic = x'00' WHERE delay_id = 1";
    file().write::<_, BackendError, _>(move |conn| Ok(conn.execute_batch(damage)?)).await.unwrap();

    assert_eq!(broker.status("g").await.unwrap(), GroupStatus { pending: 2, oldest: None, dead_letters: 0 });
    let claim = Claim {
        group: "g".into(),
        consumer: "c".into(),
        incarnation: "i".into(),
        now: later,
        lease: Duration::from_secs(10),
        horizon: Duration::from_secs(10),
        max: 10,
        crashes_max: 3,
        shards: Shards { count: 1, open: u64::MAX },
    };
    let claims = broker.claim(claim).await.unwrap();
    // The third is wanted by nobody any more: its topic is gone.
    assert_eq!((claims.released, claims.dead_lettered), (2, 1));
    assert_eq!(claims.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 4]);
    let page = broker.history(0, 10).await.unwrap();
    let kept: Vec<_> = page.records.iter().map(|r| (r.seq, r.envelope.is_some())).collect();
    assert_eq!(kept, [(1, false), (2, true), (3, false), (4, true)]);
    assert_eq!(broker.redrive("g", &[1, 2]).await.unwrap(), 0);
    assert_eq!(broker.status("g").await.unwrap().dead_letters, 1);
    assert_eq!(broker.purge("g", &[1, 2]).await.unwrap(), 1);
    assert_eq!(broker.dead_letters("g", 0, 10).await.unwrap(), []);
}
