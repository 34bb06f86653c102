//! Two processes, every order of their steps, a store that fails and loses replies, cancelled calls, restarts: no state is ever
//! weaker without a re-arm that named the version before it, and nobody is open longer than the lease after a stop.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use infra_emergency::{EmergencyController, EmergencyError, EmergencyState, Snapshot, Stance};
use infra_types::{Clock, ErrorKind, ManualClock, Monotonic, UserId};
use proptest::prelude::*;

use crate::store::{Fault, FaultyStore, Written, builder, outbox};

use EmergencyState::{Alert, Halt, Normal, Shutdown};

const LEASE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
enum Act {
    Raise(EmergencyState),
    /// Of the version that its person saw: now, or so many ago.
    Rearm(u64),
    Refresh,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Start(usize, Act),
    /// One of the calls under way goes on by one step.
    Go(usize),
    /// One of the calls under way is dropped.
    Cancel(usize),
    /// A process dies with all its calls and starts anew.
    Restart(usize),
    Wait(u64),
}

type Outcome = Result<Snapshot, EmergencyError>;

struct Running {
    process: usize,
    act: Act,
    author: String,
    expected: u64,
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    /// The strongest durable state since it started.
    strongest: EmergencyState,
}

/// A stop that a process must enforce until it was seen to be durable once.
struct Owed {
    process: usize,
    state: EmergencyState,
}

struct World {
    clock: ManualClock,
    store: FaultyStore,
    processes: Vec<Arc<EmergencyController>>,
    running: Vec<Running>,
    owed: Vec<Owed>,
    /// Which version each re-arm named.
    rearms: HashMap<String, u64>,
    authors: usize,
    last_normal: Monotonic,
    /// The newest version each process has shown.
    shown: [u64; 2],
    checked: usize,
}

impl World {
    fn new(faults: Vec<Fault>) -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(&clock);
        store.give_way(true);
        let mut world = Self {
            last_normal: clock.now(),
            clock,
            store,
            processes: Vec::new(),
            running: Vec::new(),
            owed: Vec::new(),
            rearms: HashMap::new(),
            authors: 0,
            shown: [0; 2],
            checked: 0,
        };
        world.processes = (0..2).map(|i| world.process(i)).collect();
        world.store.fail_next(faults);
        world
    }

    fn process(&self, i: usize) -> Arc<EmergencyController> {
        Arc::new(builder(&format!("bot-{i}"), &self.store, &self.clock).lease(LEASE).build().unwrap())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start(process, act) => self.start(process, act),
            Step::Go(n) if !self.running.is_empty() => self.go(n % self.running.len()),
            Step::Cancel(n) if !self.running.is_empty() => {
                let n = n % self.running.len();
                self.running.swap_remove(n);
            }
            Step::Restart(process) => {
                self.running.retain(|r| r.process != process);
                self.owed.retain(|o| o.process != process);
                self.processes[process] = self.process(process);
                self.shown[process] = 0;
                assert!(!self.processes[process].can_trade(), "a restarted process has read nothing");
            }
            Step::Wait(ms) => self.clock.advance(Duration::from_millis(ms)),
            Step::Go(_) | Step::Cancel(_) => {}
        }
        self.check();
    }

    fn start(&mut self, process: usize, act: Act) {
        self.authors += 1;
        let author = format!("p{}", self.authors);
        let (c, name) = (Arc::clone(&self.processes[process]), author.clone());
        let mut expected = 0;
        let future: Pin<Box<dyn Future<Output = Outcome>>> = match act {
            Act::Refresh => Box::pin(async move { c.refresh().await }),
            Act::Raise(state) => {
                self.owed.push(Owed { process, state });
                Box::pin(async move {
                    match state {
                        Shutdown => c.shutdown(&name, "test").await,
                        Halt => c.halt(&name, "test").await,
                        _ => c.alert(&name, "test").await,
                    }
                })
            }
            Act::Rearm(ago) => {
                expected = c.snapshot().version.saturating_sub(ago);
                self.rearms.insert(author.clone(), expected);
                Box::pin(async move { c.rearm(&UserId::new(name).unwrap(), "test", expected).await })
            }
        };
        let strongest = self.store.state();
        self.running.push(Running { process, act, author, expected, future, strongest });
        self.go(self.running.len() - 1);
    }

    fn go(&mut self, n: usize) {
        let polled = self.running[n].future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.check();
        if let Poll::Ready(outcome) = polled {
            let ended = self.running.swap_remove(n);
            self.judge(&ended, outcome);
        }
    }

    fn judge(&self, ended: &Running, outcome: Outcome) {
        let mine = self.store.written().iter().any(|w| w.by == ended.author);
        match (ended.act, outcome) {
            (Act::Raise(state), Ok(_)) => assert!(ended.strongest >= state, "acknowledged, but never in the store"),
            (Act::Raise(_), Err(e)) => assert!(matches!(e, EmergencyError::NotDurable { .. }), "{e}"),
            (Act::Rearm(_), Ok(_)) if !mine => {
                let before = self.store.written().into_iter().find(|w| w.version == ended.expected);
                assert_eq!(
                    before.map_or(Normal, |w| w.state),
                    Normal,
                    "nothing written, though there was something to do"
                );
            }
            // A re-arm that is there may only be called unknown, or overtaken.
            (Act::Rearm(_), Err(e)) if mine => {
                assert!(matches!(e.kind(), ErrorKind::Ambiguous | ErrorKind::Conflict), "{e}");
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let written = self.store.written();
        let news = &written[self.checked..];
        for (i, w) in news.iter().enumerate().map(|(i, w)| (i + self.checked, w)) {
            let normal = Written { state: Normal, version: 0, by: String::new() };
            let before = if i == 0 { &normal } else { &written[i - 1] };
            assert_eq!(w.version, before.version + 1, "{before:?} {w:?}");
            if w.state < before.state {
                assert_eq!(self.rearms.get(&w.by), Some(&before.version), "{before:?} {w:?}");
            }
            self.running.iter_mut().for_each(|r| r.strongest = r.strongest.max(w.state));
        }
        self.checked = written.len();
        let durable = self.store.state();
        let strongest_new = news.iter().map(|w| w.state).max().unwrap_or(durable).max(durable);
        self.owed.retain(|o| o.state > strongest_new);
        for o in &self.owed {
            let c = &self.processes[o.process];
            assert!(c.state() >= o.state, "a stop of this process was let go: {:?}", c.snapshot());
        }
        if durable == Normal || news.iter().any(|w| w.state == Normal) {
            self.last_normal = self.clock.now();
        }
        for (c, shown) in self.processes.iter().zip(&mut self.shown) {
            let version = c.snapshot().version;
            assert!(version >= *shown, "an older answer replaced a newer one: {shown}, then {version}");
            *shown = version;
            let open_since_stop = self.clock.now().since(self.last_normal);
            assert!(c.stance() != Stance::Open || open_since_stop < LEASE, "open {open_since_stop:?} after a stop");
            assert!(c.stance() != Stance::Open || c.can_trade());
        }
    }

    fn finish(mut self) {
        self.store.heal();
        while !self.running.is_empty() {
            self.go(0);
        }
        self.store.give_way(false);
        // The first refreshes may still write stops that the store has not taken; the next ones agree.
        for _ in 0..2 {
            for i in 0..2 {
                now(self.processes[i].refresh()).unwrap();
                self.check();
            }
        }
        let (a, b) = (self.processes[0].snapshot(), self.processes[1].snapshot());
        assert_eq!(a, b);
        assert!(a.is_durable);
        assert_eq!(a.state, self.store.state());
        let rows = now(outbox(&self.store));
        assert_eq!(rows.len(), self.store.written().len(), "a row for each transition and none besides: {rows:?}");
        for (row, w) in rows.iter().zip(self.store.written()) {
            assert!(
                row.starts_with(&format!("{}:", w.version)) && row.ends_with(&format!(":{}:{}", w.state, w.by)),
                "{row}"
            );
        }
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("the store answers at once here"),
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Raise(Alert)),
        3 => Just(Act::Raise(Halt)),
        1 => Just(Act::Raise(Shutdown)),
        4 => (0_u64..2).prop_map(Act::Rearm),
        3 => Just(Act::Refresh),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..2, act()).prop_map(|(process, act)| Step::Start(process, act)),
        16 => any::<usize>().prop_map(Step::Go),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => (0_usize..2).prop_map(Step::Restart),
        2 => (0_u64..1_500).prop_map(Step::Wait),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        1 => Just(Fault::Down),
        1 => Just(Fault::LostRequest),
        1 => Just(Fault::LostReply),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn never_weaker_without_a_valid_rearm(
        steps in prop::collection::vec(step(), 1..120),
        faults in prop::collection::vec(fault(), 0..60),
    ) {
        let mut world = World::new(faults);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }

    #[test]
    fn nor_on_a_store_that_works(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(Vec::new());
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }
}
