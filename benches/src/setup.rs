//! How long each bench measures, and on what runtime.

use std::time::Duration;

use criterion::Criterion;
use tokio::runtime::{Builder, Runtime};

/// Short times, so that the whole run is a matter of minutes; the command line may ask for longer ones.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
        .sample_size(50)
        .nresamples(5_000)
        .configure_from_args()
}

/// One thread: nothing but the code under test decides who runs next.
///
/// # Panics
/// If the operating system gives no runtime.
#[must_use]
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
