//! What bots look up often: typed views of a store, with a time to live. They know no driver: on memory they are a cache of this
//! process, on a shared store a cache of the fleet.
//!
//! | view | names in the namespace | stays, unless chosen otherwise |
//! |---|---|---|
//! | [`SignalCache`] | `signal:SYMBOL` | latest 1 day; history of the newest 100, 7 days after the last |
//! | [`MarketDataCache`] | `market:SYMBOL:TIMEFRAME` | latest twice its timeframe; history of the newest 500 closed candles |
//! | [`MetricsCache`] | `metrics:financial:ACCOUNT` | 5 minutes |
//! | | `metrics:custom:NAME` | latest 1 hour; history of the newest 1,000, 1 day after the last |
//! | [`PositionCache`] | `position:ACCOUNT/VENUE/SYMBOL` | 5 minutes |
//! | [`BalanceCache`] | `balance:ACCOUNT/CURRENCY` | 1 minute |
//! | [`SessionCache`] | `session:ID` | 1 day after it was last touched |
//! | [`PermissionCache`] | `perm:USER` | 5 minutes; evicted where cache keys are bounded |
//! | [`RateLimiter`](crate::RateLimiter) | `rate:KEY` | its window |
//!
//! Several views may share a namespace. A value that has a time of its own (a signal, a balance) never replaces a newer one, whoever
//! writes it when; its age is reckoned from that time by the clock that the view was given. What is too old to be trusted is for
//! the reader to say: [`Aged::is_fresh`]. Money is decimal throughout.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use infra_state_store::{MemoryStateStore, cache::{Balance, BalanceCache}};
//! use infra_types::{AccountId, Currency, Namespace, SystemClock};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let clock = SystemClock::shared();
//! let store = Arc::new(MemoryStateStore::new(clock.clone()));
//! let balances = BalanceCache::new(store, Namespace::new("bot")?, clock.clone());
//! let (account, currency) = (AccountId::new("main")?, Currency::new("USDT")?);
//! let (total, available) = ("1000.50".parse()?, "900".parse()?);
//! balances.put(&Balance { account: account.clone(), currency: currency.clone(), total, available, time: clock.wall() }).await?;
//! let found = balances.get(&(account, currency)).await?.ok_or("no balance")?;
//! assert!(found.is_fresh(Duration::from_secs(10)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod history;
mod market_data;
mod metrics;
mod position;
mod session;
mod signal;
mod typed;

pub use self::{
    market_data::{Candle, MarketDataCache, Timeframe},
    metrics::{Aggregate, FinancialSnapshot, Metric, MetricsCache, PositionTotals},
    position::{Balance, BalanceCache, Position, PositionCache},
    session::{PermissionCache, Permissions, Session, SessionCache},
    signal::{Signal, SignalAction, SignalCache, SignalStatistics},
    typed::{Aged, CachePage, Cached, TypedCache},
};
