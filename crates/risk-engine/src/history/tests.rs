//! On a store in memory.

use infra_state_store::MemoryStateStore;
use infra_types::{Decimal, ManualClock};
use proptest::prelude::*;

use super::*;

fn store() -> Arc<dyn StateStore> {
    Arc::new(MemoryStateStore::new(Arc::new(ManualClock::default())))
}

fn history(store: &Arc<dyn StateStore>, max: u32) -> PortfolioHistory {
    PortfolioHistory::new(store.clone(), Namespace::new("ledger").unwrap(), Duration::from_secs(10), max).unwrap()
}

fn metrics(scope: &str, gross: i64) -> ScopeMetrics {
    let json = serde_json::json!({
        "scope": scope, "currency": "USD", "accounts": 1, "unpriced": [], "equity": "1", "realised": "0", "unrealised": "0",
        "fees": "0", "daily_pnl": "0", "drawdown": "0", "max_drawdown": "0", "gross": gross.to_string(), "net": "0",
        "open_positions": 0, "instruments": 0, "largest": null, "largest_share": null, "herfindahl": null, "wins": 0,
        "losses": 0, "win_rate": null, "profit_factor": null,
    });
    serde_json::from_value(json).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

async fn seconds(history: &PortfolioHistory, scope: &str, range: HistoryRange) -> Vec<i64> {
    let found = history.read(&scope.parse().unwrap(), &range).await.unwrap();
    found.iter().map(|s| s.at.as_millis() / 1_000).collect()
}

#[tokio::test]
async fn one_sample_an_interval_whoever_records() {
    let store = store();
    let (one, two) = (history(&store, 100), history(&store, 100));
    assert!(one.record(at(100), &[metrics("firm", 1), metrics("account:a", 2)]).await.unwrap());
    for late in [at(100), at(109), at(99), at(5)] {
        assert!(!two.record(late, &[metrics("firm", 9)]).await.unwrap(), "{late}");
        assert!(!one.record(late, &[metrics("firm", 9)]).await.unwrap(), "{late}");
    }
    assert!(!one.record(at(110), &[]).await.unwrap(), "nothing takes no interval");
    assert!(two.record(at(110), &[metrics("firm", 3)]).await.unwrap());
    assert_eq!(seconds(&one, "firm", HistoryRange::default()).await, [100, 110]);
    let of_account = one.read(&"account:a".parse().unwrap(), &HistoryRange::default()).await.unwrap();
    assert_eq!((of_account.len(), of_account[0].metrics.gross), (1, Decimal::TWO));
    assert_eq!(seconds(&one, "strategy:s", HistoryRange::default()).await, [0; 0]);
}

#[tokio::test]
async fn ranges_and_bounds() {
    let store = store();
    let history = history(&store, 5);
    for n in 0..8 {
        assert!(history.record(at(n * 10), &[metrics("firm", n)]).await.unwrap());
    }
    let range =
        |from: Option<i64>, until: Option<i64>, limit| HistoryRange { from: from.map(at), until: until.map(at), limit };
    assert_eq!(seconds(&history, "firm", range(None, None, 100)).await, [30, 40, 50, 60, 70], "the newest five");
    assert_eq!(seconds(&history, "firm", range(Some(40), Some(70), 100)).await, [40, 50, 60]);
    assert_eq!(seconds(&history, "firm", range(None, Some(70), 2)).await, [50, 60], "the newest of the stretch");
    for limit in [0, 10_001] {
        assert!(history.read(&Scope::Firm, &range(None, None, limit)).await.is_err());
    }
    let ns = || Namespace::new("ledger").unwrap();
    assert!(PortfolioHistory::new(store.clone(), ns(), Duration::ZERO, 5).is_err());
    assert!(PortfolioHistory::new(store.clone(), ns(), Duration::from_secs(1), 10_001).is_err());
}

#[tokio::test]
async fn more_scopes_than_a_batch_takes_are_all_recorded() {
    let store = store();
    let history = history(&store, 5);
    let all: Vec<_> = (0..1_500).map(|n| metrics(&format!("account:a{n}"), n)).collect();
    assert!(history.record(at(10), &all).await.unwrap());
    for n in [0, 1_022, 1_023, 1_499] {
        assert_eq!(seconds(&history, &format!("account:a{n}"), HistoryRange::default()).await, [10], "{n}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Two recorders at any moments: never two samples of one interval, always in order, and none that is due is left out.
    #[test]
    fn an_interval_has_one_sample(calls in prop::collection::vec((any::<bool>(), 0i64..300), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store();
            let both = [history(&store, 100), history(&store, 100)];
            let mut newest = i64::MIN;
            for (who, second) in calls {
                let due = second / 10 > newest;
                let done = both[usize::from(who)].record(at(second), &[metrics("firm", 1)]).await.unwrap();
                assert_eq!(done, due);
                newest = newest.max(second / 10);
            }
            let slots: Vec<_> = seconds(&both[0], "firm", HistoryRange::default()).await.iter().map(|s| s / 10).collect();
            assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
        });
    }
}
