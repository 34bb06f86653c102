//! How often something may happen, over all that share a store.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::Namespace;

use crate::{
    error::StoreError,
    ext::StateStoreExt,
    key::Key,
    store::{StateStore, Value},
    window::WindowLimit,
};

/// Whether something may happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "what is not allowed must not happen"]
pub struct Decision {
    /// Whether it may; then it is counted.
    pub allowed: bool,
    /// How many more may follow at this moment.
    pub remaining: u64,
    /// If it may not: when there will be room, unless others take it; none if it asks for more than `max` at once.
    pub retry_after: Option<Duration>,
}

/// Lets something happen at most `max` times in any stretch of a window's length, for everybody on the same store and namespace
/// together. The count slides in ten slices: what was counted makes room at most a tenth of the window late, and never early, so
/// that the limit holds across every boundary.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use infra_state_store::{MemoryStateStore, RateLimiter};
/// use infra_types::{Namespace, SystemClock};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = Arc::new(MemoryStateStore::new(SystemClock::shared()));
/// let limiter = RateLimiter::new(store, Namespace::new("rates")?);
/// let minute = Duration::from_secs(60);
/// assert_eq!(limiter.allow("orders/acc-1", 2, minute).await?.remaining, 1);
/// assert!(limiter.allow("orders/acc-1", 2, minute).await?.allowed);
/// let refused = limiter.allow("orders/acc-1", 2, minute).await?;
/// assert!(!refused.allowed && refused.retry_after > Some(Duration::ZERO));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// After `Ambiguous` the amount may be counted or not. To ask again is safe for the limit (it may count twice, never too little); to go
/// on without asking is not.
#[derive(Clone)]
pub struct RateLimiter {
    store: Arc<dyn StateStore>,
    namespace: Namespace,
}

impl RateLimiter {
    /// What the names of its window keys start with.
    pub const PREFIX: &'static str = "rate:";

    /// Limits whose windows live in `namespace` of `store`, beside whatever else is there.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>, namespace: Namespace) -> Self {
        Self { store, namespace }
    }

    /// Asks for one.
    ///
    /// # Errors
    /// As [`allow_n`](Self::allow_n).
    ///
    /// # Cancel safety
    /// As [`allow_n`](Self::allow_n).
    pub async fn allow(&self, key: &str, max: u64, window: Duration) -> Result<Decision, StoreError> {
        self.allow_n(key, 1, max, window).await
    }

    /// Asks for `n` at once: all or none. 0 is always allowed and counts nothing.
    ///
    /// # Errors
    /// `InvalidKey`; `Invalid` for an amount beyond 2⁵³−1, or a window under 10 ms or over 366 days; else as [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it counted.
    pub async fn allow_n(&self, key: &str, n: u64, max: u64, window: Duration) -> Result<Decision, StoreError> {
        let (by, max) = (amount(n)?, amount(max)?);
        let (allowed, used, retry_after) = self.ask(key, by, max, window).await?;
        Ok(Decision { allowed, remaining: left(max, used), retry_after })
    }

    /// Whether one would be allowed now; counts nothing, and does not tell how long to wait. For several limits at once, put their
    /// [`Op::Admit`](crate::Op::Admit) into one batch instead: all count or none does.
    ///
    /// # Errors
    /// As [`allow_n`](Self::allow_n).
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn peek(&self, key: &str, max: u64, window: Duration) -> Result<Decision, StoreError> {
        let max = amount(max)?;
        let (_, used, _) = self.ask(key, 0, max, window).await?;
        let remaining = left(max, used);
        Ok(Decision { allowed: remaining > 0, remaining, retry_after: None })
    }

    /// Forgets what was counted; whether there was anything.
    ///
    /// # Errors
    /// As [`StateStore::apply`].
    ///
    /// # Cancel safety
    /// Dropping the future may leave it forgotten.
    pub async fn reset(&self, key: &str) -> Result<bool, StoreError> {
        self.store.delete(&self.namespace, &window_key(key)?).await
    }

    async fn ask(
        &self,
        key: &str,
        by: i64,
        max: i64,
        window: Duration,
    ) -> Result<(bool, i64, Option<Duration>), StoreError> {
        let admitted = self.store.admit(&self.namespace, &window_key(key)?, by, WindowLimit::new(max, window)).await;
        match admitted {
            Ok(used) => Ok((true, used, None)),
            Err(StoreError::WindowFull { used, retry_after, .. }) => Ok((false, used, retry_after)),
            Err(e) => Err(e),
        }
    }
}

fn window_key(key: &str) -> Result<Key, StoreError> {
    if key.is_empty() {
        return Err(StoreError::InvalidKey { rule: "must not be empty" });
    }
    Key::window(format!("{}{key}", RateLimiter::PREFIX))
}

fn amount(n: u64) -> Result<i64, StoreError> {
    let too_much = || StoreError::Invalid { rule: "a rate limit counts at most 2^53-1".into() };
    i64::try_from(n).ok().filter(|n| *n <= Value::COUNTER_MAX).ok_or_else(too_much)
}

fn left(max: i64, used: i64) -> u64 {
    u64::try_from(max.saturating_sub(used)).unwrap_or(0)
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("store", &self.store).field("namespace", &self.namespace).finish()
    }
}
