//! A small number for each live thread, so that every thread can have shards that only it writes.
//!
//! The numbers belong to the process because threads do: two monitors may share a number safely, two live threads may
//! not. A thread that ends gives its number back, and the next owner goes on where the last one stopped.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many threads can have shards of their own at the same time; the others share one.
pub(crate) const EXCLUSIVE: usize = 64;

static TAKEN: AtomicU64 = AtomicU64::new(0);

struct Slot(usize);

impl Slot {
    fn claim() -> Self {
        let mut taken = TAKEN.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones();
            if free as usize >= EXCLUSIVE {
                return Self(EXCLUSIVE);
            }
            // Acquire pairs with the release in `drop`: the new owner sees every count that the last one stored.
            match TAKEN.compare_exchange_weak(taken, taken | 1 << free, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Self(free as usize),
                Err(now) => taken = now,
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0 < EXCLUSIVE {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

thread_local! {
    static SLOT: Slot = Slot::claim();
}

/// The calling thread's number, below [`EXCLUSIVE`] if it is the thread's own.
#[inline]
pub(crate) fn current() -> usize {
    // A thread that is being torn down has given its number back.
    SLOT.try_with(|slot| slot.0).unwrap_or(EXCLUSIVE)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Barrier};

    use super::*;

    #[test]
    fn live_threads_never_share_a_number() {
        for _ in 0..20 {
            let all_live = Barrier::new(16);
            let numbers: Vec<usize> = std::thread::scope(|s| {
                let threads: Vec<_> = (0..16)
                    .map(|_| {
                        s.spawn(|| {
                            let number = current();
                            all_live.wait();
                            number
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            let own: Vec<_> = numbers.iter().filter(|n| **n < EXCLUSIVE).collect();
            assert_eq!(own.iter().collect::<HashSet<_>>().len(), own.len(), "{numbers:?}");
        }
    }
}
