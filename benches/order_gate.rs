//! What an order waits for until it may be sent, with everything of the development preset running.

use std::time::Duration;

use async_trait::async_trait;
use infra_benches::{bitcoin, buy, criterion, quote};
use infra_factory::{
    Infrastructure, create_infrastructure,
    gate::{Approved, OrderSink, Placement, SinkError, VenueOrder},
    risk_engine::{Outcome, Quote, Stance},
    types::{Clock, Decimal, Order, OrderId, SystemClock},
};
use tokio::runtime::{Builder, Runtime};

/// Refuses every order, so that each one is over before the next is approved.
struct Refusing;

#[async_trait]
impl OrderSink for Refusing {
    async fn place(&self, _: Approved<Order>) -> Placement {
        Placement::Rejected { reason: "closed".into() }
    }
    async fn cancel(&self, _: &OrderId) -> Result<(), SinkError> {
        Ok(())
    }
    async fn query(&self, _: &OrderId) -> Result<VenueOrder, SinkError> {
        Ok(VenueOrder::NotFound)
    }
}

async fn infrastructure() -> Infrastructure {
    let infra = create_infrastructure("development").await.expect("an infrastructure");
    let (account, currency) = ("main".parse().expect("an account"), "USDT".parse().expect("a currency"));
    infra.risk().open_account(account, currency, Decimal::from(10_000)).await.expect("opened");
    infra.risk().register_instrument(bitcoin()).expect("registered");
    infra
}

/// Prices grow old while a bench runs.
fn refresh(infra: &Infrastructure) {
    let (bid, ask) = quote();
    infra.risk().update_market(&bitcoin().id, Quote { bid, ask, at: SystemClock.wall() }).expect("a quote");
}

/// The time that `orders` approvals take; what ends each order is not counted.
async fn approve(infra: &Infrastructure, orders: u64, next: &mut u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..orders {
        *next += 1;
        refresh(infra);
        let order = buy(&format!("o-{next}"));
        let began = SystemClock.now();
        let approved = infra.gate().approve(order).await.expect("approved");
        took += SystemClock.now().since(began);
        infra.gate().place(approved, &Refusing).await.expect("placed");
        if next.is_multiple_of(64) {
            // Otherwise the outboxes grow faster than their relays look for work.
            infra.wake_relays();
            infra.relay_events().await.expect("carried on");
        }
    }
    took
}

/// The same for the risk engine's part of it.
async fn check_and_reserve(infra: &Infrastructure, orders: u64) -> Duration {
    let (mut took, order) = (Duration::ZERO, buy("floor"));
    for _ in 0..orders {
        refresh(infra);
        let wanted = order.clone();
        let began = SystemClock.now();
        let approval = infra.risk().check_and_reserve(wanted, Stance::Open, &|_| vec![]).await.expect("approved");
        took += SystemClock.now().since(began);
        let ended = infra.risk().settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await;
        ended.expect("settled");
    }
    took
}

/// Two threads: relays and the poller of the kill switch run beside the gate, as they do in a bot.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

fn main() {
    let mut c = criterion();
    let rt = runtime();
    let infra = rt.block_on(infrastructure());
    let mut group = c.benchmark_group("order_gate/approve");
    let mut next = 0;
    group.bench_function("infra", |b| b.iter_custom(|orders| rt.block_on(approve(&infra, orders, &mut next))));
    group.bench_function("floor_check_and_reserve", |b| {
        b.iter_custom(|orders| rt.block_on(check_and_reserve(&infra, orders)));
    });
    group.finish();
    let report = rt.block_on(infra.close());
    assert!(report.unfinished.is_empty(), "{report:?}");
    c.final_summary();
}
