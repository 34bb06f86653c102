//! TOML files into layers, with the line and column of every value.

use std::{fs::File, io::Read, ops::Range, path::Path};

use infra_types::Secret;
use toml::de::{DeTable, DeValue};

use crate::{
    preset::Preset,
    problem::{Problem, Source},
    tree::{Entry, Node, Scalar, Table, render},
};

/// A configuration is a page or two; more is a mistake, such as a log given as configuration.
pub(crate) const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Whose text it is.
pub(crate) enum Origin<'a> {
    Preset(Preset),
    File(&'a str),
}

/// Reads a whole text file of at most `bytes_max` bytes; the reason of a failure names neither path nor content.
pub(crate) fn read_capped(path: &Path, bytes_max: u64) -> Result<String, &'static str> {
    use std::io::ErrorKind as Io;
    let reason = |error: std::io::Error| match error.kind() {
        Io::NotFound => "it does not exist",
        Io::PermissionDenied => "it may not be read by this user",
        Io::IsADirectory => "it is a directory",
        Io::InvalidData => "it is not UTF-8",
        _ => "it cannot be read",
    };
    let mut text = String::new();
    // One byte more than allowed tells a full file from a longer one.
    File::open(path).map_err(reason)?.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(reason)?;
    if text.len() as u64 > bytes_max { Err("it is too long") } else { Ok(text) }
}

/// Reads a TOML text. Every syntax error is a problem; the lines without one still make the layer.
pub(crate) fn parse(text: &str, origin: &Origin<'_>, problems: &mut Vec<Problem>) -> Table {
    let places = Places::new(text, origin);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut broken = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // The parser's own Display quotes the line, which may hold a secret: take the message alone.
        let quoted = text.get(span.clone()).filter(|quoted| quoted.len() > 2);
        let message = if quoted.is_some_and(|quoted| error.message().contains(quoted)) {
            "this is not TOML".to_owned()
        } else {
            error.message().to_lowercase()
        };
        let mut problem = Problem::new("", places.source(span.start), message);
        if problem.message.contains("leading zero") {
            problem = problem.hint("put it in quotes: a text stays a text");
        }
        broken.push(places.line(span.start));
        problems.push(problem);
    }
    let mut reader = Reader { places, broken, problems };
    reader.table(root.get_ref(), root.span(), &mut Vec::new())
}

struct Reader<'a> {
    places: Places<'a>,
    /// Lines with a syntax error: what the parser made of them is a guess and not used.
    broken: Vec<usize>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>, path: &mut Vec<String>) -> Table {
        let mut out = Table::new(self.places.source(span.start));
        for (key, value) in table {
            if self.broken.contains(&self.places.line(key.span().start)) {
                continue;
            }
            path.push(key.get_ref().to_string());
            let node = match value.get_ref() {
                DeValue::Table(inner) => Some(Node::Table(self.table(inner, key.span(), path))),
                other => {
                    let at = self.places.source(value.span().start);
                    match scalar(other) {
                        Some(scalar) => Some(Node::Value(vec![Entry::new(scalar, at)])),
                        None => {
                            self.problems.push(Problem::new(render(path), at, "this whole number is too large"));
                            None
                        }
                    }
                }
            };
            path.pop();
            if let Some(node) = node {
                out.entries.insert(key.get_ref().to_string(), node);
            }
        }
        out
    }
}

/// `None` for an integer that no setting could hold.
fn scalar(value: &DeValue<'_>) -> Option<Scalar> {
    Some(match value {
        DeValue::String(text) => Scalar::Str(Secret::new(text.to_string())),
        DeValue::Integer(integer) => {
            let value = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            Scalar::Int(value.to_string())
        }
        DeValue::Float(float) => Scalar::Float(float.as_str().to_owned()),
        DeValue::Boolean(value) => Scalar::Bool(*value),
        DeValue::Datetime(_) => Scalar::Date,
        DeValue::Array(items) => Scalar::Array(items.iter().map(|i| scalar(i.get_ref())).collect::<Option<_>>()?),
        DeValue::Table(_) => Scalar::Table,
    })
}

/// From byte offsets to lines and columns.
struct Places<'a> {
    text: &'a str,
    origin: &'a Origin<'a>,
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str, origin: &'a Origin<'a>) -> Self {
        let after_newline = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Self { text, origin, starts: std::iter::once(0).chain(after_newline).collect() }
    }

    /// The line of an offset, from 1.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn source(&self, offset: usize) -> Source {
        match self.origin {
            Origin::Preset(preset) => Source::Preset(*preset),
            Origin::File(name) => {
                let line = self.line(offset);
                let start = self.starts[line - 1];
                let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
                Source::File { name: (*name).to_owned(), line, column }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Table, Vec<Problem>) {
        let mut problems = Vec::new();
        let table = parse(text, &Origin::File("bot.toml"), &mut problems);
        (table, problems)
    }

    #[test]
    fn numbers_keep_their_text() {
        let (table, problems) = read("a = 0.10\nb = 1_000\nc = 0xff\nd = -7\ne = 1_0.5");
        assert_eq!(problems, []);
        let raw = |key: &str| match table.get(&[key]) {
            Some(Node::Value(stack)) => stack[0].scalar.raw().map(str::to_owned),
            _ => None,
        };
        for (key, text) in [("a", "0.10"), ("b", "1000"), ("c", "255"), ("d", "-7"), ("e", "10.5")] {
            assert_eq!(raw(key).as_deref(), Some(text), "{key}");
        }
    }

    #[test]
    fn every_syntax_error_has_its_place_and_the_rest_is_read() {
        let (table, problems) = read("good = 1\npassword = hunter2hunter2\nlater = 2\n  = 3\nid = 007123\n");
        let places: Vec<_> = problems.iter().map(|p| p.source.to_string()).collect();
        assert!(places.iter().any(|p| p.starts_with("bot.toml:2:")), "{problems:?}");
        assert!(places.iter().any(|p| p.starts_with("bot.toml:4:")), "{problems:?}");
        assert!(places.iter().any(|p| p.starts_with("bot.toml:5:")), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
        assert!(table.get(&["good"]).is_some() && table.get(&["later"]).is_some());
        assert!(table.get(&["password"]).is_none() && table.get(&["id"]).is_none());
    }

    #[test]
    fn columns_count_characters() {
        let (table, _) = read("\"äö\" = 1");
        let Some(Node::Value(stack)) = table.get(&["äö"]) else { panic!("no value") };
        assert_eq!(stack[0].at.to_string(), "bot.toml:1:8");
    }

    #[test]
    fn files_are_capped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_capped(&path, 5).unwrap(), "12345");
        assert_eq!(read_capped(&path, 4), Err("it is too long"));
        assert_eq!(read_capped(&dir.path().join("none"), 4), Err("it does not exist"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_capped(&path, 5), Err("it is not UTF-8"));
    }
}
