//! Processes that die while they append.

use std::time::Duration;

use infra_audit_log::{AuditLog, AuditQuery};
use infra_backends::PostgresConfig;
use infra_testkit::{KillableChild, PostgresServer, child_argument, say};

use crate::tools::{PATIENCE, apart, event, open};

/// Two processes append to one log; one is killed, and another takes its place, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_keeps_what_it_acknowledged() {
    if let Some(argument) = child_argument() {
        return append_until_killed(argument.to_str().unwrap()).await;
    }
    let config = apart();
    let url = PostgresServer::shared().url();
    let start = |part: u64| {
        let argument = format!("{part} {} {url}", config.schema);
        KillableChild::this_test("kill::killed_at_any_point_it_keeps_what_it_acknowledged", argument)
    };
    let (mut acknowledged, log) = (Vec::new(), open(&config));
    let mut survivor = start(0);
    for part in 1..=4 {
        let mut victim = start(part);
        for _ in 0..40 + 17 * part {
            acknowledged.push(victim.next_line(PATIENCE).expect("it appends"));
        }
        acknowledged.extend(victim.kill());
    }
    acknowledged.push(survivor.next_line(Duration::from_secs(1)).expect("it appends"));
    acknowledged.extend(survivor.kill());

    let mut stored = Vec::new();
    let mut query = AuditQuery { limit: 1_000, ..AuditQuery::default() };
    loop {
        let page = log.query(query.clone()).await.unwrap();
        stored.extend(page.events.iter().map(|stored| format!("{} {}", stored.index, stored.event.id)));
        match page.next {
            Some(next) => query.after_index = Some(next),
            None => break,
        }
    }
    assert!(acknowledged.len() > 300, "too few events to say anything: {}", acknowledged.len());
    let place = |line: &str| line.split_once(' ').unwrap().0.parse::<usize>().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|line| stored.get(place(line)) != Some(line)).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    assert_eq!(log.checkpoint(None).await.unwrap().size, stored.len() as u64);
}

/// Appends batches of one to four, and says `index id` once each event is acknowledged.
async fn append_until_killed(argument: &str) {
    let (part, rest) = argument.split_once(' ').unwrap();
    let (schema, url) = rest.split_once(' ').unwrap();
    let config = PostgresConfig::from_url(url).unwrap().with_schema(schema).with_operation_timeout(PATIENCE);
    let log = open(&config.with_connect_timeout(PATIENCE));
    let first = part.parse::<u64>().unwrap() * 1_000_000;
    for round in 0.. {
        let events: Vec<_> = (0..=round % 4).map(|k| event(first + 4 * round + k)).collect();
        let receipts = log.append_batch(events.clone()).await.unwrap();
        for (receipt, event) in receipts.iter().zip(&events) {
            say(format!("{} {}", receipt.index, event.id));
        }
    }
}
