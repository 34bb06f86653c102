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

use infra_emergency::{
    EmergencyController, EmergencyError, EmergencyState, OrderScopes, Snapshot, Stance, TransitionKind::RearmRequested,
};
use infra_types::{Clock, ErrorKind, ManualClock, Monotonic, Scope, UserId};
use proptest::prelude::*;

use crate::store::{Fault, FaultyStore, builder, outbox, scope};

use EmergencyState::{Alert, Halt, Normal, Shutdown};

const LEASE: Duration = Duration::from_secs(2);

/// The first is the firm.
const SCOPES: [&str; 3] = ["firm", "venue:v", "strategy:s"];

#[derive(Debug, Clone, Copy)]
enum Act {
    /// Of the scope with this number.
    Raise(usize, EmergencyState),
    /// Of the version that its person saw: now, or one transition of the scope ago.
    Rearm(usize, bool),
    /// The same, to be confirmed by a second person.
    Request(usize, bool),
    /// Whatever request the process knows of.
    Confirm(usize),
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
    scope: Scope,
    expected: u64,
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    /// The strongest durable state of its scope since it started.
    strongest: EmergencyState,
}

/// A stop that a process must enforce until it was seen to be durable once.
struct Owed {
    process: usize,
    scope: Scope,
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
    /// When each scope was durably at NORMAL for the last time.
    last_normal: Vec<Monotonic>,
    /// The newest version of the firm that each process has shown.
    shown: [u64; 2],
    checked: usize,
}

impl World {
    fn new(faults: Vec<Fault>) -> Self {
        let clock = ManualClock::default();
        let store = FaultyStore::new(&clock);
        store.give_way(true);
        let mut world = Self {
            last_normal: vec![clock.now(); SCOPES.len()],
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
        let of = |n: usize| scope(SCOPES[n]);
        let mut expected = 0;
        let mut about = Scope::Firm;
        let future: Pin<Box<dyn Future<Output = Outcome>>> = match act {
            Act::Refresh => Box::pin(async move { c.refresh().await }),
            Act::Raise(n, state) => {
                about = of(n);
                self.owed.push(Owed { process, scope: of(n), state });
                Box::pin(async move {
                    match state {
                        Shutdown => c.shutdown_in(&of(n), &name, "test").await,
                        Halt => c.halt_in(&of(n), &name, "test").await,
                        _ => c.alert_in(&of(n), &name, "test").await,
                    }
                })
            }
            Act::Rearm(n, late) | Act::Request(n, late) => {
                about = of(n);
                expected = self.seen(&c, &about, late);
                self.rearms.insert(author.clone(), expected);
                let is_request = matches!(act, Act::Request(..));
                Box::pin(async move {
                    let (scope, user) = (of(n), UserId::new(name).unwrap());
                    if is_request {
                        c.request_rearm(&scope, &user, "test", expected).await?;
                        return Ok(c.snapshot_of(&scope));
                    }
                    c.rearm_in(&scope, &user, "test", expected).await
                })
            }
            Act::Confirm(n) => {
                about = of(n);
                let request = c.snapshot_of(&of(n)).request.map_or_else(infra_types::EventId::generate, |r| r.id);
                Box::pin(async move { c.confirm_rearm(&of(n), &UserId::new(name).unwrap(), &request).await })
            }
        };
        let strongest = self.store.state_in(&about);
        self.running.push(Running { process, act, author, scope: about, expected, future, strongest });
        self.go(self.running.len() - 1);
    }

    /// What a person looks at: now, or a transition of the scope ago.
    fn seen(&self, c: &EmergencyController, scope: &Scope, late: bool) -> u64 {
        let now = c.snapshot_of(scope).version;
        let written = self.store.written();
        let before = written.iter().rfind(|w| w.scope == *scope && w.version < now && w.kind != RearmRequested);
        if late { before.map_or(0, |w| w.version) } else { now }
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
            (Act::Raise(_, state), Ok(_)) => assert!(ended.strongest >= state, "acknowledged, but never in the store"),
            (Act::Raise(..), Err(e)) => assert!(matches!(e, EmergencyError::NotDurable { .. }), "{e}"),
            (Act::Rearm(..), Ok(_)) if !mine => {
                let before = self.store.written().into_iter().find(|w| w.version == ended.expected);
                assert_eq!(
                    before.map_or(Normal, |w| w.state),
                    Normal,
                    "nothing written, though there was something to do"
                );
            }
            (Act::Request(..), Ok(_)) => assert!(mine, "a request that is nowhere"),
            // A re-arm that is there may only be called unknown, or overtaken.
            (Act::Rearm(..), Err(e)) if mine => {
                assert!(matches!(e.kind(), ErrorKind::Ambiguous | ErrorKind::Conflict), "{e}");
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let written = self.store.written();
        let news = &written[self.checked..];
        for (i, w) in news.iter().enumerate().map(|(i, w)| (i + self.checked, w)) {
            assert_eq!(w.version, i as u64 + 1, "{w:?}");
            // What a person could have looked at: the request of another one is no state.
            let before = written[..i].iter().rfind(|b| b.scope == w.scope && b.kind != RearmRequested);
            let (state, version) = before.map_or((Normal, 0), |b| (b.state, b.version));
            if w.state < state {
                assert_eq!(self.rearms.get(&w.by), Some(&version), "{before:?} {w:?}");
            }
            let theirs = self.running.iter_mut().filter(|r| r.scope == w.scope);
            theirs.for_each(|r| r.strongest = r.strongest.max(w.state));
        }
        self.checked = written.len();
        let durable = |scope: &Scope| self.store.state_in(scope);
        let strongest_new = |scope: &Scope| {
            news.iter().filter(|w| w.scope == *scope).map(|w| w.state).max().unwrap_or(Normal).max(durable(scope))
        };
        self.owed.retain(|o| o.state > strongest_new(&o.scope));
        for o in &self.owed {
            let c = &self.processes[o.process];
            let snapshot = c.snapshot_of(&o.scope);
            assert!(snapshot.state >= o.state, "a stop of this process was let go: {snapshot:?}");
        }
        let now = self.clock.now();
        for (n, text) in SCOPES.iter().enumerate() {
            let of = scope(text);
            if durable(&of) == Normal || news.iter().any(|w| w.scope == of && w.state == Normal) {
                self.last_normal[n] = now;
            }
        }
        let (venue, strategy) = ("v".parse().unwrap(), "s".parse().unwrap());
        let both = OrderScopes { venue: Some(&venue), strategy: Some(&strategy), ..OrderScopes::default() };
        let orders = [
            OrderScopes::default(),
            OrderScopes { venue: Some(&venue), ..OrderScopes::default() },
            OrderScopes { strategy: Some(&strategy), ..OrderScopes::default() },
            both,
        ];
        for (c, shown) in self.processes.iter().zip(&mut self.shown) {
            let version = c.snapshot().version;
            assert!(version >= *shown, "an older answer replaced a newer one: {shown}, then {version}");
            *shown = version;
            for order in &orders {
                let covers = SCOPES.iter().zip(&self.last_normal).filter(|(text, _)| order.lie_in(&scope(text)));
                let longest = covers.map(|(_, at)| now.since(*at)).max().unwrap();
                let stance = c.stance_of(order);
                assert!(stance != Stance::Open || longest < LEASE, "open {longest:?} after a stop: {order:?}");
                let whole = SCOPES.map(scope).into_iter().filter(|s| order.lie_in(s)).map(|s| c.snapshot_of(&s).state);
                assert_eq!(c.state_of(order), whole.max().unwrap(), "{order:?}");
                assert!(stance != Stance::Open || c.can_trade());
            }
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
        let (a, b) = (self.processes[0].snapshots(), self.processes[1].snapshots());
        assert_eq!(a, b);
        assert!(a.iter().all(|s| s.is_durable && s.state == self.store.state_in(&s.scope)), "{a:?}");
        for text in SCOPES {
            assert_eq!(self.processes[0].snapshot_of(&scope(text)).state, self.store.state_in(&scope(text)));
        }
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

fn of() -> impl Strategy<Value = usize> {
    0..SCOPES.len()
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => of().prop_map(|n| Act::Raise(n, Alert)),
        3 => of().prop_map(|n| Act::Raise(n, Halt)),
        1 => of().prop_map(|n| Act::Raise(n, Shutdown)),
        4 => (of(), any::<bool>()).prop_map(|(n, late)| Act::Rearm(n, late)),
        2 => (of(), any::<bool>()).prop_map(|(n, late)| Act::Request(n, late)),
        2 => of().prop_map(Act::Confirm),
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
        steps in prop::collection::vec(step(), 1..160),
        faults in prop::collection::vec(fault(), 0..60),
    ) {
        let mut world = World::new(faults);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }

    #[test]
    fn nor_on_a_store_that_works(steps in prop::collection::vec(step(), 1..160)) {
        let mut world = World::new(Vec::new());
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
    }
}
