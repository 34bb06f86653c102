//! Money that is paid in or taken out.

use infra_state_store::{Applied, Batch, Op, StoreError, Ttl, When};
use infra_types::{AccountId, Decimal, InvalidValue};

use crate::{
    account::AccountState,
    engine::{RiskEngine, SETTLE_TRIES},
    error::RiskError,
    ledger,
    overrides::callers,
};

impl RiskEngine {
    /// Adds `amount` of the account's currency to what was paid in; a withdrawal is below zero. In one batch together with the
    /// operations that `compose` adds (which may be called several times): the caller's record of the payment, written
    /// [`When::Absent`] under the payment's id, sees to it that a payment is booked once, also after an `Ambiguous` reply.
    /// Limits that follow the equity follow at once, and orders are checked against them. P&L, high-water mark, drawdown and
    /// daily loss hold no deposits and stay as they are.
    ///
    /// It is not asked whether so much is there: a venue that paid out has paid out, and an equity below zero opens nothing.
    ///
    /// # Errors
    /// `Invalid` for an amount of zero; `UnknownAccount` if it was never opened; `Overflow` if the sum cannot be kept exactly; `Caller`
    /// if one of the caller's operations refused; `Contended` if the account kept changing; `Store`. Nothing was changed then, but
    /// after `Ambiguous` the payment and the caller's operations are both there or both absent.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the batch applied, never half: look for the caller's record before calling again.
    pub async fn adjust_deposits(
        &self,
        account: &AccountId,
        amount: Decimal,
        compose: &(dyn Fn(&AccountState) -> Vec<Op> + Send + Sync),
    ) -> Result<AccountState, RiskError> {
        if amount.is_zero() {
            return Err(InvalidValue::new("deposit", "must not be zero").into());
        }
        if self.account(account).is_none() {
            self.refresh(account, None).await?;
        }
        for _ in 0..SETTLE_TRIES {
            let known = {
                let now = self.now();
                let mut book = self.book.lock();
                book.observe(account, now);
                book.accounts.get(account).cloned()
            };
            let known = known.ok_or_else(|| RiskError::UnknownAccount(account.clone()))?;
            let mut next = known.value;
            next.deposits = exact_sum(next.deposits, amount).ok_or(RiskError::Overflow("the account's deposits"))?;
            let bytes = ledger::encode(&next, "the account's record")?;
            let mut batch = Batch::new(self.namespace.clone());
            batch = batch.set_when(
                ledger::key(&ledger::account(account))?,
                bytes,
                Ttl::Never,
                When::Version(known.version),
            );
            batch.extend(compose(&next));
            match self.store.apply(batch).await {
                Ok(applied) => {
                    if let Some(Applied::Version(version)) = applied.first() {
                        self.book.lock().offer_account(next.clone(), *version);
                    }
                    return Ok(next);
                }
                Err(StoreError::Mismatch { index: 0, .. }) => self.refresh(account, None).await?,
                Err(source) => return Err(callers(source, 1)),
            }
        }
        Err(RiskError::Contended { tries: SETTLE_TRIES })
    }
}

/// The sum, unless digits would be lost: near the largest decimal, addition rounds instead of failing.
fn exact_sum(a: Decimal, b: Decimal) -> Option<Decimal> {
    let sum = a.checked_add(b)?;
    let is_exact = sum.checked_sub(b) == Some(a) && sum.checked_sub(a) == Some(b);
    is_exact.then(|| sum.normalize())
}
