//! How keys are laid out.
//!
//! Everything of a namespace begins with `<prefix>state:{namespace}:`. The braces make it one slot of a Cluster, and keep
//! `{a}` apart from `{ab}`. Then comes
//!
//! | what | which type of key | holds |
//! |---|---|---|
//! | `c:NAME`, `r:NAME`, `w:NAME` | string | a cache key, a record, a window: see [`super::cell`] |
//! | `l:NAME` | string | a lease: its fence never expires |
//! | `v:NAME` | list | the values of a list |
//! | `o:NAME` | stream | the messages of an outbox, by their numbers |
//! | `m:CONSUMER\nID` | string | a processed message; no name holds a line feed |
//! | `n` | hash | the last number, how many changes are kept, up to which number none is known |
//! | `i` | sorted set | the names of the records, for scans |
//! | `e` | sorted set | those that expire, by their moment, so that writes sweep the index |
//! | `k` | stream | the changes that are kept, by their numbers |
//!
//! This is layout 1. A later one that this program would misread puts its number into `<prefix>state:layout` (a string; where there is
//! none it is 1, so that this one need not write it) before it writes anything else: who connects reads that first, and refuses.
//! Programs that run already do not look again. For them it makes the last number in each `n` no number, and begins its values with
//! other letters or keeps them in other types of keys: that is checked by every batch and every read.

use infra_types::{EventId, Namespace};

use crate::{
    error::StoreError,
    key::{Key, KeyKind},
};

/// What a prefix is when the configuration names none.
const PREFIX: &str = "infra:";

/// The layout that this program reads and writes.
pub(super) const LAYOUT: i64 = 1;

/// What all keys of all namespaces begin with.
#[derive(Debug, Clone)]
pub(super) struct Layout(String);

impl Layout {
    pub(super) fn new(prefix: &str) -> Result<Self, StoreError> {
        if prefix.contains(['{', '}']) {
            // They would decide the slot in the place of the namespace.
            return Err(StoreError::Invalid { rule: "a key prefix of Redis must not hold { or }".into() });
        }
        Ok(Self(format!("{}state:", if prefix.is_empty() { PREFIX } else { prefix })))
    }

    pub(super) fn space(&self, namespace: &Namespace) -> Space {
        let mut base = String::with_capacity(self.0.len() + namespace.as_str().len() + 3);
        base.push_str(&self.0);
        base.push('{');
        base.push_str(namespace.as_str());
        base.push_str("}:");
        Space(base)
    }

    pub(super) fn prefix(&self) -> &str {
        &self.0
    }

    /// Where a later layout says its number.
    pub(super) fn number_key(&self) -> String {
        format!("{}layout", self.0)
    }

    /// The key that health writes. It is no key of the namespace, but lives where those do.
    pub(super) fn probe(&self, near: Option<&Namespace>) -> String {
        format!("{}probe{{{}}}", self.0, near.map_or("", Namespace::as_str))
    }
}

/// What all keys of one namespace begin with.
#[derive(Debug, Clone)]
pub(super) struct Space(String);

impl Space {
    /// What all its keys begin with; as a key, it is in their slot.
    pub(super) fn base(&self) -> &str {
        &self.0
    }

    fn with(&self, kind: char, name: &str) -> String {
        let mut key = String::with_capacity(self.0.len() + 2 + name.len());
        key.push_str(&self.0);
        key.push(kind);
        key.push(':');
        key.push_str(name);
        key
    }

    pub(super) fn key(&self, key: &Key) -> String {
        let kind = match key.kind() {
            KeyKind::Cache => 'c',
            KeyKind::Record => 'r',
            KeyKind::Window => 'w',
            KeyKind::Lease => 'l',
            KeyKind::List => 'v',
        };
        self.with(kind, key.name())
    }

    pub(super) fn outbox(&self, outbox: &Key) -> String {
        self.with('o', outbox.name())
    }

    pub(super) fn mark(&self, consumer: &Key, id: &EventId) -> String {
        let mut key = self.with('m', consumer.name());
        key.push('\n');
        key.push_str(id.as_str());
        key
    }

    /// What every record's key begins with.
    pub(super) fn records(&self) -> String {
        self.with('r', "")
    }

    /// Where a name begins in a key, as Lua counts.
    pub(super) fn name_at(&self) -> usize {
        self.0.len() + 3
    }

    /// Numbers, index, ends, kept changes: in the order in which the scripts take them.
    pub(super) fn common(&self) -> [String; 4] {
        ['n', 'i', 'e', 'k'].map(|last| format!("{}{last}", self.0))
    }

    /// The kind of a whole key, if it is one that holds a value of the namespace.
    pub(super) fn holds_value(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.0.as_bytes()).is_some_and(|rest| rest.get(1) == Some(&b':'))
    }

    /// A pattern of SCAN that matches this namespace only.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 8);
        for c in self.0.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\' | '-') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(prefix: &str) -> Space {
        Layout::new(prefix).unwrap().space(&Namespace::new("ledger").unwrap())
    }

    #[test]
    fn a_namespace_is_the_only_tag() {
        let name = Key::record("a{b}c").unwrap();
        assert_eq!(space("").key(&name), "infra:state:{ledger}:r:a{b}c");
        assert_eq!(space("bot:").outbox(&name), "bot:state:{ledger}:o:a{b}c");
        assert!(Layout::new("a{b").is_err());
        assert!(Layout::new("a}b").is_err());
    }

    #[test]
    fn patterns_are_literal() {
        assert_eq!(space("a*[b]?\\").pattern(), "a\\*\\[b\\]\\?\\\\state:{ledger}:*");
    }

    #[test]
    fn own_keys_are_told_from_the_common_ones() {
        let space = space("");
        assert!(space.common().iter().all(|key| !space.holds_value(key.as_bytes())));
        assert!(space.holds_value(space.key(&Key::cache("x").unwrap()).as_bytes()));
        assert!(!space.holds_value(b"infra:state:{other}:c:x"));
        assert_eq!(space.records().len() + 1, space.name_at());
    }
}
