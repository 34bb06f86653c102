//! Orders, what venues say about them, and the states they pass through.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::EventId,
    ids::{AccountId, ExecutionId, OrderId, StrategyId, UserId},
    instrument::InstrumentId,
    money::{Money, Price, Qty},
    timestamp::Timestamp,
};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Adds to a position.
    Buy,
    /// Takes from a position.
    Sell,
}

impl Side {
    /// The other way.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// `qty` with the sign it gives a position: buys positive, sells negative.
    #[must_use]
    pub fn signed(self, qty: Qty) -> Decimal {
        match self {
            Self::Buy => qty.get(),
            Self::Sell => -qty.get(),
        }
    }
}

/// How the price is set. Both carry a price: a market order's is the worst one that risk may assume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// At this price or better.
    Limit(Price),
    /// At once, at any price; risk reckons with `worst`, or with the book's own price where that is worse.
    Market {
        /// The price that risk reckons with at least (a buy) or at most (a sell).
        worst: Price,
    },
}

impl OrderKind {
    /// The price that risk reckons with.
    #[must_use]
    pub fn price(&self) -> Price {
        match self {
            Self::Limit(price) | Self::Market { worst: price } => *price,
        }
    }
}

/// How long an order stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeInForce {
    /// Until filled or cancelled.
    #[default]
    GoodTillCancelled,
    /// What fills at once; the rest is cancelled.
    ImmediateOrCancel,
    /// All at once or nothing.
    FillOrKill,
}

/// An order as a strategy wants it: a wish. Only the gate turns it into something that may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Client order id, unique for ever.
    pub id: OrderId,
    /// For which account.
    pub account: AccountId,
    /// Decided by which algorithm.
    pub strategy: StrategyId,
    /// On whose responsibility, if a person's.
    pub user: Option<UserId>,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// How much; above zero to be approved.
    pub qty: Qty,
    /// At which price.
    pub kind: OrderKind,
    /// For how long.
    pub time_in_force: TimeInForce,
    /// It may only make the position smaller: refused or clipped where it would not.
    pub reduce_only: bool,
    /// The event that made the strategy want it (a signal's id): what leaves is compared with what came in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
}

impl Order {
    /// A limit order, good till cancelled.
    #[must_use]
    pub fn limit(
        id: OrderId,
        account: AccountId,
        strategy: StrategyId,
        instrument: InstrumentId,
        side: Side,
        qty: Qty,
        price: Price,
    ) -> Self {
        let kind = OrderKind::Limit(price);
        let time_in_force = TimeInForce::default();
        Self {
            id,
            account,
            strategy,
            user: None,
            instrument,
            side,
            qty,
            kind,
            time_in_force,
            reduce_only: false,
            cause: None,
        }
    }

    /// The same order, with the event that made the strategy want it.
    #[must_use]
    pub fn caused_by(mut self, cause: EventId) -> Self {
        self.cause = Some(cause);
        self
    }

    /// The same order, with the person who answers for it.
    #[must_use]
    pub fn by_user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// The same order, allowed only to make the position smaller.
    #[must_use]
    pub fn reduce_only(mut self) -> Self {
        self.reduce_only = true;
        self
    }

    /// The same order with another life time.
    #[must_use]
    pub fn with_time_in_force(mut self, time_in_force: TimeInForce) -> Self {
        self.time_in_force = time_in_force;
        self
    }

    /// Price × quantity in the quote currency, saturating at the largest decimal (which no limit admits).
    #[must_use]
    pub fn notional(&self) -> Decimal {
        self.kind.price().get().checked_mul(self.qty.get()).unwrap_or(Decimal::MAX)
    }
}

/// Where an order stands.
///
/// ```text
/// New ─ Sent ─ Acknowledged ─ PartiallyFilled ─ Filled
///   │     ├──────────┴───────────┴──── Cancelled | Expired
///   │     ├── Rejected
///   │     └── Unknown ── (whatever the venue then says)
///   └── Discarded
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Approved and written down, not sent.
    New,
    /// On its way; it may be live.
    Sent,
    /// The venue has it.
    Acknowledged,
    /// The venue filled a part.
    PartiallyFilled,
    /// The venue filled it all. Terminal.
    Filled,
    /// The venue took it back. Terminal.
    Cancelled,
    /// The venue refused it. Terminal.
    Rejected,
    /// Its time ran out at the venue. Terminal.
    Expired,
    /// Nobody knows: the reply was lost. It counts as live until the venue is asked.
    Unknown,
    /// It was never sent and never will be. Terminal.
    Discarded,
}

impl OrderStatus {
    /// Whether no fill can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Filled | Self::Cancelled | Self::Rejected | Self::Expired | Self::Discarded)
    }

    /// Whether the venue may hold it now.
    #[must_use]
    pub fn may_be_live(self) -> bool {
        !self.is_terminal() && self != Self::New
    }
}

/// One trade of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// How much, above zero.
    pub qty: Qty,
    /// At which price.
    pub price: Price,
    /// What the venue took for it, in whatever currency it takes.
    pub fee: Money,
    /// Whether our order was waiting in the book.
    pub is_maker: bool,
}

/// What a venue says happened to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum ExecutionKind {
    /// It is in the book.
    Acknowledged {
        /// The venue's own id of the order.
        venue_order_id: String,
    },
    /// A part of it, or all, traded.
    Filled(Fill),
    /// It was taken out of the book.
    Cancelled,
    /// It never was in the book.
    Rejected {
        /// The venue's words.
        reason: String,
    },
    /// Its time ran out.
    Expired,
    /// The reply to it was lost; ask the venue.
    Unknown {
        /// What went wrong.
        reason: String,
    },
}

/// One execution report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The venue's id of this report: a report seen twice counts once.
    pub id: ExecutionId,
    /// The client order id it is about.
    pub order: OrderId,
    /// The venue's time of it.
    pub at: Timestamp,
    /// What happened.
    pub kind: ExecutionKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_live_still_counts() {
        use OrderStatus::*;
        for status in [Sent, Acknowledged, PartiallyFilled, Unknown] {
            assert!(status.may_be_live() && !status.is_terminal(), "{status:?}");
        }
        for status in [Filled, Cancelled, Rejected, Expired, Discarded] {
            assert!(status.is_terminal() && !status.may_be_live(), "{status:?}");
        }
        assert!(!New.is_terminal() && !New.may_be_live());
    }

    #[test]
    fn a_huge_order_saturates_instead_of_wrapping() {
        let order = Order::limit(
            "o".parse().unwrap(),
            "a".parse().unwrap(),
            "s".parse().unwrap(),
            "v/x".parse().unwrap(),
            Side::Sell,
            Qty::new(Decimal::MAX).unwrap(),
            Price::new(Decimal::MAX).unwrap(),
        );
        assert_eq!(order.notional(), Decimal::MAX);
    }
}
