//! Consumers killed with -9 in the middle of a stream: nothing acknowledged is lost, what repeats carries the same id, and each
//! key stays in order.
//!
//! The test runs itself again as the child, so it has its own `main`; it answers `--list` as test runners ask it.
#![expect(clippy::unwrap_used, reason = "the whole file is one test")]

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use infra_backends::{Sqlite, SqliteConfig, Synchronous};
use infra_event_bus::{EventBus, Pattern, SqliteEventBus, SubscribeOptions, handler_fn};
use infra_types::{Clock, Envelope, EventId, SystemClock, Topic};

const NAME: &str = "killed_consumers_lose_nothing";
const EVENTS: usize = 3_000;
const KEYS: usize = 10;
/// Handled events after which a child is killed.
const KILL_AT: [usize; 5] = [150, 400, 410, 1_000, 1_700];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        // A runner lists the ignored tests on their own, and there are none.
        if !args.iter().any(|a| a == "--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(dir) = args.iter().position(|a| a == "--child").and_then(|n| args.get(n + 1)) {
        return runtime.block_on(child(Path::new(dir)));
    }
    if filters(&args).next().is_some() && !filters(&args).any(|f| NAME.contains(f)) {
        return;
    }
    println!("\nrunning 1 test");
    runtime.block_on(parent());
    println!("test {NAME} ... ok\n\ntest result: ok. 1 passed");
}

/// The arguments that are neither a flag nor the value of one.
fn filters(args: &[String]) -> impl Iterator<Item = &str> {
    let takes_value =
        |flag: &str| matches!(flag, "--test-threads" | "--format" | "--color" | "--skip" | "--logfile" | "-Z");
    let is_value = move |n: usize| n > 0 && takes_value(&args[n - 1]);
    args.iter().enumerate().filter(move |(n, a)| !a.starts_with('-') && !is_value(*n)).map(|(_, a)| a.as_str())
}

fn open(dir: &Path) -> SqliteEventBus {
    let file = SqliteConfig::new(dir.join("bus.db")).with_synchronous(Synchronous::Normal);
    SqliteEventBus::new(Sqlite::new(file), SystemClock::shared())
}

fn ledger(dir: &Path) -> PathBuf {
    dir.join("handled")
}

/// Writes a line for each event it handles, until it is killed or everything is done.
async fn child(dir: &Path) {
    let bus = open(dir);
    let file = std::fs::OpenOptions::new().append(true).create(true).open(ledger(dir)).unwrap();
    let file = Arc::new(file);
    let handler = handler_fn(move |event| {
        let file = file.clone();
        async move {
            let number = String::from_utf8_lossy(&event.envelope.data).into_owned();
            // One write call for each line: a kill cannot cut it in two.
            let line = format!("{} {number} {}\n", event.envelope.id, event.attempt);
            (&*file).write_all(line.as_bytes()).unwrap();
            Ok(())
        }
    });
    let options = SubscribeOptions::at_least_once(Pattern::new("fills:*").unwrap(), "book", handler);
    let options = options.from_earliest().with_consumer("bot_001").with_concurrency(2);
    let subscription = bus.subscribe(options).await.unwrap();
    // The parent says through its pipe that everything is published; until then there is always more to come.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    subscription.drained().await.unwrap();
    bus.close().await.unwrap();
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &Path) -> Guard {
    let me = std::env::current_exe().unwrap();
    Guard(Command::new(me).arg("--child").arg(dir).stdin(Stdio::piped()).spawn().unwrap())
}

/// (event id, number) of each handling, in order.
fn handled(dir: &Path) -> Vec<(String, usize)> {
    let text = std::fs::read_to_string(ledger(dir)).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().map(|line| parse(line).expect("whole lines")).collect()
}

async fn parent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let bus = Arc::new(open(&path));
    let publisher = tokio::spawn({
        let bus = bus.clone();
        async move {
            let mut acknowledged = HashMap::new();
            for first in (0..EVENTS).step_by(20) {
                let events: Vec<_> = (first..first + 20).map(fill).collect();
                let ids: Vec<_> = events.iter().map(|e| e.id.to_string()).collect();
                for (n, (id, answer)) in ids.into_iter().zip(bus.publish_batch(events).await).enumerate() {
                    answer.expect("published");
                    acknowledged.insert(id, first + n);
                }
            }
            acknowledged
        }
    });
    for at in KILL_AT {
        let mut consumer = spawn(&path);
        while handled(&path).len() < at {
            assert!(consumer.0.try_wait().unwrap().is_none(), "the consumer ended by itself");
            tokio::task::yield_now().await;
        }
        // SIGKILL on Unix: nothing of the child runs after it.
        consumer.0.kill().unwrap();
        consumer.0.wait().unwrap();
    }
    let acknowledged = publisher.await.unwrap();
    let mut last = spawn(&path);
    last.0.stdin.take().unwrap().write_all(b"that is all\n").unwrap();
    assert!(last.0.wait().unwrap().success());
    judge(&acknowledged, &handled(&path));
    assert_eq!(bus.status("book").await.unwrap().pending, 0);
    assert_eq!(bus.dead_letters("book", 0, 10).await.unwrap(), []);
}

fn fill(n: usize) -> Envelope {
    let topic = Topic::new(format!("fills:S{}", n % KEYS)).unwrap();
    let id = EventId::new(format!("fill-{n}")).unwrap();
    Envelope::new(topic, "fill.v1", SystemClock.wall(), n.to_string()).with_id(id)
}

fn judge(acknowledged: &HashMap<String, usize>, handled: &[(String, usize)]) {
    let mut first_seen: Vec<usize> = Vec::new();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for (id, number) in handled {
        assert_eq!(acknowledged.get(id), Some(number), "a repeated event keeps its id and its payload");
        let seen = times.entry(id).or_default();
        *seen += 1;
        if *seen == 1 {
            first_seen.push(*number);
        }
    }
    let lost = acknowledged.keys().filter(|id| !times.contains_key(id.as_str())).count();
    let repeated = handled.len() - times.len();
    println!("{} acknowledged, {lost} lost, {repeated} repeated over {} kills", acknowledged.len(), KILL_AT.len());
    assert_eq!((acknowledged.len(), lost), (EVENTS, 0));
    for key in 0..KEYS {
        let of_key: Vec<_> = first_seen.iter().filter(|n| *n % KEYS == key).collect();
        assert!(of_key.is_sorted(), "the order of key {key} is broken");
    }
}
