//! The two tasks of a live subscription: one for priority topics, one for all others.

use std::sync::{
    Arc,
    atomic::{
        AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use super::{
    call::call,
    core::Core,
    sub::{Kind, Sub},
};
use crate::{SubscribeOptions, handler::Delivered};

/// Starts both; the subscription ends with the later one.
pub(crate) fn spawn(core: &Arc<Core>, sub: &Arc<Sub>, options: &SubscribeOptions) {
    let running = Arc::new(AtomicUsize::new(2));
    for is_priority in [false, true] {
        let (core, sub, options, running) = (core.clone(), sub.clone(), options.clone(), running.clone());
        let task = {
            let sub = sub.clone();
            tokio::spawn(async move {
                run(&core, &sub, &options, is_priority).await;
                if running.fetch_sub(1, SeqCst) == 1 {
                    sub.finish();
                }
            })
        };
        sub.add_task(task.abort_handle());
    }
}

async fn run(core: &Core, sub: &Sub, options: &SubscribeOptions, is_priority: bool) {
    let Kind::Live(queues) = &sub.kind else { return };
    let queue = queues.of(is_priority);
    let tally = sub.tally(core);
    loop {
        // What waits stays in the queue while it is paused, so that the queue's policy holds for all of it.
        queue.arrived().await;
        if *sub.paused.borrow() {
            sub.unpaused().await;
            if *sub.paused.borrow() && *sub.stop.borrow() {
                // Stopped while it was paused: nothing more may begin.
                let dropped = queue.discard();
                tally.add(|c| &c.dropped, dropped as u64);
                sub.given_up.fetch_add(dropped, Relaxed);
                sub.progress.notify_waiters();
                break;
            }
            continue;
        }
        let Some(envelope) = queue.pop().await else { break };
        if options.is_expired(&envelope, core.clock.wall()) {
            tally.add(|c| &c.expired, 1);
        } else {
            let event = Delivered { envelope, attempt: 1, is_replay: false };
            let (result, took) = call(&options.handler, event, &core.clock, options.timeout).await;
            tally.took(took);
            match result {
                Ok(()) => tally.add(|c| &c.processed, 1),
                Err(_) => tally.add(|c| &c.failed, 1),
            }
        }
        queue.finish_one();
        sub.progress.notify_waiters();
    }
}
