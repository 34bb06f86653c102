//! One publisher sends as fast as it can; the time ends when the last receiver has seen the end.

use std::{
    future::Future,
    hint::black_box,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use disruptor::{Producer, Sequence, build_single_producer, wait_strategies::WaitStrategy};
use infra_event_bus::{TypedTopic, WhenFull};
use infra_types::{Clock, Monotonic, SystemClock};
use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc},
    task::yield_now,
};

use super::{Burst, CAPACITY, Tick, since};

type Work = fn(&Runtime, usize, u64) -> Burst;

/// By name.
pub(crate) const THROUGHPUTS: &[(&str, Work)] = &[
    ("infra", infra),
    ("infra_owned", infra_owned),
    ("infra_values", infra_values),
    (super::BESIDE, tokio_broadcast),
    ("tokio_broadcast_paced", tokio_broadcast_paced),
    ("tokio_mpsc", tokio_mpsc),
    ("flume", flume_channels),
    ("async_broadcast", async_broadcast_channel),
    ("disruptor", disruptor_ring),
];

/// Runs receivers, each of which gives how many events it got, and the publisher as tasks.
fn measure<R, P>(rt: &Runtime, receivers: Vec<R>, publisher: P, sent: u64) -> Burst
where
    R: Future<Output = u64> + Send + 'static,
    P: Future<Output = ()> + Send + 'static,
{
    rt.block_on(async {
        let count = receivers.len();
        let receivers: Vec<_> = receivers.into_iter().map(tokio::spawn).collect();
        // They wait before it begins, or the lossy ones would lose what nobody could have received.
        for _ in 0..10 {
            yield_now().await;
        }
        let start = SystemClock.now();
        tokio::spawn(publisher).await.expect("it publishes");
        let mut received = 0;
        for receiver in receivers {
            received += receiver.await.expect("it receives");
        }
        Burst { time: since(start), sent, received: received as f64 / count as f64 }
    })
}

fn typed<T>(rt: &Runtime, receivers: usize, sent: u64, make: fn(u64) -> T, read: fn(&T) -> u64) -> Burst
where
    T: Send + Sync + 'static,
{
    let topic = TypedTopic::new(NonZeroUsize::new(CAPACITY).expect("above zero"), WhenFull::Block);
    let readers = (0..receivers).map(|_| {
        let mut receiver = topic.subscribe();
        async move {
            let mut got = 0;
            while let Some(event) = receiver.recv().await {
                black_box(read(&event));
                got += 1;
            }
            got
        }
    });
    let readers: Vec<_> = readers.collect();
    let publisher = async move {
        for n in 0..sent {
            topic.publish(make(n)).await.expect("open");
        }
    };
    measure(rt, readers, publisher, sent)
}

fn infra(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    typed(rt, receivers, sent, Tick::shared, |tick| tick.read())
}

/// Each receiver takes an `Arc` of its own, as the peers give it.
fn infra_owned(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    typed(rt, receivers, sent, Tick::shared, |tick| Arc::clone(tick).read())
}

/// The events themselves are in the topic: nothing is allocated for one.
fn infra_values(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    typed(rt, receivers, sent, Tick::new, Tick::read)
}

/// It never waits for a receiver; it lets others run now and then, or nearly all would be lost.
fn tokio_broadcast(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    broadcast_with(rt, receivers, sent, false)
}

/// Waits by hand while the slowest receiver has no room, so that nothing is lost.
fn tokio_broadcast_paced(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    broadcast_with(rt, receivers, sent, true)
}

fn broadcast_with(rt: &Runtime, receivers: usize, sent: u64, paced: bool) -> Burst {
    let (sender, _) = broadcast::channel::<Arc<Tick>>(CAPACITY);
    let readers = (0..receivers).map(|_| {
        let mut receiver = sender.subscribe();
        async move {
            let mut got = 0;
            loop {
                match receiver.recv().await {
                    Ok(tick) => {
                        black_box(tick.read());
                        got += 1;
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return got,
                }
            }
        }
    });
    let readers: Vec<_> = readers.collect();
    let publisher = async move {
        for n in 0..sent {
            if paced {
                while sender.len() >= CAPACITY {
                    yield_now().await;
                }
            } else if n % 64 == 63 {
                yield_now().await;
            }
            sender.send(Tick::shared(n)).expect("a receiver");
        }
    };
    measure(rt, readers, publisher, sent)
}

fn tokio_mpsc(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..receivers).map(|_| mpsc::channel::<Arc<Tick>>(CAPACITY)).unzip();
    let readers = receivers.into_iter().map(|mut receiver| async move {
        let mut got = 0;
        while let Some(tick) = receiver.recv().await {
            black_box(tick.read());
            got += 1;
        }
        got
    });
    let publisher = async move {
        for n in 0..sent {
            let tick = Tick::shared(n);
            for sender in &senders {
                sender.send(tick.clone()).await.expect("a receiver");
            }
        }
    };
    measure(rt, readers.collect(), publisher, sent)
}

fn flume_channels(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..receivers).map(|_| flume::bounded::<Arc<Tick>>(CAPACITY)).unzip();
    let readers = receivers.into_iter().map(|receiver| async move {
        let mut got = 0;
        while let Ok(tick) = receiver.recv_async().await {
            black_box(tick.read());
            got += 1;
        }
        got
    });
    let publisher = async move {
        for n in 0..sent {
            let tick = Tick::shared(n);
            for sender in &senders {
                sender.send_async(tick.clone()).await.expect("a receiver");
            }
        }
    };
    measure(rt, readers.collect(), publisher, sent)
}

fn async_broadcast_channel(rt: &Runtime, receivers: usize, sent: u64) -> Burst {
    let (sender, first) = async_broadcast::broadcast::<Arc<Tick>>(CAPACITY);
    let readers = (0..receivers).map(|_| {
        let mut receiver = first.new_receiver();
        async move {
            let mut got = 0;
            while let Ok(tick) = receiver.recv_direct().await {
                black_box(tick.read());
                got += 1;
            }
            got
        }
    });
    let readers = readers.collect();
    drop(first);
    let publisher = async move {
        for n in 0..sent {
            sender.broadcast_direct(Tick::shared(n)).await.expect("a receiver");
        }
    };
    measure(rt, readers, publisher, sent)
}

/// Waits on a thread as a task does: others get the processor. Spinning, its own choice, takes a core for each receiver.
#[derive(Clone, Copy)]
pub(super) struct YieldThread;

impl WaitStrategy for YieldThread {
    fn wait_for(&self, _: Sequence) {
        thread::yield_now();
    }
}

/// A thread for each receiver, and no task.
fn disruptor_ring(_: &Runtime, receivers: usize, sent: u64) -> Burst {
    let received = Arc::new(AtomicU64::new(0));
    let handler = || {
        let (received, mut got) = (received.clone(), 0);
        move |slot: &Option<Arc<Tick>>, sequence: Sequence, _: bool| {
            black_box(slot.as_ref().map(|tick| tick.read()));
            got += 1;
            if u64::try_from(sequence) == Ok(sent - 1) {
                received.fetch_add(got, Ordering::Relaxed);
            }
        }
    };
    let ring = || build_single_producer(CAPACITY, || None, YieldThread).handle_events_with(handler());
    let start = if receivers == 1 {
        publish_all(ring().build(), sent)
    } else {
        let four = ring().handle_events_with(handler()).handle_events_with(handler()).handle_events_with(handler());
        publish_all(four.build(), sent)
    };
    let received = received.load(Ordering::Relaxed) as f64 / receivers as f64;
    Burst { time: since(start), sent, received }
}

/// Gives when it began; the producer ends when everything is handled.
fn publish_all(mut producer: impl Producer<Option<Arc<Tick>>>, sent: u64) -> Monotonic {
    let start = SystemClock.now();
    for n in 0..sent {
        producer.publish(|slot| *slot = Some(Tick::shared(n)));
    }
    start
}
