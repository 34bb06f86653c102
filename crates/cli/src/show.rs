//! What a person, or a program, gets to read.

use std::io::{self, Write};

use infra_factory::{
    emergency::{EmergencyStatus, RearmRequest, Snapshot, Transition, TransitionKind},
    types::Scope,
};

/// How it is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    /// One object a line.
    pub(crate) json: bool,
}

impl Show {
    fn line(self, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let line = if self.json { serde_json::to_string(value)? } else { text() };
        writeln!(io::stdout().lock(), "{line}")
    }

    /// Anything: as it is for a program, `text` for a person.
    pub(crate) fn thing(self, value: &impl serde::Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        self.line(value, text)
    }

    /// Everything.
    pub(crate) fn status(self, status: &EmergencyStatus) -> io::Result<()> {
        self.line(status, || {
            let mut lines = vec![stands(&status.firm)];
            lines.extend(status.scopes.iter().map(stands));
            if let Some(problem) = &status.problem {
                lines.push(format!("NOT CONFIRMED, bots let only exits pass: {problem}"));
            }
            if !status.history.is_empty() {
                lines.push("last changes:".into());
                lines.extend(status.history.iter().map(|t| format!("  {}", change(t))));
            }
            lines.join("\n")
        })
    }

    /// One scope.
    pub(crate) fn stands(self, now: &Snapshot) -> io::Result<()> {
        self.line(now, || stands(now))
    }

    /// A re-arm that waits for its second person.
    pub(crate) fn request(self, scope: &Scope, request: &RearmRequest) -> io::Result<()> {
        self.line(request, || waits(scope, request))
    }

    /// One change.
    pub(crate) fn change(self, told: &Transition) -> io::Result<()> {
        self.line(told, || change(told))
    }
}

fn stands(now: &Snapshot) -> String {
    let mut text = format!("{} is {} at version {}", now.scope, now.state, now.version);
    if now.version > 0 {
        text += &format!(", by {} at {}: {}", now.by, now.at, now.reason);
    }
    if !now.is_durable && now.version > 0 {
        text += " (not in the ledger)";
    }
    if let Some(from) = now.rearm_from {
        text += &format!("; to be re-armed from {from} on");
    }
    if let Some(request) = &now.request {
        text += &format!("\n  {}", waits(&now.scope, request));
    }
    text
}

fn waits(scope: &Scope, request: &RearmRequest) -> String {
    let RearmRequest { id, by, reason, expires, .. } = request;
    format!(
        "{by} asks to re-arm it: {reason}; somebody else confirms until {expires}: infra confirm --scope {scope} --request {id} --by NAME"
    )
}

fn change(told: &Transition) -> String {
    let Transition { at, scope, from, to, by, reason, version, .. } = told;
    let second = told.confirmed_by.as_ref().map(|who| format!(", confirmed by {who}")).unwrap_or_default();
    let what = match told.kind {
        TransitionKind::RearmRequested => format!("{scope} stays {from}, a re-arm is asked for"),
        _ => format!("{scope} {from} -> {to}"),
    };
    format!("{at} {what} (version {version}) by {by}{second}: {reason}")
}
