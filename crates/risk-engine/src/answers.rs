//! What the store's answer to a batch of ours means.

use infra_state_store::{Applied, Batch, Op, StoreError};
use infra_types::{Decimal, Order};

use crate::{
    decision::{Check, Decision},
    engine::RiskEngine,
    error::RiskError,
    plan::{Measure, Ops, Role},
    reservation::Settled,
};

/// Why a batch of ours did not happen.
pub(crate) enum Obstacle {
    /// What we knew is old.
    Stale,
    /// A figure that a limit bounds has no room.
    Limit(Full),
    Error(RiskError),
}

/// What the store said of a figure without room.
pub(crate) struct Full {
    /// The place of its check.
    at: usize,
    /// The figure without this order.
    value: Decimal,
    /// What more there is to say.
    note: Option<String>,
}

impl Measure {
    fn figure(&self, raw: i64) -> Decimal {
        Decimal::new(raw, self.places)
    }

    fn full(&self, current: i64, note: Option<String>) -> Obstacle {
        Obstacle::Limit(Full { at: self.at, value: self.figure(current.saturating_sub(self.included)), note })
    }
}

impl RiskEngine {
    /// Applies our operations and the caller's as one batch.
    pub(crate) async fn execute(&self, ops: &Ops, callers: Vec<Op>) -> Result<Vec<Applied>, Obstacle> {
        let own = ops.0.len();
        let mut batch = Batch::new(self.namespace.clone());
        batch.extend(ops.0.iter().map(|(op, _)| op.clone()).chain(callers));
        let source = match self.store.apply(batch).await {
            Ok(applied) => return Ok(applied),
            Err(source) => source,
        };
        let role = source.index().and_then(|index| ops.0.get(index)).map(|(_, role)| role);
        if let Some(error) = role.and_then(|role| self.hold_refused(role, &source)) {
            return Err(Obstacle::Error(error));
        }
        Err(match (source.index(), role) {
            (Some(index), None) => Obstacle::Error(RiskError::Caller { index: index - own, source }),
            (_, Some(Role::Limited(measure))) => match &source {
                StoreError::OutOfBounds { current, .. } | StoreError::Overflow { current, .. } => {
                    if let Some(name) = &measure.name {
                        self.book.lock().counters.insert(name.clone(), *current - measure.included);
                    }
                    measure.full(*current, None)
                }
                StoreError::WindowFull { used, retry_after, .. } => {
                    let wait = retry_after.map_or_else(
                        || "more than the window ever has room for".to_owned(),
                        |wait| format!("room in {} ms if nobody else takes it", wait.as_millis()),
                    );
                    measure.full(*used, Some(wait))
                }
                _ => Obstacle::Error(source.into()),
            },
            (Some(_), Some(_)) => match &source {
                StoreError::Mismatch { .. } | StoreError::OutOfBounds { .. } => Obstacle::Stale,
                _ => Obstacle::Error(source.into()),
            },
            (None, _) => Obstacle::Error(source.into()),
        })
    }

    /// Remembers what a batch of ours gave.
    pub(crate) fn learn(&self, ops: &Ops, applied: &[Applied], settled: Option<(&Order, &Settled)>) {
        self.learn_held(ops, applied);
        let mut book = self.book.lock();
        for ((_, role), done) in ops.0.iter().zip(applied) {
            match (role, done, settled) {
                (Role::Counter(name), Applied::Counter(raw), _) => {
                    book.counters.insert(name.clone(), *raw);
                }
                (Role::Limited(measure) | Role::Watched(measure), Applied::Counter(raw), _) => {
                    if let Some(name) = &measure.name {
                        book.counters.insert(name.clone(), *raw);
                    }
                }
                (Role::Working(list), Applied::Version(version), _) => {
                    book.offer_working(&list.0, list.1.clone(), *version);
                }
                (Role::Account, Applied::Version(version), Some((_, settled))) => {
                    book.offer_account(settled.account.clone(), *version);
                }
                (Role::Position, Applied::Version(version), Some((order, settled))) => {
                    if let Some(position) = &settled.position_after {
                        book.offer_position(&order.account, &order.instrument, position.clone(), *version);
                    }
                }
                (Role::Strategy, Applied::Version(version), Some((_, settled))) => {
                    book.offer_strategy(settled.strategy.clone(), *version);
                }
                (Role::Part, Applied::Version(version), Some((order, settled))) => {
                    if let Some(part) = &settled.strategy_position {
                        let of = (order.account.clone(), order.instrument.clone());
                        book.offer_part(&settled.strategy.id, of, part.clone(), *version);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Puts the store's figures into the checks of an order that it took.
pub(crate) fn measured(checks: &mut [Check], ops: &Ops, applied: &[Applied]) {
    for ((_, role), done) in ops.0.iter().zip(applied) {
        let (measure, is_watched) = match role {
            Role::Limited(measure) => (measure, false),
            Role::Watched(measure) => (measure, true),
            _ => continue,
        };
        let (Applied::Counter(raw) | Applied::Used(raw)) = done else { continue };
        let (check, value) = (&mut checks[measure.at], measure.figure(raw.saturating_sub(measure.own)));
        if is_watched {
            check.passed = value <= check.limit;
            check.overridden = measure.lifted && !check.passed;
        }
        check.measure(value);
    }
}

/// The decision after a limit's figure had no room.
pub(crate) fn refused_by_store(decision: Decision, ops: &Ops, full: &Full) -> Decision {
    let (mut checks, version) = (decision.checks, decision.limits);
    for (_, role) in &ops.0 {
        let (Role::Limited(measure) | Role::Watched(measure)) = role else { continue };
        let check = &mut checks[measure.at];
        if measure.at == full.at {
            let with = check.value;
            check.passed = false;
            let note = full.note.as_deref().map(|note| format!("; {note}")).unwrap_or_default();
            check.note = format!("in use without this order; {with} was expected with it{note}").into();
            check.measure(full.value);
        } else {
            check.passed = check.value <= check.limit;
            check.overridden = measure.lifted && !check.passed;
            check.note = "last known; the store was not asked".into();
        }
    }
    Decision::over(decision.order, checks).under(version)
}
