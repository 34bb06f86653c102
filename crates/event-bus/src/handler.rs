//! What a subscriber does with an event.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use infra_types::Envelope;

use crate::BusError;

/// An event as a handler gets it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The event; its topic is the real one, never the pattern.
    pub envelope: Arc<Envelope>,
    /// Which delivery to this group this is, from 1. A higher number says that an earlier one failed or that its consumer died,
    /// so its effect may already be there.
    pub attempt: u32,
    /// Whether it comes from a replay of what is kept rather than from its publisher: an order must not be sent for it again.
    pub is_replay: bool,
}

/// Live events were lost between two that a subscription got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why, in the backend's words.
    pub reason: String,
}

/// Why a handler did not do its work. On an at-most-once subscription either is counted and forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// It may work later: deliver it again after the backoff, and to the dead letters when the attempts are used up.
    #[error("{0}")]
    Retry(String),
    /// It never will: to the dead letters at once.
    #[error("{0}")]
    Poison(String),
}

/// Handles the events of one subscription.
///
/// Events of one key come one after another; events of different keys at the same time only if the subscription asks for
/// `concurrency`; events of priority topics come beside them. The correlation and the traceparent of the envelope are current ([`infra_types::ExecutionContext`]) while it runs. A panic, and
/// running past the subscription's timeout, count as `Retry`. Since an at-least-once event may come twice, an effect that must
/// happen once has to recognise `envelope.id`.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Does the work; the event is acknowledged only after `Ok`.
    ///
    /// # Errors
    /// `Retry` or `Poison`, as the reason for the failure is.
    ///
    /// # Cancel safety
    /// It is dropped where it awaits when its time runs out or the bus gives up waiting for it.
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError>;

    /// Hears that live events of other processes were lost: whoever keeps a picture from them should fetch it anew. It returns at once. Only
    /// live subscriptions hear it; each gap is counted in the metrics as well.
    fn gap(&self, _gap: &Gap) {}

    /// Hears that its subscription ends by itself, as it does when another process takes the consumer's name (`Displaced`): no further event will
    /// be handed over. It returns at once. [`Subscription::failure`](crate::Subscription::failure) tells the same.
    fn ended(&self, _why: &BusError) {}
}

struct FnHandler<F>(F);

#[async_trait]
impl<F, Fut> Handler for FnHandler<F>
where
    F: Fn(Delivered) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        (self.0)(event).await
    }
}

/// A handler from a function.
pub fn handler_fn<F, Fut>(f: F) -> Arc<dyn Handler>
where
    F: Fn(Delivered) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    Arc::new(FnHandler(f))
}
