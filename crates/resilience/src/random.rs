//! Randomness comes in by parameter, so that a test or a replay owns it.

use std::fmt;

use parking_lot::Mutex;
use rand::{RngCore, SeedableRng, rngs::SmallRng};

/// Where the jitter of a retry comes from. A closure `Fn() -> u64` is one.
pub trait RandomSource: Send + Sync {
    /// 64 evenly spread bits.
    fn next_u64(&self) -> u64;
}

impl<F: Fn() -> u64 + Send + Sync> RandomSource for F {
    fn next_u64(&self) -> u64 {
        self()
    }
}

/// A small generator, good for jitter and for nothing secret.
pub struct SeededRandom(Mutex<SmallRng>);

impl SeededRandom {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(SmallRng::seed_from_u64(seed)))
    }

    /// Seeded by the operating system, so that a fleet does not move in step.
    #[must_use]
    pub fn from_os() -> Self {
        Self::new(rand::random())
    }
}

impl RandomSource for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

impl fmt::Debug for SeededRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededRandom")
    }
}
