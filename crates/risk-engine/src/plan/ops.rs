//! The operations of one batch, each with what it is, for when the store answers.

use infra_state_store::{Delta, Key, Op, StoreError, Ttl, Value, When};
use infra_types::InstrumentId;
use serde::Serialize;

use crate::{book::Versioned, error::RiskError, held::HeldOrder, ledger, working::Working};

/// A figure of the store that a check shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measure {
    /// The place of its check.
    pub(crate) at: usize,
    /// Decimal places of the figure.
    pub(crate) places: u32,
    /// What the figure counts of this order although the check does not (a duplicate's first).
    pub(crate) own: i64,
    /// What an earlier operation of this batch had added when this one refused.
    pub(crate) included: i64,
    /// The counter, if its value is to be remembered.
    pub(crate) name: Option<String>,
    /// Two people let the order through whatever the figure.
    pub(crate) lifted: bool,
}

/// What an operation of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// A check of a record's version: if it fails, read again.
    Record,
    /// A write of the account's record.
    Account,
    /// A write of the position's record.
    Position,
    /// A write of the strategy's record.
    Strategy,
    /// A write of the strategy's part of the position.
    Part,
    /// A write of an instrument's list of working orders.
    Working(Box<(InstrumentId, Working)>),
    /// The fence under which the order is held.
    Fence(u64),
    /// The record of an order that becomes held.
    HeldNew(Box<HeldOrder>),
    /// The record of a held order that goes on.
    HeldNext(Box<HeldOrder>),
    /// The end of a held order's record.
    HeldEnd(Key),
    /// A counter; out of its bounds means what we knew is old: read again.
    Counter(String),
    /// A figure that a limit bounds: beyond is a refusal.
    Limited(Measure),
    /// A figure that a limit only looks at.
    Watched(Measure),
}

/// Operations of ours with their roles, in the order of the batch.
#[derive(Debug, Default)]
pub(crate) struct Ops(pub(crate) Vec<(Op, Role)>);

impl Ops {
    pub(crate) fn check(&mut self, name: &str, when: When) -> Result<(), StoreError> {
        self.0.push((Op::Check { key: ledger::key(name)?, when }, Role::Record));
        Ok(())
    }

    /// Writes a record.
    pub(crate) fn set<T: Serialize>(&mut self, name: &str, value: &T, when: When, role: Role) -> Result<(), RiskError> {
        let value = Value::from(ledger::encode(value, "a record")?);
        self.0.push((Op::Set { key: ledger::key(name)?, value, ttl: Ttl::Never, when }, role));
        Ok(())
    }

    /// Adds to a counter; with `check`, its bound is a limit and `check` the place of the check that shows it.
    pub(crate) fn add(&mut self, name: String, delta: Delta, check: Option<usize>) -> Result<(), StoreError> {
        let op = Op::Add { key: ledger::key(&name)?, delta, ttl: Ttl::Keep };
        let places = ledger::places(&name);
        self.0.push((
            op,
            match check {
                None => Role::Counter(name),
                Some(at) => Role::Limited(Measure { at, places, own: 0, included: 0, name: Some(name), lifted: false }),
            },
        ));
        Ok(())
    }

    /// A free addition, left out if it adds nothing.
    pub(crate) fn move_by(&mut self, name: String, by: i64) -> Result<(), StoreError> {
        if by == 0 { Ok(()) } else { self.add(name, Delta::unbounded(by), None) }
    }
}

pub(crate) fn version_of<T>(known: Option<&Versioned<T>>) -> When {
    known.map_or(When::Absent, |known| When::Version(known.version))
}
