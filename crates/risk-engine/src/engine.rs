//! The engine: decides, reserves and settles, each in one batch of the store.

use std::sync::Arc;

use infra_state_store::{Applied, Batch, Op, StateStore, StoreError, Ttl, When};
use infra_types::{AccountId, Clock, Currency, Decimal, InstrumentId, InstrumentSpec, InvalidValue, Namespace, Order};
use jiff::tz::TimeZone;
use parking_lot::Mutex;

use crate::{
    account::AccountState,
    book::{Book, Now},
    config::RiskLimits,
    decision::Decision,
    error::RiskError,
    holder::Holder,
    ledger,
    market::Quote,
    plan::{self, Ops, Planned, Role},
    reservation::{Approval, Outcome, Reservation, Settled},
    settle,
};

/// How often an order is planned again when others change the same account.
const RESERVE_TRIES: u32 = 8;
/// A fill has happened: it is tried for longer.
const SETTLE_TRIES: u32 = 64;

/// What may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stance {
    /// Everything that the limits admit.
    Open,
    /// Only orders that reduce a position.
    ReduceOnly,
}

/// Pre-trade checks, reservations, positions and P&L over a ledger in a [`StateStore`].
///
/// Any number of engines, in any number of processes, may share one store and namespace: bounds are kept by the store. The
/// engine remembers what it last saw; what it remembers is a precondition of every batch, so that old memory costs another
/// round trip and never a wrong decision. Quotes, rates and instruments are kept in memory only.
#[derive(Debug)]
pub struct RiskEngine {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) namespace: Namespace,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    pub(crate) limits: RiskLimits,
    pub(crate) book: Mutex<Book>,
    pub(crate) holder: Option<Holder>,
}

/// Why a batch of ours did not happen.
enum Obstacle {
    /// What we knew is old.
    Stale,
    /// A limit's counter refused: the place of its check and the counter's value.
    Limit(usize, i64),
    Error(RiskError),
}

impl RiskEngine {
    /// An engine over the ledger in `namespace`. Does no I/O: call [`RiskEngine::restore`] next.
    ///
    /// # Errors
    /// `InvalidLimits` with every mistake.
    pub fn new(
        store: Arc<dyn StateStore>,
        namespace: Namespace,
        clock: Arc<dyn Clock>,
        limits: RiskLimits,
    ) -> Result<Self, RiskError> {
        limits.validate().map_err(RiskError::InvalidLimits)?;
        let zone = limits.zone().map_err(|mistake| RiskError::InvalidLimits(vec![mistake]))?;
        Ok(Self { store, namespace, clock, zone, limits, book: Mutex::default(), holder: None })
    }

    pub(crate) fn now(&self) -> Now {
        let wall = self.clock.wall();
        // Every i64 of nanoseconds is in jiff's range.
        let instant = jiff::Timestamp::from_nanosecond(i128::from(wall.as_nanos())).unwrap_or_default();
        Now { mono: self.clock.now(), wall, day: self.zone.to_datetime(instant).date() }
    }

    /// Creates the account's durable record with `deposit`; if there is one already, loads it and leaves it as it is.
    ///
    /// # Errors
    /// `Invalid` if the deposit is negative or the stored account has another currency; what the store says.
    ///
    /// # Cancel safety
    /// The account may be created or not; call again.
    pub async fn open_account(
        &self,
        account: AccountId,
        currency: Currency,
        deposit: Decimal,
    ) -> Result<(), RiskError> {
        if deposit.is_sign_negative() && !deposit.is_zero() {
            return Err(InvalidValue::new("deposit", "must not be negative").into());
        }
        let state = AccountState::new(account.clone(), currency.clone(), deposit, self.now().day);
        let key = ledger::key(&ledger::account(&account))?;
        let bytes = ledger::encode(&state, "the account's record")?;
        let batch = Batch::new(self.namespace.clone()).set_when(key, bytes, Ttl::Never, When::Absent);
        match self.store.apply(batch).await {
            Ok(applied) => {
                if let Some(Applied::Version(version)) = applied.first() {
                    self.book.lock().offer_account(state, *version);
                }
                Ok(())
            }
            Err(StoreError::Mismatch { .. }) => {
                self.refresh(&account, None).await?;
                match self.account(&account) {
                    Some(stored) if stored.currency == currency => Ok(()),
                    Some(stored) => {
                        let rule = format!("{account} is kept in {}, not {currency}", stored.currency);
                        Err(InvalidValue::new("account currency", rule).into())
                    }
                    None => Err(RiskError::UnknownAccount(account)),
                }
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Makes an instrument tradable, or changes its rules.
    ///
    /// # Errors
    /// `Invalid` if the rules make no sense or the lot is finer than 1e-8 (the ledger's grid).
    pub fn register_instrument(&self, spec: InstrumentSpec) -> Result<(), RiskError> {
        spec.validate()?;
        if spec.lot_size.normalize().scale() > ledger::QTY_PLACES {
            let rule = format!("{}: lot_size {} is finer than 1e-8", spec.id, spec.lot_size);
            return Err(InvalidValue::new("instrument spec", rule).into());
        }
        self.book.lock().specs.insert(spec.id.clone(), spec);
        Ok(())
    }

    /// Sets what one unit of `from` is in `to`. The way back is not implied.
    ///
    /// # Errors
    /// `Invalid` unless the rate is above zero.
    pub fn set_conversion(&self, from: Currency, to: Currency, rate: Decimal) -> Result<(), RiskError> {
        Ok(self.book.lock().rates.set(from, to, rate)?)
    }

    /// Takes a quote and reckons the P&L, high-water mark and drawdown of every account that holds the instrument anew
    /// (in memory; the next fill or [`RiskEngine::checkpoint`] makes them durable).
    ///
    /// # Errors
    /// `Invalid` for a crossed quote, one from the future, or one older than the last: the last stays.
    pub fn update_market(&self, instrument: &InstrumentId, quote: Quote) -> Result<(), RiskError> {
        let now = self.now();
        let mut book = self.book.lock();
        book.market.update(instrument, quote, now.wall, now.mono, self.limits.clock_skew_max)?;
        for account in book.holders(instrument) {
            book.observe(&account, now);
        }
        for strategy in book.strategies_in(instrument) {
            book.observe_strategy(&strategy, self.limits.firm_currency.as_ref(), now);
        }
        Ok(())
    }

    /// Checks an order against every limit and, if all pass, reserves what it may use, in one batch together with the
    /// operations that `compose` adds (which may be called several times). Approved orders count at once, sent or not.
    ///
    /// # Errors
    /// `Refused` with the whole decision; `Caller` if one of the caller's operations refused; `Contended` if the account
    /// kept changing; `Store` otherwise. After `Ambiguous` the reservation and the caller's operations are both there or both
    /// absent.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn check_and_reserve(
        &self,
        order: Order,
        stance: Stance,
        compose: &(dyn Fn(&Approval) -> Vec<Op> + Send + Sync),
    ) -> Result<Approval, RiskError> {
        let mut fresh = false;
        let mut tries = 0;
        while tries < RESERVE_TRIES {
            let planned = {
                let now = self.now();
                let mut book = self.book.lock();
                book.observe(&order.account, now);
                plan::plan(&book, &self.limits, now, &order, stance)?
            };
            let (mut approval, mut ops) = match planned {
                // What refuses, or depends on how much is being reduced, is decided on what the store says now.
                Planned::Refused(decision) if fresh => return Err(RiskError::Refused(Box::new(decision))),
                Planned::Go(approval, ops) if fresh || approval.reservation.hold_reducing == 0 => (approval, ops),
                Planned::Refused(_) | Planned::Go(..) => {
                    self.refresh_for(&order).await?;
                    fresh = true;
                    continue;
                }
            };
            self.hold(&mut approval, &mut ops)?;
            match self.execute(&ops, compose(&approval)).await {
                Ok(applied) => {
                    self.learn(&ops, &applied, None);
                    for ((_, role), done) in ops.0.iter().zip(&applied) {
                        if let (Role::Limited(name, at), Applied::Counter(raw)) = (role, done) {
                            let check = &mut approval.decision.checks[*at];
                            check.value = ledger::figure(name, *raw);
                            check.headroom = check.limit.saturating_sub(check.value);
                        }
                    }
                    return Ok(*approval);
                }
                Err(Obstacle::Stale) => {
                    tries += 1;
                    self.refresh_for(&order).await?;
                    fresh = true;
                }
                Err(Obstacle::Limit(at, current)) => {
                    return Err(RiskError::Refused(Box::new(refused_by_store(approval.decision, &ops, at, current))));
                }
                Err(Obstacle::Error(error)) => return Err(error),
            }
        }
        Err(RiskError::Contended { tries })
    }

    /// Books a fill, or the end of an order, and releases what it no longer holds: position, account, high-water mark,
    /// drawdown and counters in one batch together with the operations that `compose` adds. What the venue did is booked even
    /// where it is more than was reserved; `Settled` says so. The caller sees to it that each report is settled once.
    ///
    /// # Errors
    /// `Invalid` if the reservation is another order's; `Caller` if one of the caller's operations refused;
    /// `MissingConversion`, `UnknownAccount`, `Overflow`, `Contended`, `Store`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn settle(
        &self,
        order: &Order,
        reservation: &Reservation,
        outcome: Outcome<'_>,
        compose: &(dyn Fn(&Settled) -> Vec<Op> + Send + Sync),
    ) -> Result<Settled, RiskError> {
        let of = (&reservation.order, &reservation.account, &reservation.instrument);
        if of != (&order.id, &order.account, &order.instrument) {
            let rule = format!("is for order {} of {}, not {}", of.0, of.1, order.id);
            return Err(InvalidValue::new("reservation", rule).into());
        }
        let mut held = self.held_for(reservation, true).await?;
        let mut tries = 0;
        while tries < SETTLE_TRIES {
            let planned = {
                let now = self.now();
                let mut book = self.book.lock();
                book.observe(&order.account, now);
                settle::plan(&book, &self.limits, now, order, reservation, outcome)
            };
            let (settled, mut ops) = match planned {
                Err(RiskError::UnknownAccount(_)) if tries == 0 => {
                    tries += 1;
                    self.refresh_for(&order).await?;
                    continue;
                }
                planned => planned?,
            };
            self.hold_on(held.as_ref(), &settled, outcome, &mut ops)?;
            match self.execute(&ops, compose(&settled)).await {
                Ok(applied) => {
                    self.learn(&ops, &applied, Some((order, &settled)));
                    return Ok(settled);
                }
                Err(Obstacle::Stale | Obstacle::Limit(..)) => {
                    tries += 1;
                    self.refresh_for(&order).await?;
                    held = self.held_for(reservation, false).await?;
                }
                Err(Obstacle::Error(error)) => return Err(error),
            }
        }
        Err(RiskError::Contended { tries })
    }

    /// Makes what `update_market` observed (day, high-water mark, drawdown) durable, account by account. Where another
    /// engine wrote an account in the meantime, its figures stand.
    ///
    /// # Errors
    /// What the store says; accounts before the failing one are written.
    ///
    /// # Cancel safety
    /// Some accounts may be written, others not; call again.
    pub async fn checkpoint(&self) -> Result<(), RiskError> {
        let accounts: Vec<AccountId> = self.book.lock().accounts.keys().cloned().collect();
        for id in accounts {
            self.checkpoint_with(&id, Vec::new()).await?;
        }
        Ok(())
    }

    /// Makes what was observed of one account durable, in one batch together with the caller's operations: a replay's cursor
    /// and the high-water mark up to it are then both there or both absent.
    ///
    /// # Errors
    /// `UnknownAccount`; `Caller` if one of the caller's operations refused; `Contended`; `Store`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half.
    pub async fn checkpoint_with(&self, account: &AccountId, callers: Vec<Op>) -> Result<(), RiskError> {
        for _ in 0..SETTLE_TRIES {
            let known = {
                let now = self.now();
                let mut book = self.book.lock();
                book.observe(account, now);
                book.accounts.get(account).cloned()
            };
            let known = known.ok_or_else(|| RiskError::UnknownAccount(account.clone()))?;
            let key = ledger::key(&ledger::account(account))?;
            let bytes = ledger::encode(&known.value, "the account's record")?;
            let mut batch = Batch::new(self.namespace.clone());
            batch = batch.set_when(key, bytes, Ttl::Never, When::Version(known.version));
            batch.extend(callers.iter().cloned());
            match self.store.apply(batch).await {
                Ok(applied) => {
                    if let Some(Applied::Version(version)) = applied.first() {
                        self.book.lock().offer_account(known.value, *version);
                    }
                    return Ok(());
                }
                Err(StoreError::Mismatch { index: 0, .. }) => self.refresh(account, None).await?,
                Err(source) => {
                    return Err(match source.index() {
                        Some(index) if index > 0 => RiskError::Caller { index: index - 1, source },
                        _ => source.into(),
                    });
                }
            }
        }
        Err(RiskError::Contended { tries: SETTLE_TRIES })
    }

    /// Applies our operations and the caller's as one batch.
    async fn execute(&self, ops: &Ops, callers: Vec<Op>) -> Result<Vec<Applied>, Obstacle> {
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
        Err(match source.index() {
            Some(index) if index >= own => Obstacle::Error(RiskError::Caller { index: index - own, source }),
            Some(index) => match (&ops.0[index].1, &source) {
                (
                    Role::Limited(name, at),
                    StoreError::OutOfBounds { current, .. } | StoreError::Overflow { current, .. },
                ) => {
                    self.book.lock().counters.insert(name.clone(), *current);
                    Obstacle::Limit(*at, *current)
                }
                (_, StoreError::Mismatch { .. } | StoreError::OutOfBounds { .. }) => Obstacle::Stale,
                _ => Obstacle::Error(source.into()),
            },
            None => Obstacle::Error(source.into()),
        })
    }

    /// Remembers what a batch of ours gave.
    fn learn(&self, ops: &Ops, applied: &[Applied], settled: Option<(&Order, &Settled)>) {
        self.learn_held(ops, applied);
        let mut book = self.book.lock();
        for ((_, role), done) in ops.0.iter().zip(applied) {
            match (role, done, settled) {
                (Role::Counter(name) | Role::Limited(name, _), Applied::Counter(raw), _) => {
                    book.counters.insert(name.clone(), *raw);
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

/// The decision after a limit's counter refused at `at` with the value `current`.
fn refused_by_store(decision: Decision, ops: &Ops, at: usize, current: i64) -> Decision {
    let mut checks = decision.checks;
    for (_, role) in &ops.0 {
        let Role::Limited(name, place) = role else { continue };
        let check = &mut checks[*place];
        if *place == at {
            let with = check.value;
            check.value = ledger::figure(name, current);
            check.passed = false;
            check.note = format!("in use without this order; {with} was expected with it").into();
        } else {
            check.passed = check.value <= check.limit;
            check.note = "last known; the store was not asked".into();
        }
        check.headroom = check.limit.saturating_sub(check.value);
    }
    Decision::over(decision.order, checks)
}
