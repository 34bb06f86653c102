//! What a breaker adds to a call that works.

use std::hint::black_box;

use criterion::Criterion;
use failsafe::futures::CircuitBreaker as _;
use infra_benches::{criterion, runtime};
use infra_resilience::{CircuitBreaker, Classify};
use infra_types::ErrorKind;
use recloser::{AsyncRecloser, Recloser};

#[derive(Debug)]
struct VenueError;

impl Classify for VenueError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Transient
    }
}

async fn venue() -> Result<u64, VenueError> {
    black_box(Ok(42))
}

fn successful_call(c: &mut Criterion) {
    let rt = runtime();
    let mut group = c.benchmark_group("resilience/successful_call");
    let ours = CircuitBreaker::new("venue", 5);
    group.bench_function("infra", |b| b.to_async(&rt).iter(|| ours.call(venue())));

    let recloser = AsyncRecloser::from(Recloser::default());
    group.bench_function("recloser", |b| b.to_async(&rt).iter(|| recloser.call(venue())));

    let failsafe = failsafe::Config::new().build();
    group.bench_function("failsafe", |b| b.to_async(&rt).iter(|| failsafe.call(venue())));
    group.finish();
}

fn main() {
    let mut c = criterion();
    successful_call(&mut c);
    c.final_summary();
}
