//! One run: publish, disturb, wait until the group is done, judge.

use std::{collections::HashMap, fmt::Write, os::unix::process::CommandExt, process::Command, time::Duration};

use infra_event_bus::EventBus;
use infra_state_store::{ListOrder, ListRange};
use infra_testkit::{FaultProxy, KillableChild, TestDir};
use infra_types::{Clock, Envelope, ErrorKind, EventId, SystemClock, Topic};
use tokio::{sync::watch, task::block_in_place};

use crate::{
    CONSUMER,
    consumer::{home, job, list},
    world::{Backend, Server, World},
};

const KEYS: usize = 100;
/// Events in one call: few, so that a kill often meets the middle of one.
const CALL: usize = 8;
const SILENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Kills,
    SilentNetwork,
}

/// What a run found.
pub(crate) struct Found {
    backend: Backend,
    disturbance: Disturbance,
    acknowledged: usize,
    /// Calls that were not answered with success.
    refused: usize,
    deliveries: usize,
    /// Deliveries of an event that was delivered before.
    repeated: usize,
    /// Deliveries whose id and payload do not belong together.
    changed: usize,
    /// Acknowledged events without an effect.
    lost: usize,
    /// Effects beyond the first of an event.
    doubled: usize,
    /// Keys whose effects are not in order.
    disordered: usize,
    dead_letters: u64,
    seconds: f64,
}

impl Found {
    pub(crate) fn holds(&self) -> bool {
        self.was_disturbed() && self.is_kept()
    }

    /// A run without trouble would prove nothing. A file has no server that could refuse.
    fn was_disturbed(&self) -> bool {
        self.repeated > 0 && (self.refused > 0 || self.backend == Backend::Sqlite)
    }

    fn is_kept(&self) -> bool {
        self.changed + self.lost + self.doubled + self.disordered == 0 && self.dead_letters == 0
    }

    pub(crate) fn table(found: &[Self]) -> String {
        let mut text = format!(
            "{:<9} {:<14} {:>7} {:>8} {:>10} {:>9} {:>5} {:>7} {:>10} {:>8} {:>5} {:>6}\n",
            "backend",
            "disturbance",
            "acked",
            "refused",
            "deliveries",
            "repeated",
            "lost",
            "doubled",
            "disordered",
            "changed",
            "dead",
            "s"
        );
        for f in found {
            let _ = writeln!(
                text,
                "{:<9} {:<14} {:>7} {:>8} {:>10} {:>9} {:>5} {:>7} {:>10} {:>8} {:>5} {:>6.0}{}",
                f.backend.name(),
                format!("{:?}", f.disturbance),
                f.acknowledged,
                f.refused,
                f.deliveries,
                f.repeated,
                f.lost,
                f.doubled,
                f.disordered,
                f.changed,
                f.dead_letters,
                f.seconds,
                match (f.is_kept(), f.was_disturbed()) {
                    (false, _) => "  BROKEN",
                    (true, false) => "  proves nothing: it was not disturbed; try more events",
                    (true, true) => "",
                }
            );
        }
        text
    }
}

fn fill(n: usize) -> Envelope {
    let topic = Topic::new(format!("fills:S{}", n % KEYS)).expect("a topic");
    let id = EventId::new(format!("fill-{n}")).expect("an id");
    Envelope::new(topic, "fill.v1", SystemClock.wall(), n.to_string()).with_id(id).with_key(format!("S{}", n % KEYS))
}

/// Publishes in order, again from the first that was not answered with success; how many calls were not.
async fn publish(mut bus: watch::Receiver<World>, progress: watch::Sender<usize>, events: usize) -> usize {
    let (mut next, mut refused) = (0, 0);
    while next < events {
        let world = bus.borrow_and_update().clone();
        for answer in world.bus.publish_batch((next..(next + CALL).min(events)).map(fill).collect()).await {
            match answer {
                Ok(_) => next += 1,
                Err(e) => {
                    let passes = [ErrorKind::Ambiguous, ErrorKind::Transient, ErrorKind::Unavailable];
                    assert!(passes.contains(&e.kind()), "{e}");
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    break;
                }
            }
        }
        progress.send_replace(next);
    }
    refused
}

struct Consumers {
    backend: Backend,
    target: String,
    log: String,
    running: Vec<KillableChild>,
}

impl Consumers {
    fn spawn(&self, n: usize) -> KillableChild {
        let mut command = Command::new(std::env::current_exe().expect("a program knows its own file"));
        let job = job(self.backend, &format!("bot_{n}"), &self.log, &self.target);
        // Not in the group that Ctrl-C reaches: they end with this process.
        command.args([CONSUMER, &job]).process_group(0);
        let mut child = KillableChild::spawn(command);
        child.wait_for("ready", Duration::from_secs(30));
        child
    }

    fn kill_and_respawn(&mut self, n: usize) {
        self.running.remove(n).kill();
        let child = self.spawn(n);
        self.running.insert(n, child);
    }
}

pub(crate) async fn run(backend: Backend, disturbance: Disturbance, events: usize) -> Found {
    let began = SystemClock.now();
    let mut server = block_in_place(|| Server::start(backend));
    let proxy = match (disturbance, server.addr()) {
        (Disturbance::SilentNetwork, Some(addr)) => Some(FaultProxy::start(addr).await),
        _ => None,
    };
    let target = server.target(proxy.as_ref().map(|proxy| proxy.addr().port()));
    let dir = TestDir::new();
    let log = dir.file("deliveries").display().to_string();
    let mut consumers = Consumers { backend, target: target.clone(), log: log.clone(), running: Vec::new() };
    block_in_place(|| (0..2).for_each(|n| consumers.running.push(consumers.spawn(n))));
    let open = || World::open(backend, &target).expect("it opens without I/O");
    let (world, worlds) = watch::channel(open());
    let (tell, mut progress) = watch::channel(0);
    let publisher = tokio::spawn(publish(worlds, tell, events));
    for quarter in 1..=3 {
        let at = events * quarter / 4;
        progress.wait_for(|done| *done >= at).await.expect("the publisher goes on");
        match disturbance {
            Disturbance::Kills => {
                block_in_place(|| {
                    if quarter < 3 {
                        server.kill_and_restart();
                    }
                    consumers.kill_and_respawn(quarter % 2);
                    if backend == Backend::Sqlite {
                        consumers.kill_and_respawn((quarter + 1) % 2);
                    }
                });
                if backend == Backend::Sqlite {
                    world.send_replace(open());
                }
            }
            Disturbance::SilentNetwork if quarter == 2 => {
                let proxy = proxy.as_ref().expect("there is one");
                proxy.black_hole();
                tokio::time::sleep(SILENCE).await;
                proxy.pass();
            }
            Disturbance::SilentNetwork => {}
        }
    }
    let refused = publisher.await.expect("the publisher ends");
    // Beside the proxy, and without what the run did to the publisher's connections.
    let judge = World::open(backend, &server.target(None)).expect("it opens without I/O");
    wait_until_done(judge.bus.as_ref()).await;
    block_in_place(|| consumers.running.into_iter().for_each(|child| _ = child.kill()));
    let mut found = judge_effects(&judge, events).await;
    judge_deliveries(&std::fs::read_to_string(&log).expect("the log is there"), &mut found);
    found.backend = backend;
    found.disturbance = disturbance;
    found.refused = refused;
    found.seconds = SystemClock.now().since(began).as_secs_f64();
    found
}

async fn wait_until_done(bus: &dyn EventBus) {
    let give_up = SystemClock.now() + PATIENCE;
    loop {
        let status = bus.status("book").await;
        if status.as_ref().is_ok_and(|status| status.pending == 0) {
            return;
        }
        assert!(SystemClock.now() < give_up, "the group does not get done: {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn judge_effects(world: &World, events: usize) -> Found {
    let (mut lost, mut doubled, mut disordered) = (0, 0, 0);
    for key in 0..KEYS {
        let range = ListRange { order: ListOrder::OldestFirst, skip: 0, limit: 1_000 };
        let page = world.state.list_range(&home(), &list(&format!("S{key}")), range).await.expect("the list is read");
        let numbers: Vec<usize> =
            page.values.iter().map(|value| String::from_utf8_lossy(value).parse().expect("a number")).collect();
        let mut times: HashMap<usize, usize> = HashMap::new();
        numbers.iter().for_each(|n| *times.entry(*n).or_default() += 1);
        lost += (key..events).step_by(KEYS).filter(|n| !times.contains_key(n)).count();
        doubled += numbers.len() - times.len();
        disordered += usize::from(!numbers.is_sorted());
    }
    let dead_letters = world.bus.status("book").await.expect("the group is there").dead_letters;
    Found {
        backend: Backend::Sqlite,
        disturbance: Disturbance::Kills,
        acknowledged: events,
        refused: 0,
        deliveries: 0,
        repeated: 0,
        changed: 0,
        lost,
        doubled,
        disordered,
        dead_letters,
        seconds: 0.0,
    }
}

fn judge_deliveries(log: &str, found: &mut Found) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let (Some(id), Some(number)) = (words.next(), words.next()) else { continue };
        found.deliveries += 1;
        found.changed += usize::from(id != format!("fill-{number}"));
        let times = seen.entry(id).or_default();
        found.repeated += usize::from(*times > 0);
        *times += 1;
    }
}
