//! The task of a live subscription.

use std::sync::Arc;

use super::{
    call::call,
    core::Core,
    sub::{Kind, Sub},
};
use crate::{SubscribeOptions, handler::Delivered};

pub(crate) async fn run(core: Arc<Core>, sub: Arc<Sub>, options: SubscribeOptions) {
    let Kind::Live(queue) = &sub.kind else { return };
    while let Some(envelope) = queue.pop().await {
        let event = Delivered { envelope, attempt: 1, is_replay: false };
        let (result, took) = call(&options.handler, event, &core.clock, options.timeout).await;
        let tally = sub.tally(&core);
        tally.took(took);
        match result {
            Ok(()) => tally.add(|c| &c.processed, 1),
            Err(_) => tally.add(|c| &c.failed, 1),
        }
        queue.finish_one();
        sub.progress.notify_waiters();
    }
    sub.finish();
}
