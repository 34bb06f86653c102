//! One call of a handler: its panics and its time limit end here.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use infra_types::{Clock, ExecutionContext, SystemClock, TraceParent};

use crate::handler::{Delivered, Handler, HandlerError};

/// The longest reason that is stored with an event.
const REASON_BYTES_MAX: usize = 1_024;

/// Calls the handler in the correlation and the trace of its event; how it ended and how long it took by the machine's clock.
pub(crate) async fn call(
    handler: &Arc<dyn Handler>,
    event: Delivered,
    clock: &Arc<dyn Clock>,
    timeout: Duration,
) -> (Result<(), HandlerError>, Duration) {
    // Latency is a fact about the machine, also where the bus's own clock is moved by hand.
    let began = SystemClock.now();
    let mut context = ExecutionContext::new(event.envelope.correlation);
    // Checked when it was published; what an older version stored may be anything.
    context.traceparent = event.envelope.traceparent.as_deref().and_then(|text| TraceParent::parse(text).ok());
    let work = AssertUnwindSafe(context.scope(async {
        tokio::select! {
            // First the handler: one that ends at once never sets a timer.
            biased;
            ended = handler.handle(event) => Some(ended),
            // The handler's work is dropped in here, and may panic as it does.
            () = clock.sleep(timeout) => None,
        }
    }));
    let result = match work.catch_unwind().await {
        Ok(Some(ended)) => ended,
        Ok(None) => Err(HandlerError::Retry(format!("the handler took longer than {timeout:?}"))),
        Err(panic) => Err(HandlerError::Retry(format!("the handler panicked: {}", message(panic.as_ref())))),
    };
    (result.map_err(shorten), SystemClock.now().since(began))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn shorten(error: HandlerError) -> HandlerError {
    let cut = |mut text: String| {
        if text.len() > REASON_BYTES_MAX {
            let end = (0..=REASON_BYTES_MAX).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
            text.truncate(end);
        }
        text
    };
    match error {
        HandlerError::Retry(text) => HandlerError::Retry(cut(text)),
        HandlerError::Poison(text) => HandlerError::Poison(cut(text)),
    }
}
