//! A change of limits, and what people do about them, is audited and told on the bus, in its own batch.

use std::{collections::BTreeMap, sync::Arc};

use infra_risk_engine::{Enabled, LimitSet, Override, RiskError, RiskEvent, RiskEventKind, RiskEvents};
use infra_state_store::{Op, StateStore};
use infra_types::{BotId, Envelope, Namespace, Scope, Topic, UserId};

use super::outbox::{AuditRow, Outbox};

/// Where what people do about limits is told on the bus.
const TOPIC: &str = "risk:limits";

/// The rows, by whoever's outbox they go.
pub(crate) struct LimitRows {
    bot: BotId,
    outbox: Outbox,
    events: RiskEvents,
}

impl LimitRows {
    pub(crate) fn new(bot: &BotId, ledger: &Arc<dyn StateStore>, namespace: &Namespace) -> Result<Self, RiskError> {
        let events = RiskEvents::new(Arc::clone(ledger), namespace.clone())?;
        Ok(Self { bot: bot.clone(), outbox: Outbox::of(bot), events })
    }

    /// Limits were stored.
    pub(crate) fn limits(&self, set: &LimitSet) -> Vec<Op> {
        let mut event = RiskEvent::new(set.at, RiskEventKind::LimitsChanged, Scope::Firm, "limits_changed");
        event.limits_version = Some(set.version);
        let event = event.by(set.author.clone()).with_note(&set.reason);
        // A version is stored once, so the row has the same name wherever it is told.
        self.rows(
            &event,
            format!("limits.{}", set.version),
            "set_limits",
            "risk/limits",
            &set.author,
            &[
                ("version", set.version.to_string()),
                ("reason", set.reason.clone()),
                ("rules", set.limits.rules.len().to_string()),
            ],
        )
    }

    /// A person enabled a strategy again.
    pub(crate) fn enabled(&self, enabled: &Enabled) -> Vec<Op> {
        let scope = Scope::Strategy(enabled.strategy.clone());
        let mut event = RiskEvent::new(enabled.at, RiskEventKind::Rearmed, scope, "strategy_enabled");
        event.strategy = Some(enabled.strategy.clone());
        let event = event.by(enabled.by.clone()).with_note(&enabled.reason);
        let (id, resource) = (format!("enabled.{}", event.id), format!("strategy/{}", enabled.strategy));
        self.rows(
            &event,
            id,
            "enable",
            &resource,
            &enabled.by,
            &[("executions", enabled.executions.to_string()), ("reason", enabled.reason.clone())],
        )
    }

    /// A person asked to be let past limits once.
    pub(crate) fn requested(&self, asked: &Override) -> Vec<Op> {
        self.overridden(asked, RiskEventKind::OverrideRequested, "request_override", &asked.requested_by)
    }

    /// Another one granted it.
    pub(crate) fn granted(&self, granted: &Override) -> Vec<Op> {
        let by = granted.granted_by.as_ref().unwrap_or(&granted.requested_by);
        self.overridden(granted, RiskEventKind::OverrideGranted, "grant_override", by)
    }

    fn overridden(&self, what: &Override, kind: RiskEventKind, action: &str, by: &UserId) -> Vec<Op> {
        let at = infra_types::Clock::wall(&infra_types::SystemClock);
        let mut event = RiskEvent::new(at, kind, Scope::Account(what.account.clone()), action);
        (event.account, event.order) = (Some(what.account.clone()), Some(what.order.clone()));
        let event = event.by(by.clone()).with_note(&what.reason);
        let rules = what.rules.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let resource = format!("order/{}", what.order);
        self.rows(
            &event,
            format!("override.{}", event.id),
            action,
            &resource,
            by,
            &[
                ("account", what.account.to_string()),
                ("rules", rules),
                ("requested_by", what.requested_by.to_string()),
                ("expires_at", what.expires_at.to_string()),
                ("reason", what.reason.clone()),
            ],
        )
    }

    /// A fixed topic, and an event that always fits, leave nothing to fail.
    fn rows(
        &self,
        event: &RiskEvent,
        id: String,
        action: &str,
        resource: &str,
        by: &UserId,
        details: &[(&str, String)],
    ) -> Vec<Op> {
        let row = AuditRow {
            id,
            kind: "CONFIG_CHANGED".into(),
            at: event.at,
            user: Some(by.clone()),
            correlation: None,
            source: format!("bot/{}", self.bot),
            resource: resource.to_owned(),
            action: action.to_owned(),
            symbol: None,
            details: details.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect::<BTreeMap<_, _>>(),
        };
        let mut ops = vec![self.outbox.audit(&row)];
        ops.extend(self.events.op(event).ok());
        if let (Ok(topic), Ok(data)) = (Topic::new(TOPIC), serde_json::to_vec(event)) {
            let envelope = Envelope::new(topic, "risk_limits.v1", event.at, data).with_id(event.id.clone());
            ops.push(self.outbox.event(&envelope.with_source(format!("bot/{}", self.bot))));
        }
        ops
    }
}
