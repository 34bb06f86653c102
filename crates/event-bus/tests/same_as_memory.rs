//! The memory broker is the specification: whatever is asked of both, the stores answer the same.
#![cfg(any(feature = "sqlite", feature = "redis"))]

use std::{sync::Arc, time::Duration};

use infra_event_bus::{
    MemoryBroker, Pattern, StartFrom,
    broker::{Append, Broker, Claim, GroupSpec, Outcome, Settle, Shards},
    conformance::config,
};
use infra_types::{CorrelationId, Envelope, EventId, Timestamp, Topic};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        topic: u8,
        key: u8,
        id: u8,
    },
    Open {
        group: u8,
        earliest: bool,
    },
    Remove {
        group: u8,
    },
    Claim {
        group: u8,
        consumer: u8,
        max: usize,
        open: u64,
    },
    /// Ends the n-th claim that was ever made, whoever has it now, and the next few of the same consumer with it.
    Settle {
        nth: usize,
        count: usize,
        how: u8,
    },
    /// Prolongs the n-th claim that was ever made, to a moment that is away so far.
    Extend {
        nth: usize,
        seconds: u64,
    },
    TakeOver {
        group: u8,
        consumer: u8,
        incarnation: u8,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (group, consumer) = (0..2u8, 0..2u8);
    prop_oneof![
        5 => (0..2u8, 0..4u8, any::<u8>()).prop_map(|(topic, key, id)| Step::Append { topic, key, id }),
        1 => (group.clone(), any::<bool>()).prop_map(|(group, earliest)| Step::Open { group, earliest }),
        1 => (0..20u8).prop_filter_map("rare", |n| (n < 2).then_some(Step::Remove { group: n })),
        5 => (group.clone(), consumer.clone(), 1..6usize, 0..4u64)
            .prop_map(|(group, consumer, max, open)| Step::Claim { group, consumer, max, open }),
        6 => (0..40usize, 1..5usize, 0..6u8).prop_map(|(nth, count, how)| Step::Settle { nth, count, how }),
        1 => (0..40usize, 0..20u64).prop_map(|(nth, seconds)| Step::Extend { nth, seconds }),
        1 => (group, consumer.clone(), consumer)
            .prop_map(|(group, consumer, incarnation)| Step::TakeOver { group, consumer, incarnation }),
        2 => (0..20u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// Runs the steps and writes down every answer.
async fn run(broker: &dyn Broker, steps: &[Step]) -> Vec<String> {
    let mut answers = Vec::new();
    let mut claimed = Vec::new();
    let mut now = Timestamp::from_millis(1_000_000);
    for step in steps {
        let answer = match step {
            Step::Append { topic, key, id } => {
                let event = Envelope::new(Topic::new(format!("t{topic}")).expect("good"), "k", now, vec![*id])
                    .with_key(format!("key{key}"))
                    // A fixed one: the two runs are compared word for word.
                    .with_correlation(CorrelationId::from_u128(1))
                    .with_id(EventId::new(format!("id{id}")).expect("good"));
                format!("{:?}", broker.append(vec![Append { envelope: Arc::new(event), is_priority: false }]).await)
            }
            Step::Open { group, earliest } => {
                let from = if *earliest { StartFrom::Earliest } else { StartFrom::New };
                // Group 0 wants everything, group 1 one topic.
                let pattern = Pattern::new(if *group == 0 { "*" } else { "t1" }).expect("good");
                format!("{:?}", broker.open_group(GroupSpec { name: name(*group), pattern, from }).await)
            }
            Step::Remove { group } => format!("{:?}", broker.remove_group(&name(*group)).await),
            Step::Claim { group, consumer, max, open } => {
                let claim = Claim {
                    group: name(*group),
                    consumer: format!("c{consumer}").into(),
                    incarnation: format!("i{consumer}").into(),
                    now,
                    lease: Duration::from_secs(10),
                    horizon: Duration::from_secs(60),
                    max: *max,
                    crashes_max: 3,
                    shards: Shards { count: 2, open: *open },
                };
                match broker.claim(claim).await {
                    Ok(claims) => {
                        let got: Vec<_> =
                            claims.events.iter().map(|e| (e.seq, e.attempt, e.envelope.clone())).collect();
                        claimed.extend(got.iter().map(|(seq, attempt, _)| (*group, *consumer, *seq, *attempt)));
                        format!("{got:?} {} {}", claims.alone, claims.dead_lettered)
                    }
                    Err(e) => format!("{e:?}"),
                }
            }
            Step::Settle { nth, count, how } => match claimed.get(*nth) {
                Some((group, consumer, ..)) => {
                    let outcome = match how {
                        0..=2 => Outcome::Ack,
                        3 => Outcome::Retry {
                            at: now.saturating_add(Duration::from_secs(5)),
                            error: "no".into(),
                            steps_aside: false,
                        },
                        4 => Outcome::Dead { error: "bad".into() },
                        _ => Outcome::Release,
                    };
                    let mine = claimed.iter().skip(*nth).filter(|c| (&c.0, &c.1) == (group, consumer)).take(*count);
                    let end = |c: &(u8, u8, u64, u32)| Settle { seq: c.2, attempt: c.3, outcome: outcome.clone() };
                    let ends = mine.map(end).collect();
                    format!("{:?}", broker.settle(&name(*group), &format!("i{consumer}"), now, ends).await)
                }
                None => continue,
            },
            Step::Extend { nth, seconds } => match claimed.get(*nth) {
                Some((group, consumer, seq, attempt)) => {
                    let until = now.saturating_add(Duration::from_secs(*seconds));
                    let claims = vec![(*seq, *attempt)];
                    format!("{:?}", broker.extend(&name(*group), &format!("i{consumer}"), until, claims).await)
                }
                None => continue,
            },
            Step::TakeOver { group, consumer, incarnation } => {
                let (consumer, incarnation) = (format!("c{consumer}"), format!("i{incarnation}"));
                format!("{:?}", broker.take_over(&name(*group), &consumer, &incarnation).await)
            }
            Step::Pass { seconds } => {
                now = now.saturating_add(Duration::from_secs(*seconds));
                continue;
            }
        };
        answers.push(format!("{step:?}: {answer}"));
        for group in [0, 1] {
            let (backlog, dead) = (broker.status(&name(group)).await, broker.dead_letters(&name(group), 0, 9).await);
            answers.push(format!("{backlog:?} {dead:?} {:?}", broker.progress(&name(group), None).await));
        }
    }
    answers
}

fn name(group: u8) -> Arc<str> {
    format!("g{group}").into()
}

/// Runs the steps on memory and on `broker`.
async fn compare(broker: &dyn Broker, steps: &[Step]) -> Result<(), TestCaseError> {
    let memory = MemoryBroker::new(config().limits);
    let (want, got) = (run(&memory, steps).await, run(broker, steps).await);
    prop_assert_eq!(want, got);
    Ok(())
}

fn on_a_runtime<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[cfg(feature = "sqlite")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_answers_as_memory_does(steps in proptest::collection::vec(step(), 1..80)) {
        use infra_backends::{Sqlite, SqliteConfig, Synchronous};
        on_a_runtime(async {
            let dir = tempfile::tempdir().unwrap();
            let file = SqliteConfig::new(dir.path().join("bus.db")).with_synchronous(Synchronous::Normal);
            compare(&infra_event_bus::SqliteBroker::new(Sqlite::new(file), config().limits), &steps).await
        })?;
    }
}

#[cfg(feature = "redis")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn redis_answers_as_memory_does(steps in proptest::collection::vec(step(), 1..80)) {
        use infra_backends::{Redis, RedisConfig};
        use infra_event_bus::{RedisBroker, TimeSource};
        use infra_testkit::{RedisServer, unique_name};
        on_a_runtime(async {
            let keys = RedisConfig::from_url(&RedisServer::shared().url()).unwrap().with_key_prefix(format!("{}:", unique_name()));
            let broker = RedisBroker::new(Redis::new(keys).unwrap(), config().limits).unwrap();
            compare(&broker.with_time_source(TimeSource::Bus), &steps).await
        })?;
    }
}
