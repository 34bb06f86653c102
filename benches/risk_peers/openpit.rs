//! openpit, in memory, with four policies of its own. Two sets of four: one that reserves nothing, which is the quickest that it
//! can be with four, and one that reserves funds, which is what our ledger does.

use std::time::Duration;

use openpit::{
    AdjustmentAmount, Engine, FullSyncEngine, HasAccountAdjustmentBalance,
    HasAccountAdjustmentBalanceAverageEntryPrice, HasAccountAdjustmentBalanceLowerBound,
    HasAccountAdjustmentBalanceUpperBound, HasAccountAdjustmentHeld, HasAccountAdjustmentHeldLowerBound,
    HasAccountAdjustmentHeldUpperBound, HasAccountAdjustmentIncoming, HasAccountAdjustmentIncomingLowerBound,
    HasAccountAdjustmentIncomingUpperBound, HasAccountAdjustmentPnlOperation, HasAccountId, HasBalanceAsset,
    HasExecutionReportFillFee, HasExecutionReportIsFinal, HasExecutionReportLastTrade, HasFee, HasInstrument, HasPnl,
    HasPreTradeLock, HasRemainingReservedQuantity, HasSide, Instrument, LocalEngine, LocalSync, OrderOperation,
    PnlState, RequestFieldAccessError, SpotFundsMarketData, SpotFundsPricingSource,
    param::{
        AccountId, Asset, Fee, MonetaryAmount, Pnl, PositionSize, Price, Quantity, Side, Trade, TradeAmount, Volume,
    },
    pretrade::{
        PreTradeLock, PreTradeReservation,
        policies::{
            OrderSizeAccountAssetBarrier, OrderSizeAssetBarrier, OrderSizeBrokerBarrier, OrderSizeLimit,
            OrderSizeLimitPolicy, OrderSizeLimitSettings, OrderValidationPolicy, PnlBoundsBrokerBarrier,
            PnlBoundsKillSwitchPolicy, PnlBoundsKillSwitchSettings, RateLimit, RateLimitBrokerBarrier, RateLimitPolicy,
            RateLimitSettings, SpotFundsPolicy, SpotFundsSettings,
        },
    },
};

use super::{BURST, ORDERS, Peer, wish};

const ACCOUNT: u64 = 1;

fn asset(name: &str) -> Asset {
    Asset::new(name).expect("an asset")
}

fn missing<T>(field: &'static str) -> Result<T, RequestFieldAccessError> {
    Err(RequestFieldAccessError::new(field))
}

/// No execution is ever reported in this bench.
pub(crate) struct Report;

/// What the account starts with.
pub(crate) struct Deposit {
    asset: Asset,
    amount: PositionSize,
}

macro_rules! never {
    ($($what:ident $method:ident $gives:ty),+ $(,)?) => {
        $(impl $what for Report {
            fn $method(&self) -> Result<$gives, RequestFieldAccessError> {
                missing(stringify!($method))
            }
        })+
    };
}

never!(
    HasInstrument instrument &Instrument,
    HasAccountId account_id AccountId,
    HasSide side Side,
    HasPnl pnl Pnl,
    HasFee fee Fee,
    HasExecutionReportLastTrade last_trade Option<Trade>,
    HasExecutionReportFillFee fill_fee Option<MonetaryAmount>,
    HasRemainingReservedQuantity remaining_reserved_quantity Quantity,
    HasExecutionReportIsFinal is_final bool,
    HasPreTradeLock lock PreTradeLock,
);

macro_rules! unset {
    ($($what:ident $method:ident $gives:ty),+ $(,)?) => {
        $(impl $what for Deposit {
            fn $method(&self) -> Result<Option<$gives>, RequestFieldAccessError> {
                Ok(None)
            }
        })+
    };
}

unset!(
    HasAccountAdjustmentPnlOperation account_adjustment_pnl_operation PnlState,
    HasAccountAdjustmentBalanceAverageEntryPrice balance_average_entry_price Price,
    HasAccountAdjustmentBalanceLowerBound balance_lower PositionSize,
    HasAccountAdjustmentBalanceUpperBound balance_upper PositionSize,
    HasAccountAdjustmentHeld held AdjustmentAmount,
    HasAccountAdjustmentHeldLowerBound held_lower PositionSize,
    HasAccountAdjustmentHeldUpperBound held_upper PositionSize,
    HasAccountAdjustmentIncoming incoming AdjustmentAmount,
    HasAccountAdjustmentIncomingLowerBound incoming_lower PositionSize,
    HasAccountAdjustmentIncomingUpperBound incoming_upper PositionSize,
);

impl HasBalanceAsset for Deposit {
    fn balance_asset(&self) -> Result<&Asset, RequestFieldAccessError> {
        Ok(&self.asset)
    }
}

impl HasAccountAdjustmentBalance for Deposit {
    fn balance(&self) -> Result<Option<AdjustmentAmount>, RequestFieldAccessError> {
        Ok(Some(AdjustmentAmount::Absolute(self.amount)))
    }
}

fn size() -> OrderSizeLimitSettings {
    let limit = || OrderSizeLimit {
        max_quantity: Some(Quantity::from_str("100").expect("a quantity")),
        max_notional: Some(Volume::from_str("5000").expect("a volume")),
    };
    let of_asset = |name| OrderSizeAssetBarrier { limit: limit(), asset: asset(name) };
    let of_account = |name| OrderSizeAccountAssetBarrier {
        limit: limit(),
        account_id: AccountId::from_u64(ACCOUNT),
        asset: asset(name),
    };
    let broker = OrderSizeBrokerBarrier { limit: limit() };
    OrderSizeLimitSettings::new(Some(broker), ["BTC", "USDT"].map(of_asset), ["BTC", "USDT"].map(of_account))
        .expect("limits")
}

/// Its cheapest window: a counter, not a log.
fn rate() -> RateLimitSettings {
    let limit = RateLimit { max_orders: usize::MAX / 2, window: Duration::from_secs(1) };
    RateLimitSettings::new(Some(RateLimitBrokerBarrier { limit }), [], [], []).expect("limits")
}

fn pnl() -> PnlBoundsKillSwitchSettings {
    let lower_bound = Some(Pnl::from_str("-500").expect("an amount"));
    let barrier = PnlBoundsBrokerBarrier { settlement_asset: asset("USDT"), lower_bound, upper_bound: None };
    PnlBoundsKillSwitchSettings::new([barrier], []).expect("limits")
}

/// Which four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policies {
    /// Validation, size, rate, P&L: nothing is reserved. One thread.
    Checks,
    /// The same, for many threads, as ours is.
    ChecksShared,
    /// Validation, size, rate, funds: the order's value is held. One thread.
    Funds,
}

type Order = OrderOperation;

enum Of {
    Local(LocalEngine<Order, Report, Deposit>),
    Shared(FullSyncEngine<Order, Report, Deposit>),
}

pub(crate) struct Openpit {
    engine: Of,
    orders: Vec<Order>,
    /// Made before time is taken, since a call takes its order by value.
    ready: Vec<Order>,
    reserved: Vec<PreTradeReservation>,
    next: usize,
}

impl Openpit {
    pub(crate) fn new(policies: Policies) -> Self {
        let engine = match policies {
            Policies::Checks => {
                let builder = Engine::builder::<Order, Report, Deposit>().no_sync();
                let size = OrderSizeLimitPolicy::new(size());
                let rate = RateLimitPolicy::new(rate(), builder.storage_builder());
                let pnl = PnlBoundsKillSwitchPolicy::new(pnl(), builder.storage_builder());
                let builder = builder.pre_trade(OrderValidationPolicy::new()).pre_trade(size).pre_trade(rate);
                Of::Local(builder.pre_trade(pnl).build().expect("an engine"))
            }
            Policies::ChecksShared => {
                let builder = Engine::builder::<Order, Report, Deposit>().full_sync();
                let size = OrderSizeLimitPolicy::new(size());
                let rate = RateLimitPolicy::new(rate(), builder.storage_builder());
                let pnl = PnlBoundsKillSwitchPolicy::new(pnl(), builder.storage_builder());
                let builder = builder.pre_trade(OrderValidationPolicy::new()).pre_trade(size).pre_trade(rate);
                Of::Shared(builder.pre_trade(pnl).build().expect("an engine"))
            }
            Policies::Funds => {
                let builder = Engine::builder::<Order, Report, Deposit>().no_sync();
                let size = OrderSizeLimitPolicy::new(size());
                let rate = RateLimitPolicy::new(rate(), builder.storage_builder());
                let settings =
                    SpotFundsSettings::new(0, SpotFundsPricingSource::Mark, std::iter::empty()).expect("settings");
                let funds = SpotFundsPolicy::<LocalSync, LocalSync>::new(
                    settings,
                    None::<SpotFundsMarketData<LocalSync>>,
                    builder.storage_builder(),
                );
                let builder = builder.pre_trade(OrderValidationPolicy::new()).pre_trade(size).pre_trade(rate);
                let engine = builder.pre_trade(funds).build().expect("an engine");
                let amount = PositionSize::from_str("100000000").expect("an amount");
                let deposit = Deposit { asset: asset("USDT"), amount };
                engine.apply_account_adjustment(AccountId::from_u64(ACCOUNT), &[deposit]).expect("a deposit");
                Of::Local(engine)
            }
        };
        let orders = (0..ORDERS).map(order).collect();
        let (ready, reserved) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
        Self { engine, orders, ready, reserved, next: 0 }
    }
}

fn order(n: usize) -> Order {
    let (qty, price) = wish(n);
    let decimal = |whole: i64, places: usize| {
        format!("{}.{:0places$}", whole / 10_i64.pow(places as u32), whole % 10_i64.pow(places as u32))
    };
    OrderOperation {
        instrument: Instrument::new(asset("BTC"), asset("USDT")),
        account_id: AccountId::from_u64(ACCOUNT),
        side: Side::Buy,
        trade_amount: TradeAmount::Quantity(Quantity::from_str(&decimal(qty, 5)).expect("a quantity")),
        price: Some(Price::from_str(&decimal(price, 2)).expect("a price")),
    }
}

impl Peer for Openpit {
    fn prepare(&mut self, orders: usize) {
        for _ in 0..orders {
            self.ready.push(self.orders[self.next % ORDERS].clone());
            self.next += 1;
        }
    }

    #[inline]
    fn reserve(&mut self) -> bool {
        let Some(order) = self.ready.pop() else { return false };
        let reserved = match &self.engine {
            Of::Local(engine) => engine.execute_pre_trade(order),
            Of::Shared(engine) => engine.execute_pre_trade(order),
        };
        reserved.map(|reserved| self.reserved.push(reserved)).is_ok()
    }

    fn release(&mut self) {
        self.reserved.drain(..).for_each(|mut reserved| reserved.rollback());
    }
}
