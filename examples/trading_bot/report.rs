//! What a run did, from the ledger and the audit log: nothing here is counted twice or made up.

use std::{collections::BTreeMap, io::Write, time::Duration};

use infra_factory::{
    AuditRow, CloseReport, Infrastructure,
    audit_log::{AuditQuery, Verdict},
    event_bus::Subscription,
    gate::OrderRecord,
};
use infra_types::{Decimal, ExecutionKind, OrderStatus};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{exchange::protocol::Stats, handlers::Desk, strategy::Signal};

/// The report. Money is text, so that no reader rounds it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bot: String,
    preset: String,
    events: u64,
    events_total: u64,
    signals: u64,
    orders: u64,
    orders_by_status: BTreeMap<String, u64>,
    orders_open: u64,
    /// SHA-256 over every order with its fills: two runs of equal digest did the same.
    orders_digest: String,
    approvals: u64,
    refusals: BTreeMap<String, u64>,
    fills: u64,
    fees: String,
    realised: String,
    unrealised: String,
    pnl: String,
    max_drawdown: String,
    exposure: String,
    positions: BTreeMap<String, String>,
    reserved: BTreeMap<String, String>,
    halt: String,
    halt_transitions: u64,
    quotes_refused: u64,
    latency_us: BTreeMap<String, Figures>,
    audit_events: u64,
    audit_verify: String,
    /// None if the exchange did not answer.
    exchange: Option<Stats>,
    duplicates_at_exchange: Option<u64>,
    drops: BTreeMap<String, u64>,
    wall_ms: u64,
}

#[derive(Debug, Serialize)]
struct Figures {
    count: u64,
    p50: f64,
    p95: f64,
    p99: f64,
}

/// The audit row of a signal.
pub(crate) fn signal_row(desk: &Desk, signal: &Signal) -> AuditRow {
    let details = BTreeMap::from([
        ("side".to_owned(), format!("{:?}", signal.side).to_lowercase()),
        ("qty".to_owned(), signal.qty.normalize().to_string()),
        ("price".to_owned(), signal.price.normalize().to_string()),
        ("confidence".to_owned(), signal.confidence.normalize().to_string()),
    ]);
    AuditRow {
        id: format!("signal.{}.{}", desk.bot, signal.number),
        kind: "SIGNAL_GENERATED".into(),
        at: signal.at,
        user: None,
        correlation: Some(desk.correlation(signal.number)),
        source: format!("bot/{}", desk.bot),
        resource: format!("strategy/{}", desk.strategy),
        action: "signal".into(),
        symbol: Some(desk.specs[signal.instrument].id.symbol.clone()),
        details,
    }
}

/// Reads everything together.
pub(crate) async fn collect(
    infra: &Infrastructure,
    desk: &Desk,
    events_total: u64,
    took: Duration,
    subscriptions: [&Subscription; 3],
) -> Result<Report, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    infra.anchor_audit().await.map_err(|e| text(&e))?;
    let checkpoint = desk.cursor.get();
    let mut orders = infra.gate().done_orders().await.map_err(|e| text(&e))?;
    let open = infra.gate().open_orders().await.map_err(|e| text(&e))?;
    let orders_open = open.len() as u64;
    orders.extend(open);
    orders.sort_by(|a, b| a.order.id.cmp(&b.order.id));
    let mut orders_by_status = BTreeMap::new();
    let mut fills = 0;
    for record in &orders {
        *orders_by_status.entry(word(record.status)).or_insert(0) += 1;
        fills += record.executions.iter().filter(|e| matches!(e.kind, ExecutionKind::Filled(_))).count() as u64;
    }
    let account = infra.risk().account(&desk.account).ok_or("the account is gone")?;
    let equity =
        infra.risk().equity(&desk.account).ok_or("the account cannot be priced: a held instrument has no quote")?;
    // Equity is deposits + realised - fees + unrealised.
    let unrealised: Decimal = equity - account.deposits - account.realised + account.fees;
    let positions = infra.risk().positions().into_iter().filter(|(a, _, p)| *a == desk.account && !p.is_flat());
    let positions = positions.map(|(_, i, p)| (i.to_string(), p.qty.normalize().to_string())).collect();
    let used = infra.risk().used().await.map_err(|e| text(&e))?;
    // Two bots may share a ledger; this report is about one.
    let of_account = |k: &String| k.split('/').any(|part| part == desk.account.as_str());
    let used: BTreeMap<String, Decimal> = used.into_iter().filter(|(k, _)| of_account(k)).collect();
    let exposure = used.iter().find(|(k, _)| k.contains("/exposure/")).map_or(Decimal::ZERO, |(_, v)| *v);
    let reserved = used.into_iter().map(|(k, v)| (k, v.normalize().to_string())).collect();
    let snapshot = infra.emergency().snapshot();
    let audit = infra.audit().statistics().await.map_err(|e| text(&e))?;
    let verdict = infra.verify_audit().await.map_err(|e| text(&e))?;
    let exchange = desk.venue.stats().await.ok();
    let [market, ..] = subscriptions;
    // What a live handler fails on does not come again: it is as good as dropped.
    let dropped = market.metrics().dropped + market.metrics().failed;
    let dead: u64 = subscriptions.iter().map(|s| s.metrics().dead_lettered).sum();
    Ok(Report {
        bot: desk.bot.to_string(),
        preset: infra.config().preset.to_string(),
        events: checkpoint.events,
        events_total,
        signals: checkpoint.strategy.signals,
        orders: orders.len() as u64,
        orders_by_status,
        orders_open,
        orders_digest: digest(&orders),
        approvals: rows_by(infra, desk, "ORDER_APPROVED", "side").await?.values().sum(),
        refusals: rows_by(infra, desk, "RISK_ALERT", "code").await?,
        fills,
        fees: account.fees.normalize().to_string(),
        realised: account.realised.normalize().to_string(),
        unrealised: unrealised.normalize().to_string(),
        pnl: (account.realised - account.fees + unrealised).normalize().to_string(),
        max_drawdown: account.max_drawdown.normalize().to_string(),
        exposure: exposure.normalize().to_string(),
        positions,
        reserved,
        halt: snapshot.state.to_string(),
        halt_transitions: snapshot.transitions,
        quotes_refused: checkpoint.quotes_refused,
        latency_us: latency(infra),
        audit_events: audit.total,
        audit_verify: match verdict {
            Verdict::Ok { anchored_to, .. } => format!("OK (anchored to {} events)", anchored_to.size),
            Verdict::Tampered { first_bad_index, kind } => format!("TAMPERED ({kind:?} at {first_bad_index:?})"),
            other => format!("UNANCHORED ({other:?})"),
        },
        exchange,
        duplicates_at_exchange: exchange.map(|e| e.duplicates),
        drops: BTreeMap::from([
            ("market_data".to_owned(), dropped),
            ("dead_letters".to_owned(), dead),
            ("audit_evicted".to_owned(), audit.evicted),
        ]),
        wall_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn digest(orders: &[OrderRecord]) -> String {
    let mut hash = Sha256::new();
    for record in orders {
        let fills: Vec<_> = record.executions.iter().filter(|e| matches!(e.kind, ExecutionKind::Filled(_))).collect();
        let line = serde_json::to_string(&(&record.order, record.status, record.filled, record.filled_notional, fills));
        hash.update(line.unwrap_or_default());
        hash.update("\n");
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn word(status: OrderStatus) -> String {
    serde_json::to_value(status).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// This bot's rows of one kind in the audit log, counted by one of their fields.
async fn rows_by(infra: &Infrastructure, desk: &Desk, kind: &str, by: &str) -> Result<BTreeMap<String, u64>, String> {
    let kind = kind.parse().map_err(|e: infra_types::InvalidValue| e.to_string())?;
    let mut query = AuditQuery { kind: Some(kind), limit: 1_000, ..AuditQuery::default() };
    let source = format!("bot/{}", desk.bot);
    let mut codes = BTreeMap::new();
    loop {
        let page = infra.audit().query(query.clone()).await.map_err(|e| e.to_string())?;
        for stored in &page.events {
            let field = |name: &str| stored.event.details.get(name).map(|v| v.to_string());
            if field("source").as_deref() == Some(&source) {
                *codes.entry(field(by).unwrap_or_default()).or_insert(0) += 1;
            }
        }
        match page.next {
            Some(next) => query.after_index = Some(next),
            None => return Ok(codes),
        }
    }
}

fn latency(infra: &Infrastructure) -> BTreeMap<String, Figures> {
    let us = |d: Duration| (d.as_secs_f64() * 1e7).round() / 10.0;
    let snapshot = infra.latency().snapshot();
    let summaries = snapshot.operations.iter().map(|o| o.summary());
    summaries
        .filter_map(|s| {
            let f = s.figures?;
            Some((s.key.to_string(), Figures { count: s.count, p50: us(f.p50), p95: us(f.p95), p99: us(f.p99) }))
        })
        .collect()
}

/// Prints the report for a person, or as one line of JSON.
pub(crate) fn print(report: &Report, as_json: bool, closed: &CloseReport) -> Result<(), String> {
    for line in &closed.unfinished {
        let _ = writeln!(std::io::stderr(), "not finished: {line}");
    }
    let text = if as_json { serde_json::to_string(report).map_err(|e| e.to_string())? + "\n" } else { table(report) };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // A reader who saw enough is no failure.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("the report could not be printed: {e}")),
        _ => Ok(()),
    }
}

fn table(r: &Report) -> String {
    let list = |map: &BTreeMap<String, u64>| {
        let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k} {v}")).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    };
    let pairs = |map: &BTreeMap<String, String>| {
        let parts: Vec<String> = map.iter().map(|(k, v)| format!("{k} {v}")).collect();
        if parts.is_empty() { "flat".to_owned() } else { parts.join(", ") }
    };
    let exchange = match &r.exchange {
        None => "unknown: it does not answer".to_owned(),
        Some(e) => format!(
            "{} orders, {} duplicates; lost {} requests and {} replies, {} late, {} busy, {} rejects",
            e.orders, e.duplicates, e.dropped_requests, e.dropped_replies, e.late_replies, e.busy, e.rejects
        ),
    };
    let rows = [
        ("bot", format!("{} ({})", r.bot, r.preset)),
        ("events", format!("{} of {}", r.events, r.events_total)),
        ("signals", r.signals.to_string()),
        ("approved", format!("{} orders: {}", r.approvals, list(&r.orders_by_status))),
        ("refused", list(&r.refusals)),
        ("fills", format!("{}, fees {} USDT", r.fills, r.fees)),
        ("P&L", format!("{} USDT (realised {}, unrealised {}, less fees)", r.pnl, r.realised, r.unrealised)),
        ("max drawdown", format!("{} USDT", r.max_drawdown)),
        ("exposure", format!("{} USDT; {}", r.exposure, pairs(&r.positions))),
        ("kill switch", format!("{}, {} transitions", r.halt, r.halt_transitions)),
        ("audit log", format!("{} events, verify: {}", r.audit_events, r.audit_verify)),
        ("exchange", exchange),
        ("dropped", format!("{}; quotes refused {}", list(&r.drops), r.quotes_refused)),
        ("time", format!("{} ms (this process)", r.wall_ms)),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&format!("{name:>14}  {value}\n"));
    }
    text.push_str(&format!("\n{:>24} {:>8} {:>10} {:>10} {:>10}\n", "latency here [us]", "count", "p50", "p95", "p99"));
    for (name, f) in &r.latency_us {
        text.push_str(&format!("{name:>24} {:>8} {:>10.1} {:>10.1} {:>10.1}\n", f.count, f.p50, f.p95, f.p99));
    }
    text
}
