//! What every backend must keep, as plain async functions that panic where a promise is broken. Feature `conformance`.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use infra_state_store::{MemoryStateStore, StateStore, conformance::Fixture};
//! use infra_types::ManualClock;
//!
//! struct Memory(MemoryStateStore, ManualClock);
//!
//! #[async_trait::async_trait]
//! impl Fixture for Memory {
//!     fn store(&self) -> Arc<dyn StateStore> { Arc::new(self.0.clone()) }
//!     fn second(&self) -> Arc<dyn StateStore> { Arc::new(self.0.clone()) }
//!     async fn advance(&self, by: Duration) { self.1.advance(by) }
//! }
//!
//! async fn fixture() -> Memory {
//!     let clock = ManualClock::default();
//!     Memory(MemoryStateStore::new(Arc::new(clock.clone())), clock)
//! }
//!
//! // One test a case; the crate needs tokio with `macros` and `rt-multi-thread`.
//! infra_state_store::state_store_conformance!(fixture());
//! ```

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::store::StateStore;

pub mod atomicity;
pub mod counters;
pub mod expiry;
pub mod leases;
pub mod lifecycle;
pub mod limits;
pub mod queues;
pub mod scans;
mod tools;
pub mod values;
pub mod versions;

/// Fresh and empty for every case; ends what it started when dropped.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store under test.
    fn store(&self) -> Arc<dyn StateStore>;

    /// Another handle on the same data, as independent as the backend allows: a second connection, pool or process.
    fn second(&self) -> Arc<dyn StateStore>;

    /// Lets the store's time pass: moves its clock, or waits where a server's clock rules.
    async fn advance(&self, by: Duration);

    /// Whether time stands still between two calls of `advance`, so that the last moment before an expiry can be seen.
    fn has_exact_clock(&self) -> bool {
        true
    }
}

/// A case's run.
pub type Run<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One case, for those who run the list themselves.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its function's name.
    pub name: &'static str,
    /// Panics where the promise is broken.
    pub run: for<'a> fn(&'a dyn Fixture) -> Run<'a>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every case of the suite.
pub const CASES: &[Case] = crate::state_store_conformance!(@list table ());

/// Makes one test of every case. The argument is an expression that gives a future of a fresh [`Fixture`](crate::conformance::Fixture).
#[macro_export]
macro_rules! state_store_conformance {
    (@list $mode:ident $argument:tt) => {
        $crate::state_store_conformance! { @$mode $argument
            values: an_absent_key_reads_as_none, a_value_is_read_back_byte_for_byte, an_overwrite_replaces_value_and_type,
                the_kinds_of_one_name_are_three_keys, namespaces_do_not_mix, a_read_answers_in_the_order_of_its_keys,
                records_have_versions_and_cache_keys_have_none, a_delete_says_whether_the_key_was_there,
                absent_refuses_what_is_there, exists_refuses_what_is_not_there, a_check_changes_nothing,
                every_handle_sees_what_was_answered, typed_values_come_back;
            atomicity: an_empty_batch_is_fine, a_refused_batch_changes_nothing, the_refusing_operation_is_named,
                later_operations_see_earlier_ones, readers_see_a_batch_whole, concurrent_batches_happen_one_by_one;
            counters: a_missing_counter_is_zero, an_expired_counter_is_zero, bounds_are_inclusive_and_tell_the_current_value,
                the_whole_range_is_exact, overflow_changes_nothing, overflow_is_judged_before_bounds,
                a_counter_is_not_set_beyond_its_range, bytes_are_no_counter, an_addition_keeps_or_moves_the_expiry,
                concurrent_additions_lose_nothing, concurrent_bounded_additions_admit_the_floor;
            expiry: a_key_ends_at_its_moment, an_overwrite_clears_the_time_to_live, keep_keeps_the_time_to_live,
                keep_does_not_bring_an_expired_time_back, expired_is_absent_in_reads, expired_is_absent_in_conditions,
                expired_is_absent_for_deletes, a_key_written_again_outlives_its_old_time, a_backlog_of_expired_keys_stays_gone,
                a_very_long_time_does_not_wrap, less_than_a_millisecond_is_refused;
            versions: versions_grow, a_stale_version_is_refused, comparing_never_creates, comparing_never_revives_the_expired,
                versions_never_return_after_delete, versions_never_return_after_expiry, versions_never_return_after_clear,
                a_delete_can_compare, one_stale_version_refuses_the_whole_batch, cache_keys_cannot_be_compared,
                one_of_many_creators_wins, concurrent_updates_lose_nothing;
            leases: a_free_lease_is_granted_and_can_be_read, a_held_lease_is_refused, its_holder_prolongs_under_the_same_fence,
                an_expired_lease_gets_a_greater_fence, a_released_lease_is_free_and_its_fence_counts_on,
                clearing_frees_leases_and_their_fences_count_on, renewing_works_until_somebody_else_took_it,
                renewing_needs_the_holder_and_its_fence, releasing_an_old_fence_is_refused, an_older_fence_cannot_write,
                a_fence_outlives_its_expiry, fences_that_were_never_granted_are_refused,
                lease_keys_belong_to_lease_operations, one_of_many_gets_the_lease;
            scans: records_come_in_byte_order, wildcards_are_literal, pages_miss_no_lasting_key, pages_meet_no_key_twice,
                only_records_of_the_namespace_are_listed, the_expired_take_no_place_on_a_page, every_prefix_finds_its_keys,
                the_last_page_says_so, a_start_before_the_prefix_starts_at_the_prefix, a_scan_needs_a_prefix_and_a_limit;
            queues: messages_keep_their_order, acknowledging_removes_up_to_and_with, positions_never_return,
                outboxes_do_not_mix, a_refused_batch_enqueues_and_acknowledges_nothing, a_page_of_messages_has_its_limit,
                a_processed_message_is_refused_with_its_batch, marks_are_forgotten_in_time, inboxes_do_not_mix,
                one_of_many_processes_a_message;
            limits: keys_have_1_to_512_bytes, a_value_has_its_exact_limit, a_batch_has_its_exact_count,
                a_batch_has_its_exact_bytes, a_read_has_its_exact_count, texts_beside_values_keep_the_rules_of_keys,
                queues_are_named_by_record_keys, crossed_bounds_are_refused;
            lifecycle: clear_empties_one_namespace_only, clear_counts_live_keys_only, clear_takes_more_than_one_chunk,
                health_follows_use_and_close, closing_refuses_what_comes_after;
        }
    };
    (@table () $($module:ident: $($case:ident),+;)+) => {
        &[$($($crate::conformance::Case {
            name: stringify!($case),
            run: |fixture| Box::pin($crate::conformance::$module::$case(fixture)),
        },)+)+]
    };
    (@tests ($fixture:expr) $($module:ident: $($case:ident),+;)+) => {
        $($(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::conformance::$module::$case(&$fixture.await).await;
        })+)+
    };
    ($fixture:expr) => {
        $crate::state_store_conformance!(@list tests ($fixture));
    };
}
