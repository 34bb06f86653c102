//! What every backend must keep, as plain async functions that panic where a promise is broken. Feature `conformance`.
//!
//! ```
//! use infra_state_store::{MemoryStateStore, conformance::OnClock, state_store_conformance};
//!
//! async fn fixture() -> OnClock {
//!     OnClock::new(MemoryStateStore::new)
//! }
//!
//! // One test a case; the crate needs tokio with `macros` and `rt-multi-thread`.
//! state_store_conformance!(fixture());
//! ```
//!
//! A store with a file, a server or a wire brings a [`Fixture`] of its own.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::store::StateStore;

pub mod atomicity;
pub mod capabilities;
pub mod changes;
pub mod combinations;
pub mod counters;
pub mod expiry;
pub mod faults;
pub mod leases;
pub mod lifecycle;
pub mod limits;
pub mod lists;
mod on_clock;
pub mod queues;
pub mod scans;
mod tools;
pub mod values;
pub mod versions;
pub mod watching;
pub mod windows;

pub use faults::{FaultControl, Outage, Way};
pub use on_clock::OnClock;

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

    /// Closes the handles of this fixture and opens another on the same data, as a process would that starts after they are gone. None
    /// declares that the data ends with its process; the store must then say so.
    async fn reopen(&self) -> Option<Arc<dyn StateStore>> {
        None
    }

    /// Faults on the wire between a store and its data, on a server of their own. None declares that there is no wire; the store must
    /// then not claim to be shared between hosts. Called only by the cases that bring faults about.
    async fn faults(&self) -> Option<Arc<dyn FaultControl>> {
        None
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
                a_very_long_time_does_not_wrap, less_than_a_millisecond_is_refused, every_kind_ends_in_its_time,
                what_is_written_never_shows_without_its_time;
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
                queues_are_named_by_record_keys, crossed_bounds_are_refused, lists_windows_and_changes_have_exact_limits,
                every_kind_of_key_has_its_operations, pages_of_lists_and_changes_have_exact_limits,
                a_mistake_is_found_before_the_first_operation;
            lists: a_list_is_read_from_both_ends, an_absent_list_is_empty_and_values_are_bytes, a_cap_keeps_the_newest,
                a_list_ends_as_a_whole, an_expired_list_starts_anew, a_refused_batch_pushes_nothing,
                concurrent_pushes_lose_nothing, concurrent_pushes_keep_the_cap, list_keys_belong_to_list_operations,
                lists_are_deleted_and_cleared;
            windows: a_window_counts_up_to_its_limit, admitting_nothing_peeks, the_time_to_wait_is_true,
                more_than_the_limit_has_no_time_to_wait, what_was_counted_leaves_in_its_time,
                a_burst_at_the_boundary_is_refused, a_limit_may_change, every_number_of_slices_keeps_the_limit,
                a_refused_batch_counts_nothing, two_windows_count_together_or_not_at_all,
                many_at_once_get_the_limit_exactly, deleting_a_window_resets_it, window_keys_belong_to_window_operations;
            changes: changes_are_kept_on_request, changes_come_in_order_with_their_versions,
                a_change_tells_when_the_record_ends, only_records_are_told, a_refused_batch_is_not_told,
                changes_are_read_page_by_page, trimmed_changes_are_a_gap, what_is_kept_may_change, clearing_is_a_gap,
                a_position_of_another_life_is_a_gap, ending_forgets_the_changes, readers_do_not_disturb_each_other,
                a_follower_skips_no_late_writer;
            watching: a_watch_tells_what_happens_under_its_prefix, a_watch_needs_kept_changes,
                a_watch_goes_on_from_its_position, a_watch_tells_gaps, a_watch_may_be_given_up_at_any_time;
            combinations: no_writer_is_left_over_before_any_refusal, a_refusal_at_any_place_undoes_all,
                a_mixed_batch_answers_every_operation, lists_and_windows_see_earlier_operations,
                every_part_of_concurrent_batches_happens_equally_often, the_largest_batch_is_all_or_nothing,
                the_heaviest_batch_is_all_or_nothing;
            capabilities: what_is_missing_is_refused, every_handle_tells_the_same, what_survives_its_process_is_all_there,
                a_shared_store_offers_its_faults;
            faults: a_lost_reply_is_ambiguous, a_lost_request_stores_no_half, a_lost_read_is_no_doubt,
                cuts_leave_every_batch_whole, an_outage_is_told_in_bounded_time, silence_after_a_request_is_ambiguous,
                a_slow_wire_changes_no_answer, a_watch_outlives_its_connections, a_killed_server_keeps_what_it_promised;
            lifecycle: clear_empties_one_namespace_only, clear_counts_live_keys_only, clear_takes_more_than_one_chunk,
                health_follows_use_and_close, closing_refuses_what_comes_after, clearing_beside_writers_tears_nothing;
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
