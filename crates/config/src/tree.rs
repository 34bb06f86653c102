//! Layers merged into one tree. Every value remembers where it was written and what it covers.
//!
//! Arrays and single values replace, tables merge. The covered values stay below, so that a value that cannot be read can be
//! taken off and reading goes on: one report then holds every mistake.

use std::collections::BTreeMap;

use infra_types::Secret;

use crate::problem::{Problem, Source};

/// No setting is deeper; it bounds what a variable name or a path from code can build.
const DEPTH_MAX: usize = 8;

/// A value as it was written. Numbers stay text, so that a decimal never passes through a binary float.
#[derive(Clone)]
pub(crate) enum Scalar {
    /// Text without a type, from a variable or from code: becomes what the setting needs.
    Text(Secret<String>),
    /// A TOML string: stays a string.
    Str(Secret<String>),
    /// A TOML integer, in decimal digits.
    Int(String),
    /// A TOML float as it stands in the file.
    Float(String),
    Bool(bool),
    Date,
    Array(Vec<Scalar>),
    /// A table inside an array; no setting takes one.
    Table,
}

impl Scalar {
    /// What it is, in words; never the value.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Str(_) => "text",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a decimal number",
            Self::Bool(_) => "true or false",
            Self::Date => "a date",
            Self::Array(_) => "an array",
            Self::Table => "a table",
        }
    }

    /// The characters that were written, where there is one run of them.
    pub(crate) fn raw(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Str(text) => Some(text.expose()),
            Self::Int(text) | Self::Float(text) => Some(text),
            _ => None,
        }
    }
}

/// A value and its place.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) scalar: Scalar,
    pub(crate) at: Source,
}

impl Entry {
    pub(crate) fn new(scalar: Scalar, at: Source) -> Self {
        Self { scalar, at }
    }
}

#[derive(Clone)]
pub(crate) enum Node {
    Table(Table),
    /// The last one counts; never empty.
    Value(Vec<Entry>),
}

#[derive(Clone)]
pub(crate) struct Table {
    /// Every place that wrote into it, lowest layer first.
    pub(crate) at: Vec<Source>,
    pub(crate) entries: BTreeMap<String, Node>,
}

/// A path for people. A key that does not look like one of ours is not shown: it may be a secret that lost its key.
pub(crate) fn render<S: AsRef<str>>(path: &[S]) -> String {
    let plain = |key: &str| {
        (1..=40).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
    };
    let shown = path.iter().map(|key| if plain(key.as_ref()) { key.as_ref() } else { "…" });
    shown.collect::<Vec<_>>().join(".")
}

impl Table {
    pub(crate) fn new(at: Source) -> Self {
        Self { at: vec![at], entries: BTreeMap::new() }
    }

    /// Puts a value at a path, over what is there.
    pub(crate) fn insert(&mut self, path: &[&str], entry: Entry, problems: &mut Vec<Problem>) {
        if path.len() > DEPTH_MAX || path.iter().any(|key| key.is_empty()) {
            problems.push(Problem::new(render(&path[..path.len().min(DEPTH_MAX)]), entry.at, "this is no setting"));
            return;
        }
        let mut layer = Node::Value(vec![entry.clone()]);
        for key in path.iter().rev() {
            let mut table = Self::new(entry.at.clone());
            table.entries.insert((*key).to_owned(), layer);
            layer = Node::Table(table);
        }
        if let Node::Table(layer) = layer {
            self.merge(layer, problems);
        }
    }

    /// Lays a higher layer over this one.
    pub(crate) fn merge(&mut self, upper: Self, problems: &mut Vec<Problem>) {
        self.merge_at(upper, &mut Vec::new(), problems);
    }

    fn merge_at(&mut self, upper: Self, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
        for at in upper.at {
            if !self.at.contains(&at) && self.at.len() < 16 {
                self.at.push(at);
            }
        }
        for (key, node) in upper.entries {
            path.push(key.clone());
            match (self.entries.get_mut(&key), node) {
                (None, node) => {
                    self.entries.insert(key, node);
                }
                (Some(Node::Table(lower)), Node::Table(upper)) => lower.merge_at(upper, path, problems),
                (Some(Node::Value(lower)), Node::Value(upper)) => lower.extend(upper),
                (Some(Node::Table(lower)), Node::Value(upper)) => {
                    if let Some(entry) = upper.into_iter().next_back() {
                        let message = format!("expected a table, found {}", entry.scalar.kind());
                        let over = lower.at.first().cloned();
                        problems.push(Problem::new(render(path), entry.at, message).overrides(over));
                    }
                }
                (Some(Node::Value(lower)), Node::Table(upper)) => {
                    let at = upper.at.into_iter().next_back().unwrap_or(Source::Code);
                    let over = lower.last().map(|entry| entry.at.clone());
                    let message = "expected a single value, found a table";
                    problems.push(Problem::new(render(path), at, message).overrides(over));
                }
            }
            path.pop();
        }
    }

    /// What stands at a path.
    pub(crate) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Node> {
        let (last, tables) = path.split_last()?;
        let mut table = self;
        for key in tables {
            match table.entries.get(key.as_ref())? {
                Node::Table(next) => table = next,
                Node::Value(_) => return None,
            }
        }
        table.entries.get(last.as_ref())
    }

    /// Takes off the topmost value at a path (a whole table where one stands there); what it covered counts again.
    pub(crate) fn take_top<S: AsRef<str>>(&mut self, path: &[S]) -> Option<Taken> {
        let (last, tables) = path.split_last()?;
        let mut table = self;
        for key in tables {
            match table.entries.get_mut(key.as_ref())? {
                Node::Table(next) => table = next,
                Node::Value(_) => return None,
            }
        }
        if let Some(Node::Value(stack)) = table.entries.get_mut(last.as_ref())
            && stack.len() > 1
        {
            let entry = stack.pop()?;
            return Some(Taken {
                at: entry.at,
                raw: entry.scalar.raw().map(str::to_owned),
                below: stack.last().map(|e| e.at.clone()),
            });
        }
        match table.entries.remove(last.as_ref())? {
            Node::Value(mut stack) => {
                let entry = stack.pop()?;
                Some(Taken { at: entry.at, raw: entry.scalar.raw().map(str::to_owned), below: None })
            }
            Node::Table(table) => Some(Taken { at: table.at.into_iter().next_back()?, raw: None, below: None }),
        }
    }
}

/// A value that was taken off the tree.
pub(crate) struct Taken {
    pub(crate) at: Source,
    /// Its characters, to keep them out of messages.
    pub(crate) raw: Option<String>,
    pub(crate) below: Option<Source>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Scalar {
        Scalar::Text(Secret::new(value.into()))
    }

    fn at(name: &str) -> Source {
        Source::Variable(name.into())
    }

    #[test]
    fn arrays_replace_and_maps_merge() {
        let mut problems = Vec::new();
        let mut low = Table::new(at("LOW"));
        low.insert(&["list"], Entry::new(Scalar::Array(vec![text("a"), text("b")]), at("LOW")), &mut problems);
        low.insert(&["map", "a"], Entry::new(text("1"), at("LOW")), &mut problems);
        let mut high = Table::new(at("HIGH"));
        high.insert(&["list"], Entry::new(Scalar::Array(vec![text("c")]), at("HIGH")), &mut problems);
        high.insert(&["map", "b"], Entry::new(text("2"), at("HIGH")), &mut problems);
        low.merge(high, &mut problems);
        assert!(problems.is_empty());
        let Some(Node::Value(list)) = low.get(&["list"]) else { panic!("no list") };
        let Some(Entry { scalar: Scalar::Array(items), .. }) = list.last() else { panic!("no array") };
        assert_eq!(items.len(), 1);
        assert!(low.get(&["map", "a"]).is_some() && low.get(&["map", "b"]).is_some());
    }

    #[test]
    fn a_taken_value_uncovers_the_one_below() {
        let mut problems = Vec::new();
        let mut table = Table::new(at("LOW"));
        table.insert(&["a", "b"], Entry::new(text("1"), at("LOW")), &mut problems);
        table.insert(&["a", "b"], Entry::new(text("2"), at("HIGH")), &mut problems);
        let taken = table.take_top(&["a", "b"]).unwrap();
        assert_eq!((taken.at, taken.below), (at("HIGH"), Some(at("LOW"))));
        assert_eq!(table.take_top(&["a", "b"]).unwrap().at, at("LOW"));
        assert!(table.take_top(&["a", "b"]).is_none());
    }

    #[test]
    fn shapes_that_do_not_fit_are_reported_and_left_out() {
        let mut problems = Vec::new();
        let mut table = Table::new(at("LOW"));
        table.insert(&["a", "b"], Entry::new(text("1"), at("LOW")), &mut problems);
        table.insert(&["a"], Entry::new(text("hunter2"), at("ONE")), &mut problems);
        table.insert(&["a", "b", "c"], Entry::new(text("hunter2"), at("TWO")), &mut problems);
        table.insert(&["x"; 9], Entry::new(text("hunter2"), at("DEEP")), &mut problems);
        table.insert(&["x", ""], Entry::new(text("hunter2"), at("HOLE")), &mut problems);
        let sources: Vec<_> = problems.iter().map(|p| p.source.to_string()).collect();
        assert_eq!(sources.len(), 4, "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }

    #[test]
    fn odd_keys_are_not_shown() {
        assert_eq!(render(&["redis", "port"]), "redis.port");
        assert_eq!(render(&["redis", "My Secret!"]), "redis.…");
    }
}
