//! A file that an older program wrote is carried over with everything that is in it.
#![cfg(feature = "sqlite")]

use std::{sync::Arc, time::Duration};

use infra_backends::{BackendError, Schema, Sqlite, SqliteConfig};
use infra_event_bus::{
    GroupStatus, Limits, SqliteBroker,
    broker::{Append, Broker, Claim, Outcome, Settle, Shards},
};
use infra_types::{Envelope, EventId, Timestamp, Topic};

static STEP_1: Schema = Schema { component: "bus", steps: &[include_str!("../migrations/sqlite/0001_bus.sql")] };

/// Two groups that want `t*`: `slow` has still to do 3, 4 and 5, of which 3 waits for its second attempt and 4 is behind it; `quick` only 5,
/// which a consumer has. 1 is finished, 2 nobody wanted, 6 is a dead letter of `slow`, and the newest, 9, is gone.
const FILLED: &str = "
INSERT INTO bus_event (seq, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, outstanding, kept, data)
VALUES
    (1, 'e1', 't', 'a', 's', 'k', 1000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 0, 0, x''),
    (2, 'e2', 'u', 'a', 's', 'k', 2000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 0, 1, x'32'),
    (3, 'e3', 't', 'a', 's', 'k', 3000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 1, 0, x'33'),
    (4, 'e4', 't', 'a', 's', 'k', 4000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 1, 0, x'34'),
    (5, 'e5', 't', 'b', 's', 'k', 5000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 2, 0, x'35'),
    (6, 'e6', 't', 'a', 's', 'k', 6000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 0, 0, x''),
    (9, 'e9', 't', 'a', 's', 'k', 9000, 'c', '00000000-0000-0000-0000-000000000001', NULL, 0, 0, x'');
DELETE FROM bus_event WHERE seq = 9;
INSERT INTO bus_group VALUES (1, 'slow', 't*', 3), (2, 'quick', 't*', 1);
INSERT INTO bus_delivery VALUES
    (1, 3, 'a', 1, 1, 60000000000, 0, 0, NULL, NULL, 'no'),
    (1, 4, 'a', 0, 0, 0, 0, 0, NULL, NULL, ''),
    (1, 5, 'b', 1, 0, 0, 0, 0, NULL, NULL, ''),
    (2, 5, 'b', 1, 1, 0, 90000000000, 30000000000, 'c', 'i', '');
INSERT INTO bus_dead VALUES
    (1, 6, 'bad', 5, 7000, 'e6', 't', 'a', 's', 'k', 6000, 'c', '00000000-0000-0000-0000-000000000001', NULL, x'36');
UPDATE bus_meta SET value = 1 WHERE name = 'kept';
";

fn seconds(n: i64) -> Timestamp {
    Timestamp::from_millis(n * 1_000)
}

fn claim(group: &str, at: Timestamp) -> Claim {
    Claim {
        group: group.into(),
        consumer: "c".into(),
        incarnation: "new".into(),
        now: at,
        lease: Duration::from_secs(30),
        horizon: Duration::from_secs(600),
        max: 64,
        crashes_max: 5,
        shards: Shards { count: 1, open: u64::MAX },
    }
}

/// Place and attempt of what a claim lends.
async fn lent(broker: &SqliteBroker, claim: Claim) -> Vec<(u64, u32)> {
    let claims = broker.claim(claim).await.expect("the claim is answered");
    claims.events.iter().map(|e| (e.seq, e.attempt)).collect()
}

#[tokio::test]
async fn a_file_of_the_first_step_is_carried_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(dir.path().join("bus.db"));
    let old = Sqlite::new(config.clone());
    old.ready(&STEP_1).await.unwrap();
    old.write::<_, BackendError, _>(|conn| Ok(conn.execute_batch(FILLED)?)).await.unwrap();
    old.close().await;

    let broker = SqliteBroker::new(Sqlite::new(config), Limits { history_max: 1, ..Limits::default() });
    let slow = GroupStatus { pending: 3, oldest: Some(Timestamp::from_nanos(3_000)), dead_letters: 1 };
    assert_eq!(broker.status("slow").await.unwrap(), slow);
    assert_eq!(broker.status("quick").await.unwrap().pending, 1);
    let page = broker.history(0, 64).await.unwrap();
    let kept: Vec<_> = page.records.iter().map(|r| (r.seq, r.envelope.clone().unwrap().data.clone())).collect();
    assert_eq!(kept, [(2, "2".into()), (3, "3".into()), (4, "4".into()), (5, "5".into())]);
    assert_eq!(page.newest, 9, "the place of what is gone is not given again");

    // Attempts, waits, claims and the order of the key are as they were.
    assert_eq!(lent(&broker, claim("slow", seconds(10))).await, [(5, 1)]);
    assert_eq!(broker.claim(claim("slow", seconds(10))).await.unwrap().next_due, Some(seconds(40)));
    assert_eq!(lent(&broker, claim("quick", seconds(80))).await, []);
    assert_eq!(lent(&broker, claim("quick", seconds(90))).await, [(5, 2)]);
    let end = vec![Settle { seq: 5, attempt: 1, outcome: Outcome::Ack }];
    assert_eq!(broker.settle("slow", "new", seconds(20), end).await.unwrap().lost, 0);
    assert_eq!(lent(&broker, claim("slow", seconds(60))).await, [(3, 2), (4, 1)]);

    // The dead letter goes back to work.
    let letters = broker.dead_letters("slow", 0, 10).await.unwrap();
    assert_eq!(letters.iter().map(|l| (l.seq, l.error.as_str(), l.attempts)).collect::<Vec<_>>(), [(6, "bad", 5)]);
    assert_eq!(broker.redrive("slow", &[6]).await.unwrap(), 1);
    assert_eq!(broker.status("slow").await.unwrap().dead_letters, 0);

    // Ids are known, whether or not the event is still there; what is not wanted goes when something newer comes.
    let event = |id: &str| {
        let event = Envelope::new(Topic::new("u").unwrap(), "k", seconds(1), "x").with_id(EventId::new(id).unwrap());
        Append { envelope: Arc::new(event), is_priority: false }
    };
    let answers = broker.append(["e1", "e3", "e6", "new"].map(event).into()).await;
    let answers: Vec<_> = answers.into_iter().map(|a| a.map(|a| (a.seq, a.duplicate, a.evicted)).unwrap()).collect();
    assert_eq!(answers, [(Some(1), true, 0), (Some(3), true, 0), (Some(6), true, 0), (Some(11), false, 1)]);
}
