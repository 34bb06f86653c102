//! The bots: started, listened to, killed and started again.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use infra_testkit::{ChildGone, KillableChild};
use infra_types::{Clock, SystemClock};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    Settings,
    bot::Job,
    report::Report,
    watch::{counter, funeral},
    world::{engine, holder, open},
};

/// Nobody says anything for so long: something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of all attempts, so many come when nothing is released any more.
const CALM_PART: u32 = 20;

struct Keeper {
    child: KillableChild,
    job: Job,
    fence: u64,
    /// Attempts that it and those before it told of.
    done: u32,
    /// Those of the ones before it.
    done_before: u32,
    is_calm: bool,
    is_over: bool,
}

pub(crate) async fn run(settings: &Settings, target: &str, dir: &Path, report: &mut Report) {
    let store = || open(settings.backend, target).expect("we started it");
    let stop = Arc::<AtomicBool>::default();
    let observer = tokio::spawn(counter(store(), settings.limit, stop.clone()));
    let parent = holder("parent", Duration::from_secs(3_600));
    let witness = Arc::new(engine(store(), "ledger", parent, settings.limit).await);

    let begun = SystemClock.now();
    let calm = (settings.attempts / CALM_PART).max(1);
    let job = |n: u32| Job {
        backend: settings.backend,
        target: target.to_owned(),
        dir: dir.to_owned(),
        name: format!("bot-{n}"),
        limit: settings.limit,
        ttl: settings.ttl,
        busy: settings.attempts - calm,
        calm,
        seed: settings.seed + u64::from(n),
    };
    let start = |job: Job| Keeper {
        child: (settings.spawn)(&job.to_argument()),
        job,
        fence: 0,
        done: 0,
        done_before: 0,
        is_calm: false,
        is_over: false,
    };
    let mut bots: Vec<Keeper> = (0..settings.bots).map(|n| start(job(n))).collect();
    let mut rng = SmallRng::seed_from_u64(settings.seed);
    let (mut last_word, mut kills, mut funerals) = (SystemClock.now(), 0, Vec::new());
    // Kills come while orders come and go, evenly.
    let all_busy = (settings.attempts - calm) * settings.bots;
    let due = |kills: u32| all_busy / 10 + all_busy * 7 / 10 * kills / settings.kills.max(1);
    while bots.iter().any(|bot| !bot.is_over) {
        for bot in &mut bots {
            if bot.listen(report) {
                last_word = SystemClock.now();
            }
        }
        let done: u32 = bots.iter().map(|bot| bot.done).sum();
        if kills < settings.kills && done >= due(kills) {
            let at = rng.random_range(0..bots.len());
            let bot = &mut bots[at];
            if bot.fence != 0 && !bot.is_calm && !bot.is_over {
                kills += 1;
                let (name, fence, left) =
                    (bot.job.name.clone(), bot.fence, bot.job.busy.saturating_sub(bot.done - bot.done_before));
                let again = Job { busy: left, ..bot.job.clone() };
                let dead = std::mem::replace(bot, Keeper { done: bot.done, done_before: bot.done, ..start(again) });
                for line in dead.child.kill() {
                    hear_figures(&line, report);
                }
                funerals.push(tokio::spawn(funeral(witness.clone(), name, fence)));
            }
        }
        if bots.iter().all(|bot| bot.is_calm || bot.is_over) && !dir.join("go").exists() {
            std::fs::write(dir.join("go"), "").expect("the directory is ours");
        }
        if SystemClock.now().since(last_word) > PATIENCE {
            report.problems.push(format!("nobody said anything for {PATIENCE:?}"));
            break;
        }
        SystemClock.sleep(Duration::from_millis(2)).await;
    }
    report.seconds = SystemClock.now().since(begun);
    report.kills = kills;
    for funeral in funerals {
        let (time, orphaned) = funeral.await.expect("a look must not panic");
        report.noticed.push(time);
        report.orphaned += orphaned;
    }
    // The lease, an interval between sweeps (a fifth of it), and the rest for a busy machine.
    if report.noticed().1 > settings.ttl * 2 {
        report.problems.push(format!("the dead were noticed late: {:?}", report.noticed));
    }
    stop.store(true, Ordering::SeqCst);
    report.seen = observer.await.expect("a look must not panic");
}

impl Keeper {
    /// Takes what the bot said; whether it said anything.
    fn listen(&mut self, report: &mut Report) -> bool {
        let mut heard = false;
        while !self.is_over {
            match self.child.next_line(Duration::ZERO) {
                Ok(line) => {
                    heard = true;
                    self.hear(&line, report);
                }
                Err(ChildGone::TimedOut) => break,
                Err(ChildGone::Ended) => {
                    report.problems.push(format!("{} ended by itself", self.job.name));
                    self.is_over = true;
                }
            }
        }
        heard
    }

    fn hear(&mut self, line: &str, report: &mut Report) {
        match line.split_once(' ') {
            Some(("joined", fence)) => self.fence = fence.parse().unwrap_or(0),
            None if line == "calm" => self.is_calm = true,
            None if line == "end" => self.is_over = true,
            _ => self.done += hear_figures(line, report),
        }
    }
}

/// Adds what a bot counted; answers how many attempts that were.
fn hear_figures(line: &str, report: &mut Report) -> u32 {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
    match words.first() {
        Some(&"did") => {
            report.attempts += number(1);
            report.admitted += number(2);
            report.refused += number(3);
            report.contended += number(4);
            report.lost += number(5);
            report.batches += number(6);
            let highest = words.get(7).and_then(|word| word.parse().ok()).unwrap_or_default();
            report.highest = report.highest.max(highest);
            number(1)
        }
        Some(&"?") => {
            report.problems.push(line.to_owned());
            0
        }
        _ => 0,
    }
}
