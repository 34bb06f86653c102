//! A decision that explains itself.

use std::{borrow::Cow, sync::Arc};

use infra_types::{Decimal, OrderId, Scope};
use serde::{Serialize, Serializer};

/// The stable codes of checks. A code never changes its meaning; new ones may come.
pub mod code {
    /// Quantity of one order.
    pub const ORDER_QTY: &str = "order_qty";
    /// Value of one order.
    pub const ORDER_NOTIONAL: &str = "order_notional";
    /// No quote of an instrument whose price is needed.
    pub const NO_REFERENCE_PRICE: &str = "no_reference_price";
    /// The quote is too old. On an approved order: its age in seconds against the limit.
    pub const STALE_REFERENCE_PRICE: &str = "stale_reference_price";
    /// The account was never opened.
    pub const UNKNOWN_ACCOUNT: &str = "unknown_account";
    /// The instrument was never registered.
    pub const UNKNOWN_INSTRUMENT: &str = "unknown_instrument";
    /// The venue's price grid.
    pub const SPEC_TICK: &str = "spec_tick";
    /// The venue's quantity grid.
    pub const SPEC_LOT: &str = "spec_lot";
    /// The venue's smallest and largest quantity.
    pub const SPEC_QTY: &str = "spec_qty";
    /// The venue's smallest value.
    pub const SPEC_NOTIONAL: &str = "spec_notional";
    /// A rule of the venue that has no code of its own yet.
    pub const SPEC_OTHER: &str = "spec_other";
    /// No rate between two currencies.
    pub const MISSING_CONVERSION: &str = "missing_conversion";
    /// Limits are stored that this program cannot follow.
    pub const LIMITS_UNREADABLE: &str = "limits_unreadable";
    /// A limit has no value: nothing passes it.
    pub const LIMIT_UNSET: &str = "limit_unset";
    /// Gross exposure of all accounts.
    pub const EXPOSURE_FIRM: &str = "exposure_firm";
    /// Gross exposure of one account.
    pub const EXPOSURE_ACCOUNT: &str = "exposure_account";
    /// Gross exposure of one group of accounts.
    pub const EXPOSURE_GROUP: &str = "exposure_group";
    /// Gross exposure at one venue.
    pub const EXPOSURE_VENUE: &str = "exposure_venue";
    /// Gross exposure of one strategy.
    pub const EXPOSURE_STRATEGY: &str = "exposure_strategy";
    /// Gross exposure of all accounts in one instrument.
    pub const EXPOSURE_INSTRUMENT: &str = "exposure_instrument";
    /// Exposure of one account in one instrument.
    pub const POSITION_NOTIONAL: &str = "position_notional";
    /// How many positions are open or being opened.
    pub const MAX_POSITIONS: &str = "max_positions";
    /// The largest position that the ledger can count exactly.
    pub const POSITION_QTY: &str = "position_qty";
    /// How many orders of an account are approved and not over.
    pub const HELD_ORDERS: &str = "held_orders";
    /// What an account lost today.
    pub const DAILY_LOSS: &str = "daily_loss";
    /// How far an account is below its best.
    pub const DRAWDOWN: &str = "drawdown";
    /// The order would turn a position to the other side: close first.
    pub const WOULD_FLIP: &str = "would_flip";
    /// Reduce-only, and nothing is left to reduce.
    pub const NOTHING_TO_REDUCE: &str = "nothing_to_reduce";
    /// Only orders that reduce may pass now.
    pub const NOT_REDUCING_IN_HALT: &str = "not_reducing_in_halt";
    /// An order's price is too far from the market, on the side that hurts.
    pub const PRICE_COLLAR: &str = "price_collar";
    /// The market moved too far in the window.
    pub const PRICE_MOVE: &str = "price_move";
    /// Bid and ask are too far apart.
    pub const SPREAD: &str = "spread";
    /// Net exposure if all buys that work are filled.
    pub const NET_LONG: &str = "net_long";
    /// Net exposure if all sells that work are filled.
    pub const NET_SHORT: &str = "net_short";
    /// Gross exposure against a multiple of equity.
    pub const LEVERAGE: &str = "leverage";
    /// Long position and working buys.
    pub const LONG_QTY: &str = "long_qty";
    /// Short position and working sells.
    pub const SHORT_QTY: &str = "short_qty";
    /// How many opening orders work.
    pub const WORKING_ORDERS: &str = "working_orders";
    /// Quantity opened in a window.
    pub const QTY_RATE: &str = "qty_rate";
    /// Value opened in a window.
    pub const NOTIONAL_RATE: &str = "notional_rate";
    /// Messages in a window.
    pub const MESSAGE_RATE: &str = "message_rate";
    /// An order like it was approved within the window.
    pub const DUPLICATE_ORDER: &str = "duplicate_order";
    /// Approvals since a named person enabled the strategy last.
    pub const EXECUTIONS: &str = "executions";
    /// The order names no event that asked for it.
    pub const NO_CAUSE: &str = "no_cause";
    /// Orders that one event caused.
    pub const ORDERS_PER_CAUSE: &str = "orders_per_cause";
    /// Own working orders that the order could trade with.
    pub const SELF_MATCH: &str = "self_match";
    /// Nothing may be opened there.
    pub const RESTRICTED: &str = "restricted";
    /// The order names nobody that answers for it.
    pub const USER_REQUIRED: &str = "user_required";
    /// How much of everything stands in one place.
    pub const CONCENTRATION: &str = "concentration";
    /// An amount is too large to be kept exactly.
    pub const OVERFLOW: &str = "overflow";
}

/// How near to its limit a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Below the part at which the rule warns.
    Ok,
    /// At or above that part, and within the limit (FIA 2024).
    Warn,
    /// Beyond the limit, or an input is missing.
    Breach,
}

/// One check: what was compared with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check; see [`code`].
    pub code: &'static str,
    /// The rule that asked for it, by its id (a limit outside the rules by its name); none if no limit did.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// What it covers.
    pub scope: Scope,
    /// The figure, with this order in it; where a ledger counter refused, its value without the order.
    pub value: Decimal,
    /// What the figure may be at most (for losses: must stay below).
    pub limit: Decimal,
    /// `limit − value`.
    pub headroom: Decimal,
    /// Whether it passed.
    pub passed: bool,
    /// How near.
    pub level: Level,
    /// A rule that is only tried out: it refuses nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// It did not pass, and two people let this one order through all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overridden: bool,
    /// One line for a person; may be empty.
    pub note: Cow<'static, str>,
    /// From which part of the limit on it warns.
    #[serde(skip)]
    pub(crate) warn_at: Option<Decimal>,
}

fn as_text<S: Serializer>(rule: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    rule.as_deref().serialize(to)
}

impl Check {
    /// A figure against its limit.
    #[must_use]
    pub fn new(code: &'static str, scope: Scope, value: Decimal, limit: Decimal, passed: bool) -> Self {
        let headroom = limit.saturating_sub(value);
        let level = if passed { Level::Ok } else { Level::Breach };
        Self {
            code,
            rule: None,
            scope,
            value,
            limit,
            headroom,
            passed,
            level,
            shadow: false,
            overridden: false,
            note: Cow::Borrowed(""),
            warn_at: None,
        }
    }

    /// `value` may be `limit` at most.
    #[must_use]
    pub fn at_most(code: &'static str, scope: Scope, value: Decimal, limit: Decimal) -> Self {
        Self::new(code, scope, value, limit, value <= limit)
    }

    /// Something that is needed is not there.
    #[must_use]
    pub fn missing(code: &'static str, scope: Scope, note: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, scope, Decimal::ZERO, Decimal::ZERO, false).with_note(note)
    }

    /// A limit that nobody set.
    #[must_use]
    pub fn unset(limit: &'static str, scope: Scope) -> Self {
        Self::missing(code::LIMIT_UNSET, scope, format!("set {limit}: without it nothing passes"))
    }

    /// Adds a line for a person.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<Cow<'static, str>>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether it refuses the order: it did not pass, and it is neither tried out nor overridden.
    #[must_use]
    pub fn refuses(&self) -> bool {
        !self.passed && !self.shadow && !self.overridden
    }

    /// Takes another figure, and with it headroom and level; whether it passed stays as it is.
    pub(crate) fn measure(&mut self, value: Decimal) {
        self.value = value;
        self.headroom = self.limit.saturating_sub(value);
        self.grade();
    }

    fn grade(&mut self) {
        let warns = |at: Decimal| self.value >= at.saturating_mul(self.limit);
        self.level = match (self.passed, self.warn_at) {
            (false, _) => Level::Breach,
            (true, Some(at)) if warns(at) => Level::Warn,
            _ => Level::Ok,
        };
    }
}

/// Every check of one order and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The order.
    pub order: OrderId,
    /// Whether all checks passed that refuse if they do not.
    pub approved: bool,
    /// Under which version of the limits; 0 for limits that are in no store.
    pub limits: u64,
    /// The checks in the order they were made. What could not be judged for want of an input is left out: the
    /// missing input is there as a failed check.
    pub checks: Vec<Check>,
}

impl Decision {
    /// The verdict over `checks`.
    #[must_use]
    pub fn over(order: OrderId, mut checks: Vec<Check>) -> Self {
        checks.iter_mut().for_each(Check::grade);
        let approved = !checks.iter().any(Check::refuses);
        Self { order, approved, limits: 0, checks }
    }

    /// The same, made under this version of the limits.
    #[must_use]
    pub fn under(mut self, limits: u64) -> Self {
        self.limits = limits;
        self
    }

    /// The checks that refuse the order.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| c.refuses())
    }

    /// The checks that would have refused the order if their rules were not only tried out.
    pub fn shadow_failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| !c.passed && c.shadow)
    }

    /// The highest level of all checks that count.
    #[must_use]
    pub fn level(&self) -> Level {
        self.checks.iter().filter(|c| !c.shadow).map(|c| c.level).max().unwrap_or(Level::Ok)
    }

    /// The code of the first check that refuses.
    #[must_use]
    pub fn first_code(&self) -> Option<&'static str> {
        self.failures().next().map(|c| c.code)
    }

    /// Whether a check with this code refuses.
    #[must_use]
    pub fn failed(&self, code: &str) -> bool {
        self.failures().any(|c| c.code == code)
    }

    /// The checks that refuse, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let line = |c: &Check| {
            let figures = format!("{} ({}: {} of {})", c.code, c.scope, c.value, c.limit);
            if c.note.is_empty() { figures } else { format!("{figures}: {}", c.note) }
        };
        self.failures().map(line).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_says_what_failed_and_goes_to_json() {
        let decision = Decision::over(
            "o-1".parse().unwrap(),
            vec![
                Check::at_most(code::ORDER_QTY, Scope::Firm, Decimal::ONE, Decimal::TWO),
                Check::at_most(code::ORDER_NOTIONAL, Scope::Firm, Decimal::TEN, Decimal::TWO),
                Check::unset("drawdown_max", Scope::Firm),
            ],
        );
        assert!(!decision.approved);
        assert_eq!(decision.first_code(), Some("order_notional"));
        assert!(decision.failed("limit_unset") && !decision.failed("order_qty"));
        assert!(decision.reason().contains("order_notional (firm: 10 of 2); limit_unset"));
        let json = serde_json::to_value(&decision).unwrap();
        assert_eq!(json["checks"][1]["headroom"], "-8");
        assert_eq!(json["checks"][1]["scope"], "firm");
    }

    #[test]
    fn a_part_of_the_limit_warns_and_a_trial_refuses_nothing() {
        let check = |value| Check {
            warn_at: Some(Decimal::new(8, 1)),
            ..Check::at_most(code::ORDER_QTY, Scope::Firm, Decimal::from(value), Decimal::TEN)
        };
        let trial = Check { shadow: true, rule: Some("r".into()), ..check(11) };
        let decision = Decision::over("o".parse().unwrap(), vec![check(7), check(8), trial]).under(3);
        let levels: Vec<_> = decision.checks.iter().map(|c| c.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Warn, Level::Breach]);
        assert_eq!((decision.approved, decision.level(), decision.shadow_failures().count()), (true, Level::Warn, 1));
        let json = serde_json::to_value(&decision).unwrap();
        assert_eq!((&json["limits"], &json["checks"][2]["rule"]), (&3.into(), &"r".into()));
        assert!(json["checks"][0].get("shadow").is_none());
        let refused = Decision::over("o".parse().unwrap(), vec![check(11)]);
        assert!(!refused.approved && !Decision { approved: true, ..refused }.checks[0].passed);
    }
}
