//! From tracing's fields to values that may be printed.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use tracing::field::{Field as Key, Visit};

use crate::{
    mask::{HIDDEN, Mask},
    record::{Field, Value, set},
    scrub::Scrubber,
};

/// How long a value may be, in bytes; the rest is cut, and says so.
pub(crate) const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Masks, scrubs and cuts.
#[derive(Debug)]
pub(crate) struct Cleaner {
    pub(crate) mask: Mask,
    pub(crate) scrubber: std::sync::Arc<Scrubber>,
}

impl Cleaner {
    /// What `value` prints, scrubbed and cut.
    pub(crate) fn print(&self, value: fmt::Arguments<'_>) -> String {
        // Far enough to find a secret that begins before the cut and ends behind it.
        let mut text = Capped { text: String::new(), max: VALUE_BYTES_MAX + self.scrubber.longest(), cut: false };
        // A `Debug` that fails, ours by being full or a caller's, leaves what it wrote before.
        let _ = text.write_fmt(value);
        self.clean(text.text, text.cut)
    }

    /// `text`, scrubbed and cut: the short way for what needs no formatting.
    pub(crate) fn text(&self, text: &str) -> String {
        let reach = text.floor_char_boundary(VALUE_BYTES_MAX + self.scrubber.longest());
        self.clean(text[..reach].to_owned(), reach < text.len())
    }

    fn clean(&self, text: String, cut: bool) -> String {
        let mut text = self.scrubber.scrub(&text).unwrap_or(text);
        if cut || text.len() > VALUE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(VALUE_BYTES_MAX));
            text.push_str("…[cut]");
        }
        text
    }

    /// A number is a text too: a PIN is one.
    fn number(&self, value: Value, text: fmt::Arguments<'_>) -> Value {
        if self.scrubber.longest() == 0 {
            return value;
        }
        self.scrubber.scrub(&text.to_string()).map_or(value, Value::Text)
    }
}

struct Capped {
    text: String,
    max: usize,
    cut: bool,
}

impl fmt::Write for Capped {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.max - self.text.len();
        if s.len() <= room {
            self.text.push_str(s);
            return Ok(());
        }
        self.text.push_str(&s[..s.floor_char_boundary(room)]);
        self.cut = true;
        // Ends the formatting: a value of a gigabyte is not printed to be thrown away.
        Err(fmt::Error)
    }
}

/// Collects the fields of an event or span.
pub(crate) struct Collector<'a> {
    pub(crate) cleaner: &'a Cleaner,
    pub(crate) fields: &'a mut Vec<Field>,
    /// Where `message` goes; in a span it is a field like any other.
    pub(crate) message: Option<&'a mut String>,
}

impl Collector<'_> {
    fn put(&mut self, key: &Key, value: impl FnOnce(&Cleaner) -> Value) {
        let name = key.name();
        if name == "message"
            && let Some(message) = &mut self.message
        {
            **message = match value(self.cleaner) {
                Value::Text(text) => text,
                Value::Bool(v) => v.to_string(),
                Value::I64(v) => v.to_string(),
                Value::U64(v) => v.to_string(),
                Value::F64(v) => v.to_string(),
            };
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        let hidden = self.cleaner.mask.hides(name);
        set(self.fields, name, if hidden { Value::Text(HIDDEN.to_owned()) } else { value(self.cleaner) });
    }
}

impl Visit for Collector<'_> {
    fn record_f64(&mut self, key: &Key, value: f64) {
        self.put(key, |c| c.number(Value::F64(value), format_args!("{value}")));
    }

    fn record_i64(&mut self, key: &Key, value: i64) {
        self.put(key, |c| c.number(Value::I64(value), format_args!("{value}")));
    }

    fn record_u64(&mut self, key: &Key, value: u64) {
        self.put(key, |c| c.number(Value::U64(value), format_args!("{value}")));
    }

    // Readers of JSON take numbers for doubles: 128 bits go as text.
    fn record_i128(&mut self, key: &Key, value: i128) {
        self.put(key, |c| Value::Text(c.print(format_args!("{value}"))));
    }

    fn record_u128(&mut self, key: &Key, value: u128) {
        self.put(key, |c| Value::Text(c.print(format_args!("{value}"))));
    }

    fn record_bool(&mut self, key: &Key, value: bool) {
        self.put(key, |_| Value::Bool(value));
    }

    fn record_str(&mut self, key: &Key, value: &str) {
        self.put(key, |c| Value::Text(c.text(value)));
    }

    fn record_error(&mut self, key: &Key, value: &(dyn Error + 'static)) {
        self.put(key, |c| Value::Text(c.print(format_args!("{}", Chain(value)))));
    }

    fn record_debug(&mut self, key: &Key, value: &dyn fmt::Debug) {
        self.put(key, |c| Value::Text(c.print(format_args!("{value:?}"))));
    }
}

/// An error with its causes.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
