//! What every [`AuditLog`] must do, as plain async functions that panic where it does not.
//!
//! A backend writes a [`Fixture`] and one line, `infra_audit_log::audit_log_conformance!(MyFixture::new().await);`, in a test file
//! of its own crate (which needs tokio's `macros` and `rt`). Each case gets a fixture of its own.

mod appending;
mod lasting;
mod proving;
mod reading;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::{EventId, Symbol, Timestamp, UserId};

pub use self::{appending::*, lasting::*, proving::*, reading::*};
use crate::{AuditEvent, AuditKind, AuditLog, Checkpoint, Fields, NoteSigner, TreeHead};

/// An empty log, and the hands that a test needs.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The log.
    fn log(&self) -> Arc<dyn AuditLog>;

    /// The wall time of the clock that the log was given.
    fn now(&self) -> Timestamp;

    /// Moves that clock.
    async fn advance(&self, by: Duration);

    /// Ends the log without closing it, as a crash would, and opens it anew.
    async fn reopen(&mut self);
}

macro_rules! cases {
    ($d:tt; $($name:ident)+) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($name)),+];

        /// Runs one case by its name.
        ///
        /// # Panics
        /// If the log does not do what the case asks for, or there is no such case.
        pub async fn run(case: &str, fixture: &mut dyn Fixture) {
            match case {
                $(stringify!($name) => $name(fixture).await,)+
                other => panic!("no case is called {other}"),
            }
        }

        /// Writes a test for each case; takes an expression that makes a [`Fixture`](crate::conformance::Fixture) and may await.
        #[macro_export]
        macro_rules! audit_log_conformance {
            ($d fixture:expr) => {
                $(
                    #[tokio::test]
                    async fn $name() {
                        $crate::conformance::run(stringify!($name), &mut $d fixture).await;
                    }
                )+
            };
        }
    };
}

cases! { $;
    indices_run_from_zero_without_gaps
    the_same_event_again_is_the_same_place
    another_body_under_a_used_id_is_a_conflict
    a_batch_is_all_or_nothing
    a_batch_may_repeat_an_event_but_not_an_id
    an_empty_batch_does_nothing
    what_is_too_large_is_refused_whole
    many_writers_make_one_chain
    events_come_back_as_they_were
    queries_filter_by_kind_symbol_and_user
    time_bounds_hold_their_start_and_not_their_end
    pages_show_every_event_once
    page_limits_are_checked
    statistics_count_by_kind
    exports_hold_every_event
    an_empty_log_is_the_hash_of_nothing
    the_head_is_the_tree_over_the_stored_bytes
    never_ok_without_a_checkpoint
    ok_reaches_as_far_as_the_checkpoint
    an_empty_checkpoint_anchors_nothing
    a_checkpoint_of_another_history_is_tampering
    a_checkpoint_beyond_the_end_is_truncation
    a_long_log_verifies_while_it_grows
    a_crash_keeps_what_was_promised
    closing_refuses_everything_after
    a_log_in_use_is_up
}

/// Runs every case on a fresh fixture and answers the names of those that panicked.
pub async fn failures<F, Fut>(make: F) -> Vec<&'static str>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Box<dyn Fixture>>,
{
    let mut failed = Vec::new();
    for case in CASES {
        let mut fixture = make().await;
        // A task of its own turns the panic into an answer.
        if tokio::spawn(async move { run(case, &mut *fixture).await }).await.is_err() {
            failed.push(*case);
        }
    }
    failed
}

fn event(fixture: &dyn Fixture, n: u64) -> AuditEvent {
    let id = EventId::new(format!("event-{n}")).expect("a valid id");
    AuditEvent::new(id, AuditKind::OrderPlaced, fixture.now(), format!("order/{n}"), "place")
        .with_details(Fields::new().with("n", n))
}

fn symbol(name: &str) -> Symbol {
    Symbol::new(name).expect("a valid symbol")
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a valid user")
}

async fn append(fixture: &dyn Fixture, range: std::ops::Range<u64>) {
    let events: Vec<_> = range.map(|n| event(fixture, n)).collect();
    fixture.log().append_batch(events).await.expect("appended");
}

fn sign(head: TreeHead) -> Checkpoint {
    NoteSigner::from_seed("conformance", &[42; 32]).expect("a valid origin").sign(head)
}
