//! The record that all processes share.

use std::collections::BTreeMap;

use infra_state_store::{Entry, Version, When};
use infra_types::{EventId, Scope, Timestamp};
use serde::{Deserialize, Serialize};

use crate::state::{EmergencyState, RearmRequest};

/// The record's key. It holds every scope: one swap, one read and one lease cover them all, and none can be seen without the
/// others. The name is from schema 1, which knew the firm alone: a program of that time finds the new record under it and halts.
pub(crate) const KEY: &str = "emergency/firm";

/// The list of the newest transitions.
pub(crate) const HISTORY: &str = "emergency/history";

/// How many transitions the history keeps.
pub(crate) const HISTORY_MAX: u32 = 500;

/// How many scopes besides the firm may be stopped at once. With their words at their longest the record is then below 1 MiB.
pub(crate) const SCOPES_MAX: usize = 1_000;

const SCHEMA: u32 = 2;

/// One scope as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) state: EmergencyState,
    /// The record's version at which it was set.
    pub(crate) version: Version,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) automatic: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rearm_from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<RearmRequest>,
}

impl Held {
    /// A scope that nobody ever touched.
    pub(crate) fn untouched() -> Self {
        Self {
            state: EmergencyState::Normal,
            version: Version(0),
            reason: "no transition yet".into(),
            by: "nobody".into(),
            at: Timestamp::EPOCH,
            automatic: false,
            rearm_from: None,
            request: None,
        }
    }
}

/// The state as it is stored. Its own version is known before the write, so that companion rows can name it; the swap itself is
/// made on the store's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema: u32,
    pub(crate) version: Version,
    pub(crate) transitions: u64,
    /// Of this write, so that a writer whose reply was lost recognises its own.
    pub(crate) id: EventId,
    pub(crate) firm: Held,
    /// Narrower scopes, while they are stopped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) scopes: BTreeMap<Scope, Held>,
}

impl Record {
    /// What a store without a record means.
    pub(crate) fn absent() -> Self {
        Self {
            schema: SCHEMA,
            version: Version(0),
            transitions: 0,
            id: EventId::generate(),
            firm: Held::untouched(),
            scopes: BTreeMap::new(),
        }
    }

    pub(crate) fn held(&self, scope: &Scope) -> Option<&Held> {
        if *scope == Scope::Firm { Some(&self.firm) } else { self.scopes.get(scope) }
    }

    pub(crate) fn set(&mut self, scope: Scope, held: Held) {
        if scope == Scope::Firm {
            self.firm = held;
        } else if held.state == EmergencyState::Normal {
            self.scopes.remove(&scope);
        } else {
            self.scopes.insert(scope, held);
        }
    }
}

/// What stands under the key.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A record, or none (as [`Record::absent`]), and what a swap must name.
    Record(Record, When),
    /// Something else. `replace` says how a named person's record may take its place; none if it must not.
    Damaged { what: String, version: u64, replace: Option<When> },
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

/// Schema 1: the firm alone.
#[derive(Deserialize)]
struct FirmOnly {
    state: EmergencyState,
    version: Version,
    transitions: u64,
    reason: String,
    by: String,
    at: Timestamp,
    id: EventId,
}

impl From<FirmOnly> for Record {
    fn from(old: FirmOnly) -> Self {
        let FirmOnly { state, version, transitions, reason, by, at, id } = old;
        let firm = Held { state, version, reason, by, at, ..Held::untouched() };
        Self { version, transitions, id, firm, ..Self::absent() }
    }
}

pub(crate) fn decode(entry: Option<Entry>) -> Found {
    let Some(entry) = entry else { return Found::Record(Record::absent(), When::Absent) };
    let when = entry.version.map_or(When::Exists, When::Version);
    let version = entry.version.map_or(0, |v| v.0);
    let damaged = |what: String, replace| Found::Damaged { what, version, replace };
    let Some(bytes) = entry.value.as_bytes() else {
        return damaged("it is a counter".into(), Some(when));
    };
    let record = match serde_json::from_slice::<SchemaOnly>(bytes) {
        Err(e) => return damaged(format!("no JSON with a schema: {e}"), Some(when)),
        // It may hold what this program cannot keep.
        Ok(SchemaOnly { schema }) if schema > SCHEMA => {
            return damaged(format!("its schema {schema} is newer than {SCHEMA}: upgrade this program"), None);
        }
        Ok(SchemaOnly { schema: 1 }) => serde_json::from_slice::<FirmOnly>(bytes).map(Record::from),
        Ok(_) => serde_json::from_slice::<Record>(bytes),
    };
    match record {
        Ok(record) if record.schema == SCHEMA && record.version.0 > 0 && !record.scopes.contains_key(&Scope::Firm) => {
            Found::Record(record, when)
        }
        Ok(record) => damaged(format!("schema {} at version {}", record.schema, record.version.0), Some(when)),
        Err(e) => damaged(e.to_string(), Some(when)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use EmergencyState::{Alert, Halt};

    fn entry(text: &str) -> Option<Entry> {
        let value = infra_state_store::Value::from(text.as_bytes().to_vec());
        Some(Entry { value, version: Some(Version(7)), expires_at: None })
    }

    fn held(state: EmergencyState) -> Held {
        Held { state, ..Held::untouched() }
    }

    fn read(text: &str) -> Record {
        match decode(entry(text)) {
            Found::Record(read, When::Version(Version(7))) => read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_it_writes_and_versions_travel_as_strings() {
        let mut record = Record { version: Version(3), firm: held(Halt), ..Record::absent() };
        record.set("venue:v".parse().unwrap(), held(Alert));
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""version":"3""#) && text.contains(r#""state":"HALT""#), "{text}");
        assert_eq!(read(&text), record);
    }

    #[test]
    fn the_record_of_the_first_schema_is_read() {
        let old = r#"{"schema":1,"state":"SHUTDOWN","version":"4","transitions":4,"reason":"fire","by":"bob",
            "at":"2025-01-01T00:00:00Z","id":"x"}"#;
        let record = read(old);
        assert_eq!(
            (record.firm.state, record.firm.version, record.version),
            (EmergencyState::Shutdown, Version(4), Version(4))
        );
        assert_eq!((record.firm.by.as_str(), record.transitions, record.scopes.len()), ("bob", 4, 0));
        let again = serde_json::to_string(&record).unwrap();
        assert!(again.contains(r#""schema":2"#), "{again}");
        assert_eq!(read(&again), record);
    }

    #[test]
    fn everything_else_is_damage() {
        let fresh = serde_json::to_string(&Record::absent()).unwrap();
        let unknown_state = fresh.replace("NORMAL", "SLEEPY").replace(r#""0""#, r#""1""#);
        for bad in ["", "{}", "null", "[1]", r#"{"schema":1}"#, r#"{"schema":2}"#, &fresh, &unknown_state] {
            assert!(matches!(decode(entry(bad)), Found::Damaged { version: 7, replace: Some(_), .. }), "{bad}");
        }
        assert!(matches!(decode(entry(r#"{"schema":3}"#)), Found::Damaged { replace: None, .. }));
    }
}
