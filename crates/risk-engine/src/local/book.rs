//! Everything behind the ledger's lock: accounts, instruments, positions, routes, and what is derived from them ahead of the next
//! order.

use std::{collections::BTreeMap, time::Duration};

use infra_types::{
    AccountId, Currency, Decimal, GroupId, InstrumentId, InstrumentSpec, InvalidValue, Monotonic, StrategyId, Timestamp,
};
use jiff::{civil::Date, tz::TimeZone};

use crate::{
    account::AccountState, config::RiskLimits, market::Quote, position::Position, rates::Rates, rulebook::RuleBook,
};

use super::{
    LocalError, LocalSizes, Moment,
    compile::{self, Loss, OrderLimits, Origin, RateOf},
    fixed,
    orders::Orders,
    recent::Recent,
    tally::{self, Cell, Name, Tally},
    window::Window,
};

/// Nanoseconds since the clock's origin; 584 years fit.
#[inline]
pub(super) fn nanos(at: Monotonic) -> u64 {
    let at = at.since_origin();
    at.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(at.subsec_nanos()))
}

/// As [`nanos`], of a duration.
pub(super) fn long(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[derive(Debug)]
pub(super) struct Account {
    pub(super) state: AccountState,
    pub(super) cell: usize,
    pub(super) group: usize,
    pub(super) pairs: BTreeMap<InstrumentId, usize>,
    pub(super) losses: Vec<Loss>,
    /// Whether losses admit new positions at the last quotes. False also if the P&L is not known.
    pub(super) opens: bool,
    /// From when on a mark of what is held is too old, in nanoseconds.
    pub(super) stale_from: u64,
    /// Deposits and P&L at the last quotes, if known.
    pub(super) equity: Option<Decimal>,
    pub(super) to_firm: Option<Decimal>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) account: usize,
    pub(super) instrument: usize,
    pub(super) position: Position,
    /// Whether there ever was a position.
    pub(super) known: bool,
    pub(super) cell: usize,
    /// 1 long, −1 short, 0 flat.
    pub(super) sign: i64,
    /// The position's size at 1e-8, rounded down: what exits may take.
    pub(super) there: i64,
    /// What working exits hold of it.
    pub(super) reducing: i64,
    /// How many opening orders work.
    pub(super) opening: i64,
    /// How much they may fill, buys and sells: on the other side of a position they make it smaller too.
    pub(super) works: [i64; 2],
}

impl Pair {
    /// What an order of this side may take off the position, at 1e-8: less what works against it already.
    #[inline]
    pub(super) fn reducible(&self, side: usize) -> i64 {
        (self.there - self.reducing - self.works[side]).max(0)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.sign == 0 && self.opening == 0
    }
}

#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) spec: InstrumentSpec,
    pub(super) cell: usize,
    pub(super) venue: usize,
    pub(super) tick: u64,
    pub(super) lot: u64,
    pub(super) qty_min: i64,
    pub(super) qty_max: i64,
    /// At 1e-16.
    pub(super) notional_min: u128,
    /// What one order may add to a counter of quantities.
    pub(super) qty_countable: i64,
    pub(super) quote: Option<Quote>,
    /// When the quote was made, on the monotonic clock; may lie before its origin.
    pub(super) born: i64,
    pub(super) bid: i64,
    pub(super) ask: i64,
}

impl Instrument {
    /// The age of the quote.
    #[inline]
    pub(super) fn age(&self, now: u64) -> i64 {
        i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(self.born)
    }
}

/// What a figure is multiplied by on its way to a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Quote, account and firm have one currency.
    Same,
    /// Quote to account, account to firm.
    Rates(Decimal, Decimal),
    /// A rate is not set.
    Missing,
}

/// Account, strategy and instrument, with all that was looked up for them.
#[derive(Debug)]
pub(super) struct RouteCell {
    pub(super) strategy: StrategyId,
    pub(super) account_id: AccountId,
    pub(super) instrument_id: InstrumentId,
    pub(super) account: usize,
    pub(super) instrument: usize,
    pub(super) pair: usize,
    /// Firm, group, venue, strategy, instrument: firm currency. Then account and position: account currency.
    pub(super) cells: [usize; 7],
    pub(super) windows: Vec<usize>,
    pub(super) limits: OrderLimits,
    /// Whether every limit that opening needs is set and nothing forbids it.
    pub(super) opens: bool,
    /// Whether a limit in the firm's currency that covers it follows the firm's equity.
    pub(super) follows_firm: bool,
    pub(super) age_max: i64,
    /// Nanoseconds; 0 checks no duplicates.
    pub(super) duplicates: u64,
    pub(super) conversion: Conversion,
    /// The strategy's own part of the position.
    pub(super) sub: Position,
}

/// Where the firm, the accounts of no group, and the money that is in account currency stand in [`RouteCell::cells`].
pub(super) const FIRM: usize = 0;
pub(super) const NO_GROUP: usize = 1;
pub(super) const STRATEGY_AT: usize = 3;
pub(super) const INSTRUMENT_AT: usize = 4;
pub(super) const ACCOUNT_AT: usize = 5;

#[derive(Debug)]
pub(super) struct RateWindow {
    pub(super) of: RateOf,
    pub(super) name: Name,
    pub(super) window: Window,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) struct Book {
    pub(super) limits: RiskLimits,
    rules: RuleBook,
    zone: TimeZone,
    pub(super) sizes: LocalSizes,
    pub(super) day: Date,
    /// When the next day begins.
    day_ends: Timestamp,
    pub(super) cells: Vec<Cell>,
    cell_of: BTreeMap<Name, usize>,
    pub(super) accounts: Vec<Account>,
    pub(super) account_of: BTreeMap<AccountId, usize>,
    pub(super) instruments: Vec<Instrument>,
    pub(super) instrument_of: BTreeMap<InstrumentId, usize>,
    pub(super) pairs: Vec<Pair>,
    pub(super) routes: Vec<RouteCell>,
    route_of: BTreeMap<(AccountId, StrategyId, InstrumentId), usize>,
    pub(super) windows: Vec<RateWindow>,
    windows_of: BTreeMap<Name, Vec<usize>>,
    pub(super) rates: Rates,
    pub(super) orders: Orders,
    pub(super) recent: Recent,
    /// Whether a limit in the firm's currency follows its equity.
    pub(super) firm_follows: bool,
    pub(super) firm_equity: Option<Decimal>,
    /// From when on a mark that the firm's equity needs is too old.
    pub(super) firm_stale_from: u64,
}

fn full(what: &'static str, max: usize) -> LocalError {
    LocalError::Full { what, max }
}

impl Book {
    pub(super) fn new(limits: RiskLimits, sizes: LocalSizes, now: Moment) -> Result<Self, LocalError> {
        compile::check(&limits)?;
        let zone = limits.zone().map_err(|mistake| LocalError::InvalidLimits(vec![mistake]))?;
        let mut book = Self {
            orders: Orders::new(sizes.orders_max),
            recent: Recent::new(sizes.recent_max as usize),
            rules: RuleBook::of(&limits),
            limits,
            zone,
            sizes,
            day: Date::MIN,
            day_ends: Timestamp::from_nanos(i64::MIN),
            cells: Vec::new(),
            cell_of: BTreeMap::new(),
            accounts: Vec::new(),
            account_of: BTreeMap::new(),
            instruments: Vec::new(),
            instrument_of: BTreeMap::new(),
            pairs: Vec::new(),
            routes: Vec::new(),
            route_of: BTreeMap::new(),
            windows: Vec::new(),
            windows_of: BTreeMap::new(),
            rates: Rates::default(),
            firm_follows: false,
            firm_equity: None,
            firm_stale_from: u64::MAX,
        };
        book.cell(Name::Firm);
        book.cell(Name::NoGroup);
        book.roll(now.wall);
        Ok(book)
    }

    /// The place of a scope's counters; made where they are not there yet.
    fn cell(&mut self, name: Name) -> usize {
        if let Some(at) = self.cell_of.get(&name) {
            return *at;
        }
        let at = self.cells.len();
        let windows = compile::rates(&self.rules, &name).into_iter().map(|rate| RateWindow {
            of: rate.metric,
            name: name.clone(),
            window: Window::new(rate.max, rate.length),
            origin: rate.origin,
        });
        let first = self.windows.len();
        self.windows.extend(windows);
        self.windows_of.insert(name.clone(), (first..self.windows.len()).collect());
        let cell = Cell::new(name.clone(), compile::bounds(&self.rules, &name));
        self.firm_follows |= name.is_firms() && cell.follows_equity();
        self.cells.push(cell);
        self.cell_of.insert(name, at);
        at
    }

    pub(super) fn find(&self, name: &Name) -> Option<&Cell> {
        self.cell_of.get(name).map(|at| &self.cells[*at])
    }

    /// Takes note of the day. A wall clock that steps back opens no day again.
    #[inline]
    pub(super) fn roll(&mut self, wall: Timestamp) {
        if wall >= self.day_ends {
            self.begin_day(wall);
        }
    }

    #[cold]
    fn begin_day(&mut self, wall: Timestamp) {
        // Every i64 of nanoseconds is in jiff's range.
        let instant = jiff::Timestamp::from_nanosecond(i128::from(wall.as_nanos())).unwrap_or_default();
        self.day = self.zone.to_datetime(instant).date();
        let ends = self.day.tomorrow().and_then(|next| next.to_zoned(self.zone.clone()));
        let ends = ends.ok().and_then(|ends| i64::try_from(ends.timestamp().as_nanosecond()).ok());
        self.day_ends = Timestamp::from_nanos(ends.unwrap_or(i64::MAX));
        for account in 0..self.accounts.len() {
            self.reprice(account);
        }
    }

    pub(super) fn open_account(&mut self, state: AccountState) -> Result<(), LocalError> {
        if self.account_of.contains_key(&state.id) {
            return Err(InvalidValue::new("account", format!("{} is open already", state.id)).into());
        }
        if self.accounts.len() >= self.sizes.accounts_max as usize {
            return Err(full("accounts", self.accounts.len()));
        }
        let name = Name::Account(state.id.clone());
        let group: Option<GroupId> = self.limits.groups.get(&state.id).cloned();
        let group = group.map_or(NO_GROUP, |id| self.cell(Name::Group(id)));
        let losses = compile::losses(&self.rules, &name);
        let cell = self.cell(name);
        let to_firm = self.limits.firm_currency.as_ref().and_then(|firm| self.rates.get(&state.currency, firm));
        self.account_of.insert(state.id.clone(), self.accounts.len());
        self.accounts.push(Account {
            state,
            cell,
            group,
            pairs: BTreeMap::new(),
            losses,
            opens: false,
            stale_from: 0,
            equity: None,
            to_firm,
        });
        self.reprice(self.accounts.len() - 1);
        Ok(())
    }

    pub(super) fn register_instrument(&mut self, spec: InstrumentSpec) -> Result<(), LocalError> {
        spec.validate()?;
        let grid = |what: &str, step: Decimal| {
            let raw = fixed::exact(step).and_then(|raw| u64::try_from(raw).ok());
            raw.ok_or_else(|| {
                InvalidValue::new("instrument spec", format!("{}: {what} {step} is no multiple of 1e-8", spec.id))
            })
        };
        let (tick, lot) = (grid("tick_size", spec.tick_size)?, grid("lot_size", spec.lot_size)?);
        let qty_min = fixed::up(spec.qty_min.get()).unwrap_or(i64::MAX);
        let qty_max = fixed::down(spec.qty_max.get()).unwrap_or(i64::MAX);
        let notional_min = fixed::product(spec.notional_min.max(Decimal::ZERO), true).unwrap_or(u128::MAX);
        if let Some(at) = self.instrument_of.get(&spec.id) {
            let known = &mut self.instruments[*at];
            if (&known.spec.base, &known.spec.quote) != (&spec.base, &spec.quote) {
                return Err(InvalidValue::new("instrument spec", format!("{}: its currencies changed", spec.id)).into());
            }
            (known.tick, known.lot, known.qty_min, known.qty_max) = (tick, lot, qty_min, qty_max);
            (known.notional_min, known.qty_countable, known.spec) = (notional_min, tally::countable(&spec), spec);
            return Ok(());
        }
        if self.instruments.len() >= self.sizes.instruments_max as usize {
            return Err(full("instruments", self.instruments.len()));
        }
        let qty_countable = tally::countable(&spec);
        let cell = self.cell(Name::Instrument(spec.id.clone()));
        let venue = self.cell(Name::Venue(spec.id.venue.clone()));
        self.instrument_of.insert(spec.id.clone(), self.instruments.len());
        self.instruments.push(Instrument {
            spec,
            cell,
            venue,
            tick,
            lot,
            qty_min,
            qty_max,
            notional_min,
            qty_countable,
            quote: None,
            born: i64::MIN,
            bid: 0,
            ask: 0,
        });
        Ok(())
    }

    pub(super) fn account(&self, id: &AccountId) -> Result<usize, LocalError> {
        self.account_of.get(id).copied().ok_or_else(|| LocalError::UnknownAccount(id.clone()))
    }

    pub(super) fn instrument(&self, id: &InstrumentId) -> Result<usize, LocalError> {
        self.instrument_of.get(id).copied().ok_or_else(|| LocalError::UnknownInstrument(id.clone()))
    }

    /// The account's place in the instrument.
    pub(super) fn pair(&mut self, account: usize, instrument: usize) -> Result<usize, LocalError> {
        let id = &self.instruments[instrument].spec.id;
        if let Some(at) = self.accounts[account].pairs.get(id) {
            return Ok(*at);
        }
        if self.pairs.len() >= self.sizes.routes_max as usize {
            return Err(full("positions", self.pairs.len()));
        }
        let (id, at) = (id.clone(), self.pairs.len());
        let cell = self.cell(Name::Position(self.accounts[account].state.id.clone(), id.clone()));
        self.pairs.push(Pair {
            account,
            instrument,
            position: Position::default(),
            known: false,
            cell,
            sign: 0,
            there: 0,
            reducing: 0,
            opening: 0,
            works: [0; 2],
        });
        self.accounts[account].pairs.insert(id, at);
        let equity = self.accounts[account].equity;
        self.cells[cell].rebound(equity);
        Ok(at)
    }

    pub(super) fn route(
        &mut self,
        account_id: &AccountId,
        strategy: &StrategyId,
        instrument_id: &InstrumentId,
    ) -> Result<usize, LocalError> {
        let ids = (account_id.clone(), strategy.clone(), instrument_id.clone());
        if let Some(at) = self.route_of.get(&ids) {
            return Ok(*at);
        }
        let (account, instrument) = (self.account(account_id)?, self.instrument(instrument_id)?);
        if self.routes.len() >= self.sizes.routes_max as usize {
            return Err(full("routes", self.routes.len()));
        }
        let pair = self.pair(account, instrument)?;
        let strategy_cell = self.cell(Name::Strategy(strategy.clone()));
        let (of_account, of_instrument) = (&self.accounts[account], &self.instruments[instrument]);
        let cells = [
            FIRM,
            of_account.group,
            of_instrument.venue,
            strategy_cell,
            of_instrument.cell,
            of_account.cell,
            self.pairs[pair].cell,
        ];
        let names: Vec<Name> = cells.iter().map(|at| self.cells[*at].name.clone()).collect();
        let windows = names.iter().flat_map(|name| self.windows_of.get(name)).flatten().copied().collect();
        let limits = compile::order_limits(&self.rules, &names);
        let at = self.routes.len();
        self.routes.push(RouteCell {
            strategy: strategy.clone(),
            account_id: account_id.clone(),
            instrument_id: instrument_id.clone(),
            account,
            instrument,
            pair,
            cells,
            windows,
            opens: limits.unset.is_empty() && limits.restricted.is_empty() && self.limits.firm_currency.is_some(),
            follows_firm: cells[..ACCOUNT_AT].iter().any(|at| self.cells[*at].follows_equity()),
            age_max: limits.ages.iter().map(|of| long(of.limit)).min().unwrap_or(-1),
            // The longest one remembers what the others do.
            duplicates: limits.duplicates.iter().map(|of| long(of.limit)).max().map_or(0, i64::unsigned_abs),
            limits,
            conversion: Conversion::Missing,
            sub: Position::default(),
        });
        self.convert(at);
        self.route_of.insert(ids, at);
        // A strategy or group that is new may be the first with a limit that follows the firm's equity.
        self.refirm();
        Ok(at)
    }

    fn convert(&mut self, at: usize) {
        let route = &self.routes[at];
        let (account, spec) = (&self.accounts[route.account], &self.instruments[route.instrument].spec);
        let firm = self.limits.firm_currency.as_ref();
        let rate = self.rates.get(&spec.quote, &account.state.currency);
        let firm_rate = firm.and_then(|firm| self.rates.get(&account.state.currency, firm));
        self.routes[at].conversion = match (rate, firm_rate) {
            (Some(rate), Some(firm_rate)) if rate == Decimal::ONE && firm_rate == Decimal::ONE => Conversion::Same,
            (Some(rate), Some(firm_rate)) => Conversion::Rates(rate, firm_rate),
            _ => Conversion::Missing,
        };
    }

    pub(super) fn set_conversion(&mut self, from: Currency, to: Currency, rate: Decimal) -> Result<(), LocalError> {
        self.rates.set(from, to, rate)?;
        (0..self.routes.len()).for_each(|at| self.convert(at));
        for at in 0..self.accounts.len() {
            let firm = self.limits.firm_currency.as_ref();
            self.accounts[at].to_firm = firm.and_then(|firm| self.rates.get(&self.accounts[at].state.currency, firm));
            self.reprice(at);
        }
        Ok(())
    }

    /// Books a change of the position: derives what orders are checked against and moves the counters of every scope but the
    /// strategy.
    pub(super) fn place_position(&mut self, pair: usize, position: Position) {
        let at = &mut self.pairs[pair];
        let was_idle = at.is_idle();
        let (account, firm) = change(&at.position, &position);
        at.sign = if position.is_flat() { 0 } else { 1 - 2 * i64::from(position.qty.is_sign_negative()) };
        at.there = fixed::down(position.qty.abs()).unwrap_or(i64::MAX);
        (at.position, at.known) = (position, true);
        let slots = i64::from(was_idle) - i64::from(at.is_idle());
        let (pair_cell, of_account) = (at.cell, &self.accounts[at.account]);
        let instrument = &self.instruments[at.instrument];
        // Quantities of different instruments do not add up.
        let none = [0; 2];
        self.cells[FIRM].used.add(&Tally { slots, qty: none, ..firm });
        for cell in [of_account.group, instrument.venue] {
            self.cells[cell].used.add(&Tally { qty: none, ..firm });
        }
        self.cells[instrument.cell].used.add(&firm);
        self.cells[of_account.cell].used.add(&Tally { slots, qty: none, ..account });
        self.cells[pair_cell].used.add(&account);
    }
}

/// What the change of a position adds to counters in account currency and in firm currency.
pub(super) fn change(before: &Position, after: &Position) -> (Tally, Tally) {
    let signed = |booked: i64, of: &Position| if of.cost.is_sign_negative() { -booked } else { booked };
    let qty_of = |of: &Position| {
        let size = fixed::up(of.qty.abs()).unwrap_or(i64::MAX / 4);
        if of.qty.is_sign_negative() { -size } else { size }
    };
    let qty = qty_of(after) - qty_of(before);
    let tally = |was: i64, is: i64| {
        let net = signed(is, after) - signed(was, before);
        Tally { gross: is - was, net: [net, -net], qty: [qty, -qty], ..Tally::default() }
    };
    (tally(before.booked.raw(), after.booked.raw()), tally(before.booked_firm.raw(), after.booked_firm.raw()))
}
