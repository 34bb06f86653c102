//! What quotes moved becomes durable.

use infra_state_store::{Applied, Batch, Op, StoreError, Ttl, When};
use infra_types::{AccountId, StrategyId};

use crate::{
    engine::{RiskEngine, SETTLE_TRIES},
    error::RiskError,
    ledger,
};

/// Which records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    All,
    /// Those that say something else than the store, as last known.
    Moved,
}

impl RiskEngine {
    /// Makes what `update_market` observed (day, high-water mark, drawdown) durable, account by account and strategy by strategy. Where
    /// another engine wrote one in the meantime, its fills stand and the higher mark and the deeper drawdown of both.
    ///
    /// # Errors
    /// What the store says; those before the failing one are written. A record that cannot be read keeps no other one from its turn.
    ///
    /// # Cancel safety
    /// Some may be written, others not; call again.
    pub async fn checkpoint(&self) -> Result<(), RiskError> {
        self.checkpoint_all(Write::All).await.map(drop)
    }

    /// As [`RiskEngine::checkpoint`], but leaves alone whatever did not move since it was last read or written; how many records were
    /// written. For calling every few seconds.
    ///
    /// # Errors
    /// As [`RiskEngine::checkpoint`].
    ///
    /// # Cancel safety
    /// As [`RiskEngine::checkpoint`].
    pub async fn checkpoint_moved(&self) -> Result<usize, RiskError> {
        self.checkpoint_all(Write::Moved).await
    }

    async fn checkpoint_all(&self, which: Write) -> Result<usize, RiskError> {
        let (mut written, mut failed) = (0, None);
        let mut count = |done: Result<bool, RiskError>| match done {
            Ok(done) => {
                written += usize::from(done);
                Ok(())
            }
            // A store that cannot be reached answers nobody: no use in waiting for it again and again.
            Err(error @ RiskError::Store(_)) => Err(error),
            Err(error) => {
                failed.get_or_insert(error);
                Ok(())
            }
        };
        let accounts: Vec<AccountId> = self.book.lock().accounts.keys().cloned().collect();
        for id in accounts {
            count(self.checkpoint_account(&id, &[], which).await)?;
        }
        let strategies: Vec<StrategyId> = self.book.lock().strategies.keys().cloned().collect();
        for id in strategies {
            count(self.checkpoint_strategy(&id, which).await)?;
        }
        failed.map_or(Ok(written), Err)
    }

    async fn checkpoint_strategy(&self, strategy: &StrategyId, which: Write) -> Result<bool, RiskError> {
        for _ in 0..SETTLE_TRIES {
            let (now, active) = (self.now(), self.active());
            let known = {
                let mut book = self.book.lock();
                book.observe_strategy(strategy, active.limits().firm_currency.as_ref(), now);
                let is_due = which == Write::All || book.has_strategy_moved(strategy);
                book.strategy(strategy).filter(|_| is_due).cloned()
            };
            let Some(known) = known else { return Ok(false) };
            let bytes = ledger::encode(&known.value, "the strategy's record")?;
            let (key, when) = (ledger::key(&ledger::strategy(strategy))?, When::Version(known.version));
            match self.store.apply(Batch::new(self.namespace.clone()).set_when(key, bytes, Ttl::Never, when)).await {
                Ok(applied) => {
                    if let Some(Applied::Version(version)) = applied.first() {
                        self.book.lock().offer_strategy(known.value, *version);
                    }
                    return Ok(true);
                }
                Err(StoreError::Mismatch { .. }) => self.refresh_strategy(strategy).await?,
                Err(other) => return Err(other.into()),
            }
        }
        Err(RiskError::Contended { tries: SETTLE_TRIES })
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
        self.checkpoint_account(account, &callers, Write::All).await.map(drop)
    }

    async fn checkpoint_account(&self, account: &AccountId, callers: &[Op], which: Write) -> Result<bool, RiskError> {
        for _ in 0..SETTLE_TRIES {
            let (known, is_due) = {
                let now = self.now();
                let mut book = self.book.lock();
                book.observe(account, now);
                let is_due = which == Write::All || book.has_moved(account);
                (book.accounts.get(account).cloned(), is_due)
            };
            let known = known.ok_or_else(|| RiskError::UnknownAccount(account.clone()))?;
            if !is_due {
                return Ok(false);
            }
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
                    return Ok(true);
                }
                Err(StoreError::Mismatch { index: 0, .. }) => self.refresh(account, None).await?,
                Err(source) => return Err(crate::overrides::callers(source, 1)),
            }
        }
        Err(RiskError::Contended { tries: SETTLE_TRIES })
    }
}
