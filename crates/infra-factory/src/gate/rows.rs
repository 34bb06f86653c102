//! What the gate tells the audit log and the bus, as outbox rows of the batch that makes it true.

use std::collections::BTreeMap;

use infra_risk_engine::{Decision, RiskEvent, RiskEventKind, RiskEvents, Settled};
use infra_state_store::Op;
use infra_types::{BotId, Execution, ExecutionKind, Order, Timestamp};

use super::{error::GateError, record::OrderRecord};
use crate::wiring::{
    outbox::{AuditRow, Outbox},
    unexpected_fill_halts,
};

pub(super) struct Rows {
    bot: BotId,
    outbox: Outbox,
    events: Option<RiskEvents>,
}

impl Rows {
    pub(super) fn new(bot: BotId, events: Option<RiskEvents>) -> Self {
        let outbox = Outbox::of(&bot);
        Self { bot, outbox, events }
    }

    /// The operation that keeps a risk event; an event always fits.
    fn event(&self, event: &RiskEvent) -> Option<Op> {
        self.events.as_ref()?.op(event).ok()
    }

    fn row(&self, id: String, kind: &str, action: &str, order: &Order, at: Timestamp) -> AuditRow {
        let details = BTreeMap::from([
            ("side".to_owned(), format!("{:?}", order.side).to_lowercase()),
            ("qty".to_owned(), order.qty.to_string()),
            ("price".to_owned(), order.kind.price().to_string()),
            ("strategy".to_owned(), order.strategy.to_string()),
            ("account".to_owned(), order.account.to_string()),
        ]);
        AuditRow {
            // Order ids are unique for each bot, and bots may share an audit log.
            id: format!("{}.{id}", self.bot),
            kind: kind.to_owned(),
            at,
            user: order.user.clone(),
            correlation: infra_types::ExecutionContext::current().map(|c| c.correlation),
            source: format!("bot/{}", self.bot),
            resource: format!("order/{}", order.id),
            action: action.to_owned(),
            symbol: Some(order.instrument.symbol.clone()),
            details,
        }
    }

    pub(super) fn approved(&self, record: &OrderRecord, decision: &Decision) -> Vec<Op> {
        let order = &record.order;
        let mut row = self.row(format!("{}.approve", order.id), "ORDER_APPROVED", "approve", order, record.approved_at);
        row.details.insert("checks".into(), decision.checks.len().to_string());
        let mut ops = vec![self.outbox.audit(&row)];
        ops.extend(self.decided(order, decision, record.approved_at));
        ops
    }

    /// What is kept of a decision: what refused, what was overridden, and what rules that are tried out would have refused. Warnings
    /// are in the decision: one with each order would leave no room for the rest.
    fn decided(&self, order: &Order, decision: &Decision, at: Timestamp) -> Vec<Op> {
        let events = RiskEvent::of_decision(at, order, decision);
        let kept = events.iter().filter(|event| event.kind != RiskEventKind::Warning);
        kept.filter_map(|event| self.event(event)).collect()
    }

    pub(super) fn refused(&self, order: &Order, refusal: &GateError, at: Timestamp) -> Vec<Op> {
        // An id may be refused and used again, in a replay at the same time too: each refusal is a row of its own.
        let id = format!("{}.{:032x}.refuse", order.id, infra_types::CorrelationId::generate().as_u128());
        let mut row = self.row(id, "RISK_ALERT", "refuse", order, at);
        row.details.insert("code".into(), refusal.code().into());
        row.details.insert("reason".into(), refusal.to_string());
        let mut ops = vec![self.outbox.audit(&row)];
        if let GateError::Refused(decision) = refusal {
            ops.extend(self.decided(order, decision, at));
        }
        ops
    }

    /// An order lost the bot that looks after it, or has one again.
    pub(super) fn orphaned(&self, next: &OrderRecord, at: Timestamp) -> Vec<Op> {
        let (kind, what, action, words) = match &next.orphaned {
            Some(mark) => (RiskEventKind::Orphaned, "ORDER_ORPHANED", "orphan", format!("{}: {}", mark.by, mark.why)),
            None => (RiskEventKind::Adopted, "ORDER_TAKEN_UP", "take_up", "its bot is back".to_owned()),
        };
        let scope = infra_types::Scope::Account(next.order.account.clone());
        let event = RiskEvent::new(at, kind, scope, action).about(&next.order).with_note(&words);
        let mut row = self.row(format!("{}.{}.{action}", next.order.id, event.id), what, action, &next.order, at);
        row.details.insert("why".into(), words);
        let mut ops = vec![self.outbox.audit(&row)];
        ops.extend(self.event(&event));
        ops
    }

    pub(super) fn reported(
        &self,
        next: &OrderRecord,
        execution: Option<&Execution>,
        settled: Option<&Settled>,
        at: Timestamp,
    ) -> Vec<Op> {
        let Some(execution) = execution else {
            let id = format!("{}.discard", next.order.id);
            return vec![self.outbox.audit(&self.row(id, "ORDER_DISCARDED", "discard", &next.order, at))];
        };
        let (kind, action) = match &execution.kind {
            ExecutionKind::Acknowledged { .. } => ("ORDER_PLACED", "acknowledge"),
            ExecutionKind::Filled(_) => ("SIGNAL_EXECUTED", "fill"),
            ExecutionKind::Cancelled => ("ORDER_CANCELLED", "cancel"),
            ExecutionKind::Rejected { .. } => ("ORDER_REJECTED", "reject"),
            ExecutionKind::Expired => ("ORDER_EXPIRED", "expire"),
            _ => ("ORDER_UNKNOWN", "lose"),
        };
        let mut row = self.row(row_id(execution, action), kind, action, &next.order, execution.at);
        let mut ops = Vec::new();
        if let ExecutionKind::Filled(fill) = &execution.kind {
            row.details.insert("fill_qty".into(), fill.qty.to_string());
            row.details.insert("fill_price".into(), fill.price.to_string());
            row.details.insert("fee".into(), fill.fee.to_string());
            if next.filled > next.order.qty {
                tracing::error!(order = %next.order.id, filled = %next.filled, asked = %next.order.qty, "the venue filled too much");
                row.details.insert("filled_in_all".into(), next.filled.to_string());
            }
            if let Some(settled) = settled {
                row.details.insert("realised".into(), settled.realised.to_string());
                ops.extend(self.position_row(next, execution, settled));
                if let Some(event) = unexpected_fill_halts::event(at, &next.order, next.filled, settled) {
                    row.details.insert("unexpected".into(), event.note.clone());
                    ops.extend(self.event(&event));
                }
            }
            // Every fill is told at once (SEC 15c3-5(c)(2)(iv)).
            ops.push(self.outbox.execution("post_trade", &next.order.instrument, execution));
        }
        ops.push(self.outbox.audit(&row));
        ops
    }

    fn position_row(&self, next: &OrderRecord, execution: &Execution, settled: &Settled) -> Option<Op> {
        let qty = |p: &Option<infra_risk_engine::Position>| p.as_ref().map_or(infra_types::Decimal::ZERO, |p| p.qty);
        let (before, after) = (qty(&settled.position_before), qty(&settled.position_after));
        let (kind, action) = match (before.is_zero(), after.is_zero()) {
            (true, false) => ("POSITION_OPENED", "open"),
            (false, true) => ("POSITION_CLOSED", "close"),
            _ => return None,
        };
        let mut row = self.row(row_id(execution, action), kind, action, &next.order, execution.at);
        row.details.insert("position_before".into(), before.normalize().to_string());
        row.details.insert("position_after".into(), after.normalize().to_string());
        Some(self.outbox.audit(&row))
    }
}

/// Venues count executions for each order or instrument, so the order is part of the name; what it was stands at its end.
fn row_id(execution: &Execution, action: &str) -> String {
    format!("{}.{}.{action}", execution.order, execution.id)
}
