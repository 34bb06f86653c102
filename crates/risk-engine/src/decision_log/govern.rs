//! What people decide about limits, and messages that are no orders.

use std::{collections::BTreeSet, io, time::Duration};

use infra_state_store::Op;
use infra_types::{AccountId, Order, OrderId, StrategyId, UserId};
use serde::Serialize;

use super::{
    DecisionRecorder, Input,
    line::{Output, is_interrupted},
};
use crate::{
    config::RiskLimits,
    decision::Check,
    error::RiskError,
    messages::Message,
    overrides::{Enabled, Override},
    rules::LimitSet,
};

impl<W: io::Write + Send> DecisionRecorder<W> {
    /// As [`RiskEngine::set_limits`](crate::RiskEngine::set_limits). Limits that another process stores are not in the log: a replay
    /// goes on by the old ones, and finds every decision different that they would have changed.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The limits may be stored, or not, without a line.
    pub async fn set_limits(
        &mut self,
        base: u64,
        limits: RiskLimits,
        author: UserId,
        reason: &str,
        compose: &(dyn Fn(&LimitSet) -> Vec<Op> + Send + Sync),
    ) -> Result<LimitSet, RiskError> {
        let _still = self.begin();
        let (of, by) = (Box::new(limits.clone()), author.clone());
        let input = Input::Limits { base, limits: of, author: by, reason: reason.to_owned() };
        let result = self.engine.set_limits(base, limits, author, reason, compose).await;
        self.answer(&input, &result);
        result
    }

    /// As [`RiskEngine::request_override`](crate::RiskEngine::request_override).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The request may be stored, or not, without a line.
    pub async fn request_override(
        &mut self,
        order: &Order,
        rules: BTreeSet<String>,
        by: UserId,
        reason: &str,
        life: Duration,
        compose: &(dyn Fn(&Override) -> Vec<Op> + Send + Sync),
    ) -> Result<Override, RiskError> {
        let _still = self.begin();
        let (of, named, author) = (Box::new(order.clone()), rules.clone(), by.clone());
        let input = Input::OverrideAsked { order: of, rules: named, by: author, reason: reason.to_owned(), life };
        let result = self.engine.request_override(order, rules, by, reason, life, compose).await;
        self.answer(&input, &result);
        result
    }

    /// As [`RiskEngine::grant_override`](crate::RiskEngine::grant_override).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The grant may be stored, or not, without a line.
    pub async fn grant_override(
        &mut self,
        account: &AccountId,
        order: &OrderId,
        by: UserId,
        compose: &(dyn Fn(&Override) -> Vec<Op> + Send + Sync),
    ) -> Result<Override, RiskError> {
        let _still = self.begin();
        let input = Input::OverrideGranted { account: account.clone(), order: order.clone(), by: by.clone() };
        let result = self.engine.grant_override(account, order, by, compose).await;
        self.answer(&input, &result);
        result
    }

    /// As [`RiskEngine::enable_strategy`](crate::RiskEngine::enable_strategy).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The strategy may be enabled, or not, without a line.
    pub async fn enable_strategy(
        &mut self,
        strategy: &StrategyId,
        by: UserId,
        reason: &str,
        compose: &(dyn Fn(&Enabled) -> Vec<Op> + Send + Sync),
    ) -> Result<Enabled, RiskError> {
        let _still = self.begin();
        let input = Input::StrategyEnabled { strategy: strategy.clone(), by: by.clone(), reason: reason.to_owned() };
        let result = self.engine.enable_strategy(strategy, by, reason, compose).await;
        self.answer(&input, &result);
        result
    }

    /// As [`RiskEngine::count_message`](crate::RiskEngine::count_message).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// The message may be counted, or not, without a line.
    pub async fn count_message(&mut self, order: &Order, message: Message) -> Result<Vec<Check>, RiskError> {
        let _still = self.begin();
        let input = Input::Message { order: Box::new(order.clone()), is_cancel: message == Message::Cancel };
        let result = self.engine.count_message(order, message).await;
        self.answer(&input, &result);
        result
    }

    fn answer<T: Serialize>(&mut self, input: &Input, result: &Result<T, RiskError>) {
        let output = match result {
            // A value that has no JSON would be a defect; it stands as null in log and replay alike.
            Ok(value) => Output::Answered(serde_json::to_value(value).unwrap_or_default()),
            Err(error) => Output::failed(error),
        };
        self.write(input, output, result.as_ref().is_err_and(is_interrupted));
    }
}
