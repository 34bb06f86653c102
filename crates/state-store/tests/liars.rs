//! The suite itself is tested: each of these stores breaks one promise, and a named case must notice.

mod liars {
    pub(crate) mod answers;
    pub(crate) mod batches;
    pub(crate) mod changes;
    pub(crate) mod lie;
    pub(crate) mod lists;
    pub(crate) mod wire;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use infra_state_store::{
    MemoryStateStore, StateStore,
    conformance::{CASES, FaultControl, Fixture},
};
use infra_types::ManualClock;
use tokio::task::JoinSet;

use liars::{
    answers, batches, changes, lists,
    wire::{Wire, WireLie},
};

const PATIENCE: Duration = Duration::from_secs(60);

type Liar = fn(MemoryStateStore) -> Arc<dyn StateStore>;

/// How a store is made that is to be judged.
#[derive(Clone, Copy)]
enum Kind {
    /// In memory, and wrong in one way.
    Liar(Liar),
    /// Behind a wire, and wrong when it fails.
    Wire(WireLie),
}

struct Suspect {
    clock: ManualClock,
    memory: MemoryStateStore,
    kind: Kind,
    store: Arc<dyn StateStore>,
}

impl Suspect {
    fn new(kind: Kind) -> Self {
        let clock = ManualClock::default();
        let memory = MemoryStateStore::new(Arc::new(clock.clone()));
        let store = match kind {
            Kind::Liar(liar) => liar(memory.clone()),
            Kind::Wire(lie) => Arc::new(Wire::new(memory.clone(), lie)),
        };
        Self { clock, memory, kind, store }
    }
}

#[async_trait::async_trait]
impl Fixture for Suspect {
    fn store(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    fn second(&self) -> Arc<dyn StateStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn reopen(&self) -> Option<Arc<dyn StateStore>> {
        match self.kind {
            Kind::Liar(_) => None,
            Kind::Wire(lie) => Some(Arc::new(Wire::new(self.memory.clone(), lie))),
        }
    }

    async fn faults(&self) -> Option<Arc<dyn FaultControl>> {
        match self.kind {
            Kind::Liar(_) => None,
            Kind::Wire(lie) => {
                let server = MemoryStateStore::new(Arc::new(self.clock.clone()));
                Some(Arc::new(Wire::new(server, lie)))
            }
        }
    }
}

/// The cases that a store fails.
async fn failures(kind: Kind) -> BTreeSet<&'static str> {
    let mut running = JoinSet::new();
    let mut names = BTreeMap::new();
    for case in CASES {
        let run = running.spawn(async move {
            // A case that never ends has noticed nothing, and is not to be waited for.
            let ended = tokio::time::timeout(PATIENCE, async { (case.run)(&Suspect::new(kind)).await }).await;
            ended.is_ok()
        });
        names.insert(run.id(), case.name);
    }
    let (mut failed, mut hung) = (BTreeSet::new(), Vec::new());
    while let Some(done) = running.join_next_with_id().await {
        match done {
            Ok((_, true)) => {}
            Ok((id, false)) => hung.push(names[&id]),
            Err(e) => failed.extend(names.get(&e.id())),
        }
    }
    assert!(hung.is_empty(), "cases that wait for ever where they should fail: {hung:?}");
    failed
}

/// Each lie with the cases that are made to find it.
fn liars() -> BTreeMap<&'static str, (Liar, &'static [&'static str])> {
    BTreeMap::from([
        ("compare creates", (batches::compare_creates as Liar, &["comparing_never_creates"][..])),
        ("time to live survives overwrite", (batches::ttl_survives, &["an_overwrite_clears_the_time_to_live"])),
        ("no rollback", (batches::no_rollback, &["a_refused_batch_changes_nothing"])),
        ("fence ignored", (batches::fence_ignored, &["an_older_fence_cannot_write"])),
        ("bounds ignored", (batches::bounds_ignored, &["bounds_are_inclusive_and_tell_the_current_value"])),
        (
            "addition reads, then writes",
            (
                batches::lost_updates,
                &["concurrent_additions_lose_nothing", "concurrent_bounded_additions_admit_the_floor"],
            ),
        ),
        ("renews for anybody", (batches::renews_for_anybody, &["renewing_needs_the_holder_and_its_fence"])),
        ("inbox forgets", (batches::inbox_forgets, &["a_processed_message_is_refused_with_its_batch"])),
        ("outbox outside the batch", (batches::outbox_first, &["a_refused_batch_enqueues_and_acknowledges_nothing"])),
        ("presence is not judged", (batches::absent_ignored, &["absent_refuses_what_is_there"])),
        ("keep means never", (batches::keep_is_never, &["keep_keeps_the_time_to_live"])),
        ("expired seen in scans", (answers::stale_scan, &["expired_is_absent_in_reads"])),
        ("versions begin anew", (answers::versions_restart, &["versions_never_return_after_delete"])),
        ("pages by offset", (answers::offset_pages, &["pages_miss_no_lasting_key", "pages_meet_no_key_twice"])),
        ("LIKE in scans", (answers::like_scan, &["wildcards_are_literal"])),
        ("overflow clamps", (batches::overflow_clamps, &["overflow_changes_nothing"])),
        ("clear takes its neighbours", (answers::clear_by_prefix, &["clear_empties_one_namespace_only"])),
        ("torn reads", (answers::torn_reads, &["readers_see_a_batch_whole"])),
        ("values as text", (batches::text_only, &["a_value_is_read_back_byte_for_byte"])),
        ("counters wrap", (batches::overflow_wraps, &["overflow_changes_nothing"])),
        ("compares, then writes", (batches::compare_then_write, &["concurrent_updates_lose_nothing"])),
        ("the time to live comes later", (batches::ttl_comes_later, &["what_is_written_never_shows_without_its_time"])),
        ("marks outside the batch", (batches::mark_first, &["no_writer_is_left_over_before_any_refusal"])),
        ("expired counts as there", (changes::expired_is_there, &["expired_is_absent_in_conditions"])),
        ("caps ignored", (lists::cap_ignored, &["a_cap_keeps_the_newest", "concurrent_pushes_keep_the_cap"])),
        ("pushes outside the batch", (lists::push_outside, &["a_refused_batch_pushes_nothing"])),
        ("a push reads, then writes", (lists::push_reads_then_writes, &["concurrent_pushes_lose_nothing"])),
        ("a list keeps its old end", (lists::list_keeps_its_old_time, &["a_list_ends_as_a_whole"])),
        ("skips after the limit", (lists::skip_after_limit, &["a_list_is_read_from_both_ends"])),
        ("one counter with a lifetime", (lists::fixed_window, &["a_burst_at_the_boundary_is_refused"])),
        ("a window looks, then counts", (lists::admits_in_two_steps, &["many_at_once_get_the_limit_exactly"])),
        ("counts outside the batch", (lists::admit_outside, &["a_refused_batch_counts_nothing"])),
        (
            "a window lets go early",
            (
                lists::window_lets_go_early,
                &["what_was_counted_leaves_in_its_time", "a_burst_at_the_boundary_is_refused"],
            ),
        ),
        ("trims without a gap", (changes::trims_in_silence, &["trimmed_changes_are_a_gap", "a_watch_tells_gaps"])),
        ("clears without a gap", (changes::clears_in_silence, &["clearing_is_a_gap"])),
        ("skips late writers", (changes::skips_late_writers, &["a_follower_skips_no_late_writer"])),
        ("tells what was refused", (changes::notes_the_refused, &["a_refused_batch_is_not_told"])),
        ("deletes are not told", (changes::deletes_are_not_told, &["changes_come_in_order_with_their_versions"])),
        (
            "waits at a position that it never gave",
            (changes::waits_for_a_lost_position, &["a_position_of_another_life_is_a_gap"]),
        ),
        ("claims to survive", (changes::claims_to_survive, &["what_survives_its_process_is_all_there"])),
        ("claims to be shared", (changes::claims_to_be_shared, &["a_shared_store_offers_its_faults"])),
        ("claims what contradicts itself", (changes::claims_nonsense, &["what_is_missing_is_refused"])),
    ])
}

/// Each lie about a fault with the cases that are made to find it.
fn wires() -> [(WireLie, &'static [&'static str]); 9] {
    [
        (WireLie::SendsAgain, &["a_lost_reply_is_ambiguous"]),
        (WireLie::CallsDoubtFailure, &["a_lost_reply_is_ambiguous", "silence_after_a_request_is_ambiguous"]),
        (WireLie::CallsDoubtSuccess, &["a_lost_request_stores_no_half", "an_outage_is_told_in_bounded_time"]),
        (WireLie::DoubtsReads, &["a_lost_read_is_no_doubt", "an_outage_is_told_in_bounded_time"]),
        (WireLie::WaitsForEver, &["an_outage_is_told_in_bounded_time"]),
        (WireLie::StaysBroken, &["cuts_leave_every_batch_whole", "a_lost_read_is_no_doubt"]),
        (WireLie::AppliesHalf, &["a_lost_request_stores_no_half", "cuts_leave_every_batch_whole"]),
        (WireLie::ForgetsWhatItPromised, &["a_killed_server_keeps_what_it_promised"]),
        (WireLie::TakesLateReplies, &["a_slow_wire_changes_no_answer"]),
    ]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_store_fails_no_case() {
    assert_eq!(failures(Kind::Liar(|store| Arc::new(store))).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_wire_fails_no_case() {
    assert_eq!(failures(Kind::Wire(WireLie::None)).await, BTreeSet::new());
}

/// The lie is caught by the cases that are made for it, and is not so crude that any would do.
async fn is_caught(lie: &str, kind: Kind, cases: &[&str]) -> Result<(), String> {
    let failed = failures(kind).await;
    for case in cases {
        if !failed.contains(case) {
            return Err(format!("{lie:?} must be caught by {case}, is caught by {failed:?}"));
        }
    }
    // A lie that breaks everything shows nothing about the case that is made for it.
    if failed.len() >= CASES.len() / 3 {
        return Err(format!("{lie:?} is too crude: {failed:?}"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_liar_is_caught_by_its_cases() {
    quietly();
    let mut missed = Vec::new();
    for (lie, (liar, cases)) in liars() {
        missed.extend(is_caught(lie, Kind::Liar(liar), cases).await.err());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_lie_about_a_fault_is_caught_by_its_cases() {
    quietly();
    let mut missed = Vec::new();
    for (lie, cases) in wires() {
        missed.extend(is_caught(&format!("{lie:?}"), Kind::Wire(lie), cases).await.err());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
