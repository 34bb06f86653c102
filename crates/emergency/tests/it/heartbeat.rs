//! Bots that fall silent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_emergency::{
    BotDeath, BotLife, DeadMan, DeadManConfig, DeathOutcome, EmergencyController, EmergencyError, EmergencyState,
    Heartbeat, HeartbeatConfig, OnDeath,
};
use infra_types::{ErrorKind, ManualClock};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::store::{Fault, FaultyStore, process, scope};

use EmergencyState::{Halt, Normal};

const TTL: Duration = Duration::from_secs(10);

/// Notes whom it buried, waits to be let, and fails so often.
struct Undertaker {
    buried: Mutex<Vec<String>>,
    gate: Semaphore,
    failures: AtomicU32,
    panics: bool,
}

impl Undertaker {
    fn new(permits: usize, failures: u32) -> Arc<Self> {
        Arc::new(Self {
            buried: Mutex::default(),
            gate: Semaphore::new(permits),
            failures: AtomicU32::new(failures),
            panics: false,
        })
    }
}

#[async_trait]
impl OnDeath for Undertaker {
    async fn dead(&self, death: &BotDeath) -> Result<String, String> {
        self.buried.lock().push(death.bot.to_string());
        assert!(!self.panics, "broken on purpose");
        self.gate.acquire().await.unwrap().forget();
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.fetch_sub(1, Ordering::Relaxed);
            return Err("the venue does not answer".into());
        }
        Ok("2 orders canceled".into())
    }
}

fn config(halts: &[&str]) -> HeartbeatConfig {
    HeartbeatConfig { ttl: TTL, halts: halts.iter().map(|s| scope(s)).collect(), ..HeartbeatConfig::default() }
}

fn watcher(switch: EmergencyController, undertaker: &Arc<Undertaker>) -> Arc<DeadMan> {
    let on_death: Arc<dyn OnDeath> = Arc::clone(undertaker) as _;
    Arc::new(DeadMan::new(Arc::new(switch), on_death, DeadManConfig::default()).unwrap())
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_silent_bot_is_halted_and_buried_once_by_one_of_many_watchers() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = process("bot", &store, &clock).await;
    let heart = Heartbeat::new(&bot, config(&["strategy:s", "account:x"])).unwrap();
    let undertaker = Undertaker::new(9, 0);
    let mut watchers = Vec::new();
    for name in ["w1", "w2", "w3"] {
        watchers.push(watcher(process(name, &store, &clock).await, &undertaker));
    }
    heart.beat().await.unwrap();
    for _ in 0..5 {
        clock.advance(TTL - Duration::from_millis(1));
        heart.beat().await.unwrap();
        for w in &watchers {
            assert!(w.check().await.unwrap().is_empty());
        }
    }
    clock.advance(TTL);
    store.give_way(true);
    let (a, b, c) = tokio::join!(watchers[0].check(), watchers[1].check(), watchers[2].check());
    store.give_way(false);
    let deaths: Vec<_> = [a, b, c].into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(deaths.len(), 1, "{deaths:?}");
    assert_eq!(deaths[0].outcome, DeathOutcome::Done("2 orders canceled".into()));
    assert_eq!((undertaker.buried.lock().as_slice(), deaths[0].attempts), (&["bot".to_owned()][..], 1));
    assert_eq!(
        [store.state_in(&scope("strategy:s")), store.state_in(&scope("account:x")), store.state()],
        [Halt, Halt, Normal]
    );

    // It hears that it was buried, comes back, and re-arms nothing.
    let late = heart.beat().await.unwrap_err();
    assert!(matches!(late, EmergencyError::DeclaredDead { .. }) && late.kind() == ErrorKind::Fenced, "{late}");
    heart.beat().await.unwrap();
    bot.refresh().await.unwrap();
    assert_eq!(bot.snapshot_of(&scope("strategy:s")).state, Halt);
    assert_eq!(heart.missed(), 1);
    let record = &bot.bots().await.unwrap()[0];
    assert_eq!((record.life, record.death.as_ref()), (BotLife::Alive, Some(&deaths[0])));
    // A second death is another one.
    clock.advance(TTL);
    assert_eq!(watchers[1].check().await.unwrap().len(), 1);
    assert_eq!(undertaker.buried.lock().len(), 2);
    for w in &watchers {
        assert!(w.check().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_goodbye_is_no_death_and_two_runs_of_a_bot_are_noticed() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = process("bot", &store, &clock).await;
    let (heart, twin) =
        (Heartbeat::new(&bot, config(&["firm"])).unwrap(), Heartbeat::new(&bot, config(&["firm"])).unwrap());
    heart.beat().await.unwrap();
    let held = twin.beat().await.unwrap_err();
    assert!(matches!(held, EmergencyError::AlreadyBeating { .. }), "{held}");
    heart.stop().await.unwrap();
    clock.advance(TTL * 2);
    let undertaker = Undertaker::new(9, 0);
    let w = watcher(process("w", &store, &clock).await, &undertaker);
    assert!(w.check().await.unwrap().is_empty());
    assert_eq!(bot.bots().await.unwrap()[0].life, BotLife::Stopped);
    twin.beat().await.unwrap();
    assert!(w.check().await.unwrap().is_empty() && store.written().is_empty());
}

#[tokio::test]
async fn a_watcher_that_dies_at_it_is_replaced_and_one_that_works_is_not() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = process("bot", &store, &clock).await;
    let heart = Heartbeat::new(&bot, config(&["firm"])).unwrap();
    heart.beat().await.unwrap();
    clock.advance(TTL);
    let undertaker = Undertaker::new(0, 0);
    let first = watcher(process("w1", &store, &clock).await, &undertaker);
    let second = watcher(process("w2", &store, &clock).await, &undertaker);
    let guard = first.spawn();
    settle().await;
    assert_eq!((undertaker.buried.lock().len(), store.state()), (1, Halt));
    // The bot may not come back while it is being buried, and the claim is prolonged for as long as it takes.
    assert!(matches!(heart.beat().await, Err(EmergencyError::DeclaredDead { .. })));
    assert!(matches!(heart.beat().await, Err(EmergencyError::AlreadyBeating { .. })));
    for _ in 0..10 {
        clock.advance(Duration::from_secs(10));
        settle().await;
        assert!(second.check().await.unwrap().is_empty());
    }
    drop(guard);
    settle().await;
    clock.advance(Duration::from_secs(30));
    undertaker.gate.add_permits(1);
    let deaths = second.check().await.unwrap();
    assert_eq!((deaths.len(), deaths[0].attempts, deaths[0].watcher.as_str()), (1, 2, "w2"));
    assert!(matches!(deaths[0].outcome, DeathOutcome::Done(_)));
    heart.beat().await.unwrap();
}

#[tokio::test]
async fn a_callback_that_fails_is_called_again_and_then_given_up() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = process("bot", &store, &clock).await;
    Heartbeat::new(&bot, config(&[])).unwrap().beat().await.unwrap();
    clock.advance(TTL);
    let undertaker = Undertaker::new(99, 2);
    let w = watcher(process("w", &store, &clock).await, &undertaker);
    for attempt in 1..=2 {
        let death = &w.check().await.unwrap()[0];
        assert_eq!((death.attempts, &death.outcome), (attempt, &DeathOutcome::Pending));
    }
    assert!(matches!(w.check().await.unwrap()[0].outcome, DeathOutcome::Done(_)));
    assert!(w.check().await.unwrap().is_empty());

    let heart = Heartbeat::new(&bot, config(&[])).unwrap();
    heart.beat().await.unwrap();
    clock.advance(TTL);
    let panics = Arc::new(Undertaker {
        buried: Mutex::default(),
        gate: Semaphore::new(0),
        failures: AtomicU32::new(0),
        panics: true,
    });
    let w = watcher(process("w", &store, &clock).await, &panics);
    for _ in 0..9 {
        assert_eq!(w.check().await.unwrap()[0].outcome, DeathOutcome::Pending);
    }
    assert!(matches!(&w.check().await.unwrap()[0].outcome, DeathOutcome::Failed(why) if why.contains("panicked")));
    assert!(w.check().await.unwrap().is_empty());
    heart.beat().await.unwrap_err();
    heart.beat().await.unwrap();
}

#[tokio::test]
async fn lost_replies_cost_a_round_and_nothing_else() {
    for n in 0..4 {
        for fault in [Fault::LostReply, Fault::LostRequest, Fault::Down] {
            let clock = ManualClock::default();
            let store = FaultyStore::new(&clock);
            let bot = process("bot", &store, &clock).await;
            let heart = Heartbeat::new(&bot, config(&["firm"])).unwrap();
            heart.beat().await.unwrap();
            clock.advance(TTL);
            let undertaker = Undertaker::new(99, 0);
            let w = watcher(process("w", &store, &clock).await, &undertaker);
            let faults = std::iter::repeat_n(Fault::None, n).chain([fault]);
            store.fail_next(faults);
            let mut done = Vec::new();
            for _ in 0..4 {
                done.extend(w.check().await.unwrap_or_default());
            }
            assert_eq!(store.state(), Halt, "{fault:?} at {n}");
            let record = &bot.bots().await.unwrap()[0];
            assert!(
                matches!(record.death.as_ref().unwrap().outcome, DeathOutcome::Done(_)),
                "{fault:?} at {n}: {record:?}"
            );
            assert_eq!(record.life, BotLife::Dead);
        }
    }
}

#[tokio::test]
async fn a_bot_that_beats_at_the_last_moment_lives() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = process("bot", &store, &clock).await;
    let heart = Heartbeat::new(&bot, config(&["firm"])).unwrap();
    heart.beat().await.unwrap();
    clock.advance(TTL);
    let undertaker = Undertaker::new(9, 0);
    let w = watcher(process("w", &store, &clock).await, &undertaker);
    store.give_way(true);
    // The watcher has seen the lease run out when the beat arrives: one of both wins, never both.
    let (beaten, checked) = tokio::join!(heart.beat(), w.check());
    store.give_way(false);
    assert_eq!(beaten.is_ok(), checked.unwrap().is_empty());
    assert_eq!(store.state() == Halt, beaten.is_err());
}

#[test]
fn times_and_scopes_must_make_sense() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let bot = crate::store::builder("bot", &store, &clock).build().unwrap();
    let seconds = Duration::from_secs;
    for (interval, ttl, halts) in [(0, 10, 0), (6, 10, 0), (1, 10, 17)] {
        let halts = vec![scope("firm"); halts];
        let config = HeartbeatConfig { interval: seconds(interval), ttl: seconds(ttl), halts };
        assert_eq!(Heartbeat::new(&bot, config).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
