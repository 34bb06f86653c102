//! A bot in a process of its own: it approves, trades a little, cancels, loses messages, and is killed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use infra_risk_engine::{Outcome, Reservation, RiskEngine, RiskError, Stance};
use infra_testkit::say;
use infra_types::{Clock, Decimal, ErrorKind, Order, OrderId, Side, SystemClock};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    venue::Venue,
    world::{Backend, QTY, engine, holder, open, order},
};

/// Between two looks whether to go on.
const PAUSE: Duration = Duration::from_millis(5);
/// So often a bot says how far it is, and how high the counter was at most.
const TELLS: u32 = 25;

/// What a bot is started with.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) backend: Backend,
    pub(crate) target: String,
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) limit: i64,
    pub(crate) ttl: Duration,
    /// Attempts while orders come and go.
    pub(crate) busy: u32,
    /// Attempts when nothing is released any more.
    pub(crate) calm: u32,
    pub(crate) seed: u64,
}

impl Job {
    pub(crate) fn to_argument(&self) -> String {
        let Self { backend, target, dir, name, limit, ttl, busy, calm, seed } = self;
        let (backend, dir, ttl) = (backend.name(), dir.display(), ttl.as_millis());
        format!("{backend}|{target}|{dir}|{name}|{limit}|{ttl}|{busy}|{calm}|{seed}")
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('|').collect();
        let [backend, target, dir, name, limit, ttl, busy, calm, seed] = parts[..] else { return None };
        Some(Self {
            backend: Backend::parse(backend)?,
            target: target.to_owned(),
            dir: PathBuf::from(dir),
            name: name.to_owned(),
            limit: limit.parse().ok()?,
            ttl: Duration::from_millis(ttl.parse().ok()?),
            busy: busy.parse().ok()?,
            calm: calm.parse().ok()?,
            seed: seed.parse().ok()?,
        })
    }
}

/// What one order of ours came to.
struct Working {
    order: Order,
    reservation: Reservation,
    filled: i64,
}

struct Bot {
    engine: Arc<RiskEngine>,
    venue: Venue,
    rng: SmallRng,
    working: Vec<Working>,
    /// Positions of one order each.
    long: u32,
    /// Unlike that of any other process of this name.
    prefix: String,
    ids: u32,
    said: Said,
}

/// What it counts, until it says so.
#[derive(Default)]
struct Said {
    attempts: u32,
    admitted: u32,
    refused: u32,
    contended: u32,
    lost: u32,
    /// Batches that approvals sent: more than attempts where something had changed in between.
    batches: u32,
    /// The highest value of the counter after an approval, in its own unit.
    highest: Decimal,
}

/// # Panics
/// If the argument is not [`Job`]'s, or the ledger cannot be reached.
pub(crate) fn run(argument: &str) {
    let job = Job::parse(argument).expect("a bot is started by its supervisor");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
    runtime.block_on(async {
        let store = open(job.backend, &job.target).expect("the supervisor knows how to open it");
        let engine = Arc::new(engine(store.clone(), "ledger", holder(&job.name, job.ttl), job.limit).await);
        let fence = join(&engine).await;
        let _guard = engine.guard(SystemClock::shared(), |_| {}).expect("it has a name");
        say(format_args!("joined {fence}"));
        let prefix = format!("{}-{fence}", job.name);
        let rng = SmallRng::seed_from_u64(job.seed ^ fence);
        let venue = Venue::open(&job.dir, &job.name);
        let (working, said) = (Vec::new(), Said::default());
        let mut bot = Bot { engine, venue, rng, working, long: 0, prefix, ids: 0, said };
        for _ in 0..job.busy {
            bot.busy().await;
        }
        bot.make_room().await;
        bot.tell();
        say("calm");
        wait_for(&job.dir.join("go")).await;
        for _ in 0..job.calm {
            bot.attempt().await;
        }
        bot.tell();
        say("end");
        // Its orders stay as they are: the lease ends with the process.
    });
}

/// Somebody may still have the name: who was killed has it until it runs out.
pub(crate) async fn join(engine: &RiskEngine) -> u64 {
    loop {
        match engine.join().await {
            Ok(fence) => return fence,
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Transient) => {
                SystemClock.sleep(PAUSE).await;
            }
            Err(error) => panic!("join: {error}"),
        }
    }
}

pub(crate) async fn wait_for(path: &Path) {
    while !path.exists() {
        SystemClock.sleep(PAUSE).await;
    }
}

impl Bot {
    fn next_id(&mut self) -> OrderId {
        self.ids += 1;
        format!("{}-{}", self.prefix, self.ids).parse().expect("an id")
    }

    /// One attempt, and now and then something that happens to a working order.
    async fn busy(&mut self) {
        if !self.attempt().await && self.rng.random_bool(0.1) {
            self.cancel().await;
        }
        if self.rng.random_bool(0.02) {
            self.fill().await;
        }
        if self.long > 0 && self.rng.random_bool(0.02) {
            self.exit().await;
        }
    }

    async fn reserve(&mut self, order: Order) -> Option<Working> {
        loop {
            let batches = AtomicU32::new(0);
            let compose = |_: &_| {
                batches.fetch_add(1, Ordering::Relaxed);
                vec![]
            };
            let result = self.engine.check_and_reserve(order.clone(), Stance::Open, &compose).await;
            self.said.batches += batches.into_inner();
            match result {
                Ok(approval) => {
                    let firm = approval.decision.checks.iter().find(|check| check.code == "exposure_firm");
                    self.said.highest = firm.map_or(self.said.highest, |check| self.said.highest.max(check.value));
                    let (order, reservation) = (approval.order, approval.reservation);
                    return Some(Working { order, reservation, filled: 0 });
                }
                Err(RiskError::Refused(_)) => return None,
                Err(RiskError::Contended { .. }) => self.said.contended += 1,
                Err(RiskError::HolderLost { .. }) => {
                    self.said.lost += 1;
                    join(&self.engine).await;
                }
                Err(error) => {
                    say(format_args!("? reserve: {error}"));
                    return None;
                }
            }
        }
    }

    async fn attempt(&mut self) -> bool {
        let id = self.next_id();
        let working = self.reserve(order(id, Side::Buy, QTY)).await;
        self.said.attempts += 1;
        let admitted = working.is_some();
        if admitted {
            self.said.admitted += 1
        } else {
            self.said.refused += 1
        }
        if let Some(working) = working {
            // Now and then a bot believes that it sent.
            if !self.rng.random_bool(0.005) {
                self.venue.take(&working.order.id, Side::Buy, QTY);
            }
            self.working.push(working);
        }
        if self.said.attempts >= TELLS {
            self.tell();
        }
        admitted
    }

    fn tell(&mut self) {
        let Said { attempts, admitted, refused, contended, lost, batches, highest } = std::mem::take(&mut self.said);
        say(format_args!("did {attempts} {admitted} {refused} {contended} {lost} {batches} {highest}"));
    }

    /// Whether the venue has the order; an order that was never sent just stays.
    fn pick(&mut self, which: impl Fn(&Working) -> bool) -> Option<Working> {
        let fitting: Vec<_> = (0..self.working.len()).filter(|at| which(&self.working[*at])).collect();
        if fitting.is_empty() {
            return None;
        }
        let at = fitting[self.rng.random_range(0..fitting.len())];
        Some(self.working.swap_remove(at))
    }

    /// Whether the news of what the venue did gets lost on its way.
    fn is_lost(&mut self) -> bool {
        self.rng.random_bool(0.15)
    }

    /// Orders that filled in part are left to fill, so that the counter stays a multiple of an order.
    async fn cancel(&mut self) {
        let Some(working) = self.pick(|working| working.filled == 0) else { return };
        if !self.venue.has(&working.order.id) {
            return;
        }
        self.venue.cancel(&working.order.id);
        if !self.is_lost() {
            self.settle(&working, Outcome::End).await;
        }
    }

    async fn fill(&mut self) {
        let Some(mut working) = self.pick(|_| true) else { return };
        if !self.venue.has(&working.order.id) {
            return;
        }
        let qty = if working.filled == 0 { 3 } else { QTY - working.filled };
        let fill = self.venue.fill(&working.order.id, qty);
        if self.is_lost() {
            return;
        }
        working.filled += qty;
        let is_last = working.filled == QTY;
        let Some(next) = self.settle(&working, Outcome::Fill { fill: &fill, is_last }).await else { return };
        if is_last {
            self.long += 1;
        } else {
            self.working.push(Working { reservation: next, ..working });
        }
    }

    async fn exit(&mut self) {
        let id = self.next_id();
        let Some(working) = self.reserve(order(id, Side::Sell, QTY).reduce_only()).await else { return };
        self.venue.take(&working.order.id, Side::Sell, QTY);
        let fill = self.venue.fill(&working.order.id, QTY);
        self.long -= 1;
        self.settle(&working, Outcome::Fill { fill: &fill, is_last: true }).await;
    }

    /// Gives half of what it has back, so that everybody runs for it in the end.
    async fn make_room(&mut self) {
        for _ in 0..self.working.len() / 2 {
            self.cancel().await;
        }
    }

    async fn settle(&mut self, working: &Working, outcome: Outcome<'_>) -> Option<Reservation> {
        loop {
            match self.engine.settle(&working.order, &working.reservation, outcome, &|_| vec![]).await {
                Ok(settled) => return Some(settled.reservation),
                Err(RiskError::Contended { .. }) => self.said.contended += 1,
                Err(error) => {
                    say(format_args!("? settle: {error}"));
                    return None;
                }
            }
        }
    }
}
