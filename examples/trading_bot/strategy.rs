//! A small strategy, meant to be read: buy when the short average of the mid price rises above the long one, sell what is
//! held when it falls below. Its whole state is serialisable, so that it can stop anywhere and go on.

use infra_types::{Decimal, Side, Timestamp};
use serde::{Deserialize, Serialize};

use crate::data::MarketEvent;

/// Weight of a new price in the short and the long average.
const FAST: Decimal = Decimal::from_parts(8, 0, 0, false, 2);
const SLOW: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
/// How far the averages must part, as a part of the price (0.2 basis points).
const EDGE: Decimal = Decimal::from_parts(2, 0, 0, false, 5);
/// Prices before the averages mean anything.
const WARM_UP: u32 = 100;
/// Milliseconds between two signals on one instrument.
const PAUSE_MS: i64 = 400;
/// What is spent at full confidence, in the quote currency.
const STAKE: Decimal = Decimal::from_parts(12_000, 0, 0, false, 0);

/// What the strategy remembers of one instrument.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Averages {
    fast: Decimal,
    slow: Decimal,
    prices: u32,
    /// The best prices, for the order's limit.
    pub bid: Decimal,
    /// See `bid`.
    pub ask: Decimal,
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
    pub averages: Vec<Averages>,
    /// How many signals there were.
    pub signals: u64,
}

impl Strategy {
    /// For so many instruments.
    pub(crate) fn new(instruments: usize) -> Self {
        Self { averages: vec![Averages::default(); instruments], signals: 0 }
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
        let MarketEvent::Quote { bid, ask } = event else { return None };
        let state = &mut self.averages[instrument];
        (state.bid, state.ask) = (*bid, *ask);
        let mid = (*bid + *ask) / Decimal::TWO;
        if state.prices == 0 {
            (state.fast, state.slow) = (mid, mid);
        }
        // Eight places keep the averages exact to far below a tick and their size bounded.
        state.fast = (state.fast + (mid - state.fast) * FAST).round_dp(8);
        state.slow = (state.slow + (mid - state.slow) * SLOW).round_dp(8);
        state.prices = state.prices.saturating_add(1);
        if state.prices < WARM_UP || is_working || at.as_millis() - state.last_signal_ms < PAUSE_MS {
            return None;
        }
        let edge = (state.fast - state.slow) / mid;
        let confidence = (edge.abs() / (EDGE * Decimal::from(8))).min(Decimal::ONE).round_dp(4);
        let (side, qty, price) = if edge > EDGE && held.is_zero() {
            (Side::Buy, STAKE * confidence / *ask, *ask)
        } else if edge < -EDGE && held > Decimal::ZERO {
            (Side::Sell, held, *bid)
        } else {
            return None;
        };
        state.last_signal_ms = at.as_millis();
        self.signals += 1;
        Some(Signal { number: self.signals, instrument, side, qty, price, confidence, at })
    }
}
