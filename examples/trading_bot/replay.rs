//! The run: one event after the other, each wholly done before the next, so that the same input gives the same orders,
//! however often the run is killed in between.

use std::{path::PathBuf, sync::Arc, time::Duration};

use infra_factory::{
    Infrastructure, Preset,
    audit_log::Verdict,
    config::{ConfigBuilder, Environment},
    event_bus::{Delivery, Handler, Pattern, SubscribeOptions, Subscription},
    gate::{GateConfig, NotAtVenue},
    latency_monitor::OrderStages,
    risk_engine::Quote,
};
use infra_types::{AccountId, Clock, Decimal, Envelope, HealthStatus, ManualClock, Price, SystemClock, Timestamp};

use crate::{
    args::Args,
    checkpoint::{Checkpoint, Cursor},
    data::{self, MarketEvent, MarketRow, Rows},
    handlers::{Desk, OnExecution, OnMarket, OnSignal, signal_envelope},
    instruments,
    progress::Progress,
    report,
    strategy::Strategy,
    venue_client,
};

/// What the account begins with, in USDT.
const DEPOSIT: Decimal = Decimal::from_parts(50_000, 0, 0, false, 0);
/// Events between two checkpoints where nothing else is written.
const CHECKPOINT_EVERY: u64 = 2_000;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

struct Run {
    infra: Infrastructure,
    desk: Arc<Desk>,
    clock: ManualClock,
    market: Subscription,
    signals: Subscription,
    executions: Subscription,
    /// Nothing happens at the exchange before this time, as far as it said.
    quiet_until: Option<Timestamp>,
    interrupted: Interrupted,
}

/// Resolves at Ctrl-C or a request to terminate.
type Interrupted = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Listens from now on, so that a signal during the start is not lost.
fn interrupted() -> Result<Interrupted, String> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
        Ok(Box::pin(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }))
    }
    #[cfg(not(unix))]
    Ok(Box::pin(async {
        let _ = tokio::signal::ctrl_c().await;
    }))
}

/// Replays the input and prints the report.
pub(crate) async fn run(args: &Args) -> Result<(), String> {
    let interrupted = interrupted()?;
    let preset: Preset = args.preset.parse().map_err(text)?;
    let specs = instruments::all().map_err(text)?;
    let input = args.input();
    let survey = data::survey(&input, specs.len()).map_err(text)?;

    let mut config = ConfigBuilder::new(preset).environment(Environment::process()).set("bot_id", args.bot_id.clone());
    if let Some(dir) = &args.data_dir {
        if preset == Preset::Development {
            return Err("--data-dir goes with --preset standalone: development keeps nothing".into());
        }
        let dir = dir.to_str().ok_or("--data-dir must be valid UTF-8")?;
        config = config.set("data_dir", dir);
    }
    if args.bot_id.len() > 48 {
        return Err("--bot-id has at most 48 characters: it is part of order ids".into());
    }
    if let Some(halt_after) = args.halt_after.filter(|n| !(1..=survey.events).contains(n)) {
        return Err(format!("--halt-after {halt_after} never comes: the input has events 1 to {}", survey.events));
    }
    let config = config.build().map_err(text)?;
    let clock = ManualClock::starting_at(Timestamp::EPOCH);
    let infra = Infrastructure::builder(config)
        .decision_clock(Arc::new(clock.clone()))
        // A process that was stopped goes on where it was; the kill switch has its own, shorter lease.
        .gate(GateConfig { approval_ttl: Duration::from_secs(600), ..GateConfig::default() })
        .build()
        .await
        .map_err(text)?;

    // After the instance lock, which tells a second bot more clearly. The terminal belongs to the progress bar; what there is to log goes to the file, or nowhere in development.
    let logs = infra_factory::log_config(infra.config()).with_console(false);
    let _logs = logs.file.is_some().then(|| infra_factory::logging::init(logs)).transpose().map_err(text)?;

    let fresh = Checkpoint {
        fingerprint: survey.fingerprint.clone(),
        seed: args.seed,
        events: 0,
        now: Timestamp::EPOCH,
        polled: Timestamp::EPOCH,
        strategy: Strategy::new(specs.len()),
        quoted: vec![None; specs.len()],
        quotes_refused: 0,
        is_halted: false,
    };
    let ledger = infra.ledger_namespace();
    let (cursor, goes_on) = Cursor::open(infra.ledger().as_ref(), &ledger, infra.bot(), fresh).await?;
    let start = cursor.get();
    // A log that was changed is for a person to look at before another order goes out.
    if let Verdict::Tampered { first_bad_index, kind } = infra.verify_audit().await.map_err(text)? {
        return Err(format!(
            "the audit log was tampered with ({kind}, first at {first_bad_index:?}): stop and compare with a backup"
        ));
    }
    let progress = Arc::new(Progress::new(survey.events, start.events));
    if goes_on {
        eprintln!("going on after event {} of {}", start.events, survey.events);
    }

    let account: AccountId = format!("{}-account", infra.bot()).parse().map_err(text)?;
    for spec in &specs {
        infra.risk().register_instrument(spec.clone()).map_err(text)?;
    }
    infra.risk().open_account(account.clone(), specs[0].quote.clone(), DEPOSIT).await.map_err(text)?;
    // Each price at its own time, so that it is as old as it was.
    let mut quotes: Vec<_> = specs
        .iter()
        .zip(start.quoted.iter().zip(&start.strategy.flows))
        .filter_map(|(s, (q, f))| Some((q.as_ref()?, s, f)))
        .collect();
    quotes.sort_by_key(|(at, ..)| **at);
    for (at, spec, flow) in quotes {
        clock.advance_to(*at);
        let (bid, ask) = (Price::new(flow.bid).map_err(text)?, Price::new(flow.ask).map_err(text)?);
        infra.risk().update_market(&spec.id, Quote { bid, ask, at: *at }).map_err(text)?;
    }
    clock.advance_to(start.now);

    let exchange_dir = exchange_dir(&infra)?;
    let is_temporary = infra.data_dir().is_none();
    let venue =
        Arc::new(venue_client::connect(&exchange_dir, args.seed, is_temporary, Arc::new(clock.clone()), &specs).await?);
    let known = venue.stats().await.map_err(text)?.orders;
    if !goes_on && known > 0 {
        return Err(format!(
            "the exchange in {} knows {known} orders, but the database knows no run of {}: put the database back, or move that folder away",
            exchange_dir.display(),
            infra.bot()
        ));
    }
    let desk = Arc::new(Desk {
        bot: infra.bot().clone(),
        account,
        strategy: "order_flow".parse().map_err(text)?,
        gate: Arc::clone(infra.gate()),
        risk: Arc::clone(infra.risk()),
        market_data: Arc::clone(infra.market_data()),
        market_namespace: infra.state_namespace(),
        venue,
        cursor,
        progress: Arc::clone(&progress),
        stages: OrderStages::register(infra.latency().as_ref(), "order", SystemClock::shared()),
        working: Default::default(),
        signal: Default::default(),
        tick: Default::default(),
        traces: Default::default(),
        failure: Default::default(),
        failed: Default::default(),
        specs,
    });
    // What an earlier run left behind, in the order in which that run would have met it: reports that were fetched and not
    // counted, orders whose end is not written down, and (in `go`) signals that were not decided.
    let executions = subscribe(&infra, "executions", Arc::new(OnExecution(Arc::clone(&desk)))).await?;
    infra.relay_events().await.map_err(text)?;
    executions.drained().await.map_err(text)?;
    let reconciled = infra.gate().reconcile(desk.venue.as_ref(), NotAtVenue::Send).await.map_err(text)?;
    if reconciled.unknown > 0 {
        return Err(format!(
            "the exchange does not answer about {} open orders; run the same command to go on",
            reconciled.unknown
        ));
    }
    if reconciled.missing > 0 {
        return Err(format!(
            "the exchange no longer knows {} orders that it had acknowledged: was its file in {} lost?",
            reconciled.missing,
            exchange_dir.display()
        ));
    }
    for record in infra.gate().open_orders().await.map_err(text)? {
        desk.note(&record.order, false);
    }
    let market = Pattern::new("market:*").map_err(text)?;
    let market = SubscribeOptions::at_most_once(market, Arc::new(OnMarket(Arc::clone(&desk))));
    let market = infra.events().subscribe(market).await.map_err(text)?;
    let signals = subscribe(&infra, "signals", Arc::new(OnSignal(Arc::clone(&desk)))).await?;
    let mut run = Run { infra, desk, clock, market, signals, executions, quiet_until: None, interrupted };
    tracing::info!(from = start.events, of = survey.events, seed = args.seed, "the replay begins");
    let began = SystemClock.now();
    let ended = run.go(args, &input, start.events).await;
    let took = SystemClock.now().since(began);
    let events = run.desk.cursor.get().events;
    progress.finish(events);
    match &ended {
        Ok(()) => tracing::info!(events, "the replay ends"),
        Err(e) => tracing::error!(events, error = %e, "the replay ends early"),
    }
    let figures =
        report::collect(&run.infra, &run.desk, survey.events, took, [&run.market, &run.signals, &run.executions]).await;
    let figures = match (figures, &ended) {
        (Ok(figures), _) => figures,
        // The run's own failure says more than what followed from it.
        (Err(_), Err(e)) => return Err(e.clone()),
        (Err(e), _) => return Err(e),
    };
    if is_temporary || events == survey.events {
        run.desk.venue.shutdown().await;
    }
    let closed = run.infra.close().await;
    report::print(&figures, args.json, &closed)?;
    ended
}

fn exchange_dir(infra: &Infrastructure) -> Result<PathBuf, String> {
    match infra.data_dir() {
        // Each bot has an exchange of its own, so that two may share a data dir.
        Some(dir) => {
            let dir = dir.join(format!("exchange-{}", infra.bot()));
            std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            Ok(dir)
        }
        None => tempfile::Builder::new().prefix("trading-bot-").tempdir().map(tempfile::TempDir::keep).map_err(text),
    }
}

/// Handles `what` of this bot, at least once, from where an earlier run stopped.
async fn subscribe(infra: &Infrastructure, what: &str, handler: Arc<dyn Handler>) -> Result<Subscription, String> {
    let pattern = Pattern::new(format!("{what}:{}:*", infra.bot())).map_err(text)?;
    let group = format!("{what}-{}", infra.bot());
    let options = SubscribeOptions::at_least_once(pattern, &group, handler).from_earliest().with_consumer(&group);
    infra.events().subscribe(options).await.map_err(text)
}

impl Run {
    /// Handles events until the input, the person or the exchange ends it.
    async fn go(&mut self, args: &Args, input: &std::path::Path, done: u64) -> Result<(), String> {
        self.settle().await?;
        if args.halt_after.is_some_and(|n| n <= done) && !self.desk.cursor.get().is_halted {
            self.halt(args.halt_after.unwrap_or_default()).await?;
        }
        let mut rows = Rows::open(input, self.desk.specs.len()).map_err(text)?;
        let mut number = 0;
        let mut pace = Pace::new(args.speed);
        while let Some(row) = rows.next_row().map_err(text)? {
            number += 1;
            if number <= done {
                continue;
            }
            let now = self.clock.wall().max(row.received);
            tokio::select! {
                biased;
                () = &mut self.interrupted => {
                    eprintln!("interrupted after event {}", number - 1);
                    break;
                }
                () = pace.wait(now) => {}
            }
            self.event(number, now, row).await?;
            if args.halt_after == Some(number) && !self.desk.cursor.get().is_halted {
                self.halt(number).await?;
            }
            if number % CHECKPOINT_EVERY == 0 {
                self.save(Vec::new()).await?;
            }
            self.desk.progress.at(number);
        }
        self.save(Vec::new()).await
    }

    async fn event(&mut self, number: u64, now: Timestamp, row: MarketRow) -> Result<(), String> {
        self.clock.advance_to(now);
        self.desk.cursor.change(|c| c.now = now);
        self.poll(now).await?;
        let tick = SystemClock.now();
        let what = if matches!(row.event, MarketEvent::Quote { .. }) { "quote" } else { "trade" };
        let topic = format!("market:{}:{what}", self.desk.specs[row.instrument].id.symbol).parse().map_err(text)?;
        let data = serde_json::to_vec(&row).map_err(text)?;
        let envelope = Envelope::new(topic, "market.v1", now, data).with_source(format!("bot/{}", self.desk.bot));
        self.infra.events().publish(envelope, Delivery::AtMostOnce).await.map_err(text)?;
        self.market.drained().await.map_err(text)?;
        self.desk.cursor.change(|c| c.events = number);
        let Some(signal) = self.desk.signal.lock().take() else { return Ok(()) };

        *self.desk.tick.lock() = Some((tick, SystemClock.now()));
        // The signal is published if and only if the checkpoint behind it is written.
        let envelope = signal_envelope(&self.desk, &signal)?;
        let ops = vec![
            self.infra.outbox().event(&envelope),
            self.infra.outbox().audit(&report::signal_row(&self.desk, &signal)),
        ];
        self.save(ops).await?;
        self.infra.relay_events().await.map_err(text)?;
        self.settle().await
    }

    /// Fetches what happened at the exchange since the last time, if anything may have.
    async fn poll(&mut self, now: Timestamp) -> Result<(), String> {
        let may_have_news = self.desk.gate.has_open_orders() && self.quiet_until.is_none_or(|until| now >= until);
        if !may_have_news {
            return Ok(());
        }
        let after = self.desk.cursor.get().polled;
        let (executions, quiet_until) =
            self.desk.venue.executions(after, now).await.map_err(|e| format!("{e}; run the same command to go on"))?;
        let mut ops = Vec::new();
        for execution in executions {
            let Some(record) = self.desk.gate.order(&execution.order).await.map_err(text)? else {
                return Err(format!("the exchange reports on {}, which this bot never sent", execution.order));
            };
            let topic =
                format!("executions:{}:{}", self.desk.bot, record.order.instrument.symbol).parse().map_err(text)?;
            let data = serde_json::to_vec(&execution).map_err(text)?;
            let id = infra_types::EventId::new(format!("execution.{}", execution.id)).map_err(text)?;
            let envelope = Envelope::new(topic, "execution.v1", execution.at, data)
                .with_id(id)
                .with_key(record.order.instrument.to_string());
            ops.push(self.infra.outbox().event(&envelope));
        }
        if !ops.is_empty() {
            // The bus keeps them from here on. With the cursor in the same batch, a run that goes on meets them at this event
            // and not at an earlier one.
            self.save(ops).await?;
            self.infra.relay_events().await.map_err(text)?;
        }
        self.settle().await?;
        self.quiet_until = quiet_until;
        self.desk.cursor.change(|c| c.polled = now);
        Ok(())
    }

    /// Waits until everything that was published is handled.
    async fn settle(&mut self) -> Result<(), String> {
        let mut drained = std::pin::pin!(async {
            self.executions.drained().await?;
            self.signals.drained().await
        });
        loop {
            tokio::select! {
                biased;
                done = &mut drained => break done.map_err(text)?,
                () = self.desk.failed.notified() => break,
                // What retries for ever must not make a person wait for ever: say what is wrong, and go on later.
                () = SystemClock.sleep(Duration::from_secs(2)) => self.healthy().await?,
            }
        }
        // A new order may bring news at any time.
        self.quiet_until = None;
        match self.desk.failure.lock().take() {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    /// Whether stores and bus can still do their work.
    async fn healthy(&self) -> Result<(), String> {
        let down = self.infra.health().await.into_iter().find(|(_, h)| h.status == HealthStatus::Down);
        down.map_or(Ok(()), |(part, h)| Err(format!("{part} is down: {}; run the same command to go on", h.detail)))
    }

    /// Writes the checkpoint and whatever must be there exactly if it is.
    async fn save(&self, ops: Vec<infra_factory::state_store::Op>) -> Result<(), String> {
        let ops = ops.into_iter().chain([self.desk.cursor.op()]).collect();
        // With the high-water mark and drawdown that were seen up to it.
        self.infra.risk().checkpoint_with(&self.desk.account, ops).await.map_err(text)
    }

    /// Pulls the kill switch and takes working orders back; doing it again after a kill changes nothing.
    async fn halt(&mut self, number: u64) -> Result<(), String> {
        let reason = format!("asked for by --halt-after {number}");
        self.infra.emergency().halt("operator", &reason).await.map_err(text)?;
        let (asked, failed) = self.desk.gate.cancel_all(self.desk.venue.as_ref()).await.map_err(text)?;
        self.quiet_until = None;
        self.desk
            .progress
            .say(&format!("{} HALT: {asked} orders cancelled, {failed} failed; only exits pass", self.clock.wall()));
        self.desk.cursor.change(|c| c.is_halted = true);
        self.save(Vec::new()).await
    }
}

/// Keeps a replay at its speed.
struct Pace {
    speed: f64,
    began: Option<(infra_types::Monotonic, Timestamp)>,
}

impl Pace {
    fn new(speed: f64) -> Self {
        Self { speed, began: None }
    }

    async fn wait(&mut self, event: Timestamp) {
        if self.speed <= 0.0 {
            // Gives Ctrl-C and the poller their turn.
            tokio::task::yield_now().await;
            return;
        }
        let (began, first) = *self.began.get_or_insert_with(|| (SystemClock.now(), event));
        let due = Duration::try_from_secs_f64(event.since(first).as_secs_f64() / self.speed).unwrap_or(Duration::MAX);
        SystemClock.sleep_until(began + due).await;
    }
}
