//! What one line of the audit trail costs.

use criterion::Criterion;
use infra_audit_log::{AuditEvent, AuditKind, AuditLog, Fields, MemoryAuditLog, MemoryConfig, WhenFull};
use infra_benches::{criterion, runtime};
use infra_types::{Clock, Decimal, EventId, SystemClock, Timestamp};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Events with an id of their own each.
fn events() -> impl FnMut() -> AuditEvent {
    let (at, mut number) = (SystemClock.wall(), 0_u64);
    move || {
        number += 1;
        let id = EventId::new(format!("order-{number}-placed")).expect("a valid id");
        let after = Fields::new().with("price", Decimal::new(8_723_201, 2)).with("qty", "0.10").with("side", "buy");
        AuditEvent::new(id, AuditKind::OrderPlaced, at, "order/42", "place").with_after(after)
    }
}

/// What `events` holds, as one would write it without an audit log.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a EventId,
    kind: &'a str,
    at: Timestamp,
    resource: &'a str,
    action: &'a str,
    after: Option<&'a Fields>,
}

fn append(c: &mut Criterion) {
    let rt = runtime();
    let mut group = c.benchmark_group("audit_log/append");
    let config = MemoryConfig::default().with_when_full(WhenFull::EvictOldest);
    let log = MemoryAuditLog::new(config, SystemClock::shared());
    let mut next = events();
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| {
            let event = next();
            async { log.append(event).await.expect("appended") }
        });
    });

    let mut next = events();
    group.bench_function("floor_encode_sha256", |b| {
        b.iter(|| Sha256::digest(next().encode().expect("encoded")));
    });

    let mut next = events();
    group.bench_function("floor_json_sha256", |b| {
        b.iter(|| {
            let event = next();
            let line = Line {
                id: &event.id,
                kind: "order_placed",
                at: event.at,
                resource: &event.resource,
                action: &event.action,
                after: event.after.as_ref(),
            };
            Sha256::digest(serde_json::to_vec(&line).expect("serialised"))
        });
    });
    group.finish();
}

fn main() {
    let mut c = criterion();
    append(&mut c);
    c.final_summary();
}
