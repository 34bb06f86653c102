//! Rules: what may be limited, for whom, how hard, and since when.
//!
//! A rule is one limit over one scope, or over each scope of a sort. All rules that cover an order are checked in one call. A rule
//! for one scope takes the place of the rule of the same kind and mode for each scope of that sort; so a limit that is tried out
//! (`Shadow`) never takes the place of one that is enforced.

use std::time::Duration;

use infra_types::{AccountId, Decimal, InstrumentId, Scope, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::config::{LimitValue, RiskLimits};

/// What a rule covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// One scope: the firm, a group, a venue, an account, a strategy, or a symbol at a venue.
    One(Scope),
    /// Every scope of this sort, each with a figure of its own.
    Each(ScopeKind),
    /// One account in one instrument.
    Position(AccountId, InstrumentId),
}

/// A sort of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// Groups of accounts; an account without a group is in none.
    Group,
    /// Venues.
    Venue,
    /// Accounts.
    Account,
    /// Strategies.
    Strategy,
    /// Symbols at a venue.
    Instrument,
    /// Accounts in instruments.
    Position,
}

/// Whether a rule refuses or only tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What breaks the rule is refused.
    #[default]
    Enforce,
    /// What breaks the rule is said in the decision and passes: for trying a limit out.
    Shadow,
}

/// One limit. Money is in the scope's currency: the account's for accounts and positions, the firm's for every other scope.
/// Quantities are in base units of the order's instrument. Windows slide: no stretch of their length holds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Limit {
    /// Quantity of one opening order (SEC 15c3-5(c)(1)(ii), RTS 6 art. 15(1)(c)).
    OrderQty(Decimal),
    /// Value of one opening order (RTS 6 art. 15(1)(b)).
    OrderNotional(LimitValue),
    /// Distance of an opening order's price from the middle of the market, on the side that hurts, as a part: 0.05 is 5 %
    /// (RTS 6 art. 15(1)(a)).
    PriceCollar(Decimal),
    /// How far the middle of the market may have moved within the window, as a part, for anything to be opened
    /// (RTS 6 art. 15(1)(a) over a period; FIA 2010: unusual price moves).
    PriceMove {
        /// As a part of the lowest price in the window.
        part: Decimal,
        /// In which time.
        window: Duration,
    },
    /// Distance of ask from bid, as a part of the middle (FIA 2024: unreasonable market data).
    Spread(Decimal),
    /// Age of the instrument's quote (FIA 2024).
    ReferenceAge(Duration),
    /// Positions at cost and working opening orders, longs and shorts added up (SEC 15c3-5(c)(1)(i)).
    Gross(LimitValue),
    /// The same, the shorter side taken off the longer one; working orders count against both sides. For the firm, groups and accounts.
    Net(LimitValue),
    /// Gross exposure as a multiple of equity. For the firm, groups and accounts.
    Leverage(Decimal),
    /// Share of everything that may stand in one place: gross exposure there as a part of the larger of all gross exposure and equity.
    /// For positions (of their account), instruments, venues, strategies and groups (of the firm).
    Concentration(Decimal),
    /// Position and working buys (RTS 6 art. 17(4), FIA 2024). For positions and instruments.
    LongQty(Decimal),
    /// Short position and working sells. For positions and instruments.
    ShortQty(Decimal),
    /// How many account × instrument pairs may be open or be opening. For the firm and accounts.
    OpenPositions(u32),
    /// How many opening orders may work at once. For the firm, accounts, strategies and positions.
    WorkingOrders(u32),
    /// Loss since midnight, realised and not, at which nothing more is opened (FIA 2010). For accounts and strategies.
    DailyLoss(LimitValue),
    /// Distance from the best, at which nothing more is opened. For accounts.
    Drawdown(LimitValue),
    /// Quantity of approved opening orders in a window (SEC 15c3-5(c)(1)(ii): over a short period). For instruments and positions.
    QtyRate {
        /// In base units.
        max: Decimal,
        /// In which time.
        window: Duration,
    },
    /// Value of approved opening orders in a window.
    NotionalRate {
        /// In the scope's currency.
        max: Decimal,
        /// In which time.
        window: Duration,
    },
    /// New orders, changes and cancels in a window (RTS 6 art. 15(1)(d)). Cancels and exits are counted and always pass (FIA 2024).
    MessageRate {
        /// How many.
        max: u32,
        /// In which time.
        window: Duration,
    },
    /// An order like one that was approved within the window (same account, strategy, instrument, side, quantity and price) is
    /// refused (SEC 15c3-5(c)(1)(ii)).
    Duplicates {
        /// In which time.
        window: Duration,
    },
    /// How many orders a strategy may have approved until a named person enables it again; nothing else resets it
    /// (RTS 6 art. 15(3)). For strategies.
    Executions(u32),
    /// How many orders one event may cause; orders without a cause are refused (SEC order on Knight, 2012: compare what leaves
    /// with what came in). For the firm.
    OrdersPerCause {
        /// How many.
        max: u32,
        /// How long an event is remembered.
        window: Duration,
    },
    /// An order that could trade with a working order of the same scope is refused (FIA 2024). For the firm, groups and accounts.
    SelfMatch,
    /// Nothing may be opened here (SEC 15c3-5(c)(2)(ii): restricted instruments, accounts, strategies).
    Restricted,
    /// An order must name the person that answers for it (RTS 6 art. 11).
    UserRequired,
}

/// One limit over one coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in a set: what checks, events and overrides call it. 1 to 64 bytes of printable ASCII.
    pub id: String,
    /// For whom.
    pub covers: Coverage,
    /// What.
    pub limit: Limit,
    /// At which part of the limit a decision warns (0.8 is 80 %); none warns never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_at: Option<Decimal>,
    /// Whether it refuses.
    #[serde(default)]
    pub mode: Mode,
}

/// Limits with their origin, as they stand in the store. Every decision names the version that it was made under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSet {
    /// Counts up by one with each change; 0 stands for limits that are in no store.
    pub version: u64,
    /// Who set them.
    pub author: UserId,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// What.
    pub limits: RiskLimits,
}
