//! One handler that hangs, one that panics and one that always fails: the other subscriptions' latency stays as it was.
//!
//! Takes about 5 minutes.
//!
//! Two durable groups and two live subscriptions take every event and do their work. In one half of each pair two further subscriptions of each
//! kind do the same; in the other half the first of those panics and the second fails at every event, and a third never ends. Both halves run one
//! after the other on new buses, in an order that changes from pair to pair; beside them two halves without any fault are compared in the same
//! way, which shows what the machine adds. The figure of a half is the 99th percentile from publish to the beginning of the handling, over all
//! well-behaved handlings; the figure of a pair is its quotient; what counts is the median of the pairs.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_event_bus::{
    Delivered, Delivery, EventBus, Handler, HandlerError, MemoryEventBus, Overflow, Pattern, SubscribeOptions,
    handler_fn,
};
use infra_types::{Clock, Envelope, Monotonic, SystemClock, Topic};
use parking_lot::Mutex;

/// Between two publishes: the rate stays the same whatever happens. So low that two cores are idle most of the time, or the figure would be how
/// the faults' own work (a panic is expensive) competes for them, and not whether one subscription waits for another.
const PACE: Duration = Duration::from_millis(1);
const PAIRS: usize = 9;
const HELP: &str = "\
usage: prove_isolation [--batches EVENTS]

  --batches  events in each half of a pair, a thousand a second; 10000 by default

Exit code 0: the median moved by less than 10 %. 1: it moved by more. 2: a mistake in the arguments.";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    WorkToo,
    Misbehave,
}

fn well_behaved(latencies: &Arc<Mutex<Vec<u64>>>, handled: &Arc<AtomicU64>) -> Arc<dyn Handler> {
    let (latencies, handled) = (latencies.clone(), handled.clone());
    handler_fn(move |event: Delivered| {
        let now = SystemClock.now();
        let mut began = [0; 8];
        began.copy_from_slice(&event.envelope.data);
        let began = Monotonic::from_origin(Duration::from_nanos(u64::from_le_bytes(began)));
        latencies.lock().push(now.since(began).as_nanos() as u64);
        handled.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    })
}

/// Those beside them, each live and durable.
fn others(which: Others) -> Vec<SubscribeOptions> {
    let all = || Pattern::new("*").expect("a star is a pattern");
    let work = || handler_fn(|_| async { Ok(()) });
    let mut handlers = match which {
        Others::WorkToo => vec![("panics", work()), ("fails", work())],
        Others::Misbehave => vec![
            ("panics", handler_fn(|_| async { panic!("as it was told to") })),
            ("fails", handler_fn(|_| async { Err(HandlerError::Retry("as it was told to".into())) })),
        ],
    };
    if which == Others::Misbehave {
        // One that works in its place would only make the other half slower.
        handlers.push(("hangs", handler_fn(|_| std::future::pending())));
    }
    let mut subscriptions = Vec::new();
    for (name, handler) in handlers {
        subscriptions.push(SubscribeOptions::at_least_once(all(), name, handler.clone()));
        subscriptions.push(SubscribeOptions::at_most_once(all(), handler).with_queue(256, Overflow::DropOldest));
    }
    subscriptions
}

/// The 99th percentile of one half, in nanoseconds.
async fn half(which: Others, events: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let clock = SystemClock::shared();
    let bus = MemoryEventBus::new(clock.clone());
    let (latencies, handled) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let mut subscriptions = others(which);
    for name in ["book", "strategy"] {
        let handler = well_behaved(&latencies, &handled);
        subscriptions.push(SubscribeOptions::at_least_once(Pattern::new("*")?, name, handler));
        let handler = well_behaved(&latencies, &handled);
        subscriptions.push(SubscribeOptions::at_most_once(Pattern::new("*")?, handler));
    }
    for options in subscriptions {
        bus.subscribe(options).await?;
    }
    let topic = Topic::new("prices:BTCUSDT")?;
    let mut next = clock.now();
    for n in 0..events {
        next = next + PACE;
        // Spinning would take one of the cores; that it wakes up late does not matter, since an event carries the moment of its publish.
        clock.sleep_until(next).await;
        let stamp = SystemClock.now().since_origin().as_nanos() as u64;
        let event = Envelope::new(topic.clone(), "price.v1", clock.wall(), stamp.to_le_bytes().to_vec())
            .with_key(format!("key{}", n % 8));
        bus.publish(event, Delivery::AtLeastOnce).await?;
    }
    let give_up = SystemClock.now() + Duration::from_secs(30);
    while handled.load(Ordering::Relaxed) < 4 * events {
        if SystemClock.now() > give_up {
            return Err(format!("only {} of {} were handled", handled.load(Ordering::Relaxed), 4 * events).into());
        }
        tokio::task::yield_now().await;
    }
    bus.abandon();
    let mut latencies = std::mem::take(&mut *latencies.lock());
    latencies.sort_unstable();
    Ok(latencies[latencies.len() * 99 / 100])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn prove(events: u64) -> Result<bool, Box<dyn std::error::Error>> {
    half(Others::WorkToo, events / 4).await?;
    let (mut faults, mut nothing) = (Vec::new(), Vec::new());
    println!("{:>4} {:>14} {:>14} {:>9} {:>9}", "pair", "p99 without", "p99 with", "with", "A/A");
    for pair in 0..PAIRS {
        let (without, with) = if pair % 2 == 0 {
            let without = half(Others::WorkToo, events).await?;
            (without, half(Others::Misbehave, events).await?)
        } else {
            let with = half(Others::Misbehave, events).await?;
            (half(Others::WorkToo, events).await?, with)
        };
        let again = half(Others::WorkToo, events).await?;
        faults.push(with as f64 / without as f64);
        nothing.push(again as f64 / without as f64);
        let us = |nanos: u64| format!("{:.1} us", nanos as f64 / 1e3);
        println!("{pair:>4} {:>14} {:>14} {:>9.3} {:>9.3}", us(without), us(with), faults[pair], nothing[pair]);
    }
    let (moved, noise) = (median(faults), median(nothing));
    println!("median of {PAIRS}: {moved:.3} with the three, {noise:.3} without any change");
    Ok(moved < 1.1)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let events = match &arguments[..] {
        [] => Some(10_000),
        [name, events] if name == "--batches" => {
            events.parse().ok().filter(|events| (100..=1_000_000).contains(events))
        }
        _ => None,
    };
    let Some(events) = events else {
        let asked = arguments.iter().any(|argument| argument == "--help");
        eprintln!("{HELP}");
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    // The panics are meant; printing each would be what is measured.
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&"as it was told to") {
            eprintln!("{info}");
        }
    }));
    // This thread publishes; all handlers share another, where one that is in the way is in everybody's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime.expect("one more thread").block_on(prove(events)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
