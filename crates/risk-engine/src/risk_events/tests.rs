//! On a store in memory.

use infra_state_store::MemoryStateStore;
use infra_types::ManualClock;
use proptest::prelude::*;

use super::*;

fn events() -> RiskEvents {
    let store = Arc::new(MemoryStateStore::new(Arc::new(ManualClock::default())));
    RiskEvents::new(store, Namespace::new("ledger").unwrap()).unwrap()
}

fn event(second: i64, kind: RiskEventKind, scope: &str, code: &str) -> RiskEvent {
    RiskEvent::new(Timestamp::from_millis(second * 1_000), kind, scope.parse().unwrap(), code)
}

async fn codes(events: &RiskEvents, filter: RiskEventFilter) -> Vec<String> {
    events.query(&filter).await.unwrap().events.into_iter().map(|e| e.code).collect()
}

#[tokio::test]
async fn every_filter_lets_through_what_it_names() {
    let events = events();
    let mut of_order = event(3, RiskEventKind::Breach, "account:a", "c3").by("ada".parse().unwrap());
    of_order.order = Some("o".parse().unwrap());
    of_order.rule = Some("r".into());
    of_order.instrument = Some("v/X".parse().unwrap());
    of_order.strategy = Some("s".parse().unwrap());
    let all = [
        event(1, RiskEventKind::Warning, "firm", "c1"),
        event(2, RiskEventKind::Orphaned, "account:a", "c2"),
        of_order,
        event(4, RiskEventKind::LimitsChanged, "instrument:v/X", "c4"),
    ];
    events.record(&all).await.unwrap();
    let default = RiskEventFilter::default;
    let at = |s: i64| Some(Timestamp::from_millis(s * 1_000));
    for (filter, wanted) in [
        (default(), "c4 c3 c2 c1"),
        (RiskEventFilter { from: at(2), until: at(4), ..default() }, "c3 c2"),
        (RiskEventFilter { kinds: vec![RiskEventKind::Warning, RiskEventKind::Breach], ..default() }, "c3 c1"),
        (RiskEventFilter { severity_min: Some(Severity::Critical), ..default() }, "c2"),
        (RiskEventFilter { scope: Some(Scope::Firm), ..default() }, "c1"),
        (RiskEventFilter { code: Some("c2".into()), ..default() }, "c2"),
        (RiskEventFilter { rule: Some("r".into()), ..default() }, "c3"),
        (RiskEventFilter { account: Some("a".parse().unwrap()), ..default() }, "c3 c2"),
        (RiskEventFilter { strategy: Some("s".parse().unwrap()), ..default() }, "c3"),
        (RiskEventFilter { instrument: Some("v/X".parse().unwrap()), ..default() }, "c4 c3"),
        (RiskEventFilter { order: Some("o".parse().unwrap()), ..default() }, "c3"),
        (RiskEventFilter { user: Some("ada".parse().unwrap()), ..default() }, "c3"),
        (RiskEventFilter { user: Some("bob".parse().unwrap()), ..default() }, ""),
    ] {
        assert_eq!(codes(&events, filter.clone()).await.join(" "), wanted, "{filter:?}");
    }
    for limit in [0, 1_001] {
        let refused = events.query(&RiskEventFilter { limit, ..default() }).await;
        assert!(matches!(refused, Err(RiskError::Invalid(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn pages_meet_exactly_while_others_write() {
    let events = events();
    let all: Vec<_> = (0..25).map(|n| event(n, RiskEventKind::Breach, "firm", &n.to_string())).collect();
    events.record(&all).await.unwrap();
    let mut filter = RiskEventFilter { limit: 10, ..RiskEventFilter::default() };
    let mut found = Vec::new();
    loop {
        let page = events.query(&filter).await.unwrap();
        found.extend(page.events.into_iter().map(|e| e.code));
        events.record(&[event(99, RiskEventKind::Breach, "firm", "late")]).await.unwrap();
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    let expected: Vec<_> = (0..25).rev().map(|n| n.to_string()).collect();
    assert_eq!(found, expected, "each once, and none that came later");
}

#[tokio::test]
async fn the_list_is_bounded_and_a_lost_place_is_told() {
    let events = events().with_events_max(5);
    let all: Vec<_> = (0..8).map(|n| event(n, RiskEventKind::Breach, "firm", &n.to_string())).collect();
    events.record(&all[..4]).await.unwrap();
    let filter = RiskEventFilter { after: Some(all[1].id.clone()), ..RiskEventFilter::default() };
    let page = events.query(&filter).await.unwrap();
    assert_eq!((page.events.len(), page.is_cursor_gone), (1, false));
    events.record(&all[4..]).await.unwrap();
    assert_eq!(codes(&events, RiskEventFilter::default()).await, ["7", "6", "5", "4", "3"]);
    let page = events.query(&filter).await.unwrap();
    assert_eq!((page.events.len(), page.is_cursor_gone), (0, true));
}

#[tokio::test]
async fn more_than_one_chunk_is_read() {
    let events = events();
    let all: Vec<_> = (0..2_500).map(|n| event(n, RiskEventKind::Breach, "firm", &n.to_string())).collect();
    for chunk in all.chunks(1_000) {
        events.record(chunk).await.unwrap();
    }
    let filter = RiskEventFilter { code: Some("3".into()), ..RiskEventFilter::default() };
    assert_eq!(codes(&events, filter).await, ["3"]);
}

#[test]
fn a_decision_tells_what_refused_warned_was_tried_out_or_let_past() {
    let order = Order::limit(
        "o".parse().unwrap(),
        "a".parse().unwrap(),
        "s".parse().unwrap(),
        "v/X".parse().unwrap(),
        infra_types::Side::Buy,
        "1".parse().unwrap(),
        "1".parse().unwrap(),
    );
    let check = |value: i64| Check::at_most(crate::code::ORDER_QTY, Scope::Firm, Decimal::from(value), Decimal::TEN);
    let warned = Check { warn_at: Some(Decimal::new(8, 1)), ..check(9) };
    let tried = Check { shadow: true, ..check(12) };
    let tried_and_near = Check { shadow: true, ..warned.clone() };
    let past = Check { overridden: true, rule: Some("r".into()), ..check(13) };
    let checks = vec![check(1), check(11).with_note("ä".repeat(600)), warned, tried, tried_and_near, past];
    let decision = Decision::over(order.id.clone(), checks).under(7);
    let found = RiskEvent::of_decision(Timestamp::EPOCH, &order, &decision);
    use RiskEventKind::{Breach, OverrideUsed, ShadowBreach, Warning};
    assert_eq!(found.iter().map(|e| e.kind).collect::<Vec<_>>(), [Breach, Warning, ShadowBreach, OverrideUsed]);
    assert_eq!(
        (found[0].code.as_str(), found[0].value, found[0].limit),
        ("order_qty", Some(Decimal::from(11)), Some(Decimal::TEN))
    );
    assert_eq!((found[0].note.chars().count(), found[0].limits_version), (500, Some(7)));
    assert_eq!((found[3].rule.as_deref(), found[3].order.as_ref()), (Some("r"), Some(&order.id)));
    let json = serde_json::to_string(&found[0]).unwrap();
    assert_eq!(serde_json::from_str::<RiskEvent>(&json).unwrap(), found[0]);
    assert!(!json.contains("\"rule\"") && json.contains("\"breach\""), "{json}");
}

proptest! {
    /// Whatever the pages' size: together they are what one great page is.
    #[test]
    fn pages_of_any_size_are_the_whole(kinds in prop::collection::vec(0u8..3, 0..40), limit in 1usize..8) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let events = events();
            let kind = |n: u8| [RiskEventKind::Breach, RiskEventKind::Warning, RiskEventKind::Orphaned][n as usize];
            let all: Vec<_> = kinds.iter().enumerate().map(|(n, k)| event(n as i64, kind(*k), "firm", &n.to_string())).collect();
            events.record(&all).await.unwrap();
            let mut filter = RiskEventFilter { kinds: vec![RiskEventKind::Warning], limit, ..RiskEventFilter::default() };
            let mut found = Vec::new();
            loop {
                let page = events.query(&filter).await.unwrap();
                assert!(page.events.len() <= limit);
                found.extend(page.events);
                let Some(next) = page.next else { break };
                filter.after = Some(next);
            }
            let wanted: Vec<_> = all.into_iter().rev().filter(|e| e.kind == RiskEventKind::Warning).collect();
            assert_eq!(found, wanted);
        });
    }
}
