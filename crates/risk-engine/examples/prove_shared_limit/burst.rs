//! Ten orders of 4,000 on 10,000 at once.

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{RiskError, Stance};
use infra_types::Side;

use super::{
    report::Report,
    world::{Backend, engine, holder, open, order},
};

pub(crate) async fn run(backend: Backend, target: &str, report: &mut Report) {
    let start = Arc::new(tokio::sync::Barrier::new(10));
    let tasks: Vec<_> = (0..10)
        .map(|n| {
            let (start, target) = (start.clone(), target.to_owned());
            tokio::spawn(async move {
                let store = open(backend, &target).expect("the supervisor knows how to open it");
                let name = holder(&format!("burst-{n}"), Duration::from_secs(60));
                let engine = engine(store, "burst", name, 10_000).await;
                engine.join().await.expect("nobody else has the name");
                start.wait().await;
                loop {
                    let id = format!("o-{n}").parse().expect("an id");
                    match engine.check_and_reserve(order(id, Side::Buy, 40), Stance::Open, &|_| vec![]).await {
                        Ok(_) => return (true, None),
                        Err(RiskError::Refused(_)) => return (false, None),
                        Err(RiskError::Contended { .. }) => {}
                        Err(error) => return (false, Some(error.to_string())),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        let (passed, problem) = task.await.expect("a task must not panic");
        report.burst += u32::from(passed);
        report.problems.extend(problem);
    }
}
