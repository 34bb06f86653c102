//! The engine: decides, reserves and settles, each in one batch of the store.

use std::sync::Arc;

use infra_state_store::{Applied, Batch, Op, StateStore, StoreError, Ttl, When};
use infra_types::{AccountId, Clock, Currency, Decimal, InstrumentId, InstrumentSpec, InvalidValue, Namespace, Order};
use parking_lot::{Mutex, RwLock};

use crate::{
    account::AccountState,
    answers::{Obstacle, measured, refused_by_store},
    book::{Book, Now},
    config::RiskLimits,
    error::RiskError,
    holder::Holder,
    ledger,
    limit_store::{self, Active},
    market::Quote,
    plan::{self, Planned},
    reservation::{Approval, Effect, Outcome, Reservation, Settled},
    settle,
};

/// How often an order is planned again when others change the same account.
const RESERVE_TRIES: u32 = 8;
/// A fill has happened: it is tried for longer.
pub(crate) const SETTLE_TRIES: u32 = 64;

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
    pub(crate) limits: RwLock<Arc<Active>>,
    pub(crate) book: Mutex<Book>,
    pub(crate) holder: Option<Holder>,
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
        let limits = limit_store::given(limits, clock.wall())?;
        Ok(Self { store, namespace, clock, limits, book: Mutex::default(), holder: None })
    }

    pub(crate) fn now(&self) -> Now {
        let wall = self.clock.wall();
        // Every i64 of nanoseconds is in jiff's range.
        let instant = jiff::Timestamp::from_nanosecond(i128::from(wall.as_nanos())).unwrap_or_default();
        Now { mono: self.clock.now(), wall, day: self.active().zone.to_datetime(instant).date() }
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
    /// (in memory; the next fill, [`RiskEngine::checkpoint`] or [`RiskEngine::checkpoint_moved`] makes them durable).
    ///
    /// # Errors
    /// `Quote` for a crossed quote, one further in the future than `clock_skew_max`, or one older than the last: the last stays, and
    /// [`RiskEngine::quotes_refused`] counts it.
    pub fn update_market(&self, instrument: &InstrumentId, quote: Quote) -> Result<(), RiskError> {
        let (now, active) = (self.now(), self.active());
        let limits = active.limits();
        let mut book = self.book.lock();
        let windows = &active.rules.price_windows;
        book.market.update(instrument, quote, now.wall, now.mono, limits.clock_skew_max, windows)?;
        for account in book.holders(instrument) {
            book.observe(&account, now);
        }
        for strategy in book.strategies_in(instrument) {
            book.observe_strategy(&strategy, limits.firm_currency.as_ref(), now);
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
        let mut tries_max = RESERVE_TRIES;
        while tries < tries_max {
            let (now, active) = (self.now(), self.active());
            let planned = {
                let mut book = self.book.lock();
                book.observe(&order.account, now);
                book.observe_strategy(&order.strategy, active.limits().firm_currency.as_ref(), now);
                plan::plan(&book, &active, now, &order, stance)?
            };
            let (mut approval, mut ops) = match planned {
                // What refuses, or depends on how much is being reduced, is decided on what the store says now.
                Planned::Refused(decision) if fresh => {
                    self.book.lock().overrides.remove(&(order.account.clone(), order.id.clone()));
                    return Err(RiskError::Refused(Box::new(decision)));
                }
                Planned::Go(approval, ops) if fresh || approval.reservation.hold_reducing == 0 => (approval, ops),
                planned => {
                    self.refresh_for(&order).await?;
                    if matches!(planned, Planned::Refused(_)) {
                        self.read_override(&order).await?;
                    }
                    fresh = true;
                    continue;
                }
            };
            if approval.reservation.effect == Effect::Reduce {
                // An exit must work.
                tries_max = SETTLE_TRIES;
            }
            self.hold(&mut approval, &mut ops)?;
            match self.execute(&ops, compose(&approval)).await {
                Ok(applied) => {
                    self.learn(&ops, &applied, None);
                    measured(&mut approval.decision.checks, &ops, &applied);
                    self.book.lock().overrides.remove(&(order.account.clone(), order.id.clone()));
                    return Ok(*approval);
                }
                Err(Obstacle::Stale) => {
                    tries += 1;
                    self.refresh_for(&order).await?;
                    let id = (order.account.clone(), order.id.clone());
                    if self.book.lock().overrides.contains_key(&id) {
                        // Somebody may have used it up.
                        self.read_override(&order).await?;
                    }
                    fresh = true;
                }
                // What two people granted is looked for only where it matters.
                Err(Obstacle::Limit(_)) if !fresh && self.read_override(&order).await? => fresh = true,
                Err(Obstacle::Limit(full)) => {
                    self.book.lock().overrides.remove(&(order.account.clone(), order.id.clone()));
                    return Err(RiskError::Refused(Box::new(refused_by_store(approval.decision, &ops, &full))));
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
        let same_way = (reservation.side, &reservation.strategy) == (order.side, &order.strategy);
        if of != (&order.id, &order.account, &order.instrument) || !same_way {
            let rule = format!("is for order {} of {}, not {}", of.0, of.1, order.id);
            return Err(InvalidValue::new("reservation", rule).into());
        }
        let mut held = self.held_for(reservation, true).await?;
        let mut tries = 0;
        while tries < SETTLE_TRIES {
            let (now, active) = (self.now(), self.active());
            let planned = {
                let mut book = self.book.lock();
                book.observe(&order.account, now);
                book.observe_strategy(reservation.strategy(), active.limits().firm_currency.as_ref(), now);
                settle::plan(&book, &active, now, order, reservation, outcome)
            };
            let (settled, mut ops) = match planned {
                Err(RiskError::UnknownAccount(_)) if tries == 0 => {
                    tries += 1;
                    self.refresh_for(order).await?;
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
                Err(Obstacle::Stale | Obstacle::Limit(_)) => {
                    tries += 1;
                    self.refresh_for(order).await?;
                    held = self.held_for(reservation, false).await?;
                }
                Err(Obstacle::Error(error)) => return Err(error),
            }
        }
        Err(RiskError::Contended { tries })
    }
}
