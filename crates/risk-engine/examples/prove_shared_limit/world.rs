//! What the bots share: a store, a limit, an account.

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{HolderConfig, LimitValue, Quote, RiskEngine, RiskLimits};
use infra_state_store::StateStore;
use infra_testkit::{PostgresServer, RedisServer, TestDir};
use infra_types::{AccountId, Decimal, InstrumentId, InstrumentSpec, Namespace, Order, OrderId, Side, SystemClock};

/// What every order is worth: 7 at 100.
pub(crate) const SIZE: i64 = 700;
/// The quantity of every order.
pub(crate) const QTY: i64 = 7;
/// The counter that the limit bounds, as the store names it.
pub(crate) const COUNTER: &str = "risk/used/exposure/firm";
const DEPOSIT: i64 = 100_000_000;
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the ledger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// In a file.
    Sqlite,
    /// In a server.
    Redis,
    /// In a server.
    Postgres,
}

impl Backend {
    pub(crate) const EVERY: [Self; 3] = [Self::Sqlite, Self::Redis, Self::Postgres];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|backend| backend.name() == name)
    }
}

/// What keeps what it acknowledged: synchronous file, `appendfsync always`, `fsync`.
pub(crate) enum Server {
    File(TestDir),
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Server {
    pub(crate) fn start(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::File(TestDir::new()),
            Backend::Redis => Self::Redis(RedisServer::start()),
            Backend::Postgres => Self::Postgres(PostgresServer::builder().durable().start()),
        }
    }

    pub(crate) fn target(&self) -> String {
        match self {
            Self::File(dir) => dir.file("ledger.db").display().to_string(),
            Self::Redis(server) => server.url(),
            Self::Postgres(server) => server.url(),
        }
    }
}

/// Opens a store with few connections, since many processes do.
///
/// # Errors
/// What is wrong with the target, or which feature is missing.
pub(crate) fn open(backend: Backend, target: &str) -> Result<Arc<dyn StateStore>, String> {
    match backend {
        Backend::Sqlite => sqlite(target),
        Backend::Redis => redis(target),
        Backend::Postgres => postgres(target),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(path: &str) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::SqliteConfig::new(path).with_busy_timeout(OPERATION_TIMEOUT);
    Ok(Arc::new(infra_state_store::SqliteStateStore::open(config, SystemClock::shared())))
}

#[cfg(feature = "redis")]
fn redis(url: &str) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::RedisConfig::from_url(url).map_err(|e| e.to_string())?;
    let config = config.with_operation_timeout(OPERATION_TIMEOUT);
    let store = infra_state_store::RedisStateStore::open(config, SystemClock::shared());
    Ok(Arc::new(store.map_err(|e| e.to_string())?))
}

#[cfg(feature = "postgres")]
fn postgres(url: &str) -> Result<Arc<dyn StateStore>, String> {
    let config = infra_backends::PostgresConfig::from_url(url).map_err(|e| e.to_string())?;
    let connections = std::num::NonZeroU32::new(3).ok_or("no connection")?;
    let config = config.with_operation_timeout(OPERATION_TIMEOUT).with_pool_max(connections);
    let store = infra_state_store::PostgresStateStore::open(config, SystemClock::shared());
    Ok(Arc::new(store.map_err(|e| e.to_string())?))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: &str) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `sqlite`".to_owned())
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `redis`".to_owned())
}

#[cfg(not(feature = "postgres"))]
fn postgres(_: &str) -> Result<Arc<dyn StateStore>, String> {
    Err("build it with feature `postgres`".to_owned())
}

pub(crate) fn account() -> AccountId {
    "main".parse().expect("an id")
}

pub(crate) fn instrument() -> InstrumentId {
    "v/BTCUSDT".parse().expect("an id")
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("a namespace")
}

/// An engine over the account, whose firm may have `limit` at once; nothing else is near its limit.
pub(crate) async fn engine(store: Arc<dyn StateStore>, space: &str, holder: HolderConfig, limit: i64) -> RiskEngine {
    let all = Some(LimitValue::Amount(Decimal::from(DEPOSIT)));
    let limits = RiskLimits {
        firm_currency: Some("USDT".parse().expect("a currency")),
        reference_age_max: Some(Duration::from_secs(24 * 3_600)),
        order_qty_max: Some(Decimal::from(1_000_000)),
        order_notional_max: Some(Decimal::from(DEPOSIT)),
        exposure_account_max: all,
        exposure_firm_max: Some(LimitValue::Amount(Decimal::from(limit))),
        position_notional_max: all,
        open_positions_max: Some(50),
        daily_loss_max: all,
        drawdown_max: all,
        ..RiskLimits::default()
    };
    let clock = SystemClock::shared();
    let engine = RiskEngine::new(store, namespace(space), clock.clone(), limits).expect("limits that make sense");
    let engine = engine.with_holder(holder).expect("times that make sense");
    engine.restore().await.expect("the ledger can be read");
    let usdt = "USDT".parse().expect("a currency");
    engine.open_account(account(), usdt, Decimal::from(DEPOSIT)).await.expect("the account can be opened");
    engine.register_instrument(spec()).expect("an instrument that makes sense");
    let price = "100".parse().expect("a price");
    engine.update_market(&instrument(), Quote { bid: price, ask: price, at: clock.wall() }).expect("a quote");
    engine
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
        id: instrument(),
        base: "BTC".parse().expect("a currency"),
        quote: "USDT".parse().expect("a currency"),
        tick_size: Decimal::ONE,
        lot_size: Decimal::ONE,
        qty_min: "1".parse().expect("a quantity"),
        qty_max: "1000000".parse().expect("a quantity"),
        notional_min: Decimal::ONE,
        maker_fee_rate: Decimal::ZERO,
        taker_fee_rate: Decimal::ZERO,
    }
}

/// An order at 100.
pub(crate) fn order(id: OrderId, side: Side, qty: i64) -> Order {
    let qty = Decimal::from(qty).try_into().expect("a quantity");
    let price = "100".parse().expect("a price");
    Order::limit(id, account(), "s".parse().expect("an id"), instrument(), side, qty, price)
}

/// A lease short enough to be waited for, and long enough for a machine that is busy with everybody's work.
pub(crate) fn holder(name: &str, ttl: Duration) -> HolderConfig {
    HolderConfig::new(name.parse().expect("an id")).with_ttl(ttl)
}
