//! What bot and exchange say to each other: one JSON object a line over TCP, replies matched by `id`.

use std::path::PathBuf;

use infra_types::{Decimal, Execution, InstrumentId, OrderId, Price, Qty, Side, Timestamp};
use serde::{Deserialize, Serialize};

/// A request with its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Chosen by the bot; the reply repeats it.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What a bot may ask. `at` is the replay's time: the exchange lives in it too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(crate) enum Call {
    /// Put an order into the market.
    Place(NewOrder),
    /// Take an order out again.
    Cancel {
        /// Which.
        order: OrderId,
        /// When.
        at: Timestamp,
    },
    /// What became of an order, up to `at`.
    Query {
        /// Which.
        order: OrderId,
        /// Up to when.
        at: Timestamp,
    },
    /// Execution reports later than `after`, up to `at`.
    Executions {
        /// Those up to here are known.
        after: Timestamp,
        /// Up to when.
        at: Timestamp,
    },
    /// Which exchange is this?
    Hello,
    /// What the exchange counted.
    Stats,
    /// End the process once this connection closes.
    Shutdown,
}

/// An order on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NewOrder {
    /// Client order id.
    pub order: OrderId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// How much.
    pub qty: Qty,
    /// At which price or better.
    pub price: Price,
    /// The grid of quantities, so that parts stay on it.
    pub lot: Decimal,
    /// The taker's fee as a part of the notional.
    pub fee_rate: Decimal,
    /// In which currency the fee is taken.
    pub fee_currency: infra_types::Currency,
    /// When it was decided.
    pub at: Timestamp,
}

/// A reply with the number of its request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The request's number.
    pub id: u64,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What the exchange may answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Which file its books are in, and which seed decides its faults.
    Hello {
        /// The file, as it was given.
        journal: PathBuf,
        /// The seed.
        seed: u64,
    },
    /// The order is in the market.
    Accepted {
        /// The exchange's own id of it.
        venue_order_id: String,
    },
    /// The order was refused for good.
    Rejected {
        /// Why.
        reason: String,
    },
    /// The order was not looked at: try again.
    Busy,
    /// An order of this id was placed before; this one was not taken.
    Duplicate,
    /// The order is not known.
    NotFound,
    /// What became of the order, oldest first.
    Found {
        /// All reports on it so far.
        executions: Vec<Execution>,
    },
    /// Reports in order of time, and until when there will be no other as things stand.
    Executions {
        /// The reports.
        executions: Vec<Execution>,
        /// Nothing happens before this time unless another order comes.
        quiet_until: Option<Timestamp>,
    },
    /// The cancel was taken; a report will say what was left.
    CancelTaken,
    /// What the exchange counted.
    Stats(Stats),
    /// Shutdown was taken.
    Bye,
}

/// What the exchange counted since its file began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Orders that were looked at, the refused ones too.
    pub orders: u64,
    /// Orders refused.
    pub rejects: u64,
    /// Orders of an id that was there already. A correct bot sends none.
    pub duplicates: u64,
    /// Requests thrown away unread.
    pub dropped_requests: u64,
    /// Replies thrown away.
    pub dropped_replies: u64,
    /// Replies sent late.
    pub late_replies: u64,
    /// Requests answered with "busy".
    pub busy: u64,
}
