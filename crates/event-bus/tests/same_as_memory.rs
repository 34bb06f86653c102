//! The memory broker is the specification: whatever is asked of both, the stores answer the same.
#![cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]

use std::{ops::AsyncFn, sync::Arc, time::Duration};

use infra_event_bus::{
    BusError, Limits, MemoryBroker, Pattern, StartFrom,
    broker::{Append, Broker, Claim, GroupSpec, Outcome, Settle, Shards, Turn, Turned},
};
use infra_types::{CorrelationId, Envelope, EventId, Timestamp, Topic};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// An event to be.
#[derive(Debug, Clone)]
struct Event {
    topic: u8,
    key: u8,
    id: u8,
    is_priority: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        events: Vec<Event>,
    },
    /// Delays the event, and others after it, until so many seconds from now.
    Delay {
        event: Event,
        others: u8,
        seconds: u64,
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
    /// As `Settle`, and claims in the same step.
    Turn {
        nth: usize,
        count: usize,
        how: u8,
        max: usize,
        open: u64,
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
    /// The n-th dead letters of the group; where there are fewer, places that may be anything.
    Redrive {
        group: u8,
        letters: Vec<usize>,
    },
    Purge {
        group: u8,
        letters: Vec<usize>,
    },
    DeadLetters {
        group: u8,
        after: u64,
        limit: usize,
    },
    History {
        after: u64,
        limit: usize,
    },
    /// Takes back an event that may be delayed, or one of those after it.
    Cancel {
        id: u8,
        other: Option<u8>,
    },
    Pass {
        seconds: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let is_priority = prop_oneof![3 => Just(false), 1 => Just(true)];
    let make = |(topic, key, id, is_priority)| Event { topic, key, id, is_priority };
    (0..2u8, 0..4u8, 0..100u8, is_priority).prop_map(make)
}

fn step() -> impl Strategy<Value = Step> {
    let (group, consumer) = (0..2u8, 0..2u8);
    let letters = proptest::collection::vec(0..4usize, 0..4);
    // The two shards of keys, the one of the priority lane, and one that nothing belongs to.
    let some = (0..8u64, any::<bool>()).prop_map(|(keys, priority)| keys | u64::from(priority) << Shards::PRIORITY);
    let open = prop_oneof![1 => some, 1 => Just(u64::MAX)];
    // Rarely more than one claim looks at.
    let others = prop_oneof![20 => 0..3u8, 1 => 60..70u8];
    let claim = (group.clone(), consumer.clone(), 1..8usize, open.clone());
    let turn = (0..10usize, 1..6usize, 0..11u8, 1..8usize, open);
    prop_oneof![
        8 => proptest::collection::vec(event(), 1..5).prop_map(|events| Step::Append { events }),
        3 => (event(), others, 0..30u64)
            .prop_map(|(event, others, seconds)| Step::Delay { event, others, seconds }),
        2 => (group.clone(), any::<bool>()).prop_map(|(group, earliest)| Step::Open { group, earliest }),
        1 => (0..16u8).prop_filter_map("rare", |n| (n < 2).then_some(Step::Remove { group: n })),
        10 => claim.prop_map(|(group, consumer, max, open)| Step::Claim { group, consumer, max, open }),
        // The newest claims are ended more often than the others.
        12 => (0..10usize, 1..6usize, 0..11u8).prop_map(|(nth, count, how)| Step::Settle { nth, count, how }),
        // Nearly always all is acknowledged.
        8 => turn.prop_map(|(nth, count, how, max, open)| Step::Turn { nth, count, how: how.saturating_sub(7), max, open }),
        1 => (0..20usize, 0..20u64).prop_map(|(nth, seconds)| Step::Extend { nth, seconds }),
        1 => (group.clone(), consumer.clone(), consumer)
            .prop_map(|(group, consumer, incarnation)| Step::TakeOver { group, consumer, incarnation }),
        3 => (group.clone(), letters.clone()).prop_map(|(group, letters)| Step::Redrive { group, letters }),
        1 => (group.clone(), letters).prop_map(|(group, letters)| Step::Purge { group, letters }),
        1 => (group, 0..60u64, 0..4usize)
            .prop_map(|(group, after, limit)| Step::DeadLetters { group, after, limit }),
        1 => (0..60u64, 0..10usize).prop_map(|(after, limit)| Step::History { after, limit }),
        2 => (0..100u8, proptest::option::of(0..3u8)).prop_map(|(id, other)| Step::Cancel { id, other }),
        3 => (0..15u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// Mostly the groups are there from the begin.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let open = prop_oneof![1 => Just(0..0), 1 => Just(0..1), 3 => Just(0..2u8)];
    (open, proptest::collection::vec(step(), 1..120)).prop_map(|(groups, rest)| {
        let opened = groups.map(|group| Step::Open { group, earliest: false });
        opened.chain(rest).collect()
    })
}

/// So tight that each is reached, or roomy enough that more is delayed than one claim looks at.
fn limits() -> impl Strategy<Value = Limits> {
    let tight = Limits {
        backlog_max: 15,
        history_max: 6,
        delayed_max: 3,
        dedup_window: 20,
        dead_letters_max: 3,
        ..Limits::default()
    };
    let roomy = Limits { backlog_max: 300, history_max: 25, delayed_max: 90, dedup_window: 10, ..tight };
    let none = Limits { history_max: 0, dedup_window: 0, dead_letters_max: 0, ..tight };
    // Where limits are as large as in a real bus, Redis stores rows of events in the place of single ones.
    let large = Limits { history_max: 2_000, dedup_window: 2_000, ..roomy };
    // More is delayed than one claim looks at, and their groups are full.
    let crowded = Limits { backlog_max: 12, ..roomy };
    prop_oneof![4 => Just(tight), 2 => Just(roomy), 1 => Just(none), 3 => Just(large), 3 => Just(crowded)]
}

fn name(group: u8) -> Arc<str> {
    format!("g{group}").into()
}

/// A run of steps on one broker, in which every answer is written down.
struct Run<'a> {
    broker: &'a dyn Broker,
    now: Timestamp,
    /// All claims ever: group, consumer, place, attempt.
    claimed: Vec<(u8, u8, u64, u32)>,
    answers: Vec<String>,
}

impl Run<'_> {
    async fn all(broker: &dyn Broker, steps: &[Step]) -> Vec<String> {
        let mut run = Run { broker, now: Timestamp::from_millis(1_000_000), claimed: Vec::new(), answers: Vec::new() };
        for step in steps {
            let Some(answer) = run.step(step).await else { continue };
            run.answers.push(format!("{step:?}: {answer}"));
            run.look().await;
        }
        run.answers
    }

    /// What can be seen of the whole.
    async fn look(&mut self) {
        for group in [0, 1].map(name) {
            let (status, progress) = (self.broker.status(&group).await, self.broker.progress(&group, None).await);
            let dead = self.broker.dead_letters(&group, 0, 9).await;
            self.answers.push(format!("{group}: {status:?} {progress:?} {dead:?}"));
        }
        // The numbers are each store's own.
        let delayed = self
            .broker
            .delayed(None, 200)
            .await
            .map(|all| all.into_iter().map(|e| (e.place.until, e.id, e.topic, e.key)).collect::<Vec<_>>());
        self.answers.push(format!("{:?} {delayed:?}", self.broker.groups("", 9).await));
        let kept = self.broker.history(0, 64).await.map(|page| {
            let ids: Vec<_> = page.records.iter().map(|r| (r.seq, r.envelope.as_ref().map(|e| e.id.clone()))).collect();
            (page.newest, ids)
        });
        self.answers.push(format!("kept: {kept:?}"));
    }

    fn event(&self, event: &Event, name: String) -> Append {
        let topic = Topic::new(format!("t{}", event.topic)).expect("good");
        let envelope = Envelope::new(topic, "k", self.now, vec![event.id])
            .with_key(format!("key{}", event.key))
            // A fixed one: the two runs are compared word for word.
            .with_correlation(CorrelationId::from_u128(1))
            .with_id(EventId::new(name).expect("good"));
        Append { envelope: Arc::new(envelope), is_priority: event.is_priority }
    }

    async fn letters(&self, group: u8, nth: &[usize]) -> Vec<u64> {
        let dead = self.broker.dead_letters(&name(group), 0, 9).await.unwrap_or_default();
        nth.iter().map(|n| dead.get(*n).map_or(*n as u64, |letter| letter.seq)).collect()
    }

    /// None if the step does not apply.
    async fn step(&mut self, step: &Step) -> Option<String> {
        let broker = self.broker;
        Some(match step {
            Step::Append { events } => {
                let events = events.iter().map(|event| self.event(event, format!("id{}", event.id))).collect();
                format!("{:?}", broker.append(events).await)
            }
            Step::Delay { event, others, seconds } => {
                let until = self.now.saturating_add(Duration::from_secs(*seconds));
                let first = self.event(event, format!("id{}", event.id));
                let mut answers = vec![broker.delay(first, until, self.now).await];
                for n in 0..*others {
                    let other = self.event(event, format!("other{}-{n}", event.id));
                    answers.push(broker.delay(other, until, self.now).await);
                }
                format!("{answers:?}")
            }
            Step::Open { group, earliest } => {
                let from = if *earliest { StartFrom::Earliest } else { StartFrom::New };
                // Group 0 wants everything, group 1 one topic.
                let pattern = Pattern::new(if *group == 0 { "*" } else { "t1" }).expect("good");
                format!("{:?}", broker.open_group(GroupSpec { name: name(*group), pattern, from }).await)
            }
            Step::Remove { group } => format!("{:?}", broker.remove_group(&name(*group)).await),
            Step::Claim { group, consumer, max, open } => self.claim(*group, *consumer, *max, *open).await,
            Step::Settle { nth, count, how } => {
                let nth = self.claimed.len().checked_sub(nth + 1)?;
                let (group, consumer, ..) = self.claimed[nth];
                let mine = self.claimed.iter().skip(nth).filter(|c| (c.0, c.1) == (group, consumer)).take(*count);
                let ends = mine.map(|c| Settle { seq: c.2, attempt: c.3, outcome: self.outcome(*how) }).collect();
                format!("{:?}", broker.settle(&name(group), &format!("i{consumer}"), self.now, ends).await)
            }
            Step::Turn { nth, count, how, max, open } => {
                let nth = self.claimed.len().checked_sub(nth + 1)?;
                let (group, consumer, ..) = self.claimed[nth];
                let mine = self.claimed.iter().skip(nth).filter(|c| (c.0, c.1) == (group, consumer)).take(*count);
                let ends = mine.map(|c| Settle { seq: c.2, attempt: c.3, outcome: self.outcome(*how) }).collect();
                let claim = self.request(group, consumer, *max, *open);
                match broker.turn(Turn { ends, claim, waits: None }).await {
                    Ok(Turned { settled, claims, is_waiting }) => {
                        if let Ok(claims) = &claims {
                            self.claimed.extend(claims.events.iter().map(|e| (group, consumer, e.seq, e.attempt)));
                        }
                        format!("{settled:?} {claims:?} {is_waiting}")
                    }
                    Err(e) => format!("{e:?}"),
                }
            }
            Step::Extend { nth, seconds } => {
                let (group, consumer, seq, attempt) = *self.claimed.iter().rev().nth(*nth)?;
                let until = self.now.saturating_add(Duration::from_secs(*seconds));
                let claims = vec![(seq, attempt)];
                format!("{:?}", broker.extend(&name(group), &format!("i{consumer}"), until, claims).await)
            }
            Step::TakeOver { group, consumer, incarnation } => {
                let (consumer, incarnation) = (format!("c{consumer}"), format!("i{incarnation}"));
                format!("{:?}", broker.take_over(&name(*group), &consumer, &incarnation).await)
            }
            Step::Redrive { group, letters } => {
                let letters = self.letters(*group, letters).await;
                format!("{letters:?} {:?}", broker.redrive(&name(*group), &letters).await)
            }
            Step::Purge { group, letters } => {
                let letters = self.letters(*group, letters).await;
                format!("{letters:?} {:?}", broker.purge(&name(*group), &letters).await)
            }
            Step::DeadLetters { group, after, limit } => {
                format!("{:?}", broker.dead_letters(&name(*group), *after, *limit).await)
            }
            Step::History { after, limit } => format!("{:?}", broker.history(*after, *limit).await),
            Step::Cancel { id, other } => {
                let name = other.map_or_else(|| format!("id{id}"), |other| format!("other{id}-{other}"));
                format!("{:?}", broker.cancel_delayed(&EventId::new(name).expect("good")).await)
            }
            Step::Pass { seconds } => {
                self.now = self.now.saturating_add(Duration::from_secs(*seconds));
                return None;
            }
        })
    }

    fn outcome(&self, how: u8) -> Outcome {
        match how {
            0..=3 => Outcome::Ack,
            4 | 5 => Outcome::Retry {
                at: self.now.saturating_add(Duration::from_secs(5)),
                error: "no".into(),
                steps_aside: how == 5,
            },
            6..=8 => Outcome::Dead { error: "bad".into() },
            _ => Outcome::Release,
        }
    }

    fn request(&self, group: u8, consumer: u8, max: usize, open: u64) -> Claim {
        Claim {
            group: name(group),
            consumer: format!("c{consumer}").into(),
            incarnation: format!("i{consumer}").into(),
            now: self.now,
            lease: Duration::from_secs(10),
            horizon: Duration::from_secs(60),
            max,
            crashes_max: 2,
            shards: Shards { count: 2, open },
        }
    }

    async fn claim(&mut self, group: u8, consumer: u8, max: usize, open: u64) -> String {
        let claim = self.request(group, consumer, max, open);
        match self.broker.claim(claim).await {
            Ok(claims) => {
                self.claimed.extend(claims.events.iter().map(|e| (group, consumer, e.seq, e.attempt)));
                format!("{claims:?}")
            }
            Err(e) => format!("{e:?}"),
        }
    }
}

/// Runs many random steps on memory and on the broker that `new` makes, which lives as long as what comes with it.
fn same_as_memory<B: Broker, G>(cases: u32, new: impl AsyncFn(Limits) -> Result<(B, G), BusError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(limits(), steps()), |(limits, steps)| {
        runtime.block_on(async {
            let (broker, _guard) = new(limits).await.map_err(|e| TestCaseError::fail(e.to_string()))?;
            let want = Run::all(&MemoryBroker::new(limits), &steps).await;
            prop_assert_eq!(want, Run::all(&broker, &steps).await);
            Ok(())
        })
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_answers_as_memory_does() {
    use infra_backends::{Sqlite, SqliteConfig, Synchronous};
    same_as_memory(200, async |limits| {
        let dir = tempfile::tempdir().expect("a directory for the file");
        let file = SqliteConfig::new(dir.path().join("bus.db")).with_synchronous(Synchronous::Normal);
        Ok((infra_event_bus::SqliteBroker::new(Sqlite::new(file), limits), dir))
    });
}

#[cfg(feature = "redis")]
#[test]
fn redis_answers_as_memory_does() {
    use infra_backends::{Redis, RedisConfig};
    use infra_event_bus::{RedisBroker, TimeSource};
    use infra_testkit::{RedisServer, unique_name};
    same_as_memory(200, async |limits| {
        let config = RedisConfig::from_url(&RedisServer::shared().url())?;
        let redis = Redis::new(config.with_key_prefix(format!("{}:", unique_name())))?;
        Ok((RedisBroker::new(redis, limits)?.with_time_source(TimeSource::Bus), ()))
    });
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_answers_as_memory_does() {
    use infra_backends::{Postgres, PostgresConfig};
    use infra_event_bus::{PostgresBroker, TimeSource};
    use infra_testkit::{PostgresServer, unique_name};
    same_as_memory(100, async |limits| {
        let config = PostgresConfig::from_url(&PostgresServer::shared().url())?.with_schema(unique_name());
        let config = config.with_operation_timeout(Duration::from_secs(30));
        Ok((PostgresBroker::new(Postgres::new(config)?, limits).with_time_source(TimeSource::Bus), ()))
    });
}
