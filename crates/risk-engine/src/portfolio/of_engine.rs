//! Figures of accounts, groups, strategies and the firm out of the engine's memory, at the last quotes whatever their age.

use infra_types::{AccountId, Currency, GroupId, Scope, StrategyId};

use super::metrics::{ScopeMetrics, Sums};
use crate::{
    book::{Book, Now},
    engine::RiskEngine,
};

fn add_account(sums: &mut Sums, book: &mut Book, id: &AccountId, currency: &Currency, now: Now) {
    book.observe(id, now);
    let Some(account) = book.accounts.get(id).map(|a| &a.value) else { return sums.without(id) };
    let unrealised = book.unrealised(account, None, now, None).ok();
    let Some((unrealised, rate)) = unrealised.zip(book.rates.get(&account.currency, currency)) else {
        return sums.without(id);
    };
    sums.add_account(account, unrealised, rate);
    for (instrument, position) in book.positions.get(id).into_iter().flatten() {
        sums.add_position(instrument, &position.value, rate);
    }
}

impl RiskEngine {
    /// Figures of one account, in its currency. None for an unknown account; one that cannot be priced stands in `unpriced`.
    #[must_use]
    pub fn account_metrics(&self, account: &AccountId) -> Option<ScopeMetrics> {
        let now = self.now();
        let mut book = self.book.lock();
        let currency = book.accounts.get(account)?.value.currency.clone();
        let mut sums = Sums::default();
        add_account(&mut sums, &mut book, account, &currency, now);
        Some(sums.finish(Scope::Account(account.clone()), currency))
    }

    /// Figures of all accounts of a group, in the firm's currency. None for a group that no account is in, or without a firm
    /// currency.
    #[must_use]
    pub fn group_metrics(&self, group: &GroupId) -> Option<ScopeMetrics> {
        let (currency, members) = self.members(Some(group));
        if members.is_empty() {
            return None;
        }
        self.metrics_of(Scope::Group(group.clone()), &members, currency?)
    }

    /// Figures of all accounts in the ledger, in the firm's currency. None without one.
    #[must_use]
    pub fn firm_metrics(&self) -> Option<ScopeMetrics> {
        let (currency, members) = self.members(None);
        self.metrics_of(Scope::Firm, &members, currency?)
    }

    /// Figures of a strategy over all accounts, in the firm's currency. None for one that never traded, or without a firm
    /// currency. If a part of what it holds cannot be priced, the account that it stands in is in `unpriced` and nothing of
    /// what is held counts as unrealised.
    #[must_use]
    pub fn strategy_metrics(&self, strategy: &StrategyId) -> Option<ScopeMetrics> {
        let (currency, _) = self.members(None);
        let currency = currency?;
        let now = self.now();
        let mut book = self.book.lock();
        book.observe_strategy(strategy, Some(&currency), now);
        let state = &book.strategy(strategy)?.value;
        let mut sums = Sums::default();
        let unrealised = book.unrealised_of_strategy(strategy, None, &currency, now, None);
        let known = unrealised.as_ref().copied().unwrap_or_default();
        sums.add_strategy(state, known);
        let parts = book.strategies.get(strategy).into_iter().flat_map(|of| &of.parts);
        for ((account, instrument), part) in parts.filter(|(_, part)| !part.value.is_flat()) {
            let own = book.accounts.get(account).map(|a| &a.value.currency);
            match own.and_then(|own| book.rates.get(own, &currency)) {
                Some(rate) if unrealised.is_ok() => sums.add_position(instrument, &part.value, rate),
                Some(rate) => {
                    sums.without(account);
                    sums.add_position(instrument, &part.value, rate);
                }
                None => sums.without(account),
            }
        }
        Some(sums.finish(Scope::Strategy(strategy.clone()), currency))
    }

    /// The firm's currency, and the accounts of a group; all accounts if none is named.
    fn members(&self, group: Option<&GroupId>) -> (Option<Currency>, Vec<AccountId>) {
        let active = self.active();
        let limits = active.limits();
        let members = match group {
            Some(group) => limits.groups.iter().filter(|(_, of)| *of == group).map(|(id, _)| id.clone()).collect(),
            None => self.book.lock().accounts.keys().cloned().collect(),
        };
        (limits.firm_currency.clone(), members)
    }

    fn metrics_of(&self, scope: Scope, members: &[AccountId], currency: Currency) -> Option<ScopeMetrics> {
        let now = self.now();
        let mut book = self.book.lock();
        let mut sums = Sums::default();
        for account in members {
            add_account(&mut sums, &mut book, account, &currency, now);
        }
        Some(sums.finish(scope, currency))
    }
}
