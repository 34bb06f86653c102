//! One event at a time: the next is sent when the receiver has seen the last one and sleeps again.

use std::{future::Future, num::NonZeroUsize, sync::Arc, time::Duration};

use infra_event_bus::{Received, TypedTopic, WhenFull};
use infra_types::{Clock, SystemClock};
use tokio::{
    runtime::Runtime,
    sync::{Notify, broadcast, mpsc},
    task::yield_now,
};

use super::{CAPACITY, Tick, since};

type Work = fn(&Runtime, usize) -> Vec<f64>;

/// By name. The ring of `disruptor` is not here: its receivers never sleep.
pub(crate) const LATENCIES: &[(&str, Work)] = &[
    ("infra", infra),
    (super::BESIDE, tokio_broadcast),
    ("tokio_mpsc", tokio_mpsc),
    ("flume", flume_channel),
    ("async_broadcast", async_broadcast_channel),
];

/// Sends one tick after the other, each when the one before was seen.
async fn send_each(times: usize, seen: Arc<Notify>, mut send: impl AsyncFnMut(Arc<Tick>)) {
    for n in 0..times as u64 {
        // The receiver's turn to go to sleep.
        yield_now().await;
        send(Arc::new(Tick { sent: SystemClock.now(), ..Tick::new(n) })).await;
        seen.notified().await;
    }
}

/// How long each took on its way, in nanoseconds.
async fn time_each(times: usize, seen: Arc<Notify>, mut receive: impl AsyncFnMut() -> Duration) -> Vec<f64> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        took.push(receive().await.as_nanos() as f64);
        seen.notify_one();
    }
    took
}

/// As tasks of their own.
fn both<S, R>(rt: &Runtime, sends: S, receives: R) -> Vec<f64>
where
    S: Future<Output = ()> + Send + 'static,
    R: Future<Output = Vec<f64>> + Send + 'static,
{
    rt.block_on(async {
        let receiver = tokio::spawn(receives);
        tokio::spawn(sends).await.expect("it publishes");
        receiver.await.expect("it receives")
    })
}

fn infra(rt: &Runtime, times: usize) -> Vec<f64> {
    let topic = TypedTopic::new(NonZeroUsize::new(CAPACITY).expect("above zero"), WhenFull::Block);
    let (seen, mut receiver) = (Arc::new(Notify::new()), topic.subscribe());
    let receives = time_each(times, seen.clone(), async move || {
        let tick: Received<'_, Arc<Tick>> = receiver.recv().await.expect("a tick");
        since(tick.sent)
    });
    let sends = send_each(times, seen, async move |tick| topic.publish(tick).await.expect("open"));
    both(rt, sends, receives)
}

fn tokio_broadcast(rt: &Runtime, times: usize) -> Vec<f64> {
    let (sender, mut receiver) = broadcast::channel::<Arc<Tick>>(CAPACITY);
    let seen = Arc::new(Notify::new());
    let receives = time_each(times, seen.clone(), async move || since(receiver.recv().await.expect("a tick").sent));
    let sends = send_each(times, seen, async move |tick| {
        sender.send(tick).expect("a receiver");
    });
    both(rt, sends, receives)
}

fn tokio_mpsc(rt: &Runtime, times: usize) -> Vec<f64> {
    let (sender, mut receiver) = mpsc::channel::<Arc<Tick>>(CAPACITY);
    let seen = Arc::new(Notify::new());
    let receives = time_each(times, seen.clone(), async move || since(receiver.recv().await.expect("a tick").sent));
    let sends = send_each(times, seen, async move |tick| sender.send(tick).await.expect("a receiver"));
    both(rt, sends, receives)
}

fn flume_channel(rt: &Runtime, times: usize) -> Vec<f64> {
    let (sender, receiver) = flume::bounded::<Arc<Tick>>(CAPACITY);
    let seen = Arc::new(Notify::new());
    let receives =
        time_each(times, seen.clone(), async move || since(receiver.recv_async().await.expect("a tick").sent));
    let sends = send_each(times, seen, async move |tick| sender.send_async(tick).await.expect("a receiver"));
    both(rt, sends, receives)
}

fn async_broadcast_channel(rt: &Runtime, times: usize) -> Vec<f64> {
    let (sender, mut receiver) = async_broadcast::broadcast::<Arc<Tick>>(CAPACITY);
    let seen = Arc::new(Notify::new());
    let receives =
        time_each(times, seen.clone(), async move || since(receiver.recv_direct().await.expect("a tick").sent));
    let sends = send_each(times, seen, async move |tick| {
        sender.broadcast_direct(tick).await.expect("a receiver");
    });
    both(rt, sends, receives)
}
