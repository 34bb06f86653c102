//! A small strategy, meant to be read: buy when the takers of the last trades mostly bought, sell what is held when they mostly
//! sold. Its whole state is serialisable, so that it can stop anywhere and go on.

use infra_types::{Decimal, Side, Timestamp};
use serde::{Deserialize, Serialize};

use crate::data::MarketEvent;

/// Weight of a new trade in the averages of flow and volume.
const WEIGHT: Decimal = Decimal::from_parts(8, 0, 0, false, 2);
/// Share of the volume that must have gone one way: to buy, and to sell what is held.
const BUY_ABOVE: Decimal = Decimal::from_parts(50, 0, 0, false, 2);
const SELL_BELOW: Decimal = Decimal::from_parts(10, 0, 0, true, 2);
/// Trades before the averages mean anything.
const WARM_UP: u32 = 20;
/// Milliseconds between two signals on one instrument.
const PAUSE_MS: i64 = 100;
/// What is spent at full confidence, in the quote currency.
const STAKE: Decimal = Decimal::from_parts(11_000, 0, 0, false, 0);

/// What the strategy remembers of one instrument.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Average of the traded value, buys positive and sells negative.
    signed: Decimal,
    /// Average of the traded value.
    volume: Decimal,
    trades: u32,
    /// The best prices, for the order's limit.
    pub(crate) bid: Decimal,
    /// See `bid`.
    pub(crate) ask: Decimal,
    last_signal_ms: i64,
}

/// What the strategy wants, and how sure it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Signal {
    /// Counts from 1 in a run.
    pub number: u64,
    /// Index of the instrument.
    pub instrument: usize,
    /// Which way.
    pub side: Side,
    /// How much, not yet on the venue's grid.
    pub qty: Decimal,
    /// The worst price.
    pub price: Decimal,
    /// From 0 to 1.
    pub confidence: Decimal,
    /// When, in the replay's time.
    pub at: Timestamp,
}

/// The strategy: a state per instrument and the number of the last signal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Strategy {
    /// By instrument.
    pub(crate) flows: Vec<Flow>,
    /// How many signals there were.
    pub(crate) signals: u64,
}

impl Strategy {
    /// For so many instruments.
    pub(crate) fn new(instruments: usize) -> Self {
        Self { flows: vec![Flow::default(); instruments], signals: 0 }
    }

    /// Looks at an event; `held` is what is held of the instrument, `is_working` whether an order of it is open.
    pub(crate) fn on_event(
        &mut self,
        instrument: usize,
        at: Timestamp,
        event: &MarketEvent,
        held: Decimal,
        is_working: bool,
    ) -> Option<Signal> {
        let state = &mut self.flows[instrument];
        let (price, qty, taker) = match event {
            MarketEvent::Quote { bid, ask } => {
                (state.bid, state.ask) = (*bid, *ask);
                return None;
            }
            MarketEvent::Trade { price, qty, side } => (*price, *qty, *side),
        };
        let value = price.saturating_mul(qty);
        let signed = if taker == Side::Buy { value } else { -value };
        // Eight places keep the averages exact to far below a cent and their size bounded.
        state.signed = (state.signed + (signed - state.signed) * WEIGHT).round_dp(8);
        state.volume = (state.volume + (value - state.volume) * WEIGHT).round_dp(8);
        state.trades = state.trades.saturating_add(1);
        let has_quote = state.bid > Decimal::ZERO && state.volume > Decimal::ZERO;
        let is_paused = at.as_millis() - state.last_signal_ms < PAUSE_MS;
        if !has_quote || state.trades < WARM_UP || is_working || is_paused {
            return None;
        }
        let imbalance = (state.signed / state.volume).round_dp(4);
        let confidence = imbalance.abs();
        let (side, qty, price) = if imbalance > BUY_ABOVE && held.is_zero() {
            (Side::Buy, STAKE * confidence / state.ask, state.ask)
        } else if imbalance < SELL_BELOW && held > Decimal::ZERO {
            (Side::Sell, held, state.bid)
        } else {
            return None;
        };
        state.last_signal_ms = at.as_millis();
        self.signals += 1;
        Some(Signal { number: self.signals, instrument, side, qty, price, confidence, at })
    }
}
