//! What every bus must do, as plain async functions. Implement [`Fixture`], call [`crate::event_bus_conformance`], and each
//! case becomes a test. A case that fails panics with what it saw.

mod age;
mod capability;
mod closing;
mod dead_letters;
mod delay;
mod durable;
mod flow;
mod history;
mod input;
mod limits;
mod live;
mod priority;
mod processes;
mod publish;
mod recovery;
mod replay;
mod retry;
mod skip;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::{Backoff, Clock, Envelope, EventId, ManualClock, Timestamp, Topic, backoff::Jitter};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use self::{
    age::*, capability::*, closing::*, dead_letters::*, delay::*, durable::*, flow::*, history::*, input::*, limits::*,
    live::*, priority::*, processes::*, publish::*, recovery::*, replay::*, retry::*, skip::*,
};
use crate::{
    BusConfig, BusError, Delivered, Delivery, EventBus, Handler, HandlerError, Limits, Pattern, Published, Replay,
    ReplayFrom, Replayed, SubscribeOptions, Subscription, handler_fn,
};

/// A bus to examine, empty at first. It must be built with [`config`] and on [`clock`](Fixture::clock); if a server's clock judges leases
/// and waits, it has to be told to go by that of the bus.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The bus.
    fn bus(&self) -> Arc<dyn EventBus>;
    /// A further bus on the same data and the same clock, as another process would have it, sharing nothing else with the first; none exactly
    /// where `BusInfo::shared_between_processes` is false.
    async fn other(&self) -> Option<Arc<dyn EventBus>>;
    /// Lets the bus die as in a crash, without giving anything back, and opens it again on the same data (on none, if it
    /// declares that it does not survive its process).
    async fn reopen(&mut self);
    /// The clock of all its buses.
    fn clock(&self) -> ManualClock;
    /// Moves the clock.
    async fn advance(&self, by: Duration) {
        self.clock().advance(by);
    }
    /// Steps the wall clock alone back, as an operator or NTP would.
    async fn step_back(&self, by: Duration) {
        let clock = self.clock();
        clock.set_wall(clock.wall().saturating_sub(by));
    }
}

/// The configuration that the suite reckons with: limits small enough to reach.
#[must_use]
pub fn config() -> BusConfig {
    let limits = Limits {
        backlog_max: 200,
        history_max: 20,
        delayed_max: 100,
        dedup_window: 100,
        dead_letters_max: 5,
        ..Limits::default()
    };
    BusConfig { limits, ..BusConfig::default() }
}

/// Makes one test of each case. `$fixture` is an expression that gives a new [`Fixture`].
#[macro_export]
macro_rules! event_bus_conformance {
    ($fixture:expr) => {
        $crate::event_bus_cases! { @list tests $fixture }
    };
}

/// A `Vec` of every [`Case`](crate::conformance::Case), for a runner of one's own. `$fixture` is an expression that gives a new
/// [`Fixture`](crate::conformance::Fixture) and holds nothing but what is `Copy`.
#[macro_export]
macro_rules! event_bus_cases {
    ($fixture:expr) => {
        $crate::event_bus_cases! { @list futures $fixture }
    };
    (@list $what:ident $fixture:expr) => {
        $crate::event_bus_cases! { @$what $fixture;
            live_events_reach_every_subscription_that_wants_them
            a_star_crosses_colons_and_topics_stay_real
            stored_events_reach_live_subscriptions_and_live_ones_are_not_stored
            drop_oldest_keeps_the_newest_and_counts
            drop_newest_keeps_the_oldest_and_counts
            error_tells_the_publisher_and_serves_the_others
            block_loses_nothing
            a_live_handler_that_fails_is_counted_and_goes_on
            every_group_gets_every_event_once_and_in_order
            consumers_of_one_group_share_its_events
            a_group_collects_while_nobody_consumes
            a_new_group_begins_where_it_says
            an_id_published_twice_is_one_event
            an_id_is_recognised_within_its_window
            equal_payloads_are_not_duplicates
            the_correlation_reaches_the_handler
            an_envelope_arrives_as_it_was_sent
            keys_run_side_by_side_and_each_in_order
            a_group_keeps_its_pattern
            a_removed_group_is_gone
            drained_goes_in_lock_step
            a_batch_answers_for_each_event
            a_payload_over_the_limit_is_refused
            a_full_backlog_refuses_and_keeps_what_it_has
            events_without_a_group_are_bounded_and_counted
            nonsense_is_refused_with_every_mistake
            metrics_tell_what_happened
            handling_times_are_told_by_percentile
            a_batch_with_refusals_keeps_its_order
            a_refused_event_holds_back_its_key
            a_batch_may_have_any_length
            an_id_is_one_event_in_a_race
            publishers_race_and_nothing_is_lost
            a_handler_may_publish
            a_dropped_publish_may_be_repeated
            a_dropped_handle_changes_nothing
            a_stopped_live_subscription_gets_nothing_more
            drained_waits_for_what_was_published_before
            a_group_removed_under_its_consumer_ends_quietly
            the_longest_of_everything_is_taken
            odd_names_stay_apart
            odd_keys_are_lanes_of_their_own
            odd_patterns_take_what_they_say
            a_pattern_made_to_be_slow_is_not
            bad_options_leave_nothing_behind
            an_envelope_stays_whole_on_every_way
            a_delayed_event_is_seen_by_nobody_before_its_time
            delayed_events_come_in_the_order_of_their_times
            a_time_that_is_over_delays_nothing
            a_delay_goes_by_the_wall_clock
            delayed_events_survive_a_crash
            the_id_of_a_delayed_event_is_known
            delayed_events_are_bounded
            a_delayed_event_waits_while_its_group_is_full
            a_full_group_holds_up_no_delays_of_others
            delayed_events_are_listed_and_taken_back
            a_delayed_event_reaches_a_group_that_nobody_serves
            a_delay_that_ends_during_a_handling_is_not_missed
            a_failed_event_comes_again_after_its_backoff
            the_order_of_a_key_survives_retries
            used_up_attempts_make_a_dead_letter_with_its_error
            poison_is_dead_at_once_and_frees_its_key
            panic_and_timeout_fail_that_delivery_only
            dead_letters_are_bounded_and_counted
            a_hanging_handler_delays_nobody_else
            a_running_handler_keeps_its_lease
            skip_lets_later_events_of_the_key_go_on
            several_of_a_key_may_step_aside
            a_skipped_event_dies_after_its_attempts
            a_skipped_event_stays_aside_after_a_crash
            redriven_events_come_to_their_group_only
            redriven_events_go_behind_what_waits_in_stored_order
            redriving_twice_is_redriving_once
            an_unknown_group_has_no_dead_letters
            redriving_all_ends_while_they_die_again
            a_redriven_event_has_all_its_attempts_again
            a_redrive_into_a_full_backlog_is_refused
            redriven_events_survive_a_crash
            a_redriven_event_is_kept_once
            purged_dead_letters_are_gone
            dead_letters_come_page_by_page
            a_long_error_is_stored_by_its_beginning
            a_replay_acknowledges_nothing
            a_replay_goes_on_after_failures
            a_replay_begins_with_an_event
            a_replay_begins_at_a_time
            a_replay_of_the_last_few
            a_replay_of_the_latest_of_each_key
            a_replay_tells_that_older_events_are_gone
            a_replay_twice_is_the_same
            a_replay_beside_publishers_skips_nothing
            a_replay_ends_with_the_newest_of_its_call
            a_replay_moves_its_clock
            a_dropped_replay_leaves_nothing
            a_replay_of_nothing
            finished_events_stay_for_a_while
            events_that_a_group_needs_are_not_trimmed
            a_dead_event_is_replayed_as_well
            history_survives_a_crash
            a_group_passes_over_events_that_are_too_old
            a_live_subscription_passes_over_events_that_are_too_old
            an_event_may_become_too_old_for_its_retry
            a_clock_that_steps_back_makes_nothing_old
            a_retry_does_not_wait_for_a_clock_that_stepped_back
            a_lease_does_not_outlive_a_clock_that_stepped_back
            the_status_of_a_group_tells_how_far_it_is
            groups_are_listed_page_by_page
            conflation_keeps_the_latest_of_each_key_in_order
            conflation_is_bounded_by_its_keys
            conflation_loses_nothing_for_who_keeps_up
            a_paused_consumer_gives_back_what_it_did_not_begin
            a_paused_group_collects_and_goes_on
            a_paused_live_queue_does_what_its_policy_says
            a_paused_subscription_stops
            what_waits_here_is_told
            a_blocked_publisher_is_let_go
            priority_passes_a_hanging_handler
            priority_passes_a_thousand_market_events
            priority_passes_a_backlog
            priority_does_not_hold_up_the_rest
            the_order_of_a_key_holds_within_priority
            delayed_and_redriven_events_keep_their_priority
            priority_survives_a_crash
            priority_passes_what_comes_alone
            stored_events_survive_a_crash
            attempts_and_errors_survive_a_crash
            claims_of_the_dead_come_back_after_the_lease
            the_same_consumer_name_takes_over_at_once
            an_event_that_kills_its_consumers_dies_alone
            ids_are_recognised_after_a_crash
            two_consumers_may_not_share_a_name
            two_processes_share_a_group
            a_key_waits_for_the_other_process
            a_retry_holds_up_its_key_in_every_process
            an_idle_consumer_hears_of_other_processes
            an_id_is_known_in_every_process
            a_late_answer_of_a_predecessor_changes_nothing
            a_second_run_of_a_name_displaces_the_first
            live_events_reach_other_processes_or_never_do
            what_one_process_does_the_other_sees
            any_process_releases_what_was_delayed
            the_other_process_goes_on_alone
            the_backlog_of_two_processes_is_one
            what_a_backend_lacks_is_said
            stop_gives_back_what_was_not_begun
            drained_ends_when_the_subscription_does
            close_lets_running_handlers_end
            close_reports_what_it_gave_up_on
            a_closed_bus_refuses_and_closes_twice
        }
    };
    (@tests $fixture:expr; $($case:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case($fixture).await;
        })+
    };
    (@futures $fixture:expr; $($case:ident)+) => {
        vec![$($crate::conformance::Case::new(stringify!($case), async move { $crate::conformance::$case($fixture).await })),+]
    };
}

/// A case that is about to run.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The case; it panics with what it saw if it fails.
    pub run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Case {
    /// A case by its name.
    pub fn new(name: &'static str, run: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name, run: Box::pin(run) }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

tokio::task_local! {
    static PATIENCE: Duration;
}

/// Runs a case that waits no longer than `patience` (10 s by default) for what must happen: for buses that are wrong on purpose.
pub async fn with_patience<F: Future>(patience: Duration, case: F) -> F::Output {
    PATIENCE.scope(patience, case).await
}

/// `None` if it did not happen in time; on a bus that is right that time never elapses.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let patience = PATIENCE.try_with(|p| *p).unwrap_or(Duration::from_secs(10));
    tokio::time::timeout(patience, work).await.ok()
}

async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    match in_time(work).await {
        Some(value) => value,
        None => panic!("waited in vain: {what}"),
    }
}

/// Waits for a condition that nothing announces.
async fn until(what: &str, holds: impl Fn() -> bool) {
    patiently(what, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits for a condition that comes about when consumers look for what other processes did: moves the clock meanwhile, one poll at a time.
/// Leases and time limits must be [`AGES`] there.
async fn moving(f: &impl Fixture, what: &str, holds: impl Fn() -> bool) {
    let bus = f.bus();
    patiently(what, async {
        while !holds() {
            f.advance(config().poll_interval).await;
            // A round trip, so that the clock does not run far ahead of the stores.
            let _ = bus.status("nobody").await;
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits, moving the clock, until a group has nothing left to do.
async fn worked_off(f: &impl Fixture, group: &str) {
    let bus = f.bus();
    patiently("the group is done", async {
        while pending(&bus, group).await != Some(0) {
            f.advance(config().poll_interval).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Longer than any case moves its clock.
const AGES: Duration = Duration::from_secs(10 * 365 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("the suite's patterns are good")
}

fn event(topic: &str, key: &str, data: impl Into<String>) -> Envelope {
    let topic = Topic::new(topic).expect("the suite's topics are good");
    Envelope::new(topic, "test.v1", Timestamp::from_millis(1), data.into()).with_key(key)
}

fn id(text: &str) -> EventId {
    EventId::new(text).expect("the suite's ids are good")
}

/// Exactly `seconds` before each retry.
fn every(seconds: u64) -> Backoff {
    let wait = Duration::from_secs(seconds);
    Backoff::new(wait, wait, 1, Jitter::None).expect("a constant backoff is good")
}

async fn store(bus: &Arc<dyn EventBus>, event: Envelope) -> Published {
    bus.publish(event, Delivery::AtLeastOnce).await.expect("the event is stored")
}

async fn pending(bus: &Arc<dyn EventBus>, group: &str) -> Option<u64> {
    bus.status(group).await.ok().map(|status| status.pending)
}

async fn start(bus: &Arc<dyn EventBus>, options: SubscribeOptions) -> Subscription {
    bus.subscribe(options).await.expect("the subscription begins")
}

async fn drain(subscription: &Subscription) {
    patiently("drained", subscription.drained()).await.expect("the subscription drains");
}

/// Crashes; whether what was stored must be there. If not, asserts that the bus does not pretend.
async fn crash(f: &mut impl Fixture, group: &str) -> bool {
    let survives = f.bus().info().survives_process;
    // What its consumers have begun with the store comes to its end: a claim that arrives after the death is what leases are for.
    for _ in 0..5 {
        let _ = f.bus().status(group).await;
        tokio::task::yield_now().await;
    }
    f.reopen().await;
    if !survives {
        assert!(matches!(f.bus().status(group).await, Err(BusError::NoGroup { .. })), "nothing may be half there");
    }
    survives
}

/// The payloads of what a replay handled, and what it said.
async fn replayed(bus: &Arc<dyn EventBus>, topics: &str, from: ReplayFrom) -> (Vec<String>, Replayed) {
    let log = Log::new();
    let work = bus.replay(Replay::new(pattern(topics), from, log.handler()));
    let said = patiently("the replay", work).await.expect("the replay runs");
    (log.data(), said)
}

/// What handlers saw, in order.
#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Delivered>>,
    changed: Notify,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Records and succeeds.
    fn handler(self: &Arc<Self>) -> Arc<dyn Handler> {
        self.answering(|_| Ok(()))
    }

    /// Records, then answers what `answer` says.
    fn answering<F>(self: &Arc<Self>, answer: F) -> Arc<dyn Handler>
    where
        F: Fn(&Delivered) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let log = self.clone();
        let answer = Arc::new(answer);
        handler_fn(move |event| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                log.record(event.clone());
                answer(&event)
            }
        })
    }

    fn record(&self, event: Delivered) {
        self.seen.lock().push(event);
        self.changed.notify_waiters();
    }

    /// Payload and attempt of each, e.g. `a1#1`.
    fn lines(&self) -> Vec<String> {
        let line = |d: &Delivered| format!("{}#{}", String::from_utf8_lossy(&d.envelope.data), d.attempt);
        self.seen.lock().iter().map(line).collect()
    }

    /// The payload of each.
    fn data(&self) -> Vec<String> {
        self.seen.lock().iter().map(|d| String::from_utf8_lossy(&d.envelope.data).into_owned()).collect()
    }

    fn len(&self) -> usize {
        self.seen.lock().len()
    }

    /// Waits until `n` were seen.
    async fn wait(&self, n: usize) -> Vec<String> {
        let arrived = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.len() >= n {
                    return;
                }
                changed.await;
            }
        };
        if in_time(arrived).await.is_none() {
            panic!("waited in vain for {n} handlings, saw {:?}", self.lines());
        }
        self.lines()
    }
}

/// Holds handlers up until it is opened.
struct Gate {
    entered: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { entered: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// A handler that records to `log`, waits for the gate if `stops` says so, and succeeds.
    fn handler(
        self: &Arc<Self>,
        log: &Arc<Log>,
        stops: impl Fn(&Delivered) -> bool + Send + Sync + 'static,
    ) -> Arc<dyn Handler> {
        let (gate, log, stops) = (self.clone(), log.clone(), Arc::new(stops));
        handler_fn(move |event| {
            let (gate, log, stops) = (gate.clone(), log.clone(), stops.clone());
            async move {
                log.record(event.clone());
                if stops(&event) {
                    gate.entered.add_permits(1);
                    gate.open.acquire().await.expect("the gate stays").forget();
                }
                Ok(())
            }
        })
    }

    /// Waits until a handler stands before it.
    async fn wait(&self) {
        patiently("a handler at the gate", self.entered.acquire()).await.expect("the gate stays").forget();
    }

    fn open(&self, n: usize) {
        self.open.add_permits(n);
    }
}
