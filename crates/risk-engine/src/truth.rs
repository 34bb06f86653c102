//! What a venue says of an account, and how the ledger differs from it.

use std::collections::{BTreeMap, BTreeSet};

use infra_types::{AccountId, BotId, Currency, Decimal, Fill, InstrumentId, OrderId, Scope, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    held::HeldState,
    position::Position,
    reservation::Settled,
    risk_events::{RiskEvent, RiskEventKind},
};

/// What a venue says of one account. Whatever it does not mention is not judged, but for open orders, of which it names all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VenueTruth {
    /// By our clock, before the first question was sent: what was approved since may be missing here honestly.
    pub asked_at: Timestamp,
    /// Every order that is open, and of those that are over at least the ones that were asked about.
    pub orders: BTreeMap<OrderId, VenueOrder>,
    /// Orders that the venue never had **and never will**. An adapter whose earlier request may still arrive leaves them out.
    pub never_had: BTreeSet<OrderId>,
    /// Signed quantities. Instruments that are left out are not compared.
    pub positions: BTreeMap<InstrumentId, Decimal>,
    /// What the account holds of its currency.
    pub balance: Option<VenueBalance>,
}

impl VenueTruth {
    /// Nothing is known yet.
    #[must_use]
    pub fn asked_at(asked_at: Timestamp) -> Self {
        let (orders, never_had) = (BTreeMap::new(), BTreeSet::new());
        Self { asked_at, orders, never_had, positions: BTreeMap::new(), balance: None }
    }
}

/// One order as the venue has it, by its client order id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VenueOrder {
    /// Of what.
    pub instrument: InstrumentId,
    /// Whether it can still fill.
    pub is_open: bool,
    /// How much filled in all.
    pub filled: Decimal,
    /// Its fills, oldest first; empty if the venue tells only the sum. What is not told is never made up.
    pub fills: Vec<Fill>,
}

/// What is in the account, in its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VenueBalance {
    /// What is left after paying for what is held: deposits + realised − fees − cost (spot).
    Cash(Decimal),
    /// What does not move with purchases: deposits + realised − fees (margin, futures).
    Wallet(Decimal),
}

/// One difference between ledger and venue, as it is when reconciliation ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum Difference {
    /// The quantity of a position.
    Position {
        /// Of what.
        instrument: InstrumentId,
        /// Ours.
        ledger: Decimal,
        /// The venue's.
        venue: Decimal,
    },
    /// The venue works an order that holds nothing of our limits.
    UnknownToUs {
        /// Its client order id.
        order: OrderId,
        /// Of what.
        instrument: InstrumentId,
        /// How much of it filled.
        filled: Decimal,
    },
    /// The venue says nothing of an order that we hold: it goes on counting until the venue says that it never had it.
    UnknownToVenue {
        /// Which.
        order: OrderId,
    },
    /// The venue's order is of another instrument than ours of this id.
    AnotherInstrument {
        /// Which.
        order: OrderId,
        /// Ours.
        ledger: InstrumentId,
        /// The venue's.
        venue: InstrumentId,
    },
    /// More filled at the venue than was settled, and the fills were not told, or the order is another's to settle.
    FilledMore {
        /// Which.
        order: OrderId,
        /// What was settled.
        ledger: Decimal,
        /// What filled.
        venue: Decimal,
    },
    /// More was settled than the venue filled.
    FilledLess {
        /// Which.
        order: OrderId,
        /// What was settled.
        ledger: Decimal,
        /// What filled.
        venue: Decimal,
    },
    /// The fills that the venue tells do not begin with those that were settled: which are missing cannot be said.
    FillsDiffer {
        /// Which.
        order: OrderId,
        /// Quantity and value that were settled.
        ledger: (Decimal, Decimal),
        /// Quantity and value of the venue's first fills that reach that quantity.
        venue: (Decimal, Decimal),
    },
    /// The fees of what was settled before.
    Fee {
        /// Of which order.
        order: OrderId,
        /// In what.
        currency: Currency,
        /// What was settled.
        ledger: Decimal,
        /// What the venue took.
        venue: Decimal,
    },
    /// An order is over at the venue and held here by somebody who lives and has not settled its end yet.
    NotEnded {
        /// Which.
        order: OrderId,
        /// By whom.
        holder: BotId,
    },
    /// Money in the account.
    Balance {
        /// In what.
        currency: Currency,
        /// Ours.
        ledger: Decimal,
        /// The venue's.
        venue: Decimal,
    },
}

impl Difference {
    /// A stable name for what differs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Position { .. } => "position_differs",
            Self::UnknownToUs { .. } => "unknown_to_us",
            Self::UnknownToVenue { .. } => "unknown_to_venue",
            Self::AnotherInstrument { .. } => "another_instrument",
            Self::FilledMore { .. } => "filled_more",
            Self::FilledLess { .. } => "filled_less",
            Self::FillsDiffer { .. } => "fills_differ",
            Self::Fee { .. } => "fee_differs",
            Self::NotEnded { .. } => "not_ended",
            Self::Balance { .. } => "balance_differs",
        }
    }

    /// What there is to tell of it; the whole difference is its note.
    #[must_use]
    pub fn event(&self, at: Timestamp, account: &AccountId) -> RiskEvent {
        let scope = Scope::Account(account.clone());
        let mut event = RiskEvent::new(at, RiskEventKind::ReconciledDifference, scope, self.code());
        event.account = Some(account.clone());
        match self {
            Self::Position { instrument, .. } => event.instrument = Some(instrument.clone()),
            Self::UnknownToUs { order, .. }
            | Self::UnknownToVenue { order }
            | Self::AnotherInstrument { order, .. }
            | Self::FilledMore { order, .. }
            | Self::FilledLess { order, .. }
            | Self::FillsDiffer { order, .. }
            | Self::Fee { order, .. }
            | Self::NotEnded { order, .. } => event.order = Some(order.clone()),
            Self::Balance { .. } => {}
        }
        event.with_note(serde_json::to_string(self).unwrap_or_default())
    }
}

/// What reconciliation did and what it left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// What still differs, in a stable order.
    pub differences: BTreeSet<Difference>,
    /// Fills that were missing in the ledger, with what settling each one did.
    pub settled: Vec<(OrderId, Fill, Settled)>,
    /// Orders that were over at the venue and are now over here: what they held is released.
    pub ended: Vec<OrderId>,
    /// Orphans that go on counting: the venue works them, or did not say enough.
    pub kept: Vec<OrderId>,
    /// Orders that somebody else settled in between; look again.
    pub moved: Vec<OrderId>,
}

impl Reconciled {
    /// Whether ledger and venue agree and nothing had to be done.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.differences.is_empty() && self.settled.is_empty() && self.ended.is_empty() && self.moved.is_empty()
    }

    /// The differences that an earlier look saw too. While somebody trades, only these are worth waking a person.
    #[must_use]
    pub fn still(&self, earlier: &Self) -> BTreeSet<Difference> {
        self.differences.intersection(&earlier.differences).cloned().collect()
    }
}

/// Which held orders reconciliation may settle. Those of living others it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Settles {
    /// Orphans only.
    #[default]
    Orphans,
    /// Those of this engine's holder too: after its connection to the venue was lost.
    OrphansAndOwn,
}

/// Where the fills that were not settled yet begin.
pub(crate) struct Prefix {
    /// How many of the venue's fills are in the ledger.
    pub(crate) count: usize,
    pub(crate) qty: Decimal,
    pub(crate) value: Decimal,
    pub(crate) fees: BTreeMap<Currency, Decimal>,
}

impl VenueOrder {
    /// The first fills that reach `qty`. None beyond the largest decimal.
    pub(crate) fn prefix(&self, qty: Decimal) -> Option<Prefix> {
        let mut prefix = Prefix { count: 0, qty: Decimal::ZERO, value: Decimal::ZERO, fees: BTreeMap::new() };
        for fill in &self.fills {
            if prefix.qty >= qty {
                break;
            }
            prefix.count += 1;
            prefix.qty = prefix.qty.checked_add(fill.qty.get())?;
            prefix.value = prefix.value.checked_add(fill.price.get().checked_mul(fill.qty.get())?)?;
            let fee = prefix.fees.entry(fill.fee.currency.clone()).or_default();
            *fee = fee.checked_add(fill.fee.amount)?;
        }
        Some(prefix)
    }
}

/// Whether reconciliation may settle an order of this state and holder.
pub(crate) fn may_settle(settles: Settles, state: HeldState, is_own: bool) -> bool {
    matches!(state, HeldState::Orphaned { .. }) || (settles == Settles::OrphansAndOwn && is_own)
}

/// Deposits and everything that was booked, less the cost of what is held.
pub(crate) fn cash(wallet: Decimal, positions: &[Position]) -> Decimal {
    positions.iter().fold(wallet, |cash, position| cash.saturating_sub(position.cost))
}
