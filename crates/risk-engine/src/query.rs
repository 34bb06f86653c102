//! What the engine answers from memory.

use infra_types::{AccountId, Decimal, InstrumentId, Scaled, Scope, StrategyId};

use crate::{
    account::AccountState,
    book::{Book, Now},
    decision::{Check, Decision, code},
    engine::RiskEngine,
    ledger::{Counter, Metric, Place},
    limit_store::Active,
    limits::{self, Bounded},
    market::QuotesRefused,
    portfolio::{self, AccountMetrics, PortfolioMetrics},
    position::Position,
    rulebook::{Kind, Sort},
    rules::Limit,
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
        let active = self.active();
        let mut checks = Vec::new();
        match (book.accounts.get(account).map(|a| &a.value), Scaled::used(size)) {
            (None, _) => checks.push(Check::missing(code::UNKNOWN_ACCOUNT, scope, "open the account first")),
            (_, Err(_)) => checks.push(Check::missing(code::OVERFLOW, scope, "the size is too large to count")),
            (Some(state), Ok(add)) => advise(&book, &active, now, state, size, add, &mut checks),
        }
        let failed = checks.into_iter().filter(|c| !c.passed).collect::<Vec<_>>();
        (failed.is_empty(), reason(failed))
    }

    /// How many quotes were refused since the engine was made, by reason.
    #[must_use]
    pub fn quotes_refused(&self) -> QuotesRefused {
        self.book.lock().market.refused
    }

    /// Sums over all accounts, in the firm's currency, at the last quotes.
    #[must_use]
    pub fn calculate_portfolio_metrics(&self) -> PortfolioMetrics {
        let now = self.now();
        let mut book = self.book.lock();
        let accounts: Vec<AccountId> = book.accounts.keys().cloned().collect();
        accounts.iter().for_each(|account| book.observe(account, now));
        portfolio::reckon(&book, self.active().limits().firm_currency.as_ref(), now)
    }
}

/// The checks that need no order but its size.
fn advise(
    book: &Book,
    active: &Active,
    now: Now,
    state: &AccountState,
    size: Decimal,
    add: Scaled,
    checks: &mut Vec<Check>,
) {
    let limits = active.limits();
    let (scope, of_account) = (Scope::Account(state.id.clone()), Place::Scope(Scope::Account(state.id.clone())));
    let pnl = book.unrealised(state, None, now, limits.mark_age()).map(|u| state.pnl(u));
    checks.extend(pnl.as_ref().err().cloned());
    let pnl = pnl.ok();
    let equity = pnl.map(|pnl| state.deposits.saturating_add(pnl));
    let rule = |kind, sort, place: &Place| active.rules.at(kind, sort, place).map(|named| named.rule.limit);
    let used = |metric, scope: &Scope| book.counter(&Counter::of(metric, scope.clone()).name());
    let counted = |found: Result<Bounded, Check>| match found {
        Ok(found) => Check { passed: found.check.value <= found.check.limit, ..found.check },
        Err(check) => check,
    };
    if let Some(Limit::OrderNotional(limit)) = rule(Kind::OrderNotional, Sort::Account, &of_account) {
        checks.push(limits::order_notional(scope.clone(), limit, equity, size).unwrap_or_else(|check| check));
    }
    match rule(Kind::DailyLoss, Sort::Account, &of_account) {
        Some(Limit::DailyLoss(limit)) => {
            let loss = pnl.map(|pnl| state.daily_loss(pnl));
            checks.push(limits::daily_loss(scope.clone(), limit, Some(state.day_start_equity()), loss));
        }
        _ => checks.push(Check::unset("daily_loss_max", scope.clone())),
    }
    match rule(Kind::Drawdown, Sort::Account, &of_account) {
        Some(Limit::Drawdown(limit)) => checks.push(limits::drawdown(limit, state, pnl)),
        _ => checks.push(Check::unset("drawdown_max", scope.clone())),
    }
    match rule(Kind::Gross, Sort::Account, &of_account) {
        Some(Limit::Gross(limit)) => {
            let used = used(Metric::Gross, &scope);
            let found = limits::exposure(code::EXPOSURE_ACCOUNT, scope.clone(), limit, equity, used, add);
            checks.push(counted(found));
        }
        _ => checks.push(Check::unset("exposure_account_max", scope.clone())),
    }
    let firm = Place::Scope(Scope::Firm);
    match rule(Kind::OpenPositions, Sort::Firm, &firm) {
        Some(Limit::OpenPositions(max)) => {
            checks.push(counted(Ok(limits::max_positions(Scope::Firm, max, used(Metric::Slots, &Scope::Firm), 1))));
        }
        _ => checks.push(Check::unset("open_positions_max", Scope::Firm)),
    }
    let currency = limits.firm_currency.as_ref();
    let Some(rate) = currency.and_then(|firm| book.rates.get(&state.currency, firm)) else {
        let note = "the firm's currency, or the rate to it, is not set";
        checks.push(Check::missing(code::MISSING_CONVERSION, Scope::Firm, note));
        return;
    };
    match (rule(Kind::Gross, Sort::Firm, &firm), Scaled::used(size.saturating_mul(rate))) {
        (Some(Limit::Gross(limit)), Ok(add)) => {
            let equity = currency.and_then(|firm| book.equity_of(|_| true, firm, now, limits.mark_age()).ok());
            let used = used(Metric::Gross, &Scope::Firm);
            let found = limits::exposure(code::EXPOSURE_FIRM, Scope::Firm, limit, equity, used, add);
            checks.push(counted(found));
        }
        (_, Err(_)) => checks.push(Check::missing(code::OVERFLOW, Scope::Firm, "the size is too large to count")),
        _ => checks.push(Check::unset("exposure_firm_max", Scope::Firm)),
    }
}

fn reason(failed: Vec<Check>) -> String {
    // The id stands for no order and is never shown.
    infra_types::OrderId::new("advice").map(|id| Decision::over(id, failed).reason()).unwrap_or_default()
}
