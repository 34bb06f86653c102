//! What the engine answers from memory.

use infra_types::{AccountId, Decimal, InstrumentId, Scaled, Scope, StrategyId};

use crate::{
    account::AccountState,
    decision::{Check, Decision, code},
    engine::RiskEngine,
    ledger::{Counter, Metric},
    limits,
    portfolio::{self, AccountMetrics, PortfolioMetrics},
    position::Position,
    strategy::StrategyState,
};

impl RiskEngine {
    /// The position as last known, also when it is flat; none if the account never traded the instrument.
    #[must_use]
    pub fn position(&self, account: &AccountId, instrument: &InstrumentId) -> Option<Position> {
        self.book.lock().position(account, instrument).map(|p| p.value.clone())
    }

    /// The strategy's own figures as last known, with what was observed since; none if it never traded.
    #[must_use]
    pub fn strategy(&self, strategy: &StrategyId) -> Option<StrategyState> {
        self.book.lock().strategy(strategy).map(|s| s.value.clone())
    }

    /// The strategy's parts of positions that are not flat, by account and instrument. The parts of all strategies in one position add
    /// up to it in quantity.
    #[must_use]
    pub fn strategy_positions(&self, strategy: &StrategyId) -> Vec<(AccountId, InstrumentId, Position)> {
        let book = self.book.lock();
        let parts = book.strategies.get(strategy).into_iter().flat_map(|of| &of.parts);
        let open = parts.filter(|(_, p)| !p.value.is_flat());
        open.map(|((account, id), p)| (account.clone(), id.clone(), p.value.clone())).collect()
    }

    /// All positions that are not flat, by account and instrument.
    #[must_use]
    pub fn positions(&self) -> Vec<(AccountId, InstrumentId, Position)> {
        let book = self.book.lock();
        let all = book.positions.iter().flat_map(|(account, of)| of.iter().map(move |(id, p)| (account, id, p)));
        let open = all.filter(|(_, _, p)| !p.value.is_flat());
        open.map(|(account, id, p)| (account.clone(), id.clone(), p.value.clone())).collect()
    }

    /// The account as last known, with what was observed since.
    #[must_use]
    pub fn account(&self, account: &AccountId) -> Option<AccountState> {
        self.book.lock().accounts.get(account).map(|a| a.value.clone())
    }

    /// P&L now at the last quotes, whatever their age. None for an unknown account or one that cannot be priced.
    fn pnl_now(&self, account: &AccountId) -> Option<(AccountState, Decimal)> {
        let now = self.now();
        let mut book = self.book.lock();
        book.observe(account, now);
        let state = &book.accounts.get(account)?.value;
        let unrealised = book.unrealised(state, None, now, None).ok()?;
        Some((state.clone(), state.pnl(unrealised)))
    }

    /// Deposits and P&L now, in the account's currency.
    #[must_use]
    pub fn equity(&self, account: &AccountId) -> Option<Decimal> {
        self.pnl_now(account).map(|(state, pnl)| state.deposits.saturating_add(pnl))
    }

    /// What the account lost since midnight, in its currency; zero in profit.
    #[must_use]
    pub fn daily_loss(&self, account: &AccountId) -> Option<Decimal> {
        self.pnl_now(account).map(|(state, pnl)| state.daily_loss(pnl))
    }

    /// How far the account is below its best, in its currency.
    #[must_use]
    pub fn drawdown(&self, account: &AccountId) -> Option<Decimal> {
        self.pnl_now(account).map(|(state, pnl)| state.drawdown(pnl))
    }

    /// Takes figures of an account that is traded elsewhere, for `calculate_portfolio_metrics`. Of accounts in the ledger
    /// the ledger's own figures stand.
    pub fn update_account_metrics(&self, account: &AccountId, metrics: AccountMetrics) {
        self.book.lock().reported.insert(account.clone(), metrics);
    }

    /// Whether a new position worth `size` (account currency) would pass the limits that are known without an order, and
    /// if not, why. Advice only: nothing is reserved, and `check_and_reserve` decides.
    #[must_use]
    pub fn can_open_position(&self, account: &AccountId, size: Decimal) -> (bool, String) {
        let now = self.now();
        let mut book = self.book.lock();
        book.observe(account, now);
        let scope = Scope::Account(account.clone());
        let limits = &self.limits;
        let mut checks = Vec::new();
        match (book.accounts.get(account).map(|a| &a.value), Scaled::used(size)) {
            (None, _) => checks.push(Check::missing(code::UNKNOWN_ACCOUNT, scope, "open the account first")),
            (_, Err(_)) => checks.push(Check::missing(code::OVERFLOW, scope, "the size is too large to count")),
            (Some(state), Ok(add)) => {
                let pnl = book.unrealised(state, None, now, limits.mark_age()).map(|u| state.pnl(u));
                checks.extend(pnl.as_ref().err().cloned());
                let pnl = pnl.ok();
                checks.push(limits::order_notional(limits, account, size));
                checks.push(limits::daily_loss(limits, state, pnl));
                checks.push(limits::drawdown(limits, state, pnl));
                let equity = pnl.map(|pnl| state.deposits.saturating_add(pnl));
                let of_account = Scope::Account(account.clone());
                let used = book.counter(&Counter::of(Metric::Gross, of_account).name());
                let slots = limits::max_positions(limits, book.counter(&Counter::of(Metric::Slots, Scope::Firm).name()), 1);
                let mut bounded = vec![limits::exposure_account(limits, account, equity, used, add), slots];
                let firm = limits.firm_currency.as_ref();
                match firm.and_then(|firm| book.rates.get(&state.currency, firm)) {
                    None => {
                        let note = "the firm's currency, or the rate to it, is not set";
                        checks.push(Check::missing(code::MISSING_CONVERSION, Scope::Firm, note));
                    }
                    Some(rate) => {
                        let add = Scaled::used(size.saturating_mul(rate)).unwrap_or(add);
                        let equity = firm.and_then(|firm| book.firm_equity(firm, now, limits.mark_age()).ok());
                        let used = book.counter(&Counter::of(Metric::Gross, Scope::Firm).name());
                        bounded.push(limits::exposure_firm(limits, equity, used, add));
                    }
                }
                for found in bounded {
                    checks.push(match found {
                        Ok(found) => Check { passed: found.check.value <= found.check.limit, ..found.check },
                        Err(check) => check,
                    });
                }
            }
        }
        let failed = checks.into_iter().filter(|c| !c.passed).collect::<Vec<_>>();
        (failed.is_empty(), reason(failed))
    }

    /// Sums over all accounts, in the firm's currency, at the last quotes.
    #[must_use]
    pub fn calculate_portfolio_metrics(&self) -> PortfolioMetrics {
        let now = self.now();
        let mut book = self.book.lock();
        let accounts: Vec<AccountId> = book.accounts.keys().cloned().collect();
        accounts.iter().for_each(|account| book.observe(account, now));
        portfolio::reckon(&book, self.limits.firm_currency.as_ref(), now)
    }
}

fn reason(failed: Vec<Check>) -> String {
    // The id stands for no order and is never shown.
    infra_types::OrderId::new("advice").map(|id| Decision::over(id, failed).reason()).unwrap_or_default()
}
