//! How long an event takes from its publisher to its handler, alone and in a burst.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use criterion::{Criterion, Throughput};
use infra_benches::{criterion, runtime};
use infra_event_bus::{Delivery, EventBus, MemoryEventBus, Pattern, SubscribeOptions, handler_fn};
use infra_types::{Clock, Envelope, SystemClock, Topic};
use tokio::sync::{Notify, broadcast};

/// More than a burst, so that nobody has to drop or wait.
const QUEUE: usize = 1_024;

/// Says when the last event of a burst was handled.
#[derive(Default)]
struct Countdown {
    left: AtomicU64,
    done: Notify,
}

impl Countdown {
    fn start(&self, events: u64) {
        self.left.store(events, Ordering::Release);
    }

    fn handled(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

fn tick(topic: &Topic) -> Envelope {
    Envelope::new(topic.clone(), "tick.v1", SystemClock.wall(), r#"{"bid":"87232.00","ask":"87232.01"}"#)
}

fn publish_to_handle(c: &mut Criterion, burst: u64) {
    let rt = runtime();
    let topic = Topic::new("prices:BTCUSDT").expect("a valid topic");
    let mut group = c.benchmark_group(format!("event_bus/publish_to_handle_{burst}"));
    group.throughput(Throughput::Elements(burst)).sample_size(30);

    let (bus, countdown) = (MemoryEventBus::new(SystemClock::shared()), Arc::new(Countdown::default()));
    let seen = countdown.clone();
    let handler = handler_fn(move |_| {
        seen.handled();
        async { Ok(()) }
    });
    let pattern = Pattern::new("prices:*").expect("a valid pattern");
    rt.block_on(bus.subscribe(SubscribeOptions::at_most_once(pattern, handler))).expect("subscribed");
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| async {
            countdown.start(burst);
            for _ in 0..burst {
                bus.publish(tick(&topic), Delivery::AtMostOnce).await.expect("published");
            }
            countdown.done.notified().await;
        });
    });
    rt.block_on(bus.close()).expect("closed");

    let (sender, mut receiver) = broadcast::channel::<Arc<Envelope>>(QUEUE);
    let (seen, countdown) = (countdown.clone(), countdown);
    rt.spawn(async move {
        while receiver.recv().await.is_ok() {
            seen.handled();
        }
    });
    group.bench_function("tokio_broadcast", |b| {
        b.to_async(&rt).iter(|| async {
            countdown.start(burst);
            for _ in 0..burst {
                sender.send(Arc::new(tick(&topic))).expect("a receiver");
            }
            countdown.done.notified().await;
        });
    });

    group.bench_function("floor_envelopes", |b| {
        b.iter(|| (0..burst).for_each(|_| drop(black_box(tick(&topic)))));
    });
    group.finish();
}

fn main() {
    let mut c = criterion();
    publish_to_handle(&mut c, 1);
    publish_to_handle(&mut c, 1_000);
    c.final_summary();
}
