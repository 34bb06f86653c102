//! Opening orders of many engines meet at the limit's counters and nowhere else. `compose` is called once for each batch.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use infra_risk_engine::{Outcome, RiskEngine, RiskError, Stance};
use infra_types::Side;

use crate::support::*;

async fn counted(engine: &RiskEngine, id: &str, batches: &AtomicU32) -> Result<infra_risk_engine::Approval, RiskError> {
    let compose = |_: &_| {
        batches.fetch_add(1, Ordering::Relaxed);
        vec![]
    };
    engine.check_and_reserve(order(id, Side::Buy, "1"), Stance::Open, &compose).await
}

#[tokio::test]
async fn what_others_open_and_end_costs_no_second_batch() {
    let world = World::new();
    let engines = [world.joined("a").await, world.joined("b").await, world.joined("c").await];
    let (batches, mut working) = (AtomicU32::new(0), Vec::new());
    for n in 0..60 {
        for (at, engine) in engines.iter().enumerate() {
            let name = format!("o-{at}-{n}");
            match counted(engine, &name, &batches).await {
                Ok(approval) => working.push(approval),
                Err(error) => assert_eq!(error.decision().unwrap().first_code(), Some("exposure_firm")),
            }
        }
        if n % 3 == 0 {
            let mut oldest = working.remove(0);
            settle(&engines[0], &mut oldest, Outcome::End).await.unwrap();
        }
    }
    // Whoever comes first to an instrument takes a slot for it, which the others did not know of: one batch more for each.
    assert!(batches.load(Ordering::Relaxed) <= 180 + 2, "{batches:?} batches for 180 orders");
}

#[tokio::test]
async fn another_engines_fill_costs_one_batch_more() {
    let world = World::new();
    let (one, two) = (world.joined("a").await, world.joined("b").await);
    let batches = AtomicU32::new(0);
    let mut first = counted(&one, "a", &batches).await.unwrap();
    counted(&two, "b", &batches).await.unwrap();
    filled(&one, &mut first, &fill("0.5", "100")).await;
    batches.store(0, Ordering::Relaxed);
    counted(&two, "c", &batches).await.unwrap();
    counted(&two, "d", &batches).await.unwrap();
    assert_eq!(batches.load(Ordering::Relaxed), 3, "the account's record changed once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_engines_at_once_are_never_contended_by_openings_alone() {
    let world = World::new();
    let mut tasks = Vec::new();
    for at in 0..16 {
        let engine = Arc::new(world.joined(&format!("e-{at}")).await);
        tasks.push(tokio::spawn(async move {
            let mut admitted = 0;
            for n in 0..50 {
                match counted(&engine, &format!("o-{at}-{n}"), &AtomicU32::new(0)).await {
                    Ok(_) => admitted += 1,
                    Err(error) => assert_eq!(error.decision().unwrap().first_code(), Some("exposure_firm")),
                }
            }
            admitted
        }));
    }
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 100);
}
