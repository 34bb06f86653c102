//! The record that all processes share.

use infra_state_store::{Entry, Version, When};
use infra_types::{EventId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::state::EmergencyState;

/// The record's key. Later scopes stand beside it.
pub(crate) const KEY: &str = "emergency/firm";

const SCHEMA: u32 = 1;

/// The state as it is stored. Its own version counts the transitions' compare-and-swaps, so that it is known before the write
/// and companion rows can name it; the swap itself is made on the store's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) schema: u32,
    pub(crate) state: EmergencyState,
    pub(crate) version: Version,
    pub(crate) transitions: u64,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
    /// Of this write, so that a writer whose reply was lost recognises its own.
    pub(crate) id: EventId,
}

impl Record {
    pub(crate) const SCHEMA: u32 = SCHEMA;

    /// What a store without a record means.
    pub(crate) fn absent() -> Self {
        Self {
            schema: SCHEMA,
            state: EmergencyState::Normal,
            version: Version(0),
            transitions: 0,
            reason: "no transition yet".into(),
            by: "nobody".into(),
            at: Timestamp::EPOCH,
            id: EventId::generate(),
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

pub(crate) fn decode(entry: Option<Entry>) -> Found {
    let Some(entry) = entry else { return Found::Record(Record::absent(), When::Absent) };
    let when = entry.version.map_or(When::Exists, When::Version);
    let version = entry.version.map_or(0, |v| v.0);
    let damaged = |what: String, replace| Found::Damaged { what, version, replace };
    let Some(bytes) = entry.value.as_bytes() else {
        return damaged("it is a counter".into(), Some(when));
    };
    match serde_json::from_slice::<SchemaOnly>(bytes) {
        Err(e) => return damaged(format!("no JSON with a schema: {e}"), Some(when)),
        // It may hold what this program cannot keep.
        Ok(SchemaOnly { schema }) if schema > SCHEMA => {
            return damaged(format!("its schema {schema} is newer than {SCHEMA}: upgrade this program"), None);
        }
        Ok(_) => {}
    }
    match serde_json::from_slice::<Record>(bytes) {
        Ok(record) if record.schema == SCHEMA && record.version.0 > 0 => Found::Record(record, when),
        Ok(record) => damaged(format!("schema {} at version {}", record.schema, record.version.0), Some(when)),
        Err(e) => damaged(e.to_string(), Some(when)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Option<Entry> {
        let value = infra_state_store::Value::from(text.as_bytes().to_vec());
        Some(Entry { value, version: Some(Version(7)), expires_at: None })
    }

    #[test]
    fn reads_what_it_writes_and_versions_travel_as_strings() {
        let record = Record { version: Version(3), state: EmergencyState::Halt, ..Record::absent() };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""version":"3""#) && text.contains(r#""state":"HALT""#), "{text}");
        match decode(entry(&text)) {
            Found::Record(read, when) => assert_eq!((read, when), (record, When::Version(Version(7)))),
            Found::Damaged { what, .. } => panic!("{what}"),
        }
    }

    #[test]
    fn everything_else_is_damage() {
        let fresh = serde_json::to_string(&Record::absent()).unwrap();
        let unknown_state = fresh.replace("NORMAL", "SLEEPY").replace(r#""0""#, r#""1""#);
        for bad in ["", "{}", "null", "[1]", r#"{"schema":1}"#, &fresh, &unknown_state] {
            assert!(matches!(decode(entry(bad)), Found::Damaged { version: 7, replace: Some(_), .. }), "{bad}");
        }
        assert!(matches!(decode(entry(r#"{"schema":2}"#)), Found::Damaged { replace: None, .. }));
    }
}
