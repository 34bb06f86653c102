//! What stands in a line.

use std::{collections::BTreeSet, time::Duration};

use infra_types::{
    AccountId, Currency, Decimal, Fill, InstrumentId, InstrumentSpec, Monotonic, Order, OrderId, StrategyId, Timestamp,
    UserId,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::RiskLimits,
    engine::Stance,
    error::RiskError,
    market::Quote,
    portfolio::AccountMetrics,
    reservation::{Approval, Reservation, Settled},
};

/// What an engine is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Input {
    /// It was made: the first line of a log.
    Started {
        /// Version of the lines' form.
        format: u32,
        /// Where its ledger is.
        namespace: String,
        /// By which limits it decides.
        limits: Box<RiskLimits>,
    },
    /// A record that stood in the ledger before: bytes as text, or a counter.
    Stored {
        /// Where.
        key: String,
        /// A record of this crate, which is JSON.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<String>,
        /// A counter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counter: Option<i64>,
    },
    /// `restore`.
    Restore,
    /// `open_account`.
    Account {
        /// Which.
        account: AccountId,
        /// Kept in what.
        currency: Currency,
        /// With how much.
        deposit: Decimal,
    },
    /// `register_instrument`.
    Instrument {
        /// Its rules.
        spec: Box<InstrumentSpec>,
    },
    /// `set_conversion`.
    Conversion {
        /// One unit of what.
        from: Currency,
        /// In what.
        to: Currency,
        /// Is how much.
        rate: Decimal,
    },
    /// `update_account_metrics`.
    Reported {
        /// Of which account.
        account: AccountId,
        /// What.
        metrics: AccountMetrics,
    },
    /// `update_market`.
    Market {
        /// Of what.
        instrument: InstrumentId,
        /// The quote.
        quote: Quote,
    },
    /// `check_and_reserve`.
    Order {
        /// The wish.
        order: Box<Order>,
        /// Whether only orders that reduce might pass.
        reduce_only: bool,
    },
    /// `settle`.
    Settle {
        /// The order.
        order: Box<Order>,
        /// What it held.
        reservation: Box<Reservation>,
        /// What traded; none for an order's end.
        fill: Option<Fill>,
        /// Whether nothing follows.
        is_last: bool,
    },
    /// `checkpoint`.
    Checkpoint,
    /// `set_limits`.
    Limits {
        /// The version that the change was thought out on.
        base: u64,
        /// The new limits.
        limits: Box<RiskLimits>,
        /// Who set them.
        author: UserId,
        /// Why.
        reason: String,
    },
    /// `request_override`.
    OverrideAsked {
        /// For which order.
        order: Box<Order>,
        /// Past which rules.
        rules: BTreeSet<String>,
        /// Who asked.
        by: UserId,
        /// Why.
        reason: String,
        /// For how long.
        life: Duration,
    },
    /// `grant_override`.
    OverrideGranted {
        /// The order's account.
        account: AccountId,
        /// Which order.
        order: OrderId,
        /// Who granted it.
        by: UserId,
    },
    /// `enable_strategy`.
    StrategyEnabled {
        /// Which.
        strategy: StrategyId,
        /// Who looked.
        by: UserId,
        /// What was seen.
        reason: String,
    },
    /// `count_message`.
    Message {
        /// About which order.
        order: Box<Order>,
        /// A cancel, or a change.
        is_cancel: bool,
    },
    /// The log was closed: without this line its end was lost.
    Finished {
        /// How many lines could not be written.
        lost: u64,
    },
}

impl Input {
    pub(super) fn order(order: &Order, stance: Stance) -> Self {
        Self::Order { order: Box::new(order.clone()), reduce_only: stance == Stance::ReduceOnly }
    }
}

/// What it answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Output<'a> {
    Done,
    Approved(&'a Approval),
    Refused(&'a crate::Decision),
    Settled(&'a Settled),
    Answered(serde_json::Value),
    Failed { kind: String, error: String },
}

impl<'a> Output<'a> {
    pub(super) fn failed(error: &'a RiskError) -> Self {
        match error {
            RiskError::Refused(decision) => Self::Refused(decision),
            other => Self::Failed { kind: format!("{:?}", other.kind()), error: other.to_string() },
        }
    }

    pub(super) fn done(result: &'a Result<(), RiskError>) -> Self {
        result.as_ref().map_or_else(Self::failed, |()| Self::Done)
    }
}

/// Whether what came out was decided by more than the inputs.
pub(super) fn is_interrupted(error: &RiskError) -> bool {
    matches!(error, RiskError::Store(_) | RiskError::Caller { .. } | RiskError::Contended { .. })
}

/// One entry as it is written.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    /// Counts the entries.
    pub(super) n: u64,
    /// Nanoseconds of the monotonic clock.
    pub(super) mono: u64,
    pub(super) wall: Timestamp,
    /// It cannot be decided again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) interrupted: bool,
    pub(super) input: &'a Input,
    pub(super) output: Output<'a>,
}

/// One entry as it is read.
#[derive(Deserialize)]
pub(super) struct Read {
    mono: u64,
    pub(super) wall: Timestamp,
    #[serde(default)]
    pub(super) interrupted: bool,
    pub(super) input: Input,
}

impl Read {
    pub(super) fn now(&self) -> Monotonic {
        Monotonic::from_origin(Duration::from_nanos(self.mono))
    }
}

pub(super) fn nanos(now: Monotonic) -> u64 {
    // Five hundred years.
    u64::try_from(now.since_origin().as_nanos()).unwrap_or(u64::MAX)
}

/// The digest that runs over the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u128);

impl Digest {
    pub(super) const START: Self = Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;

    pub(super) fn then(self, entry: &[u8]) -> Self {
        let before = self.0.to_be_bytes();
        let step = |digest: u128, byte: &u8| (digest ^ u128::from(*byte)).wrapping_mul(Self::PRIME);
        Self(before.iter().chain(entry).fold(Self::START.0, step))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const OPENING: &str = "{\"digest\":\"";
const MIDDLE: &str = "\",\"entry\":";

pub(super) fn frame(digest: Digest, entry: &str) -> String {
    format!("{OPENING}{digest}{MIDDLE}{entry}}}\n")
}

/// Digest and entry of a line.
pub(super) fn unframe(line: &str) -> Option<(&str, &str)> {
    let (digest, rest) = line.strip_suffix('\n').unwrap_or(line).strip_prefix(OPENING)?.split_at_checked(32)?;
    Some((digest, rest.strip_prefix(MIDDLE)?.strip_suffix('}')?))
}
