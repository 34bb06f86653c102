//! Canceling what works when trading is halted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use infra_emergency::{
    CancelFailed, CancelOrders, CancelProgress, EmergencyController, EmergencyState, HaltProcedure, ProcedureConfig,
    Stop, VenueStatus,
};
use infra_types::{Backoff, Clock, Jitter, ManualClock, OrderId, Scope, UserId, Venue};
use parking_lot::Mutex;

use crate::store::{Fault, FaultyStore, process, scope};

use EmergencyState::Halt;
use VenueStatus::{Canceled, GaveUp, Rearmed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    /// Cancels one order a call.
    Slow,
    Fails,
    Hangs,
    Panics,
}

/// A few venues with working orders.
#[derive(Default)]
struct Exchange {
    moods: Mutex<BTreeMap<Venue, Mood>>,
    open: Mutex<BTreeMap<Venue, Vec<OrderId>>>,
    calls: Mutex<Vec<String>>,
}

impl Exchange {
    fn new(venues: &[(&str, Mood, usize)]) -> Arc<Self> {
        let exchange = Self::default();
        for (name, mood, orders) in venues {
            let venue: Venue = name.parse().unwrap();
            exchange.moods.lock().insert(venue.clone(), *mood);
            let ids = (0..*orders).map(|n| OrderId::new(format!("{name}-{n}")).unwrap()).collect();
            exchange.open.lock().insert(venue, ids);
        }
        Arc::new(exchange)
    }

    fn set(&self, venue: &str, mood: Mood) {
        self.moods.lock().insert(venue.parse().unwrap(), mood);
    }

    fn open(&self) -> usize {
        self.open.lock().values().map(Vec::len).sum()
    }

    fn called(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

#[async_trait]
impl CancelOrders for Exchange {
    fn venues(&self) -> Vec<Venue> {
        self.open.lock().keys().cloned().collect()
    }

    async fn cancel_all(&self, venue: &Venue, scope: &Scope) -> Result<CancelProgress, CancelFailed> {
        self.calls.lock().push(format!("{venue} {scope}"));
        let mood = self.moods.lock()[venue];
        match mood {
            Mood::Hangs => std::future::pending().await,
            Mood::Panics => panic!("broken on purpose"),
            Mood::Fails => Err(CancelFailed("503 unknown".into())),
            Mood::Works | Mood::Slow => {
                let mut open = self.open.lock();
                let orders = open.get_mut(venue).unwrap();
                let gone = if mood == Mood::Slow { orders.len().min(1) } else { orders.len() };
                orders.drain(..gone);
                Ok(CancelProgress { canceled: gone as u64, open: orders.clone() })
            }
        }
    }
}

fn config() -> ProcedureConfig {
    let ms = Duration::from_millis;
    ProcedureConfig {
        deadline: ms(1_000),
        attempt_timeout: ms(300),
        backoff: Backoff::new(ms(100), ms(100), 1, Jitter::None).unwrap(),
        parallel_max: 8,
    }
}

fn procedure(switch: &Arc<EmergencyController>, exchange: &Arc<Exchange>) -> Arc<HaltProcedure> {
    Arc::new(HaltProcedure::new(Arc::clone(switch), Arc::clone(exchange) as _, config()).unwrap())
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Lets time pass in small steps while somebody works.
async fn pass(clock: &ManualClock, ms: u64) {
    for _ in 0..ms / 10 {
        settle().await;
        clock.advance(Duration::from_millis(10));
    }
    settle().await;
}

#[tokio::test]
async fn a_venue_that_hangs_holds_up_no_other_and_the_result_names_what_is_open() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let switch = Arc::new(process("bot", &store, &clock).await);
    let moods = [
        ("good", Mood::Works, 3),
        ("slow", Mood::Slow, 4),
        ("hung", Mood::Hangs, 2),
        ("sick", Mood::Fails, 1),
        ("mad", Mood::Panics, 1),
    ];
    let exchange = Exchange::new(&moods);
    let p = procedure(&switch, &exchange);
    let mut progress = p.progress();
    let stop = switch.halt("bob", "loss").await.unwrap();
    let began = clock.now();
    let run = tokio::spawn({
        let (p, stop) = (Arc::clone(&p), stop.clone());
        async move { p.run(&stop).await }
    });
    settle().await;
    assert_eq!(exchange.open.lock()[&"good".parse().unwrap()].len(), 0, "at once");
    pass(&clock, 400).await;
    assert_eq!(exchange.open.lock()[&"slow".parse().unwrap()].len(), 0, "four attempts, 100 ms apart");
    assert!(!run.is_finished());
    let news = progress.borrow_and_update().clone().unwrap();
    assert!(news.ended.is_none() && news.venues[&"good".parse().unwrap()].status == Canceled);
    pass(&clock, 700).await;
    let report = run.await.unwrap();
    assert!(clock.now().since(began) <= Duration::from_millis(1_200));
    let by = |name: &str| report.venues[&name.parse::<Venue>().unwrap()].clone();
    assert_eq!([by("good").status, by("slow").status], [Canceled; 2]);
    assert_eq!([by("hung").status, by("sick").status, by("mad").status], [GaveUp; 3]);
    assert_eq!((by("good").canceled, by("slow").canceled, by("slow").attempts), (3, 4, 4));
    assert_eq!(by("hung").problem.as_deref(), Some("no answer in time"));
    assert_eq!(by("sick").problem.as_deref(), Some("503 unknown"));
    assert!(by("mad").problem.unwrap().contains("panicked") && by("sick").attempts >= 9);
    let names: Vec<_> = report.unfinished().map(|(venue, _)| venue.to_string()).collect();
    assert_eq!(names, ["hung", "mad", "sick"]);
    assert!(!report.is_clean() && report.is_recorded && report.ended.is_some());
    assert_eq!(p.reports(9).await.unwrap(), [report]);
    assert_eq!(exchange.open(), 4, "what is open is still open: nothing is freed here");
}

#[tokio::test]
async fn what_the_last_answer_calls_open_is_named() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let switch = Arc::new(process("bot", &store, &clock).await);
    let exchange = Exchange::new(&[("slow", Mood::Slow, 150)]);
    let p = procedure(&switch, &exchange);
    let stop = switch.shutdown("bob", "over").await.unwrap();
    let run = tokio::spawn(async move { p.run(&stop).await });
    pass(&clock, 1_100).await;
    let report = run.await.unwrap();
    let venue = report.venues.values().next().unwrap();
    assert_eq!((venue.status, venue.open_count, venue.open.len()), (GaveUp, exchange.open() as u64, 100));
    assert!(exchange.open() > 100);
}

#[tokio::test]
async fn it_runs_by_itself_for_each_halt_and_touches_the_scope_alone() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let switch = Arc::new(process("bot", &store, &clock).await);
    let other = process("other", &store, &clock).await;
    let exchange = Exchange::new(&[("v", Mood::Works, 1), ("w", Mood::Works, 1)]);
    let p = procedure(&switch, &exchange);
    let guard = p.attach();
    settle().await;
    assert!(exchange.called().is_empty(), "nothing is stopped");
    switch.alert("bob", "hm").await.unwrap();
    settle().await;
    assert!(exchange.called().is_empty(), "an alert cancels nothing");

    // From another process, with the refresh.
    other.halt_in(&scope("instrument:v/BTC"), "bob", "loss").await.unwrap();
    switch.refresh().await.unwrap();
    settle().await;
    assert_eq!(exchange.called(), ["v instrument:v/BTC"]);
    switch.refresh().await.unwrap();
    settle().await;
    assert!(exchange.called().is_empty(), "once");
    // While the store is down, from this process.
    store.fail(Fault::Down);
    switch.halt("bob", "loss").await.unwrap_err();
    settle().await;
    assert_eq!(
        exchange.called().into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["v firm", "w firm"].map(str::to_owned))
    );
    store.heal();
    switch.refresh().await.unwrap();
    settle().await;
    assert!(exchange.called().is_empty(), "it is the same stop once it is durable");
    // A stronger one is another.
    switch.shutdown("bob", "over").await.unwrap();
    settle().await;
    assert_eq!(exchange.called().len(), 2);
    drop(guard);
    settle().await;
    switch.halt_in(&scope("venue:w"), "bob", "again").await.unwrap();
    settle().await;
    assert!(exchange.called().is_empty());
}

#[tokio::test]
async fn an_unread_state_cancels_nothing() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let switch = Arc::new(crate::store::builder("bot", &store, &clock).build().unwrap());
    let exchange = Exchange::new(&[("v", Mood::Works, 1)]);
    let p = procedure(&switch, &exchange);
    let _guard = p.attach();
    store.fail(Fault::Down);
    switch.refresh().await.unwrap_err();
    settle().await;
    assert!(switch.state() == Halt && exchange.called().is_empty());
}

#[tokio::test]
async fn a_crash_in_the_middle_is_resumed_where_it_was() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let exchange = Exchange::new(&[("good", Mood::Works, 1), ("hung", Mood::Hangs, 1)]);
    {
        let switch = Arc::new(process("bot", &store, &clock).await);
        let p = procedure(&switch, &exchange);
        let _guard = p.attach();
        settle().await;
        switch.halt("bob", "loss").await.unwrap();
        pass(&clock, 100).await;
        assert_eq!(exchange.called().len(), 2);
    }
    settle().await;
    exchange.set("hung", Mood::Works);
    let switch = Arc::new(process("bot", &store, &clock).await);
    let p = procedure(&switch, &exchange);
    let reports = p.catch_up().await;
    assert_eq!(exchange.called(), ["hung firm"], "only what was not done");
    assert!(reports.len() == 1 && reports[0].is_clean() && exchange.open() == 0, "{reports:?}");
    assert_eq!(reports[0].venues[&"good".parse().unwrap()].canceled, 1, "what was done before is in the report");
    assert!(p.catch_up().await.is_empty());
    // Nor after another restart.
    let switch = Arc::new(process("bot", &store, &clock).await);
    let again = procedure(&switch, &exchange);
    assert!(again.catch_up().await.is_empty() && exchange.called().is_empty());
    // A crash before the procedure could write anything: the stop alone is durable.
    let stop = Stop::halt("carl", "another").in_scope(scope("venue:good"));
    switch.stop(stop).await.unwrap();
    let switch = Arc::new(process("bot", &store, &clock).await);
    assert_eq!(procedure(&switch, &exchange).catch_up().await.len(), 1);
}

#[tokio::test]
async fn a_rearm_ends_it() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let switch = Arc::new(process("bot", &store, &clock).await);
    let exchange = Exchange::new(&[("sick", Mood::Fails, 1)]);
    let p = procedure(&switch, &exchange);
    let stop = switch.halt("bob", "loss").await.unwrap();
    let run = tokio::spawn({
        let (p, stop) = (Arc::clone(&p), stop.clone());
        async move { p.run(&stop).await }
    });
    pass(&clock, 200).await;
    switch.rearm(&UserId::new("anna").unwrap(), "fine", stop.version).await.unwrap();
    pass(&clock, 100).await;
    let report = run.await.unwrap();
    assert_eq!(report.venues.values().next().unwrap().status, Rearmed);
    let calls = exchange.called().len();
    pass(&clock, 500).await;
    assert!(exchange.called().is_empty() && calls >= 2);
}
