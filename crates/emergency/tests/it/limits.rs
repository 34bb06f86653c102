//! Limits that warn before they halt.

use std::time::Duration;

use infra_emergency::{EmergencyError, EmergencyState, LimitLevel, LimitPolicy, LimitWatch};
use infra_types::{Decimal, ErrorKind, ManualClock, UserId};
use proptest::prelude::*;

use crate::store::{Fault, FaultyStore, process, scope};

use EmergencyState::{Alert, Halt, Normal};
use LimitLevel::{Breached, Warned, Within};

fn d(n: i64) -> Decimal {
    Decimal::from(n)
}

fn watch(policy: LimitPolicy) -> LimitWatch {
    LimitWatch::new("daily_loss", policy).unwrap()
}

#[tokio::test]
async fn it_warns_then_halts_and_calms_down_only_in_its_report() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("bot_001", &store, &clock).await;
    let of = scope("account:x");
    let w = watch(LimitPolicy { scope: of.clone(), ..LimitPolicy::default() });
    // (figure, level of the report, durable state of the scope)
    let steps = [
        (799, Within, Normal),
        (800, Warned, Alert),
        (720, Warned, Alert),
        (699, Within, Alert),
        (999, Warned, Alert),
        (1_000, Breached, Halt),
        (800, Breached, Halt),
        (799, Warned, Halt),
        (0, Within, Halt),
    ];
    for (n, (figure, level, state)) in steps.into_iter().enumerate() {
        let report = w.check(&c, d(figure), d(1_000)).await.unwrap();
        assert_eq!((report.level, report.headroom), (level, d(1_000 - figure)), "step {n}");
        assert_eq!(c.snapshot_of(&of).state, state, "step {n}");
        assert_eq!(report.is_news, report.level != report.was, "step {n}");
    }
    let snapshot = c.snapshot_of(&of);
    assert!(snapshot.is_automatic && snapshot.by == "bot_001" && snapshot.reason.contains("1000"), "{snapshot:?}");
    assert_eq!(c.state(), Normal, "the scope alone");
}

#[tokio::test]
async fn after_a_rearm_a_lasting_breach_halts_again_and_a_lasting_warning_does_not_alert() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let (w, anna) = (watch(LimitPolicy::default()), UserId::new("anna").unwrap());
    w.check(&c, d(90), d(100)).await.unwrap();
    c.rearm(&anna, "it is known", c.snapshot().version).await.unwrap();
    w.check(&c, d(90), d(100)).await.unwrap();
    assert_eq!(c.state(), Normal);
    w.check(&c, d(100), d(100)).await.unwrap();
    c.rearm(&anna, "it is known", c.snapshot().version).await.unwrap();
    w.check(&c, d(100), d(100)).await.unwrap();
    assert_eq!(c.state(), Halt);
}

#[tokio::test]
async fn news_repeat_after_the_cool_down_only() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let w = watch(LimitPolicy { halt: false, alert: false, ..LimitPolicy::default() });
    let mut news = Vec::new();
    for _ in 0..13 {
        news.push(w.check(&c, d(150), d(100)).await.unwrap().is_news);
        clock.advance(Duration::from_secs(10));
    }
    let at: Vec<_> = news.iter().enumerate().filter(|(_, is_news)| **is_news).map(|(n, _)| n).collect();
    assert_eq!(at, [0, 6, 12]);
    assert!(c.can_trade() && store.written().is_empty(), "it was told to do nothing");
}

#[tokio::test]
async fn a_store_that_is_down_does_not_hide_a_breach() {
    let clock = ManualClock::default();
    let store = FaultyStore::new(&clock);
    let c = process("a", &store, &clock).await;
    let w = watch(LimitPolicy::default());
    store.fail(Fault::Down);
    let e = w.check(&c, d(100), d(100)).await.unwrap_err();
    assert!(matches!(e, EmergencyError::NotDurable { .. }));
    assert_eq!(c.state(), Halt);
    store.heal();
    assert_eq!(c.refresh().await.unwrap().state, Halt);
}

#[test]
fn shares_must_make_sense() {
    for (warn, clear) in [(0, 0), (100, 70), (101, 70), (-1, -2), (80, 81), (80, -1)] {
        let policy = LimitPolicy {
            warn_at: Decimal::new(warn, 2),
            clear_below: Decimal::new(clear, 2),
            ..LimitPolicy::default()
        };
        assert_eq!(LimitWatch::new("x", policy).unwrap_err().kind(), ErrorKind::Invalid, "{warn} {clear}");
    }
}

proptest! {
    #[test]
    fn the_level_is_never_below_what_the_figure_alone_says(
        figures in prop::collection::vec((-200_i64..200, -100_i64..100), 1..40),
    ) {
        let clock = ManualClock::default();
        let store = FaultyStore::new(&clock);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let c = process("a", &store, &clock).await;
            let w = watch(LimitPolicy::default());
            let mut strongest = Within;
            for (figure, limit) in figures {
                let report = w.check(&c, d(figure), d(limit)).await.unwrap();
                let alone = match () {
                    () if figure >= limit => Breached,
                    () if limit > 0 && 5 * figure >= 4 * limit => Warned,
                    () => Within,
                };
                assert!(report.level >= alone);
                // Below the lower threshold nothing lingers.
                assert!(report.level == alone || 10 * figure >= 7 * limit);
                strongest = strongest.max(alone);
                assert!(strongest < Breached || c.state() == Halt, "nothing re-arms");
            }
        });
    }
}
