//! Real schedules: bots in processes of their own are killed, stopped and cut off while somebody halts and re-arms.

use std::{fmt, process::Command, time::Duration};

use infra_testkit::{Cut, Direction, FaultProxy, KillableChild, RedisServer, TestDir};
use infra_types::{Scope, UserId};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

pub(crate) use super::child::Backend;
use super::child::{Job, LEASE, controller, now};

const BOTS: usize = 3;
const MS: u64 = 1_000_000;

/// What the schedules were made of and what they found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) backend: &'static str,
    pub(crate) schedules: u64,
    pub(crate) halts: u64,
    pub(crate) halts_by_bots: u64,
    pub(crate) kills: u64,
    pub(crate) stops: u64,
    pub(crate) cuts: u64,
    pub(crate) placed: u64,
    /// Placed after an acknowledged halt, within its lease.
    pub(crate) placed_within_lease: u64,
    /// The longest time from an acknowledgement to an order after it.
    pub(crate) last_after_ack: Duration,
    pub(crate) placed_after_rearm: u64,
    /// After the lease: the promise is broken.
    pub(crate) late: u64,
    pub(crate) restored: u64,
    /// Weaker after a restart: the promise is broken.
    pub(crate) weaker: u64,
}

impl Figures {
    /// Whether every promise held, and the schedules were about something.
    pub(crate) fn holds(&self) -> bool {
        self.late == 0 && self.weaker == 0 && self.placed > 0 && self.placed_after_rearm > 0 && self.restored > 0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "real schedules on {:<12} {}", self.backend, self.schedules)?;
        writeln!(f, "halts acknowledged             {} ({} by bots)", self.halts, self.halts_by_bots)?;
        writeln!(f, "kill -9, SIGSTOP, cuts         {}, {}, {}", self.kills, self.stops, self.cuts)?;
        writeln!(f, "orders placed                  {} ({} after a re-arm)", self.placed, self.placed_after_rearm)?;
        writeln!(
            f,
            "placed after acknowledgement   {}, the last {} ms after it (the lease is {} ms)",
            self.placed_within_lease,
            self.last_after_ack.as_millis(),
            LEASE.as_millis()
        )?;
        writeln!(f, "placed after the lease         {}", self.late)?;
        write!(f, "weaker after a restart         {} of {}", self.weaker, self.restored)
    }
}

/// Starts a bot with its argument.
pub(crate) type Spawn<'a> = &'a dyn Fn(&str) -> KillableChild;

enum Server {
    File(TestDir),
    Redis(RedisServer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Kill(usize),
    Start(usize),
    Stop(usize),
    Go(usize),
    Cut(usize, u8),
    Mend(usize),
    Halt,
    Rearm,
    HaltAgain,
}

/// When a scope was surely stopped: acknowledged then, and not re-armed before.
struct Interval {
    scope: Scope,
    from: u64,
    to: u64,
}

struct Bot {
    child: Option<KillableChild>,
    proxy: Option<FaultProxy>,
    job: Job,
    lines: Vec<String>,
}

impl Bot {
    fn end(&mut self) {
        if let Some(child) = self.child.take() {
            self.lines.extend(child.kill());
        }
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
            assert!(sent.is_ok_and(|status| status.success()), "a running bot takes {name}");
        }
    }
}

/// Runs the schedules of the seeds from `first` on.
pub(crate) fn run(backend: Backend, first: u64, schedules: u64, spawn: Spawn<'_>, tell: impl Fn(u64)) -> Figures {
    let server = match backend {
        Backend::Sqlite => Server::File(TestDir::new()),
        Backend::Redis => Server::Redis(RedisServer::start()),
    };
    let mut figures = Figures { backend: backend.name(), ..Figures::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a small runtime");
    for seed in first..first + schedules {
        runtime.block_on(schedule(backend, &server, seed, spawn, &mut figures));
        tell(seed);
    }
    figures
}

/// What happens when, in milliseconds from the moment when every bot trades.
fn plan(dice: &mut SmallRng, has_wire: bool) -> Vec<(u64, Act)> {
    let halt = dice.random_range(300..700);
    let lease = u64::try_from(LEASE.as_millis()).expect("short");
    let rearm = halt + lease + dice.random_range(200..600);
    let again = rearm + dice.random_range(300..600);
    let end = again + lease + 400;
    let mut acts = vec![(halt, Act::Halt), (rearm, Act::Rearm), (again, Act::HaltAgain)];
    let mut bots: Vec<usize> = (0..BOTS).collect();
    bots.shuffle(dice);
    // The last one is left in peace, so that something is placed whenever it may be.
    for &bot in &bots[..BOTS - 1] {
        // Near a halt, where it hurts.
        let near = if dice.random_bool(0.5) { halt } else { again };
        let at = near.saturating_sub(150) + dice.random_range(0..500);
        let until = at + dice.random_range(50..2 * lease);
        let pair = match dice.random_range(0..if has_wire { 3 } else { 2 }) {
            0 => (Act::Kill(bot), Act::Start(bot)),
            1 => (Act::Stop(bot), Act::Go(bot)),
            _ => (Act::Cut(bot, dice.random_range(0..4)), Act::Mend(bot)),
        };
        acts.extend([(at, pair.0), (until.min(end), pair.1)]);
        // All are killed in the end as well; a restart there must find what was halted.
        if dice.random_bool(0.5) {
            acts.extend([(end, Act::Kill(bot)), (end + 1, Act::Start(bot))]);
        }
    }
    acts.push((end + 400, Act::Go(bots[0])));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

async fn schedule(backend: Backend, server: &Server, seed: u64, spawn: Spawn<'_>, figures: &mut Figures) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let scope: Scope = if dice.random_bool(0.5) { Scope::Firm } else { "venue:v".parse().expect("valid") };
    let by_bot = dice.random_bool(0.4).then(|| dice.random_range(0..BOTS));
    let acts = plan(&mut dice, backend == Backend::Redis);
    let direct = match server {
        Server::File(dir) => dir.file("state.db").display().to_string(),
        Server::Redis(redis) => redis.url(),
    };
    let job = Job {
        backend,
        target: direct,
        namespace: format!("halt-{seed}"),
        name: "operator".into(),
        halts_at: 0,
        scope: scope.clone(),
    };
    let operator = controller(&job);
    operator.refresh().await.expect("the server is up");
    let mut bots = Vec::new();
    for n in 0..BOTS {
        let (target, proxy) = match server {
            Server::File(_) => (job.target.clone(), None),
            Server::Redis(redis) => {
                let proxy = FaultProxy::start(redis.addr()).await;
                (format!("redis://127.0.0.1:{}", proxy.addr().port()), Some(proxy))
            }
        };
        let job = Job { target, name: format!("bot-{n}"), ..job.clone() };
        bots.push(Bot { child: None, proxy, job, lines: Vec::new() });
    }
    let halt_at = acts.iter().find(|(_, act)| *act == Act::Halt).map_or(0, |(at, _)| *at);
    for (n, bot) in bots.iter_mut().enumerate() {
        // Bots take some time to begin, so the one that halts is told a time that is a little late; nothing depends on it.
        let halts_at = if by_bot == Some(n) { now() + (halt_at + 300) * MS } else { 0 };
        let mut child = spawn(&Job { halts_at, ..bot.job.clone() }.to_argument());
        let restored = child.wait_for("restored", Duration::from_secs(30));
        bot.lines.push(restored);
        bot.child = Some(child);
    }
    let start = now();
    let mut stopped: Vec<Interval> = Vec::new();
    let mut rearmed_at = u64::MAX;
    for (at, act) in acts {
        let wait = (start + at * MS).saturating_sub(now());
        tokio::time::sleep(Duration::from_nanos(wait)).await;
        match act {
            Act::Halt | Act::HaltAgain => {
                // Somebody who holds the file's lock may be stopped just now.
                while operator.halt_in(&scope, "operator", "proof").await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                figures.halts += 1;
                stopped.push(Interval { scope: scope.clone(), from: now(), to: u64::MAX });
            }
            Act::Rearm => {
                rearmed_at = now();
                stopped.iter_mut().for_each(|interval| interval.to = interval.to.min(rearmed_at));
                operator.refresh().await.expect("the server is up");
                let version = operator.snapshot_of(&scope).version;
                let anna = UserId::new("anna").expect("valid");
                operator.rearm_in(&scope, &anna, "fine", version).await.expect("nobody halted since");
            }
            Act::Kill(n) => {
                figures.kills += 1;
                bots[n].end();
            }
            Act::Start(n) => {
                if bots[n].child.is_none() {
                    bots[n].child = Some(spawn(&bots[n].job.to_argument()));
                }
            }
            Act::Stop(n) => {
                figures.stops += 1;
                bots[n].signal("-STOP");
            }
            Act::Go(n) => bots[n].signal("-CONT"),
            Act::Cut(n, how) => {
                figures.cuts += 1;
                if let Some(proxy) = &bots[n].proxy {
                    match how {
                        0 => proxy.black_hole(),
                        1 => proxy.down(Cut::Reset),
                        2 => proxy.swallow(Direction::ToClient),
                        _ => proxy.delay(Direction::ToClient, Duration::from_millis(400)),
                    }
                }
            }
            Act::Mend(n) => {
                if let Some(proxy) = &bots[n].proxy {
                    proxy.pass();
                    // What was swallowed is gone, and its connection with it.
                    proxy.cut_all(Cut::Reset);
                }
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    bots.iter_mut().for_each(Bot::end);
    for line in bots.iter().flat_map(|bot| &bot.lines) {
        if let ["halted", at, of] = line.split(' ').collect::<Vec<_>>()[..] {
            figures.halts_by_bots += 1;
            let from: u64 = at.parse().expect("a time");
            // A halt that was acknowledged while the re-arm was on its way may be the one that was re-armed.
            let to = if from < rearmed_at { rearmed_at } else { u64::MAX };
            if from < rearmed_at || from > rearmed_at + 500 * MS {
                stopped.push(Interval { scope: of.parse().expect("a scope"), from, to });
            }
        }
    }
    let lines: Vec<String> = bots.into_iter().flat_map(|bot| bot.lines).collect();
    judge(&lines, &stopped, rearmed_at, figures);
    figures.schedules += 1;
}

fn judge(lines: &[String], stopped: &[Interval], rearmed_at: u64, figures: &mut Figures) {
    let lease = u64::try_from(LEASE.as_nanos()).expect("short");
    for line in lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["placed", at, of] => {
                let at: u64 = at.parse().expect("a time");
                let order: Scope = of.parse().expect("a scope");
                figures.placed += 1;
                figures.placed_after_rearm += u64::from(at > rearmed_at);
                let covering = stopped.iter().filter(|i| i.scope == Scope::Firm || i.scope == order);
                for interval in covering.filter(|i| i.from < at && at < i.to) {
                    let after = at - interval.from;
                    figures.placed_within_lease += 1;
                    figures.last_after_ack = figures.last_after_ack.max(Duration::from_nanos(after));
                    figures.late += u64::from(after >= lease);
                }
            }
            ["restored", began, ended, firm, venue] => {
                let (began, ended): (u64, u64) = (began.parse().expect("a time"), ended.parse().expect("a time"));
                figures.restored += 1;
                for interval in stopped.iter().filter(|i| i.from < began && ended < i.to) {
                    let state = if interval.scope == Scope::Firm { firm } else { venue };
                    figures.weaker += u64::from(state == "NORMAL" || state == "ALERT");
                }
            }
            _ => {}
        }
    }
}
