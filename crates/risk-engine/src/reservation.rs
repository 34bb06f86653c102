//! What an approved order holds until it is over.

use infra_types::{
    AccountId, Currency, Decimal, Fill, GroupId, InstrumentId, Order, OrderId, Scaled, Side, StrategyId,
};
use serde::{Deserialize, Serialize};

use crate::{account::AccountState, decision::Decision, position::Position, strategy::StrategyState};

/// What an order does to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It makes exposure: it holds a part of the limits.
    Open,
    /// It only makes the position smaller: it holds a part of the position.
    Reduce,
}

/// What an order holds in the ledger. Only this crate makes or changes one; whoever keeps it stores it with the order
/// (it serialises) and gives it back to `settle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub(crate) order: OrderId,
    pub(crate) account: AccountId,
    pub(crate) instrument: InstrumentId,
    pub(crate) strategy: StrategyId,
    /// The account's group at approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<GroupId>,
    pub(crate) side: Side,
    pub(crate) effect: Effect,
    /// Base units that may still fill.
    pub(crate) remaining: Decimal,
    /// Held on the account's and the position's exposure, account currency.
    pub(crate) hold: Scaled,
    /// Held on the firm's exposure, firm currency.
    pub(crate) hold_firm: Scaled,
    /// Held of the position, at 1e-8.
    pub(crate) hold_reducing: i64,
    /// Its quantity is counted in whole units, else at 1e-8.
    #[serde(default)]
    pub(crate) whole: bool,
    /// It stands in the instrument's list of working orders.
    #[serde(default)]
    pub(crate) listed: bool,
    pub(crate) base: Currency,
    pub(crate) quote: Currency,
    /// Quote to account currency, account to firm currency, as they were known at approval.
    pub(crate) rate: Option<Decimal>,
    pub(crate) firm_rate: Option<Decimal>,
    /// A held order's record stands for it.
    #[serde(default)]
    pub(crate) recorded: bool,
}

impl Reservation {
    /// For which order.
    #[must_use]
    pub fn order(&self) -> &OrderId {
        &self.order
    }

    /// What the order does.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Base units that may still fill.
    #[must_use]
    pub fn remaining(&self) -> Decimal {
        self.remaining
    }

    /// For which account.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// Of what.
    #[must_use]
    pub fn instrument(&self) -> &InstrumentId {
        &self.instrument
    }

    /// Decided by which algorithm.
    #[must_use]
    pub fn strategy(&self) -> &StrategyId {
        &self.strategy
    }

    /// What it holds of the firm's exposure now, in the firm's currency.
    #[must_use]
    pub fn held_firm(&self) -> Decimal {
        self.hold_firm.to_decimal()
    }

    /// What it holds of the account's exposure now, in the account's currency.
    #[must_use]
    pub fn held(&self) -> Decimal {
        self.hold.to_decimal()
    }

    /// Whether it holds nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.remaining.is_zero()
    }
}

/// An order that passed, with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// The order to send: a reduce-only order may be smaller than it was asked.
    pub order: Order,
    /// What it holds.
    pub reservation: Reservation,
    /// Every check. In what `compose` sees, usage of shared counters is the engine's last knowledge; in what is returned
    /// it is the store's.
    pub decision: Decision,
}

/// What happened to an order, as far as a reservation cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// A part of it, or all, traded.
    Fill {
        /// The trade.
        fill: &'a Fill,
        /// Nothing can follow: what remains is released too.
        is_last: bool,
    },
    /// Cancelled, rejected, expired or discarded: all that remains is released.
    End,
}

/// What `settle` made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// The reservation as it is now.
    pub reservation: Reservation,
    /// The position before; none if there never was one.
    pub position_before: Option<Position>,
    /// The position after.
    pub position_after: Option<Position>,
    /// Profit or loss that was realised, before fees, in the account's currency.
    pub realised: Decimal,
    /// The fee in the account's currency; none if it has no rate (it is counted in `AccountState::fees_unconverted`).
    pub fee: Option<Decimal>,
    /// Base units that filled beyond what was reserved: booked, since the venue did it, and a reason to halt.
    pub overfilled: Decimal,
    /// A reduce order's fill made the position larger or turned it; booked, and a reason to halt.
    pub grew_by_reducing: bool,
    /// The account after.
    pub account: AccountState,
    /// The strategy after.
    pub strategy: StrategyState,
    /// The strategy's part of the position after; none if it never had one.
    pub strategy_position: Option<Position>,
}
