//! A million random lives of a position, with halts: no exit ever makes it larger or turns it, and none is denied.
//!
//! Takes about 10 minutes.
//!
//! Pass how many sequences (default 1,000,000) and the first seed (default 0).
//!
//! `cargo run --release -p infra-risk-engine --example prove_reduce_only`
#![expect(clippy::unwrap_used, reason = "a proof that cannot go on has failed")]

#[expect(unreachable_pub, reason = "a test shares the file")]
#[path = "../tests/engine/sequences.rs"]
mod sequences;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let (count, first) = (arguments.next().unwrap_or(1_000_000), arguments.next().unwrap_or(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64;
    let begun = std::sync::atomic::AtomicU64::new(0);
    let mut seen = sequences::Seen::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let begun = &begun;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let mut seen = sequences::Seen::default();
                    for seed in (first + worker..first + count).step_by(threads as usize) {
                        seen.add(runtime.block_on(sequences::live(seed, 24)));
                        let done = begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                        if done.is_multiple_of((count / 20).max(1)) {
                            println!("{done} of {count} sequences, nothing grew, turned or was denied");
                        }
                    }
                    seen
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| seen.add(worker.join().expect("a sequence broke a promise")));
    });
    println!("{count} sequences: {seen:?}");
}
