//! A bus on a Redis that is killed and comes back, and publishers that are killed with -9 while it is away: every answered event
//! arrives once, in order.
#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "the whole file is tests")]

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use infra_backends::{Fsync, Redis, RedisConfig};
use infra_event_bus::{
    BusError, Delivery, EventBus, Pattern, RedisEventBus, SpillConfig, SpillingEventBus, SubscribeOptions, handler_fn,
};
use infra_testkit::{KillableChild, RedisServer, TestDir, child_argument, say};
use infra_types::{Backoff, Clock, Envelope, EventId, Jitter, SystemClock, Topic};
use parking_lot::Mutex;

const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: usize = 10;
/// Every so many events one of a megabyte.
const BIG_EVERY: usize = 250;

fn redis(at: SocketAddr) -> Arc<RedisEventBus> {
    let config = RedisConfig::from_url(&format!("redis://{at}")).unwrap().with_min_fsync(Fsync::Always);
    let config = config.with_operation_timeout(Duration::from_secs(1)).with_connect_timeout(Duration::from_secs(1));
    Arc::new(RedisEventBus::new(Redis::new(config).unwrap(), SystemClock::shared()).unwrap())
}

async fn spilling(at: SocketAddr, path: &Path) -> Result<SpillingEventBus, BusError> {
    let retry = Backoff::new(Duration::from_millis(10), Duration::from_millis(100), 2, Jitter::Full).unwrap();
    SpillingEventBus::open(redis(at), SpillConfig::new(path).with_retry(retry), SystemClock::shared()).await
}

fn fill(n: usize) -> Envelope {
    let topic = Topic::new(format!("fills:S{}", n % 3)).unwrap();
    let id = EventId::new(format!("fill-{n}")).unwrap();
    let mut data = n.to_string().into_bytes();
    if n % BIG_EVERY == BIG_EVERY / 2 {
        data.resize(1 << 20, b' ');
    }
    Envelope::new(topic, "fill.v1", SystemClock.wall(), data).with_id(id).with_key(format!("K{}", n % KEYS))
}

/// What a group saw, in order: a number for each event.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<usize>>>);

impl Seen {
    async fn subscribe(&self, bus: &RedisEventBus) {
        let seen = self.clone();
        let handler = handler_fn(move |event| {
            let number: usize = String::from_utf8_lossy(&event.envelope.data).trim_end().parse().expect("a number");
            assert_eq!(event.envelope.id.as_str(), format!("fill-{number}"));
            seen.0.lock().push(number);
            async { Ok(()) }
        });
        let options = SubscribeOptions::at_least_once(Pattern::new("fills:*").unwrap(), "book", handler);
        bus.subscribe(options.from_earliest().with_consumer("bot_001")).await.unwrap();
    }

    /// Waits until all have arrived, then judges: each once, in the order in which they were published.
    async fn judge(&self, events: usize) {
        let give_up = SystemClock.now() + PATIENCE;
        let distinct = || self.0.lock().iter().collect::<HashSet<_>>().len();
        while distinct() < events {
            assert!(SystemClock.now() < give_up, "{} of {events} arrived", distinct());
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
        let seen = self.0.lock();
        let mut times: HashMap<usize, usize> = HashMap::new();
        let first = seen.iter().filter(|n| {
            let times = times.entry(**n).or_default();
            *times += 1;
            *times == 1
        });
        let first: Vec<usize> = first.copied().collect();
        println!("{} handlings of {events} events", seen.len());
        assert_eq!(first, (0..events).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_server_that_is_killed_again_and_again_is_not_noticed() {
    const EVENTS: usize = 3_000;
    let dir = TestDir::new();
    let mut server = tokio::task::block_in_place(RedisServer::start);
    let at = server.addr();
    let (reader, seen) = (redis(at), Seen::default());
    seen.subscribe(&reader).await;
    let bus = Arc::new(spilling(at, &dir.file("log")).await.unwrap());
    let done = Arc::new(Mutex::new(0));
    let publisher = tokio::spawn({
        let (bus, done) = (bus.clone(), done.clone());
        async move {
            let mut spilled = 0;
            while *done.lock() < EVENTS {
                let n = *done.lock();
                // Batches and single events in turn; no answer is an error.
                let answers = match n / 100 % 2 {
                    0 => bus.publish_batch((n..n + 20).map(fill).collect()).await,
                    _ => vec![bus.publish(fill(n), Delivery::AtLeastOnce).await],
                };
                for answer in answers {
                    spilled += usize::from(answer.unwrap().is_spilled);
                    *done.lock() += 1;
                }
                SystemClock.sleep(Duration::from_millis(1)).await;
            }
            spilled
        }
    });
    for at_least in [200, 900, 1_600] {
        while *done.lock() < at_least {
            SystemClock.sleep(Duration::from_millis(1)).await;
        }
        tokio::task::block_in_place(|| server.kill());
        // It stays away until some were spilled, and comes back while others are published.
        while *done.lock() < at_least + 300 {
            SystemClock.sleep(Duration::from_millis(1)).await;
        }
        assert!(bus.spill_status().events > 0);
        tokio::task::block_in_place(|| server.restart());
    }
    let spilled = publisher.await.unwrap();
    seen.judge(EVENTS).await;
    let status = bus.spill_status();
    println!("{spilled} answered as spilled: {status:?}");
    assert!(spilled > 600 && status.spilled == spilled as u64, "{status:?}");
    assert_eq!((status.events, status.drained, status.refused), (0, status.spilled, 0));
    // The store has each id once: it gave each a place once.
    assert_eq!(seen.0.lock().iter().collect::<HashSet<_>>().len(), EVENTS);
    bus.close().await.unwrap();
    reader.close().await.unwrap();
}

/// Publishes from `first` on, one after another, and says each that was answered, until it is killed.
async fn publish_until_killed(argument: &str) {
    let mut words = argument.splitn(3, ' ');
    let (at, first, path) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let bus = spilling(at.parse().unwrap(), Path::new(path)).await.unwrap();
    for n in first.parse().unwrap().. {
        let answer = bus.publish(fill(n), Delivery::AtLeastOnce).await.unwrap();
        say(format!("{n} {}", answer.is_spilled));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_publisher_killed_while_the_server_is_away_loses_nothing() {
    if let Some(argument) = child_argument() {
        return publish_until_killed(argument.to_str().unwrap()).await;
    }
    let dir = TestDir::new();
    let path = dir.file("log");
    let mut server = tokio::task::block_in_place(RedisServer::start);
    let at = server.addr();
    let (reader, seen) = (redis(at), Seen::default());
    let child = |first: usize| {
        let argument = format!("{at} {first} {}", path.display());
        KillableChild::this_test("a_publisher_killed_while_the_server_is_away_loses_nothing", argument)
    };
    let (mut answered, mut spilled) = (0, 0);
    let mut take = |line: &str, answered: &mut usize| {
        let (n, is_spilled) = line.split_once(' ').expect("a whole line");
        assert_eq!(n.parse::<usize>().unwrap(), *answered, "one after another");
        *answered += 1;
        spilled += usize::from(is_spilled == "true");
    };
    let mut is_up = true;
    // Whether the server is there when the child begins, whether that changes under it, and how many it says before it is killed.
    for (up, changes, lines) in [
        (true, true, 300),
        (false, false, 200),
        (false, true, 400),
        (true, true, 150),
        (false, true, 20),
        (true, false, 100),
    ] {
        let mut switch = |to: bool| {
            tokio::task::block_in_place(|| match (is_up, to) {
                (false, true) => server.restart(),
                (true, false) => server.kill(),
                _ => {}
            });
            is_up = to;
        };
        switch(up);
        let mut child = child(answered);
        for n in 0..lines {
            if changes && n == lines / 2 {
                switch(!up);
            }
            let line = tokio::task::block_in_place(|| child.next_line(PATIENCE)).expect("the child goes on");
            take(&line, &mut answered);
        }
        // Another cannot have the log meanwhile.
        let refused = spilling(at, &path).await.unwrap_err();
        assert!(matches!(refused, BusError::SpillInUse { .. }), "{refused}");
        // What it had said before it died counts; what it did not say may be there or not, under the same id.
        tokio::task::block_in_place(|| child.kill()).iter().for_each(|line| take(line, &mut answered));
    }
    if !is_up {
        tokio::task::block_in_place(|| server.restart());
    }
    let bus = spilling(at, &path).await.unwrap();
    let left = bus.spill_status().events;
    // The one that was under way when the last child died may be there; now it certainly is.
    bus.publish(fill(answered), Delivery::AtLeastOnce).await.unwrap();
    seen.subscribe(&reader).await;
    seen.judge(answered + 1).await;
    println!("{answered} answered by six publishers, {spilled} of them spilled, {left} left to the last");
    assert!(spilled > 400);
    bus.close().await.unwrap();
    reader.close().await.unwrap();
}
