//! When all bots are gone: what counts, what the venue says, and that nothing is left.

use std::{collections::BTreeSet, path::Path, time::Duration};

use infra_risk_engine::{Outcome, Reconciled, RiskEngine, Settles, Stance};
use infra_types::{Clock, Decimal, Side, SystemClock};

use super::{
    Settings,
    report::Report,
    venue::{Book, Venue},
    world::{COUNTER, SIZE, account, engine, holder, instrument, open, order},
};

pub(crate) async fn run(settings: &Settings, target: &str, dir: &Path, report: &mut Report) {
    let store = open(settings.backend, target).expect("we started it");
    let engine = engine(store, "ledger", holder("heir", Duration::from_secs(60)), settings.limit).await;
    engine.join().await.expect("nobody else has the name");

    let held = engine.held_orders(None).await.expect("the ledger can be read").len();
    // All bots are gone: their leases end.
    while engine.orphans().await.expect("the ledger can be read").len() < held {
        engine.sweep_orphans().await.expect("the ledger can be written");
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
    report.in_use = used(&engine).await;
    report.fits = settings.limit / SIZE * SIZE;
    check(report, "the limit is full to the last order that fits", report.in_use == Decimal::from(report.fits));
    let holds: Decimal = held_value(&engine).await;
    check(report, "the counter is what is held and what was bought", report.in_use == holds);

    // As the venue is now: what it works goes on counting.
    let book = Book::read(dir);
    let first = reconcile(&engine, &book).await;
    report.settled = first.settled.len();
    report.ended = first.ended.len();
    report.kept = first.kept.len();
    report.differences = first.differences.len();
    report.problems.extend(first.differences.iter().map(|difference| format!("{difference:?}")));
    check(report, "exactly what the venue works is still held", {
        let held = engine.held_orders(None).await.expect("the ledger can be read");
        let ours: BTreeSet<_> = held.into_iter().map(|held| held.order.id).collect();
        ours == book.open().cloned().collect()
    });
    let again = reconcile(&engine, &book).await;
    check(report, "a second look does nothing", again.is_quiet());

    // Everything is taken back and sold.
    let mut venue = Venue::open(dir, "zzz-heir");
    for id in book.open() {
        venue.cancel(id);
    }
    let last = reconcile(&engine, &Book::read(dir)).await;
    check(report, "what the venue took back ended", last.ended.len() == report.kept && last.differences.is_empty());
    if !book.position.is_zero() {
        let qty = i64::try_from(book.position).expect("whole orders were bought");
        let exit = order("exit".parse().expect("an id"), Side::Sell, qty);
        let approval = engine.check_and_reserve(exit, Stance::ReduceOnly, &|_| vec![]).await.expect("exits work");
        venue.take(&approval.order.id, Side::Sell, qty);
        let fill = venue.fill(&approval.order.id, qty);
        let outcome = Outcome::Fill { fill: &fill, is_last: true };
        engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![]).await.expect("fills are booked");
    }
    let nothing = engine.used().await.expect("the ledger can be read");
    check(report, "every counter is zero", nothing.iter().all(|(_, figure)| figure.is_zero()));
    check(report, "ledger and venue agree in the end", reconcile(&engine, &Book::read(dir)).await.is_quiet());
}

fn check(report: &mut Report, what: &str, holds: bool) {
    if !holds {
        report.problems.push(format!("not so: {what}"));
    }
}

async fn reconcile(engine: &RiskEngine, book: &Book) -> Reconciled {
    let deposit = engine.account(&account()).map(|account| account.deposits).unwrap_or_default();
    let ask = |held: Vec<_>| {
        let truth = book.truth(&held, deposit);
        async move { Ok::<_, String>(truth) }
    };
    engine.reconcile_asking(&account(), Settles::Orphans, ask).await.expect("the ledger can be written")
}

async fn used(engine: &RiskEngine) -> Decimal {
    let used = engine.used().await.expect("the ledger can be read");
    used.into_iter().find(|(key, _)| key == COUNTER).map(|(_, figure)| figure).unwrap_or_default()
}

async fn held_value(engine: &RiskEngine) -> Decimal {
    engine.restore().await.expect("the ledger can be read");
    let position = engine.position(&account(), &instrument()).map(|position| position.cost).unwrap_or_default();
    let held = engine.held_orders(None).await.expect("the ledger can be read");
    held.iter().map(|held| held.reservation.held()).sum::<Decimal>() + position
}
