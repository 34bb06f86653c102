//! A time limit on one future, by the injected clock.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use infra_types::{Clock, Monotonic};

use crate::error::CallError;

/// `None` if `at` came first. The call is polled before the timer: a result that is ready wins over a timer that is due
/// in the same poll, and a call that is ready at once costs no timer.
pub(crate) async fn until<F: Future>(clock: &dyn Clock, at: Option<Monotonic>, call: F) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut timer = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = call.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(at) = at else { return Poll::Pending };
        let timer = timer.get_or_insert_with(|| clock.sleep_until(at));
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Gives `call` at most `after`, by `clock`.
///
/// # Errors
/// `CallError::Inner` is the call's own error; `CallError::Timeout` means that the call was dropped unfinished: what it
/// did is unknown.
///
/// # Cancel safety
/// Dropping the future drops `call`.
pub async fn with_timeout<T, E>(
    clock: &dyn Clock,
    after: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, CallError<E>> {
    match until(clock, Some(clock.now() + after), call).await {
        Some(result) => result.map_err(CallError::Inner),
        None => Err(CallError::Timeout { after }),
    }
}
