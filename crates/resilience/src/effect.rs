//! What a call does to the world, as a type: it decides whether the call may be repeated.

use infra_types::OrderId;

mod sealed {
    pub trait Sealed {}
}

/// The effect of a call when it is made more than once. Sealed: these four are all there is.
pub trait Effect: sealed::Sealed + Send {
    /// The word for logs.
    fn name(&self) -> &'static str;
}

/// An effect that stays the same when the call is repeated. [`AtMostOnce`] is not: a retry of it does not compile.
///
/// ```compile_fail,E0277
/// use infra_resilience::{AtMostOnce, Policy};
/// use infra_types::ErrorKind;
///
/// async fn place(policy: &Policy) {
///     let _ = policy.call(AtMostOnce, |_| async { Ok::<_, ErrorKind>(()) }).await;
/// }
/// ```
///
/// The same call compiles once it names an effect that can be repeated:
///
/// ```
/// use infra_resilience::{Idempotent, Policy};
/// use infra_types::ErrorKind;
///
/// async fn cancel(policy: &Policy) {
///     let _ = policy.call(Idempotent, |_| async { Ok::<_, ErrorKind>(()) }).await;
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a call with the effect `{Self}` must not be repeated",
    label = "not `ReadOnly`, `Idempotent` or `Keyed(id)`",
    note = "use `Policy::call_once` or `Policy::submit`, which make one attempt"
)]
pub trait Repeatable: Effect {}

/// Changes nothing: a ticker, a balance, an order query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOnly;

/// Twice is the same as once: a cancel, an upsert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotent;

/// The callee refuses a second use of the key for as long as retries may last. Check that of the venue before you say
/// so: several accept a client order id again once its order is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed<K = OrderId>(pub K);

/// Twice is worse than once, and the callee cannot tell: never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtMostOnce;

macro_rules! effect {
    ($name:literal, $type:ty $(, $generic:ident)?) => {
        impl$(<$generic: Send>)? sealed::Sealed for $type {}
        impl$(<$generic: Send>)? Effect for $type {
            fn name(&self) -> &'static str {
                $name
            }
        }
    };
}
effect!("read_only", ReadOnly);
effect!("idempotent", Idempotent);
effect!("keyed", Keyed<K>, K);
effect!("at_most_once", AtMostOnce);

impl Repeatable for ReadOnly {}
impl Repeatable for Idempotent {}
impl<K: Send> Repeatable for Keyed<K> {}
