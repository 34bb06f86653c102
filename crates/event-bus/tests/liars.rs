//! The suite itself is tested: buses that are wrong in one way each, and the case that must catch them.

mod liars {
    pub(crate) mod broker;
    pub(crate) mod bus;
    pub(crate) mod lie;
}
mod shared_memory;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use infra_event_bus::{
    Bus, EventBus,
    conformance::{self, Fixture, config},
};
use infra_types::ManualClock;

use self::liars::{broker::LyingBroker, bus::LyingBus, lie::Lie};

/// Two processes may have it, and it survives both: so that there is something to lie about.
struct Liar {
    clock: ManualClock,
    lie: Lie,
    bus: Arc<LyingBus>,
}

impl Liar {
    fn new(lie: Lie) -> Self {
        let clock = ManualClock::default();
        let bus = open(LyingBroker::new(lie), &clock, lie);
        Self { clock, lie, bus }
    }

    fn another(&self) -> Arc<LyingBus> {
        open(self.bus.inner.broker().another(), &self.clock, self.lie)
    }
}

fn open(broker: LyingBroker, clock: &ManualClock, lie: Lie) -> Arc<LyingBus> {
    let inner = Arc::new(Bus::with_broker(broker, Arc::new(clock.clone()), config()));
    Arc::new(LyingBus { inner, lie })
}

#[async_trait]
impl Fixture for Liar {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        if self.lie == Lie::ClaimsToBeShared { None } else { Some(self.another()) }
    }

    async fn reopen(&mut self) {
        self.bus.inner.broker().die();
        self.bus.inner.abandon();
        self.bus = self.another();
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

/// A case waits this long for a liar to do what it never will.
const PATIENCE: Duration = Duration::from_secs(2);
/// Cases that wait at the same time.
const AT_ONCE: usize = 24;

/// The cases that a bus fails, and how many there are.
async fn failures(lie: Lie, patience: Duration) -> (BTreeSet<&'static str>, usize) {
    let cases = infra_event_bus::event_bus_cases!(Liar::new(lie));
    let all = cases.len();
    let failed = stream::iter(cases)
        .map(async |case| {
            let name = case.name;
            let case = tokio::spawn(conformance::with_patience(patience, case.run));
            let ended = tokio::time::timeout(patience * 30, case).await;
            let ended = ended.unwrap_or_else(|_| panic!("{name} waits for ever where it should fail"));
            ended.is_err().then_some(name)
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    (failed, all)
}

/// A test that means to catch many panics does not want to read each.
fn quietly() {
    std::panic::set_hook(Box::new(|panic| {
        // What this file itself asserts is worth reading.
        if panic.location().is_some_and(|place| place.file().ends_with("liars.rs")) {
            eprintln!("{panic}");
        }
    }));
}

/// The named case must fail on the liar, and so few others that its name says what is wrong.
async fn caught(lie: Lie, by: &str) {
    quietly();
    let (failed, all) = failures(lie, PATIENCE).await;
    assert!(failed.contains(by), "{by} lets {lie:?} pass; those that do not: {failed:?}");
    assert!(failed.len() * 3 < all, "{} of {all} cases fail for {lie:?}: {failed:?}", failed.len());
    println!("{lie:?} is caught by {} of {all} cases: {failed:?}", failed.len());
}

macro_rules! liars {
    ($($name:ident: $lie:ident by $case:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            caught(Lie::$lie, stringify!($case)).await;
        })+
    };
}

liars! {
    acknowledging_before_handling: AckBeforeHandling by a_failed_event_comes_again_after_its_backoff;
    retries_that_are_overtaken: RetryBreaksTheOrder by the_order_of_a_key_survives_retries;
    retries_without_a_wait: RetriesAtOnce by a_failed_event_comes_again_after_its_backoff;
    retries_that_wait_for_a_clock: WaitsForAClockThatSteppedBack by a_retry_does_not_wait_for_a_clock_that_stepped_back;
    attempts_that_are_not_counted: ForgetsAttempts by used_up_attempts_make_a_dead_letter_with_its_error;
    a_skip_that_blocks: SkipBlocks by skip_lets_later_events_of_the_key_go_on;
    a_star_that_stops_at_a_colon: StarStopsAtColon by a_star_crosses_colons_and_topics_stay_real;
    patterns_of_sql: LikePatterns by odd_patterns_take_what_they_say;
    keys_that_ignore_case: KeysIgnoreCase by odd_keys_are_lanes_of_their_own;
    binary_taken_for_text: BinaryIsText by an_envelope_arrives_as_it_was_sent;
    a_lost_trace: LosesTrace by an_envelope_stays_whole_on_every_way;
    dead_letters_without_an_error: DeadLetterLosesTheError by used_up_attempts_make_a_dead_letter_with_its_error;
    dead_letters_that_vanish: DeadLettersVanish by poison_is_dead_at_once_and_frees_its_key;
    pages_that_overlap: LettersOverlap by dead_letters_come_page_by_page;
    a_redrive_that_publishes: RedriveIsPublish by redriven_events_come_to_their_group_only;
    a_redrive_that_keeps_attempts: RedriveKeepsAttempts by a_redriven_event_has_all_its_attempts_again;
    a_redrive_that_throws_away: RedriveRefusesNothing by a_redrive_into_a_full_backlog_is_refused;
    a_purge_that_keeps: PurgeKeeps by purged_dead_letters_are_gone;
    a_purge_that_takes_all: PurgeTakesAll by purged_dead_letters_are_gone;
    ids_that_mean_nothing: ForgetsIds by an_id_published_twice_is_one_event;
    ids_of_one_process: ForgetsIdsOfOtherProcesses by an_id_is_known_in_every_process;
    a_delay_that_is_none: DelayIsIgnored by a_delayed_event_is_seen_by_nobody_before_its_time;
    a_delay_that_dies: DelayDiesWithTheProcess by delayed_events_survive_a_crash;
    a_delay_that_forgets_ids: DelayForgetsIds by the_id_of_a_delayed_event_is_known;
    a_delay_that_swallows: DelaySwallows by delayed_events_are_bounded;
    delays_held_up_by_others: FullGroupsHoldUpDelays by a_full_group_holds_up_no_delays_of_others;
    delays_in_the_order_of_their_calls: DelaysInTheOrderOfTheirCalls by delayed_events_come_in_the_order_of_their_times;
    a_cancel_that_keeps: CancelKeeps by delayed_events_are_listed_and_taken_back;
    groups_without_pages: GroupsHaveOnePage by groups_are_listed_page_by_page;
    priority_that_is_ignored: IgnoresPriority by priority_passes_a_hanging_handler;
    drops_that_are_not_counted: DropsAreNotCounted by drop_oldest_keeps_the_newest_and_counts;
    conflation_that_is_a_queue: ConflationIsAQueue by conflation_keeps_the_latest_of_each_key_in_order;
    an_age_that_is_ignored: IgnoresMaxAge by a_group_passes_over_events_that_are_too_old;
    age_that_makes_dead_letters: ExpiredBecomesDead by a_group_passes_over_events_that_are_too_old;
    a_pause_that_keeps_what_it_claimed: ReleaseIsForgotten by a_paused_consumer_gives_back_what_it_did_not_begin;
    a_backlog_that_swallows: BacklogSwallows by a_full_backlog_refuses_and_keeps_what_it_has;
    events_that_go_in_silence: EvictsInSilence by events_without_a_group_are_bounded_and_counted;
    an_earliest_that_is_new: EarliestIsNew by a_new_group_begins_where_it_says;
    a_replay_without_its_mark: ReplayIsNotMarked by a_replay_acknowledges_nothing;
    a_replay_that_acknowledges: ReplayAcknowledges by a_replay_acknowledges_nothing;
    a_replay_without_an_end: ReplayFollows by a_replay_ends_with_the_newest_of_its_call;
    a_replay_backwards: ReplaysBackwards by a_replay_begins_with_an_event;
    a_replay_that_hides_gaps: HidesGaps by a_replay_tells_that_older_events_are_gone;
    a_replay_from_somewhere_else: GoneIsEarliest by a_replay_begins_with_an_event;
    a_history_that_skips_late_commits: HistorySkipsLateCommits by a_replay_beside_publishers_skips_nothing;
    a_status_without_what_runs: StatusForgetsWhatRuns by the_status_of_a_group_tells_how_far_it_is;
    a_status_without_the_dead: StatusForgetsTheDead by the_status_of_a_group_tells_how_far_it_is;
    times_that_are_not_taken: TimesAreNotTaken by handling_times_are_told_by_percentile;
    a_close_that_does_not_wait: CloseDoesNotWait by close_lets_running_handlers_end;
    a_batch_that_stops_at_a_bad_event: BatchStopsAtTheFirstBadOne by a_batch_with_refusals_keeps_its_order;
    a_batch_that_overtakes_itself: BatchIsManyPublishes by a_refused_event_holds_back_its_key;
    a_lease_that_is_not_extended: NeverExtends by a_running_handler_keeps_its_lease;
    a_name_that_takes_nothing_over: TakesNothingOver by the_same_consumer_name_takes_over_at_once;
    names_that_two_may_have: NamesAreShared by a_second_run_of_a_name_displaces_the_first;
    late_answers_that_are_not_told: LostLeasesAreNotCounted by a_late_answer_of_a_predecessor_changes_nothing;
    keys_that_end_with_the_process: KeysByProcess by a_key_waits_for_the_other_process;
    live_events_lost_in_silence: LosesLiveInSilence by live_events_reach_other_processes_or_never_do;
    live_events_that_come_back: EchoesLive by live_events_reach_other_processes_or_never_do;
    gaps_without_a_cause: InventsGaps by live_events_reach_other_processes_or_never_do;
    a_store_that_claims_to_survive: ClaimsToSurvive by stored_events_survive_a_crash;
    a_store_that_claims_to_be_shared: ClaimsToBeShared by what_a_backend_lacks_is_said;
}

/// Otherwise the cases might fail for a reason of these files' own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_lie_passes() {
    let (failed, all) = failures(Lie::Nothing, Duration::from_secs(10)).await;
    assert!(failed.is_empty() && all >= 80, "of {all}: {failed:?}");
}
