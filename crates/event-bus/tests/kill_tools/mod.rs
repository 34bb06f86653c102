//! A stream of events whose server, consumers and network die in the middle: nothing acknowledged is lost, what repeats carries
//! the same id and payload, and each key stays in order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use infra_event_bus::{EventBus, Pattern, SubscribeOptions, handler_fn};
use infra_testkit::{Cut, FaultProxy, KillableChild, child_argument, say};
use infra_types::{Clock, Envelope, ErrorKind, EventId, SystemClock, Topic};
use tokio::sync::watch;

const EVENTS: usize = 2_000;
const KEYS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the bus at a URL.
pub(crate) type Open = fn(&str) -> Arc<dyn EventBus>;

/// Whether this process is a consumer of the test; then it was one, until it was killed.
pub(crate) async fn was_consumer(open: Open) -> bool {
    match child_argument() {
        Some(url) => {
            consume(open(url.to_str().expect("a URL is text"))).await;
            true
        }
        None => false,
    }
}

/// The test `name` on a server that `kill_and_restart` kills and starts again at the same address with the same files.
pub(crate) async fn killed_servers_and_consumers_lose_nothing(
    name: &str,
    open: Open,
    url: &str,
    mut kill_and_restart: impl FnMut(),
) {
    let spawn = || KillableChild::this_test(name, url);
    let (bus, mut handled) = (open(url), Handled::default());
    let mut child = spawn();
    tokio::task::block_in_place(|| child.wait_for("subscribed", PATIENCE));
    let (tell, mut progress) = watch::channel(0);
    let publisher = tokio::spawn(publish(bus.clone(), tell));
    for acknowledged in [200, 700, 1_200] {
        reach(&mut progress, acknowledged).await;
        // What it answered before it died must be there.
        tokio::task::block_in_place(&mut kill_and_restart);
        reach(&mut progress, acknowledged + 200).await;
        handled.read(&mut child, 20);
        handled.kill(child);
        child = spawn();
    }
    let (acknowledged, refused) = publisher.await.unwrap();
    assert!(refused > 0, "the publisher never met a dead server");
    handled.finish(&bus, child, &acknowledged).await;
}

/// The test `name` on a server whose `proxy` is at `url`.
pub(crate) async fn a_network_that_is_cut_loses_nothing(name: &str, open: Open, url: &str, proxy: &FaultProxy) {
    let (bus, mut handled) = (open(url), Handled::default());
    let mut child = KillableChild::this_test(name, url);
    tokio::task::block_in_place(|| child.wait_for("subscribed", PATIENCE));
    let (tell, mut progress) = watch::channel(0);
    let publisher = tokio::spawn(publish(bus.clone(), tell));
    for acknowledged in (200..1_400).step_by(200) {
        reach(&mut progress, acknowledged).await;
        proxy.cut_all(Cut::Reset);
        reach(&mut progress, acknowledged + 100).await;
        handled.read(&mut child, 20);
        // Once it hits the publisher, once the consumer, whoever asks first: its write is done and it does not know.
        proxy.swallow_next_reply();
    }
    reach(&mut progress, 1_500).await;
    proxy.down(Cut::Reset);
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.pass();
    let (acknowledged, refused) = publisher.await.unwrap();
    assert!(refused > 0, "the publisher never met a cut");
    handled.finish(&bus, child, &acknowledged).await;
}
/// Says a line for each event before it is acknowledged, until it is killed.
async fn consume(bus: Arc<dyn EventBus>) {
    let handler = handler_fn(|event| async move {
        let number = String::from_utf8_lossy(&event.envelope.data).into_owned();
        say(format!("{} {number}", event.envelope.id));
        // Work that takes a moment, so that a kill finds some of it done and not acknowledged.
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    });
    let options = SubscribeOptions::at_least_once(Pattern::new("fills:*").unwrap(), "book", handler);
    let options = options.from_earliest().with_consumer("bot_001").with_concurrency(2);
    // The server may be down at this very moment.
    let _subscription = loop {
        match bus.subscribe(options.clone()).await {
            Ok(subscription) => break subscription,
            Err(e) => assert!(may_pass(e.kind()), "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    say("subscribed");
    std::future::pending::<()>().await;
}

fn may_pass(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Ambiguous | ErrorKind::Transient | ErrorKind::Unavailable)
}

fn fill(n: usize) -> Envelope {
    let topic = Topic::new(format!("fills:S{}", n % KEYS)).unwrap();
    let id = EventId::new(format!("fill-{n}")).unwrap();
    Envelope::new(topic, "fill.v1", SystemClock.wall(), n.to_string()).with_id(id)
}

/// Publishes in order, again from the first that was not acknowledged, and tells how far it is; id → number of those that were, and
/// how many refusals it lived through.
async fn publish(bus: Arc<dyn EventBus>, progress: watch::Sender<usize>) -> (HashMap<String, usize>, usize) {
    let (mut next, mut refused) = (0, 0);
    while next < EVENTS {
        // Few at a time, so that it is never far from the middle of one.
        for answer in bus.publish_batch((next..(next + 4).min(EVENTS)).map(fill).collect()).await {
            match answer {
                Ok(_) => next += 1,
                Err(e) => {
                    assert!(may_pass(e.kind()), "{e}");
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    break;
                }
            }
        }
        progress.send_replace(next);
    }
    ((0..EVENTS).map(|n| (format!("fill-{n}"), n)).collect(), refused)
}

/// Waits until so many are acknowledged; more are still to come.
async fn reach(progress: &mut watch::Receiver<usize>, at: usize) {
    let found = *progress.wait_for(|n| *n >= at).await.expect("the publisher goes on");
    assert!(found < EVENTS, "too late to be in the middle");
}

/// What the consumers said.
#[derive(Default)]
struct Handled(Vec<(String, usize)>);

impl Handled {
    fn take(&mut self, line: &str) {
        let (id, number) = line.split_once(' ').expect("a whole line");
        self.0.push((id.to_owned(), number.parse().expect("a number")));
    }

    /// Reads until so many more came.
    fn read(&mut self, child: &mut KillableChild, more: usize) {
        tokio::task::block_in_place(|| (0..more).for_each(|_| self.take(&child.wait_for("fill-", PATIENCE))));
    }

    fn kill(&mut self, child: KillableChild) {
        tokio::task::block_in_place(|| child.kill())
            .iter()
            .filter(|l| l.starts_with("fill-"))
            .for_each(|l| self.take(l));
    }

    /// Reads on until every event was seen, then judges.
    async fn finish(
        mut self,
        bus: &Arc<dyn EventBus>,
        mut child: KillableChild,
        acknowledged: &HashMap<String, usize>,
    ) {
        let give_up = SystemClock.now() + PATIENCE;
        while !bus.status("book").await.is_ok_and(|status| status.pending == 0) {
            assert!(SystemClock.now() < give_up, "the backlog does not empty");
            tokio::task::block_in_place(|| {
                while let Ok(line) = child.next_line(Duration::from_millis(20)) {
                    if line.starts_with("fill-") {
                        self.take(&line);
                    }
                }
            });
        }
        self.kill(child);
        let mut first_seen = Vec::new();
        let mut times: HashMap<&str, usize> = HashMap::new();
        for (id, number) in &self.0 {
            assert_eq!(acknowledged.get(id), Some(number), "a repeated event keeps its id and its payload");
            let seen = times.entry(id).or_default();
            *seen += 1;
            if *seen == 1 {
                first_seen.push(*number);
            }
        }
        let lost = acknowledged.keys().filter(|id| !times.contains_key(id.as_str())).count();
        println!("{} acknowledged, {lost} lost, {} repeated", acknowledged.len(), self.0.len() - times.len());
        assert_eq!((acknowledged.len(), lost), (EVENTS, 0));
        for key in 0..KEYS {
            let of_key: Vec<_> = first_seen.iter().filter(|n| *n % KEYS == key).collect();
            assert!(of_key.is_sorted(), "the order of key {key} is broken");
        }
        assert_eq!(bus.dead_letters("book", 0, 10).await.unwrap(), []);
    }
}
