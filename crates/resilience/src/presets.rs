//! Starting points for the calls every bot makes. Each gives a builder: change what does not fit, then `build()`.
//!
//! | preset | deadline | attempts | backoff | attempt timeout | breaker opens at |
//! |---|---|---|---|---|---|
//! | [`market_data`] | 2 s | 3 | 50–500 ms | 600 ms | 10 of 20, for 5 s |
//! | [`account_read`] | 10 s | 3 | 200 ms–2 s | 3 s | 5 of 20, for 15 s |
//! | [`order_entry`] | 5 s | 2, never after an unknown outcome | 100–500 ms | 3 s | 5 of 20, for 10 s |
//! | [`order_cancel`] | 10 s | 5 | 50 ms–1 s | 2 s | never: exits always work |
//! | [`websocket_reconnect`] | none | no limit | 250 ms–30 s | 10 s | never: the backoff is the brake |
//! | [`database`] | none | 3 | 20–500 ms | none: the port has its own | 5 of 20, for 2 s |

use std::time::Duration;

use infra_types::{Backoff, Jitter};

use crate::{
    breaker::{BreakerBuilder, CircuitBreaker},
    policy::{Policy, PolicyBuilder},
    retry::Retry,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn backoff(initial: Duration, max: Duration, jitter: Jitter) -> Backoff {
    // The constants below are valid; a test builds every preset and looks at its delays.
    Backoff::new(initial, max, 2, jitter).unwrap_or_default()
}

fn breaker(name: &str, failures: u32, open_for: Duration) -> BreakerBuilder {
    CircuitBreaker::builder(name).failure_threshold(failures).window(20).open_for(open_for)
}

/// Tickers, books, candles: old data is worthless, so give up soon.
#[must_use]
pub fn market_data(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .deadline(ms(2_000))
        .retry(Retry::attempts(3).backoff(backoff(ms(50), ms(500), Jitter::Full)))
        .own_breaker(breaker(name, 10, ms(5_000)))
        .attempt_timeout(ms(600))
}

/// Balances, positions, order queries: worth a longer wait, because decisions depend on them.
#[must_use]
pub fn account_read(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .deadline(ms(10_000))
        .retry(Retry::attempts(3).backoff(backoff(ms(200), ms(2_000), Jitter::Full)))
        .own_breaker(breaker(name, 5, ms(15_000)))
        .attempt_timeout(ms(3_000))
}

/// New orders: use [`Policy::submit`], which sends once. `Keyed` calls are sent again only if the first surely had no
/// effect. Cancels do not belong here, because an open breaker would stop them: [`order_cancel`].
#[must_use]
pub fn order_entry(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .deadline(ms(5_000))
        .retry(Retry::attempts(2).backoff(backoff(ms(100), ms(500), Jitter::Equal)).stop_on_unknown())
        .own_breaker(breaker(name, 5, ms(10_000)))
        .attempt_timeout(ms(3_000))
}

/// Cancels (`Idempotent`): no breaker stands in their way.
#[must_use]
pub fn order_cancel(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .deadline(ms(10_000))
        .retry(Retry::attempts(5).backoff(backoff(ms(50), ms(1_000), Jitter::Full)))
        .attempt_timeout(ms(2_000))
}

/// Connecting a stream again, for as long as it takes. Jitter keeps at least half of every delay, so that a fleet neither
/// comes back in step nor hammers.
#[must_use]
pub fn websocket_reconnect(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .retry(
            Retry::attempts(u32::MAX)
                .backoff(backoff(ms(250), ms(30_000), Jitter::Equal))
                .retry_after_max(Duration::from_secs(600)),
        )
        .attempt_timeout(ms(10_000))
}

/// Reads and idempotent writes of a state store or event bus, whose port already limits the time of each operation.
#[must_use]
pub fn database(name: &str) -> PolicyBuilder {
    Policy::builder(name)
        .retry(Retry::attempts(3).backoff(backoff(ms(20), ms(500), Jitter::Full)))
        .own_breaker(breaker(name, 5, ms(2_000)))
}
