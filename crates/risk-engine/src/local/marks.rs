//! What quotes and rates make of accounts: P&L, losses, equity, and the limits that follow it.

use infra_types::{Decimal, InstrumentId, InvalidValue};

use crate::{account::AccountState, market::Quote};

use super::{
    LocalError, Moment,
    book::{Account, Book, long, nanos},
    compile::Loss,
    fixed,
};

impl Book {
    pub(super) fn update_market(&mut self, id: &InstrumentId, quote: Quote, now: Moment) -> Result<(), LocalError> {
        self.roll(now.wall);
        let at = self.instrument(id)?;
        let known = &mut self.instruments[at];
        let bad = |rule: String| Err(InvalidValue::new("quote", format!("{id}: {rule}")).into());
        if quote.bid > quote.ask {
            return bad(format!("crossed: bid {} is above ask {}", quote.bid, quote.ask));
        }
        if quote.at.since(now.wall) > self.limits.clock_skew_max {
            return bad(format!("{} is in the future, it is {}: check the clocks", quote.at, now.wall));
        }
        if let Some(last) = known.quote.filter(|last| last.at > quote.at) {
            return bad(format!("{} came after {}", quote.at, last.at));
        }
        let (Some(bid), Some(ask)) = (fixed::up(quote.bid.get()), fixed::up(quote.ask.get())) else {
            return Err(LocalError::Overflow("a quote"));
        };
        known.quote = Some(quote);
        known.born = i64::try_from(nanos(now.mono)).unwrap_or(i64::MAX).saturating_sub(long(now.wall.since(quote.at)));
        (known.bid, known.ask) = (bid, ask);
        for account in 0..self.accounts.len() {
            let held = self.accounts[account].pairs.get(id).is_some_and(|pair| self.pairs[*pair].sign != 0);
            if held {
                self.reprice(account);
            }
        }
        Ok(())
    }

    /// What the account's positions would bring at the middle of the market, and from when on a mark is too old.
    fn unrealised(&self, account: &Account) -> Option<(Decimal, u64)> {
        let age_max = self.limits.mark_age().map_or(i64::MAX, long);
        let (mut sum, mut stale_from) = (Decimal::ZERO, u64::MAX);
        for pair in account.pairs.values().map(|at| &self.pairs[*at]).filter(|pair| pair.sign != 0) {
            let instrument = &self.instruments[pair.instrument];
            let rate = self.rates.get(&instrument.spec.quote, &account.state.currency)?;
            let price = instrument.quote?.mid().checked_mul(rate)?;
            sum = sum.checked_add(pair.position.unrealised(price)?)?;
            let until = instrument.born.saturating_add(age_max).saturating_add(1);
            stale_from = stale_from.min(u64::try_from(until).unwrap_or(0));
        }
        Some((sum, stale_from))
    }

    /// Reckons the account's P&L anew, takes note of it, and derives whether it may open and how much.
    pub(super) fn reprice(&mut self, at: usize) {
        let unrealised = self.unrealised(&self.accounts[at]);
        let account = &mut self.accounts[at];
        let pnl = unrealised.map(|(unrealised, _)| account.state.pnl(unrealised));
        account.state.observe(self.day, pnl);
        account.stale_from = unrealised.map_or(0, |(_, stale_from)| stale_from);
        account.equity = pnl.map(|pnl| account.state.deposits.saturating_add(pnl));
        let state = &account.state;
        account.opens = pnl.is_some_and(|pnl| {
            account.losses.iter().all(|loss| {
                let (lost, of) = loss_of(state, loss, pnl);
                lost < loss.limit.at(of)
            })
        });
        let (equity, cell) = (account.equity, account.cell);
        if self.cells[cell].follows_equity() {
            self.cells[cell].rebound(equity);
        }
        for pair in self.accounts[at].pairs.values() {
            let cell = &mut self.cells[self.pairs[*pair].cell];
            if cell.follows_equity() {
                cell.rebound(equity);
            }
        }
        self.refirm();
    }

    /// Reckons the firm's equity anew, and the limits that follow it.
    pub(super) fn refirm(&mut self) {
        if !self.firm_follows {
            return;
        }
        let mut stale_from = u64::MAX;
        let mut sum = Some(Decimal::ZERO);
        for account in &self.accounts {
            stale_from = stale_from.min(account.stale_from);
            let part = account.equity.zip(account.to_firm).and_then(|(equity, rate)| equity.checked_mul(rate));
            sum = sum.zip(part).and_then(|(sum, part)| sum.checked_add(part));
        }
        (self.firm_equity, self.firm_stale_from) = (sum, stale_from);
        for cell in &mut self.cells {
            if cell.name.is_firms() && cell.follows_equity() {
                cell.rebound(sum);
            }
        }
    }
}

/// What was lost and what a part of it is a part of.
pub(super) fn loss_of(state: &AccountState, loss: &Loss, pnl: Decimal) -> (Decimal, Decimal) {
    if loss.is_drawdown {
        (state.drawdown(pnl), state.peak_equity())
    } else {
        (state.daily_loss(pnl), state.day_start_equity())
    }
}
