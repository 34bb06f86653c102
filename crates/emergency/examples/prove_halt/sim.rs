//! Simulated schedules: several controllers over one store, on a clock that the simulation owns. Processes are suspended, cut off
//! and restarted, calls lose requests and replies or hang, and every call goes step by step in an order that the seed decides.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use infra_emergency::{
    EmergencyController, EmergencyState, OrderScopes, RearmPolicy, Snapshot, Stance, Stop, Transition,
};
use infra_state_store::{
    Key, ListRange, MemoryStateStore, StateStore,
    chaos::{ChaosStateStore, Fault},
};
use infra_types::{BotId, Clock, ManualClock, Monotonic, Namespace, Scope, StrategyId, UserId, Venue};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use EmergencyState::Normal;

const LEASE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(250);
/// A port gives each operation one deadline; calls that hang are dropped after it.
const DEADLINE: Duration = Duration::from_secs(3);
const PROCESSES: usize = 4;
const STEPS: usize = 400;

/// What the schedules were made of and what they found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// How many schedules.
    pub(crate) schedules: u64,
    /// Stops that were acknowledged.
    pub(crate) stops: u64,
    /// Stops that were not, and held in their process alone.
    pub(crate) stops_unacknowledged: u64,
    /// Re-arms that were acknowledged.
    pub(crate) rearms: u64,
    /// Processes that died and began anew.
    pub(crate) restarts: u64,
    /// Restarted processes that had read the store once.
    pub(crate) restored: u64,
    /// Processes that stood still for a while.
    pub(crate) suspensions: u64,
    /// Processes that were cut off from the store.
    pub(crate) partitions: u64,
    /// Times that a stance was asked for.
    pub(crate) asked: u64,
    /// Times that it was open.
    pub(crate) open: u64,
    /// Times that it was open although a stop had been durable for so long that the poll would have seen it, but not for a lease.
    pub(crate) open_within_lease: u64,
    /// Orders that passed a lease after an acknowledged stop.
    pub(crate) late: u64,
    /// Restarts that came back weaker.
    pub(crate) weaker: u64,
}

impl Figures {
    /// Whether every promise held.
    pub(crate) fn holds(&self) -> bool {
        self.late == 0 && self.weaker == 0
    }

    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.schedules, other.schedules),
            (&mut self.stops, other.stops),
            (&mut self.stops_unacknowledged, other.stops_unacknowledged),
            (&mut self.rearms, other.rearms),
            (&mut self.restarts, other.restarts),
            (&mut self.restored, other.restored),
            (&mut self.suspensions, other.suspensions),
            (&mut self.partitions, other.partitions),
            (&mut self.asked, other.asked),
            (&mut self.open, other.open),
            (&mut self.open_within_lease, other.open_within_lease),
            (&mut self.late, other.late),
            (&mut self.weaker, other.weaker),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, stops, stops_unacknowledged, rearms, restarts, restored, .. } = self;
        writeln!(f, "simulated schedules            {schedules}")?;
        writeln!(f, "stops acknowledged             {stops} (and {stops_unacknowledged} that were not)")?;
        writeln!(f, "re-arms                        {rearms}")?;
        writeln!(f, "restarts                       {restarts} ({restored} read the store again)")?;
        writeln!(f, "suspensions, partitions        {}, {}", self.suspensions, self.partitions)?;
        writeln!(f, "stances asked for              {} ({} open)", self.asked, self.open)?;
        writeln!(f, "open after a durable stop      {} (all within its lease)", self.open_within_lease)?;
        writeln!(f, "open after the lease           {}", self.late)?;
        write!(f, "weaker after a restart         {}", self.weaker)
    }
}

/// Runs the schedules of the seeds from `first` on.
pub(crate) fn simulate(first: u64, schedules: u64, mut tell: impl FnMut(u64, &Figures)) -> Figures {
    let mut all = Figures::default();
    for seed in first..first + schedules {
        let mut world = World::new(seed);
        world.run();
        all.add(&world.figures);
        tell(seed, &world.figures);
    }
    all
}

enum Kind {
    Refresh,
    Stop,
    Rearm,
}

type Future_ = Pin<Box<dyn Future<Output = bool>>>;

struct Call {
    kind: Kind,
    began: Monotonic,
    /// The weakest durable state of each scope since it began.
    weakest: Vec<EmergencyState>,
    future: Future_,
}

struct Process {
    switch: Arc<EmergencyController>,
    link: Arc<ChaosStateStore>,
    calls: Vec<Call>,
    poll_at: Monotonic,
    suspended_until: Monotonic,
    /// Has not read the store since it began.
    is_fresh: bool,
}

struct World {
    clock: ManualClock,
    store: Arc<MemoryStateStore>,
    processes: Vec<Process>,
    dice: SmallRng,
    scopes: Vec<Scope>,
    venue: Venue,
    strategy: StrategyId,
    /// What is durable, and since when each scope is stopped.
    durable: Vec<(EmergencyState, Option<Monotonic>)>,
    seen: u64,
    figures: Figures,
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::default();
        let (venue, strategy): (Venue, StrategyId) = ("v".parse().expect("valid"), "s".parse().expect("valid"));
        let mut world = Self {
            store: Arc::new(MemoryStateStore::new(Arc::new(clock.clone()))),
            clock,
            processes: Vec::new(),
            dice: SmallRng::seed_from_u64(seed),
            scopes: vec![Scope::Firm, Scope::Venue(venue.clone()), Scope::Strategy(strategy.clone())],
            venue,
            strategy,
            durable: vec![(Normal, None); 3],
            seen: 0,
            figures: Figures { schedules: 1, ..Figures::default() },
        };
        world.processes = (0..PROCESSES).map(|n| world.process(n)).collect();
        world
    }

    fn process(&self, n: usize) -> Process {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let link = Arc::new(ChaosStateStore::new(Arc::clone(&self.store) as _, Arc::clone(&clock)));
        link.give_way(true);
        link.script_reads_too(true);
        let id = BotId::new(format!("bot-{n}")).expect("valid");
        // One that needs two persons, and others that do not.
        let policy = RearmPolicy::new().cool_down(Duration::from_millis(500));
        let policy = if n == 0 { policy.two_person(Duration::from_secs(5)) } else { policy };
        let switch = EmergencyController::builder(id, Arc::clone(&link) as _, namespace(), clock)
            .lease(LEASE)
            .poll_interval(POLL)
            .rearm_policy(policy)
            .build();
        let now = self.clock.now();
        Process {
            switch: Arc::new(switch.expect("valid settings")),
            link,
            calls: Vec::new(),
            poll_at: now,
            suspended_until: now,
            is_fresh: true,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let n = self.dice.random_range(0..PROCESSES);
            match self.dice.random_range(0..100) {
                0..40 => self.clock.advance(Duration::from_millis(self.dice.random_range(1..120))),
                40..70 => {}
                70..76 => self.stop(n),
                76..83 => self.rearm(n),
                83..88 => self.partition(n),
                88..91 => self.processes[n].link.heal(),
                91..94 => {
                    self.figures.suspensions += 1;
                    let time = Duration::from_millis(self.dice.random_range(1..6_000));
                    self.processes[n].suspended_until = self.clock.now() + time;
                }
                94..96 => {
                    self.figures.restarts += 1;
                    self.processes[n] = self.process(n);
                }
                // A long time in which nobody does anything: everybody was suspended.
                96..97 => self.clock.advance(Duration::from_millis(self.dice.random_range(100..4_000))),
                _ => {
                    let fault = self.fault();
                    self.processes[n].link.script([Fault::None, fault]);
                }
            }
            self.poll_all();
            self.observe();
            self.judge();
        }
    }

    fn fault(&mut self) -> Fault {
        match self.dice.random_range(0..5) {
            0 => Fault::Unavailable,
            1 => Fault::LostRequest,
            2 => Fault::LostReply,
            3 => Fault::Hang,
            _ => Fault::Delay(Duration::from_millis(self.dice.random_range(1..2_500))),
        }
    }

    fn partition(&mut self, n: usize) {
        self.figures.partitions += 1;
        let fault = if self.dice.random_bool(0.5) { Fault::Unavailable } else { Fault::Hang };
        self.processes[n].link.always(fault);
    }

    fn begin(&mut self, n: usize, kind: Kind, future: Future_) {
        let began = self.clock.now();
        let weakest = self.durable.iter().map(|(state, _)| *state).collect();
        self.processes[n].calls.push(Call { kind, began, weakest, future });
    }

    fn stop(&mut self, n: usize) {
        let scope = self.scopes[self.dice.random_range(0..3)].clone();
        let stop = match self.dice.random_range(0..6) {
            0 => Stop::alert("sim", "test"),
            1 => Stop::shutdown("sim", "test"),
            2 => Stop::halt("sim", "test").automatic(),
            _ => Stop::halt("sim", "test"),
        };
        let switch = Arc::clone(&self.processes[n].switch);
        let future = async move { switch.stop(stop.in_scope(scope)).await.is_ok() };
        self.begin(n, Kind::Stop, Box::pin(future));
    }

    fn rearm(&mut self, n: usize) {
        let scope = self.scopes[self.dice.random_range(0..3)].clone();
        let switch = Arc::clone(&self.processes[n].switch);
        let Snapshot { version, request, .. } = switch.snapshot_of(&scope);
        let (anna, bert) = (UserId::new("anna").expect("valid"), UserId::new("bert").expect("valid"));
        let future: Future_ = match (n, request) {
            (0, None) => Box::pin(async move { switch.request_rearm(&scope, &anna, "fine", version).await.is_ok() }),
            (_, Some(request)) => {
                Box::pin(async move { switch.confirm_rearm(&scope, &bert, &request.id).await.is_ok() })
            }
            _ => Box::pin(async move { switch.rearm_in(&scope, &anna, "fine", version).await.is_ok() }),
        };
        self.begin(n, Kind::Rearm, future);
    }

    /// Every process that runs goes on by some steps.
    fn poll_all(&mut self) {
        for n in 0..PROCESSES {
            let now = self.clock.now();
            if now < self.processes[n].suspended_until {
                continue;
            }
            let is_polling = self.processes[n].calls.iter().any(|c| matches!(c.kind, Kind::Refresh));
            if now >= self.processes[n].poll_at && !is_polling {
                let switch = Arc::clone(&self.processes[n].switch);
                self.begin(n, Kind::Refresh, Box::pin(async move { switch.refresh().await.is_ok() }));
            }
            self.processes[n].calls.retain(|call| now.since(call.began) < DEADLINE);
            for _ in 0..self.dice.random_range(0..4) {
                let process = &mut self.processes[n];
                if process.calls.is_empty() {
                    break;
                }
                let which = self.dice.random_range(0..process.calls.len());
                let polled = process.calls[which].future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                self.observe();
                if let Poll::Ready(is_ok) = polled {
                    let call = self.processes[n].calls.swap_remove(which);
                    self.ended(n, &call, is_ok);
                }
            }
        }
    }

    fn ended(&mut self, n: usize, call: &Call, is_ok: bool) {
        match call.kind {
            Kind::Stop if is_ok => self.figures.stops += 1,
            Kind::Stop => self.figures.stops_unacknowledged += 1,
            Kind::Rearm => self.figures.rearms += u64::from(is_ok),
            Kind::Refresh => {
                self.processes[n].poll_at = self.clock.now() + POLL;
                if is_ok && self.processes[n].is_fresh {
                    self.processes[n].is_fresh = false;
                    self.figures.restored += 1;
                    let switch = &self.processes[n].switch;
                    let is_weaker = self
                        .scopes
                        .iter()
                        .zip(&call.weakest)
                        .any(|(scope, state)| switch.snapshot_of(scope).state < *state);
                    self.figures.weaker += u64::from(is_weaker);
                }
            }
        }
    }

    /// Reads, past every fault, what became durable.
    fn observe(&mut self) {
        let list = Key::list("emergency/history").expect("valid");
        let namespace = namespace();
        let read = |limit| {
            let read = now_or_never(self.store.list_range(&namespace, &list, ListRange::newest(limit)));
            let Some(Ok(page)) = read else { panic!("memory answers at once") };
            page.values.iter().map(|line| serde_json::from_slice(line).expect("a transition")).collect()
        };
        let newest: Vec<Transition> = read(1);
        if newest.first().is_none_or(|t| t.version == self.seen) {
            return;
        }
        let mut news: Vec<Transition> = read(32);
        news.retain(|t| t.version > self.seen);
        for t in news.iter().rev() {
            self.seen = t.version;
            let Some(which) = self.scopes.iter().position(|scope| *scope == t.scope) else { continue };
            let now = self.clock.now();
            let (state, since) = &mut self.durable[which];
            *state = t.to;
            *since = if t.to == Normal { None } else { Some(since.unwrap_or(now)) };
            for call in self.processes.iter_mut().flat_map(|p| &mut p.calls) {
                call.weakest[which] = call.weakest[which].min(t.to);
            }
        }
    }

    /// Asks every process, also those that are suspended: a thread of theirs that wakes up asks first of all.
    fn judge(&mut self) {
        let order = OrderScopes { venue: Some(&self.venue), ..OrderScopes::default() };
        let both = OrderScopes { strategy: Some(&self.strategy), ..order };
        for process in &self.processes {
            for order in [OrderScopes::default(), order, both] {
                let stance = process.switch.stance_of(&order);
                self.figures.asked += 1;
                if stance != Stance::Open {
                    continue;
                }
                self.figures.open += 1;
                let covering = self.scopes.iter().zip(&self.durable).filter(|(scope, _)| order.lie_in(scope));
                let longest = covering.filter_map(|(_, (_, since))| since.map(|at| self.clock.now().since(at))).max();
                match longest {
                    // Durable is before acknowledged, so this is stricter than the promise.
                    Some(time) if time >= LEASE => self.figures.late += 1,
                    Some(_) => self.figures.open_within_lease += 1,
                    None => {}
                }
            }
        }
    }
}

fn namespace() -> Namespace {
    Namespace::new("ledger").expect("valid")
}

fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
