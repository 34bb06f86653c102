//! What readers see.

use std::time::Duration;

use infra_types::{AuditContext, CorrelationId};

use super::{Fixture, append, event, symbol, user};
use crate::{AuditError, AuditEvent, AuditKind, AuditLog, AuditQuery, Fields, export_csv, export_json, leaf_hash};

async fn indices(log: &dyn AuditLog, query: AuditQuery) -> Vec<u64> {
    log.query(query).await.expect("a page").events.iter().map(|stored| stored.index).collect()
}

/// Every part of an event survives, whatever characters it holds.
pub async fn events_come_back_as_they_were(fixture: &mut dyn Fixture) {
    let full = AuditEvent {
        kind: AuditKind::custom("REBALANCED").expect("a valid kind"),
        context: AuditContext {
            user: Some(user("ann")),
            address: Some("::1".into()),
            correlation: Some(CorrelationId::from_u128(7)),
        },
        resource: "naïve \u{1F4C8} \0 'quoted'; --".into(),
        action: String::new(),
        symbol: Some(symbol("BTCUSDT")),
        before: Some(Fields::new()),
        after: Some(Fields::new().with("json", r#"{"n": 9007199254740993}"#).with("", "")),
        ..event(fixture, 0)
    };
    let plain = event(fixture, 1);
    fixture.log().append_batch(vec![full.clone(), plain.clone()]).await.expect("appended");
    let page = fixture.log().query(AuditQuery::default()).await.expect("a page");
    assert_eq!(page.next, None);
    for (n, want) in [full, plain].into_iter().enumerate() {
        assert_eq!(page.events[n].index, n as u64);
        assert_eq!(page.events[n].leaf_hash, leaf_hash(&want.encode().expect("encodes")));
        assert_eq!(page.events[n].event, want);
    }
}

/// Each filter alone and all together.
pub async fn queries_filter_by_kind_symbol_and_user(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    for n in 0..8 {
        let mut event = event(fixture, n);
        event.kind = if n & 1 == 0 { AuditKind::RiskAlert } else { AuditKind::UserLogin };
        event.symbol = (n & 2 != 0).then(|| symbol(if n & 4 == 0 { "AAA" } else { "BBB" }));
        event.context.user = (n & 4 != 0).then(|| user("ann"));
        log.append(event).await.expect("appended");
    }
    let all = AuditQuery::default;
    assert_eq!(indices(&*log, all()).await, [0, 1, 2, 3, 4, 5, 6, 7]);
    let kind = Some(AuditKind::RiskAlert);
    assert_eq!(indices(&*log, AuditQuery { kind: kind.clone(), ..all() }).await, [0, 2, 4, 6]);
    assert_eq!(indices(&*log, AuditQuery { symbol: Some(symbol("AAA")), ..all() }).await, [2, 3]);
    assert_eq!(indices(&*log, AuditQuery { user: Some(user("ann")), ..all() }).await, [4, 5, 6, 7]);
    let together = AuditQuery { kind, symbol: Some(symbol("BBB")), user: Some(user("ann")), ..all() };
    assert_eq!(indices(&*log, together).await, [6]);
    assert_eq!(indices(&*log, AuditQuery { user: Some(user("bob")), ..all() }).await, [0; 0]);
    assert_eq!(indices(&*log, AuditQuery { after_index: Some(5), ..all() }).await, [6, 7]);
    assert_eq!(indices(&*log, AuditQuery { after_index: Some(u64::MAX), ..all() }).await, [0; 0]);
}

/// `from` is included, `to` is not.
pub async fn time_bounds_hold_their_start_and_not_their_end(fixture: &mut dyn Fixture) {
    let mut times = Vec::new();
    for n in 0..4 {
        times.push(fixture.now());
        append(fixture, n..n + 1).await;
        fixture.advance(Duration::from_millis(10)).await;
    }
    let log = fixture.log();
    let within = |from: Option<usize>, to: Option<usize>| AuditQuery {
        from: from.map(|n| times[n]),
        to: to.map(|n| times[n]),
        ..AuditQuery::default()
    };
    assert_eq!(indices(&*log, within(Some(1), Some(3))).await, [1, 2]);
    assert_eq!(indices(&*log, within(Some(2), None)).await, [2, 3]);
    assert_eq!(indices(&*log, within(None, Some(1))).await, [0]);
    assert_eq!(indices(&*log, within(Some(2), Some(2))).await, [0; 0]);
}

/// Following `next` shows everything once, with and without a filter, and ends.
pub async fn pages_show_every_event_once(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    for n in 0..12 {
        let event = event(fixture, n).with_symbol(symbol(if n % 3 == 0 { "AAA" } else { "BBB" }));
        log.append(event).await.expect("appended");
    }
    for (filter, want) in [(None, 12), (Some(symbol("AAA")), 4), (Some(symbol("BBB")), 8)] {
        for limit in 1..=13 {
            let mut query = AuditQuery { symbol: filter.clone(), limit, ..AuditQuery::default() };
            let (mut seen, mut pages) = (Vec::new(), 0);
            loop {
                let page = log.query(query.clone()).await.expect("a page");
                assert!(page.events.len() <= limit);
                seen.extend(page.events.iter().map(|stored| stored.index));
                pages += 1;
                assert!(pages <= 12, "the pages do not end");
                match page.next {
                    Some(next) => query.after_index = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen.len(), want, "limit {limit}: {seen:?}");
            assert!(seen.is_sorted_by(|a, b| a < b), "limit {limit}: {seen:?}");
            assert_eq!(pages, want.div_ceil(limit), "limit {limit}: an empty page at the end");
        }
    }
}

/// A page has 1 to 1,000 events.
pub async fn page_limits_are_checked(fixture: &mut dyn Fixture) {
    for (limit, fine) in [(0, false), (1, true), (1_000, true), (1_001, false), (usize::MAX, false)] {
        let answer = fixture.log().query(AuditQuery { limit, ..AuditQuery::default() }).await;
        match answer {
            Ok(_) if fine => {}
            Err(AuditError::Invalid { .. }) if !fine => {}
            other => panic!("limit {limit}: {other:?}"),
        }
    }
}

/// Repeated appends are counted once.
pub async fn statistics_count_by_kind(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    assert_eq!(log.statistics().await.expect("counts").total, 0);
    let custom = AuditKind::custom("REBALANCED").expect("a valid kind");
    for n in (0..7).chain(0..7) {
        let mut event = event(fixture, n);
        event.kind = if n < 5 { AuditKind::SignalGenerated } else { custom.clone() };
        log.append(event).await.expect("appended");
    }
    let counts = log.statistics().await.expect("counts");
    assert_eq!((counts.total, counts.evicted), (7, 0));
    assert_eq!(counts.by_kind.into_iter().collect::<Vec<_>>(), [(AuditKind::SignalGenerated, 5), (custom, 2)]);
}

/// JSON parses, CSV has a line an event, and both go beyond one page.
pub async fn exports_hold_every_event(fixture: &mut dyn Fixture) {
    let log = fixture.log();
    let query = || AuditQuery { limit: 2, ..AuditQuery::default() };
    for count in [0, 5u64] {
        append(fixture, 0..count).await;
        let (mut json, mut csv) = (Vec::new(), Vec::new());
        assert_eq!(export_json(&*log, query(), &mut json).await.expect("exported"), count);
        assert_eq!(export_csv(&*log, query(), &mut csv).await.expect("exported"), count);
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("valid JSON");
        let csv = String::from_utf8(csv).expect("UTF-8");
        assert_eq!((rows.len() as u64, csv.lines().count() as u64), (count, count + 1));
        for (n, (row, line)) in rows.iter().zip(csv.lines().skip(1)).enumerate() {
            assert_eq!((row["index"].as_u64(), &row["kind"]), (Some(n as u64), &"ORDER_PLACED".into()));
            assert_eq!(row["details"]["n"], n.to_string());
            assert!(line.starts_with(&format!("{n},event-{n},ORDER_PLACED,")), "{line}");
        }
    }
}
