//! Every interleaving of those who ask and those who publish, with the memory model of the processor at its weakest.
//!
//! The source is compiled once more, into this test, with the lock and the atomics of the model checker: `super::sync` is the
//! module below.

use loom::{model::Builder, sync::Arc, thread};

#[path = "../src/gauge.rs"]
mod gauge;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64};

    /// With the interface of `parking_lot`.
    #[derive(Debug)]
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().expect("nobody panics")
        }

        pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().expect("nobody panics")
        }
    }
}

/// Set in the word while the table is to be asked.
const ASK: u8 = 0x80;

/// Publication `n`: the firm, a scope, and whether the word says it all. Each is closed in another place, and none is open in both.
type Table = (u64, bool, bool);

fn word(table: Table) -> u8 {
    u8::from(table.1) | if table.2 { ASK } else { 0 }
}

/// (until when, which publication if it is known, whether an order in the scope may pass)
fn look(gauge: &gauge::Gauge<Table>) -> (u64, Option<u64>, bool) {
    let whole = |word: u8| (word & ASK == 0).then_some((None, word & 1 == 0));
    let (until, (n, is_open)) = gauge.look(whole, |(n, firm, scope)| (Some(*n), !firm && !scope));
    (until, n, is_open)
}

fn check(tables: &'static [Table], open: &'static [bool]) {
    let mut model = Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        // Closed and unconfirmed, as nothing was read.
        let gauge = Arc::new(gauge::Gauge::new(1, (0, true, false)));
        let writer = {
            let gauge = Arc::clone(&gauge);
            thread::spawn(move || {
                for (n, table) in (1_u64..).zip(tables) {
                    gauge.publish(word(*table), (n, table.1, table.2));
                    gauge.confirm(n);
                }
            })
        };
        let mut last = 0;
        for _ in 0..2 {
            let (until, n, is_open) = look(&gauge);
            assert!(until >= last, "a confirmation was taken back");
            last = until;
            if let Some(n) = n {
                assert!(n >= until, "confirmed by {until}, but answered from {n}");
                assert_eq!(is_open, n > 0 && open[usize::try_from(n).expect("short") - 1], "a mixture of two");
            }
            // An answer is that of a publication no older than the confirmation.
            let after = usize::try_from(until).expect("short").saturating_sub(1);
            let may_be_open = open[after..].iter().any(|open| *open);
            assert!(!is_open || may_be_open, "open after {until}, though no later publication is");
        }
        writer.join().expect("the writer ends well");
        let (until, _, is_open) = look(&gauge);
        assert_eq!((until, is_open), (tables.len() as u64, *open.last().expect("not empty")));
    });
}

#[test]
fn a_stop_that_moves_from_a_scope_to_the_firm_never_lets_an_order_through() {
    // Neither is open to an order in the scope, and a mixture of both would be.
    check(&[(1, false, true), (2, true, false)], &[false, false]);
    check(&[(1, true, false), (2, false, true)], &[false, false]);
}

#[test]
fn an_opening_is_seen_with_its_confirmation_or_later_and_a_stop_no_later_than_it() {
    check(&[(1, false, false), (2, true, false)], &[true, false]);
    check(&[(1, false, false), (2, false, true)], &[true, false]);
    check(&[(1, false, true), (2, false, false), (3, true, false)], &[false, true, false]);
}
