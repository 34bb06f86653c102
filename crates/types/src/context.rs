//! Who asked, and under which id the whole story can be found again.

use std::{fmt, future::Future, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::InvalidValue,
    ids::{AccountId, UserId},
    traceparent::TraceParent,
};

/// Ties together everything that one cause led to: a UUIDv7, so that ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CorrelationId(Uuid);

impl CorrelationId {
    /// A new id, from the wall clock and the thread's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// An id whose 128 bits the caller chose, for replays that must give the same ids again.
    #[must_use]
    pub fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The 128 bits.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for CorrelationId {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Uuid::parse_str(text).map(Self).map_err(|e| InvalidValue::new("correlation id", e.to_string()))
    }
}

/// The context that a task runs in. It follows `.await`, and `spawn_correlated`; a bare `tokio::spawn` loses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionContext {
    /// The id that logs, events and audit rows of this work share.
    pub correlation: CorrelationId,
    /// The person on whose behalf, if one.
    pub user: Option<UserId>,
    /// The account concerned, if one.
    pub account: Option<AccountId>,
    /// What is being done, e.g. `place_order`.
    pub operation: Option<String>,
    /// The trace that the work belongs to, if somebody traces; contexts stored without it read as `None`.
    #[serde(default)]
    pub traceparent: Option<TraceParent>,
}

tokio::task_local! {
    static CURRENT: ExecutionContext;
}

impl ExecutionContext {
    /// A context of its own, under `correlation`.
    #[must_use]
    pub fn new(correlation: CorrelationId) -> Self {
        Self { correlation, user: None, account: None, operation: None, traceparent: None }
    }

    /// Names what is being done.
    #[must_use]
    pub fn with_operation(mut self, operation: impl Into<String>) -> Self {
        self.operation = Some(operation.into());
        self
    }

    /// Names the account concerned.
    #[must_use]
    pub fn with_account(mut self, account: AccountId) -> Self {
        self.account = Some(account);
        self
    }

    /// Names the person on whose behalf.
    #[must_use]
    pub fn with_user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Names the trace that the work belongs to.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: TraceParent) -> Self {
        self.traceparent = Some(traceparent);
        self
    }

    /// The context of the running task, if it has one.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The running task's correlation id, or a new one.
    #[must_use]
    pub fn current_correlation() -> CorrelationId {
        CURRENT.try_with(|c| c.correlation).unwrap_or_else(|_| CorrelationId::generate())
    }

    /// The trace that the running task belongs to, if it has one.
    #[must_use]
    pub fn current_traceparent() -> Option<TraceParent> {
        CURRENT.try_with(|c| c.traceparent).ok().flatten()
    }

    /// Runs `work` in this context. Cancel-safe if `work` is.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// Runs `work` in this context, without an `.await`.
    pub fn sync_scope<R>(self, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self, work)
    }
}

/// `tokio::spawn` that keeps the context of the task that spawns.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::spawn` does.
pub fn spawn_correlated<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match ExecutionContext::current() {
        Some(context) => tokio::spawn(context.scope(work)),
        None => tokio::spawn(work),
    }
}

/// Who did it, for an audit row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AuditContext {
    /// The person, or nobody for what a bot did by itself.
    pub user: Option<UserId>,
    /// The address the request came from, if it came from outside.
    pub address: Option<String>,
    /// The id that ties the row to logs and events.
    pub correlation: Option<CorrelationId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, Timestamp, Topic};

    #[tokio::test]
    async fn follows_awaits_and_correlated_spawns_and_mixes_no_tasks() {
        let tasks: Vec<_> = (0..50u128)
            .map(|n| {
                tokio::spawn(ExecutionContext::new(CorrelationId::from_u128(n)).scope(async move {
                    tokio::task::yield_now().await;
                    let inner = spawn_correlated(async { ExecutionContext::current_correlation() }).await.unwrap();
                    (ExecutionContext::current_correlation(), inner)
                }))
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            let want = CorrelationId::from_u128(n as u128);
            assert_eq!(task.await.unwrap(), (want, want));
        }
        assert_eq!(ExecutionContext::current(), None);
    }

    #[test]
    fn a_context_stored_before_traces_is_read() {
        let old = r#"{"correlation":"00000000-0000-0000-0000-000000000007","user":null,"account":"main","operation":"place_order"}"#;
        let read: ExecutionContext = serde_json::from_str(old).unwrap();
        let account = "main".parse().unwrap();
        let want =
            ExecutionContext::new(CorrelationId::from_u128(7)).with_account(account).with_operation("place_order");
        assert_eq!(read, want);
        let traced = want.with_traceparent(TraceParent::new(1.try_into().unwrap(), 2.try_into().unwrap(), true));
        let text = serde_json::to_string(&traced).unwrap();
        assert_eq!(serde_json::from_str::<ExecutionContext>(&text).unwrap(), traced);
    }

    #[tokio::test]
    async fn an_event_carries_the_correlation_and_the_trace_of_its_task() {
        let traceparent = TraceParent::new(1.try_into().unwrap(), 2.try_into().unwrap(), true);
        let context = ExecutionContext::new(CorrelationId::from_u128(7)).with_traceparent(traceparent);
        let event = || Envelope::new(Topic::new("fills").unwrap(), "fill.v1", Timestamp::EPOCH, "1");
        let inside = context.scope(async { spawn_correlated(async move { event() }).await.unwrap() }).await;
        assert_eq!(inside.correlation, CorrelationId::from_u128(7));
        assert_eq!(inside.traceparent, Some(traceparent.to_string()));
        assert_eq!(event().traceparent, None);
    }
}
