//! The same work for each channel: bursts from one publisher to some receivers, and single events whose way is timed.

mod burst;
mod single;

use std::{sync::Arc, time::Duration};

use infra_types::{Clock, Monotonic, SystemClock};
use tokio::runtime::{Builder, Runtime};

pub(crate) use burst::THROUGHPUTS;
pub(crate) use single::LATENCIES;

/// The one that the ratios are of.
pub(crate) const BESIDE: &str = "tokio_broadcast";

/// Events that may wait for a receiver.
const CAPACITY: usize = 1_024;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick {
    bid: u64,
    ask: u64,
    number: u64,
    sent: Monotonic,
}

impl Tick {
    fn new(number: u64) -> Self {
        Self { bid: number, ask: number + 1, number, sent: Monotonic::default() }
    }

    fn shared(number: u64) -> Arc<Self> {
        Arc::new(Self::new(number))
    }

    /// What a receiver does with it, so that it reads it.
    fn read(&self) -> u64 {
        self.bid ^ self.ask ^ self.number
    }
}

/// Two threads, as many as the smallest machine that runs a bot has cores.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

/// How a burst went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    time: Duration,
    sent: u64,
    /// By one receiver, on average.
    received: f64,
}

impl Burst {
    pub(crate) fn ns_per_event(&self) -> f64 {
        self.time.as_nanos() as f64 / self.received
    }

    /// The part that did not arrive.
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.received / self.sent as f64
    }
}

fn since(start: Monotonic) -> Duration {
    SystemClock.now().since(start)
}
