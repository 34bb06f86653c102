//! Telling the other processes that there is something to read.
//!
//! A push carries no authority: who receives one reads the store, and believes that. Lost pushes cost up to one poll interval.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use infra_event_bus::{
    Delivered, Delivery, EventBus, Gap, Handler, HandlerError, Overflow, Pattern, SubscribeOptions, Subscription,
};
use infra_types::{BotId, Envelope, EventId, Topic};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::{controller::EmergencyController, error::EmergencyError, state::Transition};

/// Where transitions are told. A bus treats it as a priority topic unless it is configured otherwise.
pub const TRANSITION_TOPIC: &str = "emergency:transition";

/// Transitions that wait for the bus. Beyond it new ones are dropped and counted: the others poll.
const WAITING_MAX: usize = 64;

/// Bytes of a group's name.
const GROUP_BYTES_MAX: usize = 64;

/// What became of pushes in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct PushCounts {
    /// Published.
    pub sent: u64,
    /// Refused by the bus; the others see the transition when they poll.
    pub failed: u64,
    /// Never given to the bus, because it was too slow (64 may wait).
    pub dropped: u64,
    /// Heard from other processes, or reported as missed by the bus; each caused a refresh.
    pub received: u64,
}

#[derive(Default)]
pub(crate) struct Push {
    senders: Mutex<Vec<(u64, mpsc::Sender<Transition>)>>,
    next: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    received: AtomicU64,
}

impl Push {
    /// Hands what the store took to every bus, without waiting.
    pub(crate) fn tell(&self, transitions: &[Transition]) {
        for (_, sender) in self.senders.lock().iter() {
            for transition in transitions {
                if sender.try_send(transition.clone()).is_err() {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(crate) fn counts(&self) -> PushCounts {
        let read = |of: &AtomicU64| of.load(Ordering::Relaxed);
        PushCounts {
            sent: read(&self.sent),
            failed: read(&self.failed),
            dropped: read(&self.dropped),
            received: read(&self.received),
        }
    }
}

/// Wakes the refresh, unless it was this process's own transition.
struct Nudge {
    controller: std::sync::Weak<EmergencyController>,
    notify: Arc<Notify>,
    own: String,
}

impl Nudge {
    fn nudge(&self) {
        if let Some(controller) = self.controller.upgrade() {
            controller.push.received.fetch_add(1, Ordering::Relaxed);
        }
        self.notify.notify_one();
    }
}

#[async_trait::async_trait]
impl Handler for Nudge {
    async fn handle(&self, event: Delivered) -> Result<(), HandlerError> {
        if event.envelope.source != self.own {
            self.nudge();
        }
        Ok(())
    }

    fn gap(&self, _gap: &Gap) {
        self.nudge();
    }
}

/// Ends the listening, and this process's pushes to that bus, when dropped. The poll goes on.
#[must_use = "dropping it ends the listening"]
pub struct ListenGuard {
    controller: Arc<EmergencyController>,
    id: u64,
    bus: Arc<dyn EventBus>,
    group: Option<String>,
    subscription: Option<Subscription>,
    tasks: [JoinHandle<()>; 2],
}

impl fmt::Debug for ListenGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenGuard").field("bus", &self.bus.info().backend).field("group", &self.group).finish()
    }
}

impl ListenGuard {
    pub(crate) async fn start(
        controller: &Arc<EmergencyController>,
        bus: Arc<dyn EventBus>,
    ) -> Result<Self, EmergencyError> {
        let invalid = |e: infra_types::InvalidValue| EmergencyError::invalid(e.to_string());
        let topic = Topic::new(TRANSITION_TOPIC).map_err(invalid)?;
        let pattern = Pattern::new(TRANSITION_TOPIC).map_err(invalid)?;
        let info = bus.info();
        // Where live events stay in their process, each bot has a group of its own, so that each hears everything.
        let is_live = info.live_between_processes || !info.shared_between_processes;
        let notify = Arc::new(Notify::new());
        let own = format!("emergency/{}/{}", controller.id(), EventId::generate());
        let handler =
            Arc::new(Nudge { controller: Arc::downgrade(controller), notify: Arc::clone(&notify), own: own.clone() });
        let group = (!is_live).then(|| group_of(controller.id()));
        let options = match &group {
            None => SubscribeOptions::at_most_once(pattern, handler).with_queue(1, Overflow::Conflate),
            Some(group) => SubscribeOptions::at_least_once(pattern, group, handler),
        };
        let subscription = bus.subscribe(options).await?;
        let delivery = if is_live { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let id = controller.push.next.fetch_add(1, Ordering::Relaxed);
        controller.push.senders.lock().push((id, sender));
        let weak = Arc::downgrade(controller);
        let publisher =
            tokio::spawn(publish(weak.clone(), Arc::clone(&bus), receiver, Told { topic, source: own, delivery }));
        let refresher = tokio::spawn(async move {
            loop {
                notify.notified().await;
                // A failure is counted by `refresh`, and the poll asks again.
                let Some(controller) = weak.upgrade() else { return };
                let _ = controller.refresh().await;
            }
        });
        let controller = Arc::clone(controller);
        // What was told between the last refresh and the subscription was missed.
        let _ = controller.refresh().await;
        Ok(Self { controller, id, bus, group, subscription: Some(subscription), tasks: [publisher, refresher] })
    }

    /// Ends the listening and takes this bot's group off the bus, if it had one: a bot that is gone for good should not leave
    /// a group that fills.
    ///
    /// # Errors
    /// `Bus`; the listening has ended all the same.
    pub async fn stop(mut self) -> Result<(), EmergencyError> {
        if let Some(subscription) = self.subscription.take() {
            subscription.stop().await?;
        }
        if let Some(group) = &self.group {
            self.bus.remove_group(group).await?;
        }
        Ok(())
    }
}

impl Drop for ListenGuard {
    fn drop(&mut self) {
        self.controller.push.senders.lock().retain(|(id, _)| *id != self.id);
        self.tasks.iter().for_each(JoinHandle::abort);
        // Outside a runtime it stays until its bus is closed, and wakes nobody.
        if let (Some(subscription), Ok(runtime)) = (self.subscription.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { subscription.stop().await });
        }
    }
}

struct Told {
    topic: Topic,
    source: String,
    delivery: Delivery,
}

async fn publish(
    controller: std::sync::Weak<EmergencyController>,
    bus: Arc<dyn EventBus>,
    mut waiting: mpsc::Receiver<Transition>,
    told: Told,
) {
    while let Some(transition) = waiting.recv().await {
        let Ok(data) = serde_json::to_vec(&transition) else { continue };
        // A new id each time: after a restored backup the same version may be another transition.
        let event = Envelope::new(told.topic.clone(), "emergency.transition.v1", transition.at, data)
            .with_source(told.source.clone());
        let published = bus.publish(event, told.delivery).await;
        let Some(controller) = controller.upgrade() else { return };
        let count = if published.is_ok() { &controller.push.sent } else { &controller.push.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A name that is the bot's own, within the length that a group may have.
fn group_of(bot: &BotId) -> String {
    let whole = format!("emergency.{bot}");
    if whole.len() <= GROUP_BYTES_MAX {
        return whole;
    }
    // FNV-1a, 64 bits: it has to be the same in every run of the program.
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{}-{hash:016x}", &whole[..GROUP_BYTES_MAX - 17])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bot_has_a_group_of_its_own() {
        let group = |text: &str| group_of(&BotId::new(text).unwrap());
        assert_eq!(group("bot_001"), "emergency.bot_001");
        let (one, two) = (group(&format!("{}1", "b".repeat(63))), group(&format!("{}2", "b".repeat(63))));
        assert!(one.len() <= GROUP_BYTES_MAX && one != two, "{one} {two}");
    }
}
