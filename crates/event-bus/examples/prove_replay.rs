//! Replays 24 simulated hours of market data twice, on moved clocks: handlers see the same sequence each time.
//!
//! Takes about 4 minutes.
//!
//! The three real minutes in `examples/data` are tiled, each tile shifted by their span, until the hours are full. Each tile is published at
//! least once on a clock that is moved to each event's time, handled by a group in lock step, and then replayed twice from what the bus keeps,
//! each time on a clock of its own that the replay moves. What is compared is a digest of everything a handler can see, in the order in which it
//! sees it: id, topic, key, payload, attempt and the time of its clock. A replay that skips, repeats, reorders or lets the clock stand differs.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use infra_event_bus::{
    BusConfig, Delivered, Delivery, EventBus, Limits, MemoryEventBus, Pattern, Replay, ReplayFrom, SubscribeOptions,
    handler_fn,
};
use infra_types::{Clock, CorrelationId, Envelope, EventId, ManualClock, SystemClock, Timestamp, Topic};
use parking_lot::Mutex;

const DATA: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/binance_spot_trades_l1_btcusdt_ethusdt_solusdt.json.gz");
const HELP: &str = "\
usage: prove_replay [--batches HOURS]

  --batches  how many simulated hours; 24 by default

Exit code 0: all sequences were the same. 1: they differed. 2: a mistake in the arguments.";

/// One event of the three minutes.
struct Event {
    topic: Topic,
    time: Timestamp,
    data: Bytes,
}

fn load() -> Result<Vec<Event>, Box<dyn std::error::Error>> {
    let file = BufReader::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(DATA)?));
    let mut events = Vec::new();
    for line in file.lines() {
        let line = line?;
        let value: serde_json::Value = serde_json::from_str(&line)?;
        let item = &value["Item"];
        let (Some(time), Some(instrument)) = (item["time_received"].as_str(), item["instrument"].as_u64()) else {
            continue;
        };
        let kind = if item["kind"]["OrderBookL1"].is_null() { "trades" } else { "l1" };
        let topic = Topic::new(format!("{kind}:{instrument}"))?;
        events.push(Event { topic, time: time.parse()?, data: line.into() });
    }
    Ok(events)
}

/// What a handler saw, in order.
#[derive(Default)]
struct Seen {
    digest: DefaultHasher,
    count: u64,
}

impl Seen {
    fn add(&mut self, event: &Envelope, attempt: u32, clock: Timestamp) {
        (event.id.as_str(), event.topic.as_str(), &event.key, &event.data, attempt, clock.as_nanos())
            .hash(&mut self.digest);
        self.count += 1;
    }

    fn found(&self) -> (u64, u64) {
        (self.count, self.digest.finish())
    }
}

fn watcher(seen: &Arc<Mutex<Seen>>, clock: &ManualClock) -> Arc<dyn infra_event_bus::Handler> {
    let (seen, clock) = (seen.clone(), clock.clone());
    handler_fn(move |event: Delivered| {
        seen.lock().add(&event.envelope, event.attempt, clock.wall());
        async { Ok(()) }
    })
}

struct Tiles {
    events: Vec<Event>,
    span: Duration,
}

impl Tiles {
    fn event(&self, tile: u32, n: usize) -> Envelope {
        let Event { topic, time, data } = &self.events[n];
        let id = EventId::new(format!("{tile}.{n}")).expect("digits and a dot are an id");
        Envelope::new(topic.clone(), "md.v1", time.saturating_add(self.span * tile), data.clone())
            .with_id(id)
            // The one thing that would be new each time.
            .with_correlation(CorrelationId::from_u128(1))
    }
}

async fn prove(hours: u64) -> Result<bool, Box<dyn std::error::Error>> {
    let events = load()?;
    let (first, last) = (events[0].time, events[events.len() - 1].time);
    // The next tile begins a moment after the last event of this one.
    let tiles = Tiles { span: last.since(first) + Duration::from_millis(1), events };
    let count = (Duration::from_secs(hours * 3_600).as_millis()).div_ceil(tiles.span.as_millis()) as u32;
    let clock = ManualClock::starting_at(first);
    let per_tile = tiles.events.len() as u64;
    let limits = Limits { history_max: per_tile, dedup_window: per_tile, ..Limits::default() };
    let config = BusConfig { limits, ..BusConfig::default() };
    let bus = MemoryEventBus::with_config(Arc::new(clock.clone()), config);
    let [published, handled, once, twice] = [(); 4].map(|()| Arc::new(Mutex::new(Seen::default())));
    let options = SubscribeOptions::at_least_once(Pattern::new("*")?, "strategy", watcher(&handled, &clock));
    let group = bus.subscribe(options).await?;
    let began = SystemClock.now();
    for tile in 0..count {
        for n in 0..tiles.events.len() {
            let event = tiles.event(tile, n);
            clock.advance_to(event.time);
            published.lock().add(&event, 1, clock.wall());
            bus.publish(event, Delivery::AtLeastOnce).await?;
            group.drained().await?;
        }
        for seen in [&once, &twice] {
            // It never moves back, so it begins where the tile does.
            let clock = ManualClock::starting_at(tiles.event(tile, 0).time);
            let from = ReplayFrom::Id(EventId::new(format!("{tile}.0"))?);
            let replay = Replay::new(Pattern::new("*")?, from, watcher(seen, &clock)).on_clock(clock);
            let done = bus.replay(replay).await?;
            if (done.handled, done.failed, done.unreadable, done.has_gap) != (per_tile, 0, 0, false) {
                println!("tile {tile}: {done:?}, not {per_tile} handled");
                return Ok(false);
            }
        }
        if tile % 20 == 19 {
            eprintln!("{} of {count} tiles, {:.0} s", tile + 1, SystemClock.now().since(began).as_secs_f64());
        }
    }
    bus.close().await?;
    let want = published.lock().found();
    println!("{:<22} {:>12}  digest", "sequence", "events");
    let mut all_equal = true;
    for (name, seen) in
        [("published", &published), ("handled, lock step", &handled), ("replay 1", &once), ("replay 2", &twice)]
    {
        let (count, digest) = seen.lock().found();
        println!("{name:<22} {count:>12}  {digest:016x}");
        all_equal &= (count, digest) == want;
    }
    let took = SystemClock.now().since(began).as_secs_f64();
    println!("{} simulated hours in {took:.0} s: {}", hours, if all_equal { "identical" } else { "THEY DIFFER" });
    Ok(all_equal && want.0 == per_tile * u64::from(count))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let hours = match &arguments[..] {
        [] => Some(24),
        [name, hours] if name == "--batches" => hours.parse().ok().filter(|hours| (1..=1_000).contains(hours)),
        _ => None,
    };
    let Some(hours) = hours else {
        let asked = arguments.iter().any(|argument| argument == "--help");
        eprintln!("{HELP}");
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
    match runtime.block_on(prove(hours)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
