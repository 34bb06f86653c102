//! The same checks and reservations in one process, without a store between: for whoever holds an account's exclusive lease.

mod book;
mod compile;
mod error;
mod explain;
mod fixed;
mod judge;
mod marks;
mod orders;
mod recent;
mod settle;
mod tally;
#[cfg(test)]
mod tests;
mod window;

use infra_types::{
    AccountId, Clock, Currency, Decimal, Fill, InstrumentId, InstrumentSpec, Monotonic, Order, Qty, Side, StrategyId,
    Timestamp,
};
use parking_lot::Mutex;

use crate::{
    account::AccountState,
    config::RiskLimits,
    decision::{Check, Decision, code},
    engine::Stance,
    market::Quote,
    position::Position,
    reservation::Effect,
    rules::Coverage,
};

pub use error::LocalError;
pub use orders::Ticket;
pub use settle::LocalSettled;
pub use tally::Metric;

use book::Book;
use judge::Stop;

/// The time of one call, read by the caller. `mono` is what ages and windows are measured with, `wall` decides the trading day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For ages and windows.
    pub mono: Monotonic,
    /// For the day and the times that quotes bear.
    pub wall: Timestamp,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn of(clock: &dyn Clock) -> Self {
        Self { mono: clock.now(), wall: clock.wall() }
    }
}

/// How much a ledger has room for. Beyond is [`LocalError::Full`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSizes {
    /// Accounts; 64.
    pub accounts_max: u32,
    /// Instruments; 1,024.
    pub instruments_max: u32,
    /// Account × strategy × instrument, and as many account × instrument; 4,096.
    pub routes_max: u32,
    /// Orders that work at once; 16,384.
    pub orders_max: u32,
    /// Orders that are remembered for telling duplicates; 16,384.
    pub recent_max: u32,
}

impl Default for LocalSizes {
    fn default() -> Self {
        Self { accounts_max: 64, instruments_max: 1_024, routes_max: 4_096, orders_max: 16_384, recent_max: 16_384 }
    }
}

/// An account, a strategy and an instrument, looked up once. Good for the ledger that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route(u32);

/// An order that passed, and what it holds: all that a journal needs to write it down later. What it adds to which counter is
/// [`LocalLedger::adds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    ticket: Ticket,
    route: Route,
    side: Side,
    effect: Effect,
    qty: Qty,
    money: i64,
    money_firm: i64,
    qty_held: i64,
    slot: i64,
}

impl Reserved {
    /// What ends the reservation.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// For which account, strategy and instrument.
    #[must_use]
    pub fn route(&self) -> Route {
        self.route
    }

    /// What the order does.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// How much may be sent: a reduce-only order may be smaller than it was asked.
    #[must_use]
    pub fn qty(&self) -> Qty {
        self.qty
    }

    /// What it holds of the account's exposure, in the account's currency.
    #[must_use]
    pub fn held(&self) -> Decimal {
        Metric::Gross.figure(self.money)
    }
}

/// A change of one counter, raw: see [`Metric`] for the units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Of which scope.
    pub covers: Coverage,
    /// Which counter.
    pub metric: Metric,
    /// By how much.
    pub by: i64,
}

/// Pre-trade checks and reservations in memory, for a process that holds the exclusive lease of every account in it. Amounts are
/// fixed-point integers, everything that an order is checked against is made ready when quotes, fills and rates come in, and one
/// lock makes a decision and its reservation one step. An approval allocates nothing; a refusal explains itself as the shared
/// engine's does, with the same codes.
///
/// Limits wider than an account (firm, group, venue, strategy, instrument) count **what is in this ledger**: a process that holds
/// some of the firm's accounts is given its share of such a limit.
///
/// Nothing is durable here. What the process must find again after its death the caller journals: [`Reserved`] before the order is
/// sent, fills and ends as they come.
#[derive(Debug)]
pub struct LocalLedger {
    book: Mutex<Book>,
}

impl LocalLedger {
    /// A ledger without accounts.
    ///
    /// # Errors
    /// `InvalidLimits` with every mistake; `UnsupportedRule` for a rule that only the shared engine can keep (rules in shadow mode
    /// are not judged here and do not matter).
    pub fn new(limits: RiskLimits, sizes: LocalSizes, now: Moment) -> Result<Self, LocalError> {
        Ok(Self { book: Mutex::new(Book::new(limits, sizes, now)?) })
    }

    /// Takes an account over, with what is known of it for good.
    ///
    /// # Errors
    /// `Full`; `Invalid` if it is here already.
    pub fn open_account(&self, state: AccountState) -> Result<(), LocalError> {
        self.book.lock().open_account(state)
    }

    /// Makes an instrument tradable, or changes its rules.
    ///
    /// # Errors
    /// `Full`; `Invalid` if the rules make no sense, tick or lot is finer than 1e-8, or the currencies changed.
    pub fn register_instrument(&self, spec: InstrumentSpec) -> Result<(), LocalError> {
        self.book.lock().register_instrument(spec)
    }

    /// Sets what one unit of `from` is in `to`. The way back is not implied.
    ///
    /// # Errors
    /// `Invalid` unless the rate is above zero.
    pub fn set_conversion(&self, from: Currency, to: Currency, rate: Decimal) -> Result<(), LocalError> {
        self.book.lock().set_conversion(from, to, rate)
    }

    /// Takes a position over as it stands, together with the account that it belongs to, before the first order.
    ///
    /// # Errors
    /// `UnknownAccount`, `UnknownInstrument`, `Full`.
    pub fn load_position(
        &self,
        account: &AccountId,
        instrument: &InstrumentId,
        position: Position,
    ) -> Result<(), LocalError> {
        let mut book = self.book.lock();
        let (account, instrument) = (book.account(account)?, book.instrument(instrument)?);
        let pair = book.pair(account, instrument)?;
        book.place_position(pair, position);
        book.reprice(account);
        Ok(())
    }

    /// Takes a quote and reckons P&L, high-water mark and limits of every account that holds the instrument anew.
    ///
    /// # Errors
    /// `UnknownInstrument`; `Invalid` for a crossed quote, one from the future, or one older than the last: the last stays.
    pub fn update_market(&self, instrument: &InstrumentId, quote: Quote, now: Moment) -> Result<(), LocalError> {
        self.book.lock().update_market(instrument, quote, now)
    }

    /// Takes note of the time where nothing else tells it: a new day begins with the P&L that was last known before it.
    pub fn observe(&self, now: Moment) {
        self.book.lock().roll(now.wall);
    }

    /// Looks an account, a strategy and an instrument up, once for all their orders.
    ///
    /// # Errors
    /// `UnknownAccount`, `UnknownInstrument`, `Full`.
    pub fn route(
        &self,
        account: &AccountId,
        strategy: &StrategyId,
        instrument: &InstrumentId,
    ) -> Result<Route, LocalError> {
        let at = self.book.lock().route(account, strategy, instrument)?;
        u32::try_from(at).map(Route).map_err(|_| LocalError::Full { what: "routes", max: at })
    }

    /// Checks an order against every limit and, if all pass, reserves what it may use, in one step. It counts at once, sent or
    /// not, until its ticket is settled.
    ///
    /// # Errors
    /// `Refused` with the whole decision; `WrongRoute`; `Full` if as many orders work, or are remembered for duplicates, as there
    /// is room for.
    pub fn check_and_reserve(
        &self,
        route: Route,
        order: &Order,
        stance: Stance,
        now: Moment,
    ) -> Result<Reserved, LocalError> {
        let mut book = self.book.lock();
        book.roll(now.wall);
        let (at, nanos) = (place(&book, route, order)?, book::nanos(now.mono));
        let judged = match judge::judge(&mut book, at, order, stance, nanos) {
            Ok(judged) => judged,
            Err(Stop::DuplicatesFull) => {
                return Err(LocalError::Full { what: "remembered orders", max: book.sizes.recent_max as usize });
            }
            Err(Stop::Refused) => return Err(refused(&mut book, at, order, stance, nanos)),
        };
        let Some(ticket) = judge::take(&mut book, at, order, &judged, nanos) else {
            return Err(LocalError::Full { what: "working orders", max: book.orders.max() });
        };
        Ok(Reserved {
            ticket,
            route,
            side: order.side,
            effect: judged.effect,
            // It was above zero.
            qty: Qty::new(judged.qty).unwrap_or(order.qty),
            money: judged.held.money,
            money_firm: judged.held.money_firm,
            qty_held: judged.held.qty,
            slot: judged.slot,
        })
    }

    /// Every check of the order as things stand, reserving nothing.
    ///
    /// # Errors
    /// `WrongRoute`.
    pub fn explain(&self, route: Route, order: &Order, stance: Stance, now: Moment) -> Result<Decision, LocalError> {
        let mut book = self.book.lock();
        book.roll(now.wall);
        let at = place(&book, route, order)?;
        Ok(explain::explain(&mut book, at, order, stance, book::nanos(now.mono)))
    }

    /// Books a trade of a working order and releases what it no longer holds. What the venue did is booked even where it is more
    /// than was reserved; the answer says so. The caller sees to it that each report is settled once.
    ///
    /// # Errors
    /// `UnknownTicket`, `MissingConversion`, `Overflow`.
    pub fn fill(&self, ticket: Ticket, fill: &Fill, is_last: bool, now: Moment) -> Result<LocalSettled, LocalError> {
        let mut book = self.book.lock();
        book.roll(now.wall);
        settle::fill(&mut book, ticket, fill, is_last)
    }

    /// Ends an order that was canceled, rejected, expired or never sent: exactly what it holds is free again.
    ///
    /// # Errors
    /// `UnknownTicket`.
    pub fn end(&self, ticket: Ticket) -> Result<LocalSettled, LocalError> {
        settle::end(&mut self.book.lock(), ticket)
    }

    /// Books a trade of no working order: one that came after its order's end.
    ///
    /// # Errors
    /// `WrongRoute`, `MissingConversion`, `Overflow`.
    pub fn book(&self, route: Route, side: Side, fill: &Fill, now: Moment) -> Result<LocalSettled, LocalError> {
        let mut book = self.book.lock();
        book.roll(now.wall);
        let at = route.0 as usize;
        if at >= book.routes.len() {
            return Err(LocalError::WrongRoute);
        }
        let settled = settle::book_trade(&mut book, at, side, fill, false)?;
        Ok(LocalSettled { overfilled: fill.qty.get(), ..settled })
    }

    /// Counts a message that is no order of its own, a cancel or a change, in every window of messages; never refuses.
    ///
    /// # Errors
    /// `WrongRoute`.
    pub fn count_message(&self, route: Route, now: Moment) -> Result<(), LocalError> {
        let mut book = self.book.lock();
        let Book { routes, windows, .. } = &mut *book;
        let route = routes.get(route.0 as usize).ok_or(LocalError::WrongRoute)?;
        for window in &route.windows {
            let rate = &mut windows[*window];
            if rate.of == compile::RateOf::Messages {
                rate.window.used(book::nanos(now.mono));
                rate.window.add(1);
            }
        }
        Ok(())
    }

    /// What an approval added to which counters: for a journal, off the fast path.
    #[must_use]
    pub fn adds(&self, reserved: &Reserved) -> Vec<Add> {
        let book = self.book.lock();
        let Some(route) = book.routes.get(reserved.route.0 as usize) else { return Vec::new() };
        let position = Coverage::Position(route.account_id.clone(), route.instrument_id.clone());
        if reserved.effect == Effect::Reduce {
            return vec![Add { covers: position, metric: Metric::Reducing, by: reserved.qty_held }];
        }
        let is_buy = reserved.side == Side::Buy;
        let (net, side) =
            if is_buy { (Metric::NetLong, Metric::LongQty) } else { (Metric::NetShort, Metric::ShortQty) };
        let mut adds = Vec::with_capacity(32);
        for (place, cell) in route.cells.iter().enumerate() {
            let Some(covers) = book.cells[*cell].name.coverage() else { continue };
            let money = if place < book::ACCOUNT_AT { reserved.money_firm } else { reserved.money };
            let mut add = |metric, by| adds.push(Add { covers: covers.clone(), metric, by });
            add(Metric::Gross, money);
            add(net, money);
            add(Metric::WorkingOrders, 1);
            if place == book::INSTRUMENT_AT || place > book::ACCOUNT_AT {
                add(side, reserved.qty_held);
            }
            if (place == book::FIRM || place == book::ACCOUNT_AT) && reserved.slot != 0 {
                add(Metric::Slots, reserved.slot);
            }
        }
        adds
    }

    /// A counter as it stands.
    #[must_use]
    pub fn used(&self, covers: &Coverage, metric: Metric) -> Decimal {
        let book = self.book.lock();
        let name = match covers {
            Coverage::Position(account, instrument) => tally::Name::Position(account.clone(), instrument.clone()),
            Coverage::One(scope) => tally::Name::of(scope),
            Coverage::Each(_) => return Decimal::ZERO,
        };
        if let (Metric::Reducing, Coverage::Position(account, instrument)) = (metric, covers) {
            let account = book.account_of.get(account).map(|at| &book.accounts[*at]);
            let pair = account.and_then(|account| account.pairs.get(instrument));
            return metric.figure(pair.map_or(0, |pair| book.pairs[*pair].reducing));
        }
        metric.figure(book.find(&name).map_or(0, |cell| cell.used.get(metric)))
    }

    /// Whether every counter is zero: nothing is held and nothing works.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let book = self.book.lock();
        let cells = book.cells.iter().all(|cell| cell.used == tally::Tally::default());
        cells && book.pairs.iter().all(|pair| pair.is_idle() && pair.reducing == 0) && book.orders.len() == 0
    }

    /// How many orders work, exits too.
    #[must_use]
    pub fn working(&self) -> usize {
        self.book.lock().orders.len()
    }

    /// The account as it stands: what is written to the store when the lease is given back.
    #[must_use]
    pub fn account(&self, account: &AccountId) -> Option<AccountState> {
        let book = self.book.lock();
        book.account_of.get(account).map(|at| book.accounts[*at].state.clone())
    }

    /// The position as it stands; none if the account never traded the instrument.
    #[must_use]
    pub fn position(&self, account: &AccountId, instrument: &InstrumentId) -> Option<Position> {
        let book = self.book.lock();
        let account = &book.accounts[*book.account_of.get(account)?];
        let pair = &book.pairs[*account.pairs.get(instrument)?];
        pair.known.then(|| pair.position.clone())
    }

    /// The strategy's own part of a position.
    ///
    /// # Errors
    /// `WrongRoute`.
    pub fn strategy_position(&self, route: Route) -> Result<Position, LocalError> {
        let book = self.book.lock();
        book.routes.get(route.0 as usize).map(|route| route.sub.clone()).ok_or(LocalError::WrongRoute)
    }
}

/// Where the order's route stands.
#[inline]
fn place(book: &Book, route: Route, order: &Order) -> Result<usize, LocalError> {
    let at = route.0 as usize;
    let is_its = book.routes.get(at).is_some_and(|route| {
        route.account_id == order.account && route.strategy == order.strategy && route.instrument_id == order.instrument
    });
    if is_its { Ok(at) } else { Err(LocalError::WrongRoute) }
}

#[cold]
fn refused(book: &mut Book, at: usize, order: &Order, stance: Stance, now: u64) -> LocalError {
    let mut decision = explain::explain(book, at, order, stance, now);
    if decision.approved {
        // Integers are stricter than decimals in one place at most: figures that do not fit them.
        let scope = infra_types::Scope::Account(order.account.clone());
        decision.checks.push(Check::missing(code::OVERFLOW, scope, "a figure is too large or too fine to count"));
        decision.approved = false;
    }
    LocalError::Refused(Box::new(decision))
}
