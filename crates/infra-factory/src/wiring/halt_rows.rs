//! A change of the kill switch is audited and told on the bus, in its own batch.

use std::{collections::BTreeMap, sync::Arc};

use infra_emergency::{CompanionOps, TransitionKind};
use infra_types::{BotId, Envelope, EventId, Topic};

use super::outbox::{AuditRow, Outbox};

/// The operations that go with each transition of `bot`'s controller.
pub(crate) fn companion(bot: BotId) -> CompanionOps {
    let outbox = Outbox::of(&bot);
    Arc::new(move |t| {
        let mut details = BTreeMap::from([
            ("from".to_owned(), t.from.to_string()),
            ("to".to_owned(), t.to.to_string()),
            ("by".to_owned(), t.by.clone()),
            ("reason".to_owned(), t.reason.clone()),
            ("version".to_owned(), t.version.to_string()),
            ("scope".to_owned(), t.scope.to_string()),
        ]);
        if let Some(second) = &t.confirmed_by {
            details.insert("confirmed_by".to_owned(), second.to_string());
        }
        let action = match t.kind {
            TransitionKind::RearmRequested => "rearm_requested".to_owned(),
            _ => t.to.to_string().to_lowercase(),
        };
        let id = format!("emergency.{}.{}", t.version, t.to);
        let row = AuditRow {
            id: id.clone(),
            kind: "SYSTEM_EVENT".into(),
            at: t.at,
            user: None,
            correlation: None,
            source: format!("bot/{bot}"),
            resource: format!("emergency/{}", t.scope),
            action,
            symbol: None,
            details: details.clone(),
        };
        let mut ops = vec![outbox.audit(&row)];
        // The fixed topic and the id made of a number and a word are always valid.
        if let (Ok(topic), Ok(event_id), Ok(data)) =
            (Topic::new("risk:emergency"), EventId::new(&id), serde_json::to_vec(&details))
        {
            let envelope =
                Envelope::new(topic, "emergency.v1", t.at, data).with_id(event_id).with_source(format!("bot/{bot}"));
            ops.push(outbox.event(&envelope));
        }
        ops
    })
}
