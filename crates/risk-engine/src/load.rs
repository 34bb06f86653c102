//! From the store into memory.

use infra_state_store::{Entry, Key, Scan, Value};
use infra_types::{AccountId, Decimal, InstrumentId, Order, Scope, StrategyId};

use crate::{
    account::AccountState,
    engine::RiskEngine,
    error::RiskError,
    ledger::{self, Counter, Metric},
    position::Position,
    strategy::StrategyState,
    working::Working,
};

impl RiskEngine {
    /// Loads limits, accounts, positions and counters from the store. Limits that this version of the program cannot read or follow
    /// are no error: nothing is opened then (`limits_unreadable`), while exits and fills go on.
    ///
    /// # Errors
    /// What the store says; `Corrupt` for a record, other than the limits, that is not ours.
    ///
    /// # Cancel safety
    /// Memory may be loaded in part; call again.
    pub async fn restore(&self) -> Result<(), RiskError> {
        // Accounts before positions: a position that is newer than its account fails the account's precondition later, an
        // account that is newer than its positions would not.
        match self.reload_limits().await {
            // `take_limits` has noted them as unreadable.
            Ok(_) | Err(RiskError::Corrupt { .. } | RiskError::InvalidLimits(_)) => {}
            Err(other) => return Err(other),
        }
        self.load(ledger::ACCOUNTS).await?;
        let half_read = self.book.lock().half_read.clone();
        self.load(ledger::POSITIONS).await?;
        self.book.lock().positions_came(&half_read);
        self.load(ledger::STRATEGIES).await?;
        for prefix in [ledger::USED, ledger::HELD_COUNTS, ledger::EXECUTIONS, ledger::WORKING] {
            self.load(prefix).await?;
        }
        Ok(())
    }

    /// Loads every record under a prefix.
    async fn load(&self, prefix: &str) -> Result<(), RiskError> {
        let mut scan = Scan { limit: 1_000, ..Scan::new(prefix) };
        loop {
            let page = self.store.scan(&self.namespace, scan.clone()).await?;
            for (key, entry) in &page.entries {
                self.take(key, entry)?;
            }
            match page.next {
                Some(after) => scan.after = Some(after),
                None => return Ok(()),
            }
        }
    }

    fn take(&self, key: &Key, entry: &Entry) -> Result<(), RiskError> {
        let name = key.name();
        let corrupt = |reason: &str| RiskError::Corrupt { key: name.to_owned(), reason: reason.to_owned() };
        let version = || entry.version.ok_or_else(|| corrupt("a record without a version"));
        if name.starts_with(ledger::ACCOUNTS) {
            let state: AccountState = ledger::decode(key, entry)?;
            let (account, version) = (state.id.clone(), version()?);
            let mut book = self.book.lock();
            if book.offer_account(state, version) {
                book.await_positions(account, version);
            }
        } else if name.starts_with(ledger::POSITIONS) {
            let (account, instrument) = ledger::parse_position(name).ok_or_else(|| corrupt("not a position's key"))?;
            let position: Position = ledger::decode(key, entry)?;
            self.book.lock().offer_position(&account, &instrument, position, version()?);
        } else if name == ledger::LIMITS {
            // What cannot be followed opens nothing, and keeps no exit and no fill from its way.
            let _ = self.take_limits(key, entry);
        } else if name.starts_with(ledger::WORKING) {
            let of = name.strip_prefix(ledger::WORKING).and_then(|id| id.parse().ok());
            let of: InstrumentId = of.ok_or_else(|| corrupt("not an instrument's key"))?;
            let (value, version) = (ledger::decode::<Working>(key, entry)?, version()?);
            self.book.lock().offer_working(&of, value, version);
        } else if name.starts_with(ledger::STRATEGIES) {
            match ledger::parse_strategy(name).ok_or_else(|| corrupt("not a strategy's key"))? {
                (_, None) => {
                    let state: StrategyState = ledger::decode(key, entry)?;
                    self.book.lock().offer_strategy(state, version()?);
                }
                (strategy, Some(of)) => {
                    let part: Position = ledger::decode(key, entry)?;
                    self.book.lock().offer_part(&strategy, of, part, version()?);
                }
            }
        } else {
            let raw = entry.value.as_counter().ok_or_else(|| corrupt("not a counter"))?;
            self.book.lock().counters.insert(name.to_owned(), raw);
        }
        Ok(())
    }

    /// Reads everything that an order of this account, instrument and strategy is decided and settled by.
    pub(crate) async fn refresh_for(&self, order: &Order) -> Result<(), RiskError> {
        self.refresh(&order.account, Some((&order.instrument, &order.strategy))).await
    }

    /// Reads an account, the counters that concern it (and the instrument and strategy), then its positions (and the strategy's
    /// parts); see `restore` for the order.
    pub(crate) async fn refresh(
        &self,
        account: &AccountId,
        of: Option<(&InstrumentId, &StrategyId)>,
    ) -> Result<(), RiskError> {
        let mut names = vec![ledger::LIMITS.to_owned(), ledger::account(account), ledger::held_count(account)];
        let counters = [Metric::Gross, Metric::NetLong, Metric::NetShort, Metric::Orders, Metric::Slots];
        for scope in [Scope::Firm, Scope::Account(account.clone())] {
            names.extend(counters.map(|metric| Counter::of(metric, scope.clone()).name()));
        }
        if let Some((instrument, strategy)) = of {
            // In one snapshot with the counters that it is a part of.
            names.push(ledger::position(account, instrument));
            names.push(ledger::strategy(strategy));
            names.push(ledger::executions(strategy));
            names.push(ledger::working(instrument));
            let quantities = [Metric::Long, Metric::Short, Metric::LongWhole, Metric::ShortWhole];
            for metric in [Metric::Gross, Metric::Orders, Metric::Reducing].into_iter().chain(quantities) {
                names.push(Counter::of_position(metric, account, instrument).name());
            }
            for metric in [Metric::Gross].into_iter().chain(quantities) {
                names.push(Counter::of(metric, Scope::Instrument(instrument.clone())).name());
            }
            names.push(Counter::of(Metric::Gross, Scope::Venue(instrument.venue.clone())).name());
            for metric in [Metric::Gross, Metric::Orders] {
                names.push(Counter::of(metric, Scope::Strategy(strategy.clone())).name());
            }
        }
        if let Some(group) = self.active().limits().groups.get(account) {
            let of_group = [Metric::Gross, Metric::NetLong, Metric::NetShort];
            names.extend(of_group.map(|metric| Counter::of(metric, Scope::Group(group.clone())).name()));
        }
        let keys = names.iter().map(|name| ledger::key(name)).collect::<Result<Vec<_>, _>>()?;
        let entries = self.store.get_many(&self.namespace, &keys).await?;
        for (key, entry) in keys.iter().zip(&entries) {
            match entry {
                Some(entry) => self.take(key, entry)?,
                None if key.name() == ledger::LIMITS => self.forget_limits(),
                None => {
                    self.book.lock().counters.remove(key.name());
                }
            }
        }
        if let Some((_, strategy)) = of {
            self.load(&ledger::parts_of(strategy)).await?;
        }
        let half_read = self.book.lock().half_read.get_key_value(account).map(|(id, v)| (id.clone(), *v));
        self.load(&ledger::positions_of(account)).await?;
        self.book.lock().positions_came(&half_read.into_iter().collect());
        Ok(())
    }

    /// Reads a strategy's record, then its parts of positions.
    pub(crate) async fn refresh_strategy(&self, strategy: &StrategyId) -> Result<(), RiskError> {
        let key = ledger::key(&ledger::strategy(strategy))?;
        if let Some(entry) = self.store.get(&self.namespace, &key).await? {
            self.take(&key, &entry)?;
        }
        self.load(&ledger::parts_of(strategy)).await
    }

    /// Every counter as it is stored now: exposure and positions used, quantities being reduced, working opening orders, by
    /// key. All are zero when no order works and nothing is held.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Reads change nothing in the store.
    pub async fn used(&self) -> Result<Vec<(String, Decimal)>, RiskError> {
        let mut found = Vec::new();
        for prefix in [ledger::USED, ledger::HELD_COUNTS] {
            let mut scan = Scan { limit: 1_000, ..Scan::new(prefix) };
            loop {
                let page = self.store.scan(&self.namespace, scan.clone()).await?;
                for (key, entry) in &page.entries {
                    if let Value::Counter(raw) = entry.value {
                        found.push((key.name().to_owned(), ledger::figure(key.name(), raw)));
                    }
                }
                match page.next {
                    Some(after) => scan.after = Some(after),
                    None => break,
                }
            }
        }
        Ok(found)
    }
}
