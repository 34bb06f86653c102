//! What it costs to check an order against all limits, reserve for it, and give that back.

use std::{sync::Arc, time::Duration};

use criterion::Criterion;
use infra_benches::{bitcoin, buy, criterion, quote, runtime};
use infra_risk_engine::{LimitValue, Outcome, Quote, RiskEngine, RiskLimits, Stance};
use infra_state_store::{Batch, Delta, Key, MemoryStateStore, StateStore, Value};
use infra_types::{Decimal, Namespace, SystemClock};

fn limits() -> RiskLimits {
    let part = |percent| Some(LimitValue::OfEquity(Decimal::new(percent, 2)));
    RiskLimits {
        firm_currency: Some("USDT".parse().expect("a currency")),
        // The quote is given once, before the bench.
        reference_age_max: Some(Duration::from_secs(3_600)),
        order_qty_max: Some(Decimal::from(100)),
        order_notional_max: Some(Decimal::from(5_000)),
        exposure_account_max: part(100),
        exposure_firm_max: part(100),
        position_notional_max: part(100),
        open_positions_max: Some(50),
        daily_loss_max: part(5),
        drawdown_max: part(20),
        ..RiskLimits::default()
    }
}

async fn engine(namespace: Namespace) -> RiskEngine {
    let clock = SystemClock::shared();
    let store = Arc::new(MemoryStateStore::new(clock.clone()));
    let engine = RiskEngine::new(store, namespace, clock.clone(), limits()).expect("valid limits");
    engine.restore().await.expect("restored");
    let (account, currency) = ("main".parse().expect("an account"), "USDT".parse().expect("a currency"));
    engine.open_account(account, currency, Decimal::from(10_000)).await.expect("opened");
    engine.register_instrument(bitcoin()).expect("registered");
    let (bid, ask) = quote();
    engine.update_market(&bitcoin().id, Quote { bid, ask, at: clock.wall() }).expect("a quote");
    engine
}

fn reserve_and_settle(c: &mut Criterion) {
    let (rt, ns) = (runtime(), Namespace::new("ledger").expect("a valid namespace"));
    let engine = rt.block_on(engine(ns.clone()));
    let order = buy("o-1");
    let mut group = c.benchmark_group("risk_engine/reserve_and_settle");
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| async {
            let approval =
                engine.check_and_reserve(order.clone(), Stance::Open, &|_| vec![]).await.expect("within all limits");
            engine.settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await.expect("settled")
        });
    });

    let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(SystemClock::shared()));
    let counters = ["account", "firm", "position"].map(|name| Key::record(name).expect("a valid key"));
    let batch = |delta: Delta| counters.iter().fold(Batch::new(ns.clone()), |batch, key| batch.add(key.clone(), delta));
    group.bench_function("floor_two_batches", |b| {
        b.to_async(&rt).iter(|| async {
            store.apply(batch(Delta::at_most(8_723_201, Value::COUNTER_MAX))).await.expect("reserved");
            store.apply(batch(Delta::at_least(-8_723_201, 0))).await.expect("given back")
        });
    });
    group.finish();
}

fn main() {
    let mut c = criterion();
    reserve_and_settle(&mut c);
    c.final_summary();
}
