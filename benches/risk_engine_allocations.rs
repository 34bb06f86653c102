//! How often checking an order and reserving for it allocates. A program of its own: counting costs every allocation time.

mod risk_peers;

use infra_benches::runtime;
use infra_risk_engine::{Outcome, Stance};

use risk_peers::{BURST, Floor, Local, Openpit, Peer, Policies, engine, order, reserve};

/// Allocations of one call, on average of a burst, once everything is warm.
fn of(peer: &mut impl Peer) -> f64 {
    for _ in 0..4 {
        peer.prepare(BURST);
        (0..BURST).for_each(|_| reserve(peer));
        peer.release();
    }
    peer.prepare(BURST);
    let counted = allocation_counter::measure(|| (0..BURST).for_each(|_| reserve(peer)));
    peer.release();
    counted.count_total as f64 / BURST as f64
}

fn of_engine() -> f64 {
    let rt = runtime();
    rt.block_on(async {
        let engine = engine().await;
        let mut counts = Vec::new();
        for n in 0..16 {
            let wanted = order(n);
            let mut approval = None;
            let counted = allocation_counter::measure(|| {
                let reserving = async {
                    approval = engine.check_and_reserve(wanted, Stance::Open, &|_| vec![]).await.ok();
                };
                // The store in memory never waits.
                futures::executor::block_on(reserving);
            });
            let approval = approval.expect("approved");
            let ended = engine.settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await;
            ended.expect("settled");
            counts.push(counted.count_total);
        }
        counts[8..].iter().sum::<u64>() as f64 / 8.0
    })
}

fn main() {
    println!("allocations of one check and reserve");
    let print = |name: &str, count: f64| println!("{name:<24} {count:>6.1}");
    print("infra", of(&mut Local::new(true, true)));
    print("floor_eight_comparisons", of(&mut Floor::new()));
    print("openpit", of(&mut Openpit::new(Policies::Checks)));
    print("openpit_shared", of(&mut Openpit::new(Policies::ChecksShared)));
    print("openpit_funds", of(&mut Openpit::new(Policies::Funds)));
    print("infra_engine_memory", of_engine());
    assert!(of(&mut Local::new(true, false)) == 0.0, "an approval of ours allocates nothing");
}
