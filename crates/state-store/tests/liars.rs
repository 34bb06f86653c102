//! The suite itself is tested: each of these stores breaks one promise, and a named case must notice.

mod liars {
    pub(crate) mod answers;
    pub(crate) mod batches;
    pub(crate) mod lie;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use infra_state_store::{
    MemoryStateStore, StateStore,
    conformance::{CASES, Fixture},
};
use infra_types::ManualClock;

use liars::{answers, batches};

type Liar = fn(MemoryStateStore) -> Arc<dyn StateStore>;

struct Suspect {
    clock: ManualClock,
    store: Arc<dyn StateStore>,
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
}

/// The cases that a store fails.
async fn failures(liar: Liar) -> BTreeSet<&'static str> {
    let mut failed = BTreeSet::new();
    for case in CASES {
        let run = tokio::spawn(async move {
            let clock = ManualClock::default();
            let store = liar(MemoryStateStore::new(Arc::new(clock.clone())));
            (case.run)(&Suspect { clock, store }).await;
        });
        if run.await.is_err() {
            failed.insert(case.name);
        }
    }
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
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_honest_store_fails_no_case() {
    assert_eq!(failures(|store| Arc::new(store)).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_liar_is_caught_by_its_cases() {
    for (lie, (liar, cases)) in liars() {
        let failed = failures(liar).await;
        for case in cases {
            assert!(failed.contains(case), "{lie:?} must be caught by {case}, is caught by {failed:?}");
        }
        // A lie that breaks everything shows nothing about the case that is made for it.
        assert!(failed.len() < CASES.len() / 3, "{lie:?} is too crude: {failed:?}");
    }
}
