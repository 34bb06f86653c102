//! The figures of the store that rules bound.

use std::{collections::BTreeSet, time::Duration};

use infra_state_store::{Delta, Key, Op, Ttl, Value, WindowLimit};

use infra_types::{Order, Side};

use super::ops::Measure;
use crate::{
    error::RiskError,
    ledger::{self, Counter, Place},
    moves::Moves,
    rulebook::Named,
    rules::Mode,
};

/// A figure of the store that a rule bounds.
pub(super) struct Bound {
    /// The place of its check.
    pub(super) at: usize,
    /// It refuses nothing: a rule that is tried out, or one that two people lifted.
    pub(super) is_free: bool,
    pub(super) is_lifted: bool,
    pub(super) max: i64,
    pub(super) on: On,
}

pub(super) enum On {
    /// A counter that every step moves.
    Counter(Counter),
    /// A counter of this rule, which one order moves by one; what it counts of the order itself.
    Count {
        name: String,
        ttl: Ttl,
        own: i64,
        is_known: bool,
    },
    Window {
        key: String,
        by: i64,
        length: Duration,
        places: u32,
    },
}

/// Rules that are tried out count for themselves: the same figures may have other windows.
pub(super) fn suffix(named: &Named) -> &'static str {
    if named.rule.mode == Mode::Shadow { "/shadow" } else { "" }
}

/// The window in which a rule counts at a place.
pub(crate) fn window_name(named: &Named, what: &str, place: &Place) -> String {
    format!("risk/window/{what}/{place}{}", suffix(named))
}

/// The counter of orders alike: same account, strategy, instrument, side, quantity and price (1.50 is 1.5). How an order is placed
/// (kind, time in force, reduce only) is left out: one that is sent again in another way is the same order twice. At most 420 bytes,
/// so that it fits into a key; ids hold no `/`, so no two different orders share one.
pub(super) fn duplicate_name(named: &Named, order: &Order) -> String {
    let (sort, suffix) = (named.rule.covers.sort() as u8, suffix(named));
    let side = if order.side == Side::Buy { "buy" } else { "sell" };
    let (qty, price) = (order.qty.get().normalize(), order.kind.price().get().normalize());
    let Order { account, strategy, instrument, .. } = order;
    format!("risk/duplicate/{sort}{suffix}/{account}/{strategy}/{instrument}/{side}/{qty}/{price}")
}

impl Bound {
    /// Its operation. The first of a counter moves it, any other only looks at it.
    pub(super) fn operation(&self, moves: &Moves, done: &mut BTreeSet<String>) -> Result<(Op, Measure), RiskError> {
        let measure = |places, name| Measure { at: self.at, places, own: 0, included: 0, name, lifted: self.is_lifted };
        let delta = |by| if self.is_free { Delta::unbounded(by) } else { Delta::at_most(by, self.max) };
        Ok(match &self.on {
            On::Counter(counter) => {
                let (name, by) = (counter.name(), moves.of(counter));
                let is_first = done.insert(name.clone());
                let op = Op::Add { key: ledger::key(&name)?, delta: delta(by * i64::from(is_first)), ttl: Ttl::Keep };
                let included = by * i64::from(!is_first);
                (op, Measure { included, ..measure(counter.metric.places(), Some(name)) })
            }
            On::Count { name, ttl, own, is_known } => {
                let is_first = done.insert(name.clone());
                let op = Op::Add { key: ledger::key(name)?, delta: delta(i64::from(is_first)), ttl: *ttl };
                let remembered = is_known.then(|| name.clone());
                (op, Measure { own: *own, included: i64::from(!is_first), ..measure(0, remembered) })
            }
            On::Window { key, by, length, places } => {
                let max = if self.is_free { Value::COUNTER_MAX } else { self.max };
                let limit = WindowLimit::new(max, *length);
                (Op::Admit { window: Key::window(key)?, by: *by, limit }, measure(*places, None))
            }
        })
    }
}
